"""Camera pictures as mp4 files and back, with PyAV. Lossy. Axes: T frames, H rows, W columns."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np

from mjx_policies.data.packages import load
from mjx_policies.errors import UserError

CODEC, PIXELS = "h264", "yuv420p"
OPTIONS = {"crf": "18", "g": "2"}  # a key frame in every two, so that a frame in the middle is found at once


def encode(path: Path, frames: np.ndarray, fps: float) -> None:  # [T, H, W, 3] uint8
    """Writes frames at times 0, 1/fps, 2/fps, ..."""
    av = load("av", "writing video")
    height, width = frames.shape[1:3]
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream(f"lib{CODEC.replace('h', 'x')}", rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width, stream.pix_fmt, stream.options = height, width, PIXELS, OPTIONS
        for frame in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def decode(path: Path, start: float, count: int, fps: float, shape: tuple[int, ...]) -> np.ndarray:  # [T, H, W, 3]
    """Reads the frames at `start`, `start + 1/fps`, ... seconds.

    Raises:
      UserError: the file is damaged, has frames of another shape, or lacks one within half a period of its time.
    """
    av = load("av", "reading video")
    frames, found = np.empty((count, *shape), np.uint8), np.zeros(count, bool)
    try:
        # The format is named, because others make a file that is a list of further files and addresses.
        with av.open(str(path), format="mp4") as container:
            if not container.streams.video:
                raise UserError(f"{path} holds no video.")
            stream = container.streams.video[0]
            if (stream.height, stream.width, 3) != shape:
                raise UserError(f"{path} is {stream.height} by {stream.width}, not {shape[0]} by {shape[1]}.")
            container.seek(max(0, int(start / stream.time_base)), stream=stream)
            for frame in container.decode(stream):
                index = round((frame.time - start) * fps)
                if index >= count:
                    break
                if index >= 0:
                    image = frame.to_ndarray(format="rgb24")
                    if image.shape != shape:
                        raise UserError(f"{path} changes its size to {image.shape[0]} by {image.shape[1]}.")
                    frames[index], found[index] = image, True
    except (av.FFmpegError, ValueError, TypeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} is damaged, copy it again: {' '.join(str(error).split())[:200]}.") from None
    if not found.all():
        missing = int(np.argmin(found))
        raise UserError(f"{path} has no frame at {start + missing / fps:.3f} s. Copy the dataset again.")
    return frames
