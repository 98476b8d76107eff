"""Several episodes in one video. Axes: T frames, C cells."""

import mujoco
import numpy as np
import pytest

from mjx_policies.envs.rendering import montage
from mjx_policies.envs.rendering.montage import SIZE, Cell, render_montage

MODEL = """
<mujoco><worldbody><body><joint axis="0 1 0"/><geom size=".1"/></body>
  <body mocap="true"><geom size=".1"/></body>
</worldbody></mujoco>
"""
WHITE = 255


@pytest.fixture
def recorded(monkeypatch, tmp_path):
    """The frames of a video, their rate, and where the goal was in each picture; its grey is the coordinate."""

    def record(cells, columns, control_dt):
        drawn = {}

        def draw(model, qpos, fps, size, camera, mocap_pos):
            drawn["goals"] = mocap_pos
            return np.tile(qpos.astype(np.uint8)[:, :, None, None], (1, *size, 3))

        monkeypatch.setattr(montage, "draw", draw)
        monkeypatch.setattr(montage, "draw_text", lambda frame, lines: frame - np.uint8(len(lines[0])))
        monkeypatch.setattr(montage, "write_video", lambda path, frames, fps: drawn.update(frames=frames, fps=fps))
        render_montage(mujoco.MjModel.from_xml_string(MODEL), cells, columns, tmp_path / "video.mp4", control_dt)
        return drawn["frames"], drawn["fps"], drawn["goals"]

    return record


def cell(number, steps):
    """Coordinates of 10, 11, ... for the first, 30, 31, ... for the second."""
    return Cell(["x" * number], 10.0 + 20 * number + np.arange(steps)[:, None], np.full((1, 3), float(number)))


def test_episodes_lie_row_after_row_and_those_that_are_over_stand_still(recorded):
    frames, fps, goals = recorded([cell(0, 3), cell(1, 5), cell(2, 1)], columns=2, control_dt=0.1)
    assert fps == pytest.approx(10) and frames.shape == (5, 2 * SIZE[0], 2 * SIZE[1], 3)
    parts = frames.reshape(5, 2, SIZE[0], 2, SIZE[1], 3)
    assert (parts == parts[:, :, :1, :, :1, :1]).all()  # each cell is of one grey
    drawn = parts[:, :, 0, :, 0, 0]
    np.testing.assert_array_equal(drawn[:, 0, 0], [10, 11, 12, 12, 12])
    np.testing.assert_array_equal(drawn[:, 0, 1], np.array([30, 31, 32, 33, 34]) - 1)  # each with its own caption
    np.testing.assert_array_equal(drawn[:, 1, 0], [50 - 2] * 5)
    np.testing.assert_array_equal(drawn[:, 1, 1], [WHITE] * 5)
    np.testing.assert_array_equal(goals[:, 0, 2], np.repeat([0, 1, 2], 5))


def test_a_video_is_in_real_time(recorded):
    frames, fps, _ = recorded([cell(0, 9)], columns=1, control_dt=0.02)
    assert fps == pytest.approx(10) and frames[:, 0, 0, 0].tolist() == [10, 15]


@pytest.mark.parametrize(("cells", "columns"), [([], 2), ([cell(0, 1)], 0)])
def test_an_empty_montage_is_refused(recorded, cells, columns):
    with pytest.raises(ValueError, match=f"{len(cells)} episodes in {columns} columns"):
        recorded(cells, columns, 0.1)
