"""MuJoCo's viewer, played by a stand-in, since tests have no display."""

import contextlib
import sys
from types import SimpleNamespace

import mujoco
import numpy as np
import pytest

from mjx_policies.envs.quadruped.scenes import flat
from mjx_policies.errors import UserError
from mjx_policies.experiments.display import open_viewer

MODEL = flat()


def test_our_keys_change_nothing_else_and_the_camera_follows(monkeypatch):
    opened = []

    class Viewer(contextlib.nullcontext):
        def __init__(self, model, data, key_callback, **options):
            super().__init__()
            self.opt, self.cam, self.open, self.press = mujoco.MjvOption(), mujoco.MjvCamera(), True, key_callback
            self.syncs = 0
            opened.append(self)

        def is_running(self):
            return self.open

        def lock(self):
            return contextlib.nullcontext()

        def sync(self):
            self.syncs += 1

    monkeypatch.setitem(sys.modules, "mujoco.viewer", SimpleNamespace(launch_passive=Viewer))
    pressed, placed = [], []
    with open_viewer(MODEL, mujoco.MjData(MODEL), pressed.append) as show:
        (viewer,) = opened
        viewer.press(265)
        before = np.array(viewer.opt.flags)
        viewer.opt.flags[:] = 1 - before  # as the viewer's own shortcuts do
        assert show(lambda: placed.append(1)) and viewer.syncs == 1
        np.testing.assert_array_equal(viewer.opt.flags, before)
        assert viewer.cam.type == mujoco.mjtCamera.mjCAMERA_TRACKING and viewer.cam.trackbodyid == 1
        viewer.open = False
        assert not show(lambda: placed.append(2))
    assert pressed == [265] and placed == [1]


def test_a_viewer_that_does_not_open_is_one_sentence(monkeypatch):
    def launch(*arguments, **options):
        raise RuntimeError("it needs mjpython")

    monkeypatch.setitem(sys.modules, "mujoco.viewer", SimpleNamespace(launch_passive=launch))
    with (
        pytest.raises(UserError, match=r"does not open \(it needs mjpython\): start with mjpython, or pass --page\."),
        open_viewer(MODEL, mujoco.MjData(MODEL), print, ", or pass --page"),
    ):
        pass
