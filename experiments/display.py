"""MuJoCo's viewer, where there is a display; apart, because one script that asks does not load JAX."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator

import mujoco
import numpy as np

from mjx_policies.errors import UserError

MOVES = {265: (0, 1), 264: (0, -1), ord("A"): (1, 1), ord("D"): (1, -1), 263: (2, 1), 262: (2, -1)}
"""GLFW's codes of the keys that change a velocity command: which number of it, in which direction."""


def has_display() -> bool:
    """Whether a window can open."""
    if not sys.platform.startswith("linux"):
        return True
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    import glfw

    with warnings.catch_warnings():  # its way of saying that there is none
        warnings.simplefilter("ignore")
        found = bool(glfw.init())
    glfw.terminate()
    return found


@contextlib.contextmanager
def open_viewer(
    model: mujoco.MjModel, data: mujoco.MjData, press: Callable[[int], None], otherwise: str = ""
) -> Iterator[Callable[[Callable[[], None]], bool]]:
    """Opens MuJoCo's viewer, which follows a robot that moves about.

    Args:
      model, data: what it shows.
      press: called with GLFW's code of each key, on the viewer's own thread.
      otherwise: what else to try where it does not open.

    Yields:
      `show(place)`, which lets `place()` write `data`, draws it, and says whether the window is still open.

    Raises:
      UserError: it does not open.
    """
    from mujoco.viewer import launch_passive  # loads a graphics library

    try:
        viewer = launch_passive(model, data, key_callback=press, show_left_ui=False, show_right_ui=False)
    except RuntimeError as error:  # macOS
        raise UserError(f"the viewer does not open ({error}): start with mjpython{otherwise}.") from None
    with viewer:
        if model.njnt and model.jnt_type[0] == mujoco.mjtJoint.mjJNT_FREE:
            viewer.cam.type, viewer.cam.trackbodyid, viewer.cam.distance = mujoco.mjtCamera.mjCAMERA_TRACKING, 1, 2.0
        flags, groups = np.array(viewer.opt.flags), np.array(viewer.opt.geomgroup)

        def show(place: Callable[[], None]) -> bool:
            if not viewer.is_running():
                return False
            with viewer.lock():
                place()
                viewer.opt.flags[:], viewer.opt.geomgroup[:] = flags, groups  # our keys are also the viewer's
            viewer.sync()
            return True

        yield show
