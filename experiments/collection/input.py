"""Input of a person: the keys of a terminal, of MuJoCo's viewer, or a gamepad.

A gamepad has the layout of Linux's driver of Xbox pads: left stick forward and left, right stick yaw and up, cross
pitch and roll; A gripper, start enter, B backspace, Y takes back, back quits, the shoulders change the speed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import select
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from mjx_policies.errors import UserError

GLFW = {257: "enter", 335: "enter", 259: "backspace", 32: " ", 61: "=", 45: "-"}
"""Codes of the viewer's keys that are no letters."""

_TERMINAL = {"\r": "enter", "\n": "enter", "\x7f": "backspace", "\b": "backspace"}
_EVENT = struct.Struct("IhBB")  # time ms, value, kind, number: linux/joystick.h
_BUTTON, _AXIS, _FIRST = 0x01, 0x02, 0x80
_BUTTONS = {0: " ", 7: "enter", 1: "backspace", 3: "u", 6: "x", 4: "-", 5: "="}
_STICKS = {1: (0, -1), 0: (1, -1), 4: (2, -1), 6: (3, 1), 7: (4, -1), 3: (5, -1)}  # axis of the pad: of motion, sign
DEAD = 0.12  # of a stick's way, in which it rests


def glfw_key(code: int) -> str:
    """A key of the viewer by its code; empty for those without a name here."""
    return GLFW.get(code, chr(code).lower() if ord("A") <= code <= ord("Z") else "")


@contextlib.contextmanager
def terminal() -> Iterator[Callable[[], list[str]]]:
    """Gives the keys typed since the last call; they are not printed, until the context ends.

    Raises:
      UserError: standard input is no terminal.
    """
    if not sys.stdin.isatty():
        raise UserError("keys come from a terminal, and there is none: run it in one, or where there is a display.")
    import termios  # POSIX alone has it
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield lambda: read_typed(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def read_typed(descriptor: int) -> list[str]:
    """The keys that a terminal, or whatever is open as one, has to be read."""
    typed = b""
    while select.select([descriptor], [], [], 0)[0]:
        part = os.read(descriptor, 1024)
        if not part:
            return ["x"]  # the terminal is gone
        typed += part
    # Keys that send a sequence, such as arrows, mean nothing here: its letters must not either.
    return [_TERMINAL.get(key, key.lower()) for key in typed.decode(errors="ignore").split("\x1b")[0]]


@contextlib.contextmanager
def gamepad(path: Path, axes: int) -> Iterator[Gamepad]:
    """Opens a gamepad through Linux's joystick interface.

    Args:
      path: such as /dev/input/js0.
      axes: of motion.

    Raises:
      UserError: there is none.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise UserError(f"cannot open the gamepad {path}: {error.strerror}. Plug it in, or do without.") from None
    try:
        yield Gamepad(descriptor, np.zeros(axes))
    finally:
        os.close(descriptor)


@dataclasses.dataclass(frozen=True)
class Gamepad:
    """The buttons pressed and the sticks pushed, read from a file descriptor that must not block.

    Attributes:
      sticks: [D] in -1..1, one for each axis of motion, changed in place.
    """

    descriptor: int
    sticks: np.ndarray

    def read(self) -> list[str]:
        """The buttons since the last call."""
        pressed: list[str] = []
        while True:
            try:
                event = os.read(self.descriptor, _EVENT.size)
            except BlockingIOError:
                return pressed
            except OSError:
                raise UserError("the gamepad was unplugged; what was saved is on the disk.") from None
            if len(event) < _EVENT.size:
                return pressed
            _, value, kind, number = _EVENT.unpack(event)
            if kind == _BUTTON and value and number in _BUTTONS:  # how buttons are at first is not pressed
                pressed.append(_BUTTONS[number])
            elif kind & ~_FIRST == _AXIS and number in _STICKS:
                axis, sign = _STICKS[number]
                if axis < len(self.sticks):
                    pushed = value / 32767
                    self.sticks[axis] = 0.0 if abs(pushed) < DEAD else sign * np.clip(pushed, -1, 1)
