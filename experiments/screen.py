"""Whether there is a screen; apart, because one script that asks does not load JAX."""

from __future__ import annotations

import os
import sys
import warnings


def has_screen() -> bool:
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
