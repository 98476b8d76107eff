"""Video files and captions. Axes: T frames, H rows, W columns; colours are uint8 RGB."""

from __future__ import annotations

import os
import pathlib
import subprocess
import tempfile
from collections.abc import Sequence

import imageio_ffmpeg
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mjx_policies.errors import UserError


def write_video(path: str | os.PathLike[str], frames: np.ndarray, fps: float) -> None:  # [T, H, W, 3]
    """Writes an mp4 file, H.264 in yuv420p, which browsers and slides can play.

    The file appears under its name only once it is complete; missing folders are made.

    Args:
      path: ends in `.mp4`.
      frames: uint8, with even height and width, at least one frame.
      fps: frames per second; 1 / control_dt plays in real time.

    Raises:
      ValueError: for another suffix, malformed frames, or a rate that is not positive.
      UserError: there is no ffmpeg, or it fails, as on a full disk.
    """
    path, frames = pathlib.Path(path), np.asarray(frames)
    if path.suffix != ".mp4":
        raise ValueError(f"the video {str(path)!r} must have the suffix .mp4")
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not frames.size:
        raise ValueError(f"frames have shape {frames.shape} and type {frames.dtype}, a video needs uint8 [T, H, W, 3]")
    height, width = frames.shape[1:3]
    if height % 2 or width % 2:
        raise ValueError(
            f"frames are {height} by {width} pixels: yuv420p needs even sizes, draw one more row or column"
        )
    if not fps > 0:
        raise ValueError(f"fps is {fps}, it must be positive")

    try:
        ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError:
        raise UserError(
            f"video {path} was not written: there is no ffmpeg. Reinstall imageio-ffmpeg, which brings one."
        ) from None
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(suffix=".mp4", prefix=f".{path.stem}-", dir=path.parent)
    os.close(handle)
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", f"{fps:g}", "-i", "-"]
    encoding = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "18", "-movflags", "+faststart"]
    command = [ffmpeg, "-y", "-loglevel", "error", *source, *encoding, temporary]
    try:
        pixels = np.ascontiguousarray(frames).data.cast("B")
        process = subprocess.run(
            command,
            input=pixels,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C in a terminal is for us, who decide what becomes of the video
        )
        if process.returncode:
            words = " ".join(process.stderr.decode(errors="replace").split())[:300] or f"code {process.returncode}"
            full = "No space left on device" in words
            reason = "the disk is full, make room" if full else f"ffmpeg ended with {words}"
            raise UserError(f"video {path} was not written: {reason}.")
        os.chmod(temporary, 0o644)  # mkstemp's is for the owner alone
        os.replace(temporary, path)
    except BaseException:
        pathlib.Path(temporary).unlink(missing_ok=True)
        raise


def draw_text(frame: np.ndarray, lines: Sequence[str], size: int | None = None) -> np.ndarray:  # [H, W, 3]
    """A copy of the picture with lines of text in its upper left corner, white on a darkened box.

    Args:
      frame: uint8.
      lines: none leaves the picture as it is.
      size: height of the letters in pixels; by default a 22nd of H, at least 10.

    Raises:
      ValueError: if the frame is not uint8 [H, W, 3].
    """
    frame = np.array(frame)
    if frame.ndim != 3 or frame.shape[-1] != 3 or frame.dtype != np.uint8:
        raise ValueError(f"the frame has shape {frame.shape} and type {frame.dtype}, text needs uint8 [H, W, 3]")
    if not lines:
        return frame
    size = max(10, frame.shape[0] // 22) if size is None else size
    font, text, margin = ImageFont.load_default(size), "\n".join(lines), size // 2
    left, top, right, bottom = ImageDraw.Draw(Image.new("RGB", (1, 1))).multiline_textbbox((0, 0), text, font=font)
    box = frame[: int(bottom - top) + 3 * margin, : int(right - left) + 3 * margin]
    box[...] = box * 0.45
    image = Image.fromarray(frame)
    ImageDraw.Draw(image).multiline_text((1.5 * margin - left, 1.5 * margin - top), text, font=font, fill="white")
    return np.array(image)
