"""A person's commands and requests, passed from any thread to the loop. Axes: C commands."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence

import numpy as np

from mjx_policies.deploy.controller import Request
from mjx_policies.spec import CommandRange

DIGITS = 3  # that a command is rounded to, or ten steps of 0.1 would not make 1


class HandOperator:
    """An operator set by sliders, buttons and keys. Every method may be called from any thread and never blocks.

    A request is delivered once. Of two between two polls the later one counts, except that nothing overtakes `damp`.

    Args:
      commands: of the policy's contract. Each starts at zero, or at what its range has nearest to it.
    """

    def __init__(self, commands: Sequence[CommandRange]):
        self.commands = tuple(commands)
        self._lock = threading.Lock()  # held for a few instructions only
        self._still = np.array([min(max(0.0, command.low), command.high) for command in self.commands])
        self._command = self._still.copy()
        self._request: Request | None = None

    @property
    def command(self) -> np.ndarray:  # [C]
        """The command of now; a copy."""
        with self._lock:
            return self._command.copy()

    def set(self, index: int, value: float) -> float:
        """Sets one command and returns what it is now, which is within its range.

        Raises:
          ValueError: it is not a finite number; the command stays as it was.
        """
        with self._lock:
            return self._set(index, value)

    def nudge(self, index: int, change: float) -> float:
        """Changes one command and returns what it is now, see `set`."""
        with self._lock:
            return self._set(index, float(self._command[index]) + change)

    def halt(self) -> None:
        """Asks for no motion: all commands as they started."""
        with self._lock:
            self._command = self._still.copy()

    def ask(self, request: str) -> None:
        """Asks the controller for another mode.

        Raises:
          ValueError: it is no `Request`.
        """
        asked = Request(request)
        with self._lock:
            if self._request is not Request.DAMP:
                self._request = asked

    def poll(self) -> tuple[np.ndarray, str | None]:
        """The command [C] and the request since the last call, or None."""
        with self._lock:
            request, self._request = self._request, None
            return self._command.copy(), request

    def _set(self, index: int, value: float) -> float:
        command = self.commands[index]
        if not math.isfinite(value):
            raise ValueError(f"the command {command.name} was to become {value}: it must be a finite number.")
        self._command[index] = min(max(round(float(value), DIGITS), command.low), command.high)
        return float(self._command[index])
