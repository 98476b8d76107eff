"""A camera that follows a robot. Axes: T frames, H by W pixels."""

import mujoco
import numpy as np
import pytest

from mjx_policies.envs.rendering import video

FPS = 20.0
FREE = """
<mujoco><worldbody>
  <geom type="plane" size="5 5 .1" rgba=".5 .5 .5 1"/>
  <body pos="0 0 .3"><freejoint/><geom type="box" size=".15 .15 .1" rgba="1 0 0 1"/></body>
</worldbody></mujoco>
"""
FIXED = """
<mujoco><worldbody><body pos="0 0 1.3"><joint axis="0 1 0"/>
  <geom type="box" size=".3 .1 .1" rgba="1 0 0 1"/>
</body></worldbody></mujoco>
"""


GOAL = """
<mujoco><worldbody><camera name="front" pos="0 -2 0" xyaxes="1 0 0 0 0 1" fovy="90"/>
  <body><joint axis="0 1 0"/><geom type="box" size=".1 .1 .1" rgba="0 0 1 1"/></body>
  <body mocap="true"><geom type="box" size=".2 .2 .2" rgba="1 0 0 1"/></body>
</worldbody></mujoco>
"""


@pytest.fixture
def shot(monkeypatch, tmp_path):
    """Records, and returns the row of the middle of what is red in each frame, as a part of the height; NaN if none."""

    def shoot(xml, qpos, **options):
        videos = []
        monkeypatch.setattr(video, "write_video", lambda path, frames, fps: videos.append(frames))
        model = mujoco.MjModel.from_xml_string(xml)
        video.render_video(model, np.asarray(qpos), tmp_path / "video.mp4", FPS, size=(48, 64), **options)
        red = videos[0][..., 0] > 2.0 * videos[0][..., 1]  # [T, H, W]
        rows = np.arange(48)[:, None]
        return np.array([np.mean(np.broadcast_to(rows, (48, 64))[seen]) / 48 if seen.any() else np.nan for seen in red])

    return shoot


def test_the_camera_follows_a_robot_up_and_shows_it_bounce(shot):
    t = np.arange(40) / FPS
    climb, bounce = 2.0 * t, 0.06 * np.sin(2 * np.pi * 4 * t)  # m; four bounces a second
    qpos = np.zeros((40, 7))
    qpos[:, 2], qpos[:, 3] = 0.3 + climb + bounce, 1.0
    rows = shot(FREE, qpos)
    inner = slice(5, -5)  # whole windows
    assert np.abs(rows[inner] - 0.5).max() < 0.15, "it stays in the middle"
    assert np.corrcoef(rows[inner], -bounce[inner])[0, 1] > 0.9 and np.ptp(rows[inner]) > 0.05


def test_the_camera_stands_still_before_a_robot_on_a_mount(shot):
    assert np.isfinite(shot(FIXED, [[0.0], [1.0]])).all()


def test_a_camera_of_the_model_shows_goals_where_they_are(shot):
    """Half the picture is 2 m at the distance of the goal; 1 m up is a quarter of it, and the near face looms."""
    rows = shot(GOAL, np.zeros((2, 1)), camera="front", mocap_pos=np.array([[[0, 0, 0.0]], [[0, 0, 1.0]]]))
    np.testing.assert_allclose(rows, [0.5, 0.25], atol=0.04)


def test_the_running_mean_keeps_a_slope_and_removes_a_bounce():
    t = np.arange(60) / FPS
    mean = video.running_mean(3.0 * t + 0.1 * np.sin(2 * np.pi * 4 * t), FPS)
    assert mean.shape == t.shape
    # Eleven frames are not a whole number of bounces of five: a ninth of them is left over.
    np.testing.assert_allclose(mean[5:-5], 3.0 * t[5:-5], atol=0.1 / 9)
    np.testing.assert_allclose(video.running_mean(np.full(3, 0.3), FPS), 0.3)
