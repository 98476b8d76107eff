"""Signals that ask for an end become a flag that is read between updates."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)  # schedulers, Ctrl-C, submitit


def exit_code(name: str | None) -> int:
    """The exit code of a process that a signal of this name stopped, as in shells: 130 for SIGINT, 143 for SIGTERM.

    None, of a signal that another host received, counts as SIGTERM.
    """
    return 128 + signal.Signals[name or "SIGTERM"].value


class Preempted(Exception):
    """Raised when a signal asked to stop. The message is its name."""

    @property
    def exit_code(self) -> int:
        """See `exit_code`."""
        return exit_code(str(self))


@contextlib.contextmanager
def heard(tell: Callable[[int], None]) -> Iterator[None]:
    """While this is open, calls `tell` in a thread with the number of each signal that has a handler, at once.

    The handler itself has to wait until the main thread returns to Python, which a compilation may keep for a minute.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def listen() -> None:
        while number := os.read(reading, 1):
            tell(number[0])

    thread = threading.Thread(target=listen, daemon=True)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writing)  # what ends the thread, once it has told all
        thread.join()
        os.close(reading)


class Preemption:
    """While this context is open, the first of `SIGNALS` sets `requested` instead of ending the process.

    A line on standard error says at once that it was heard, also while something compiles. A second Ctrl-C raises
    `KeyboardInterrupt`. The earlier handlers return at the end. Outside the main thread, where Python allows no
    handlers, the context does nothing.

    Attributes:
      requested: name of the signal that arrived, or `None`.

    Example:
      >>> with Preemption() as preemption:
      ...     signal.raise_signal(signal.SIGTERM)
      ...     preemption.requested
      'SIGTERM'
    """

    def __init__(self) -> None:
        self.requested: str | None = None
        self._interrupted = False
        self._told: int | None = None
        self._before: dict[signal.Signals, object] = {}
        self._hearing = contextlib.ExitStack()

    def check(self) -> None:
        """Raises `Preempted` if a signal arrived: for the seams of work that can be done again."""
        if self.requested is not None:
            raise Preempted(self.requested)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.requested == "SIGINT":
            self._interrupted = True
            raise KeyboardInterrupt
        self.requested = signal.Signals(number).name

    def _tell(self, number: int) -> None:
        if number not in SIGNALS or number == self._told == signal.SIGINT:  # the second gives up, see `_handle`
            return
        self._told = number
        again = "; another Ctrl-C gives it up" if number == signal.SIGINT else ""
        line = f"{signal.Signals(number).name}: stopping once the work at hand is done{again}\n"
        # Not print, whose buffer may be half written. Below the progress bar of a terminal, not behind it.
        with contextlib.suppress(OSError):
            os.write(2, ("\n" * os.isatty(2) + line).encode())

    def __enter__(self) -> Preemption:
        if threading.current_thread() is threading.main_thread():
            self._hearing.enter_context(heard(self._tell))
            self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        for number, handler in self._before.items():
            # None means a handler that was not set from Python and cannot be put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # type: ignore[arg-type]
        self._before = {}
        self._hearing.close()
        if self._interrupted and not isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt from None  # JAX turns one inside a host callback into an error of its own
