import subprocess

import imageio_ffmpeg
import numpy as np
import pytest

from mjx_policies.envs.rendering.mp4 import draw_text, write_video
from mjx_policies.errors import UserError


def clip(frames=6, height=48, width=64):
    """A bright block that moves right."""
    video = np.full((frames, height, width, 3), 40, np.uint8)
    for t in range(frames):
        video[t, 10:30, 8 * t : 8 * t + 16] = (220, 60, 40)
    return video


def test_a_video_is_read_back_as_it_was_written(tmp_path):
    path, frames = tmp_path / "new" / "clip.mp4", clip()
    write_video(path, frames, fps=25)
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    reader = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, check=True)
    described = reader.stderr.decode().split("Output #0")[0]
    assert all(word in described for word in ("h264", "yuv420p", "64x48", "25 fps"))
    back = np.frombuffer(reader.stdout, np.uint8).reshape(frames.shape)
    assert np.abs(back.astype(int) - frames).mean() < 6  # lossy, and colours have half the resolution
    assert [p.name for p in path.parent.iterdir()] == ["clip.mp4"]


def missing():
    raise RuntimeError("No ffmpeg exe could be found.")


def test_a_failed_video_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"old")
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: "false")  # the command that fails
    with pytest.raises(UserError, match=r"clip.mp4 was not written: ffmpeg ended with code 1\."):
        write_video(path, clip(), fps=25)
    full = tmp_path.parent / "full-disk"
    full.write_text("#!/bin/sh\ncat > /dev/null\necho 'av_write_trailer: No space left on device' >&2\nexit 228\n")
    full.chmod(0o755)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(full))
    with pytest.raises(UserError, match=r"clip.mp4 was not written: the disk is full, make room\."):
        write_video(path, clip(), fps=25)
    monkeypatch.undo()
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", missing)
    with pytest.raises(UserError, match=r"clip.mp4 was not written: there is no ffmpeg\."):
        write_video(path, clip(), fps=25)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "frames, message",
    [
        (clip()[..., :1], r"frames have shape \(6, 48, 64, 1\)"),
        (clip() / 255, "type float64, a video needs uint8"),
        (clip(0), "a video needs uint8"),
        (clip(2, 47), "frames are 47 by 64 pixels: yuv420p needs even sizes"),
    ],
)
def test_malformed_frames_are_refused(tmp_path, frames, message):
    with pytest.raises(ValueError, match=message):
        write_video(tmp_path / "clip.mp4", frames, fps=25)
    assert not list(tmp_path.iterdir())


def test_other_suffixes_and_rates_are_refused(tmp_path):
    with pytest.raises(ValueError, match="must have the suffix"):
        write_video(tmp_path / "clip.avi", clip(), fps=25)
    with pytest.raises(ValueError, match="fps is 0"):
        write_video(tmp_path / "clip.mp4", clip(), fps=0)


def test_text_is_drawn_in_the_corner_of_a_copy():
    frame = np.full((120, 160, 3), 100, np.uint8)
    drawn = draw_text(frame, ["commanded 1.0", "measured 0.9"])
    assert np.all(frame == 100) and drawn.shape == frame.shape and drawn.dtype == np.uint8
    assert drawn.max() > 200 and np.any(drawn[:40] == 45)
    np.testing.assert_array_equal(drawn[60:], frame[60:])
    np.testing.assert_array_equal(draw_text(frame, []), frame)
    with pytest.raises(ValueError, match="text needs uint8"):
        draw_text(frame / 255, ["x"])
