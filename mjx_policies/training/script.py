"""The end of a script: one sentence on stderr and an exit code, instead of a traceback."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, ClassVar, NoReturn

from mjx_policies.errors import UserError, sentence
from mjx_policies.training.preemption import SIGNALS, Preempted, exit_code, heard
from mjx_policies.training.streams import is_broken, make_usable, settle

ENDED_BY = tuple(exit_code(number.name) for number in SIGNALS)
ENDING = (signal.SIGINT, signal.SIGTERM)  # signals that end a script which has no `Preemption` open
SIGNAL_GRACE = 3.0  # s, that a signal waits for what runs outside Python, such as a compilation


@contextlib.contextmanager
def clean_errors(*also: type[Exception]) -> Iterator[None]:
    """Ends the process with one sentence for every `UserError`; use it as `@clean_errors()` or `with clean_errors():`.

    Other exceptions are bugs and keep their traceback. Exit codes: 2 for what the user can mend, 3 for training that
    met a value that is not finite, 130 and 143 for a script that Ctrl-C and SIGTERM ended.

    Around a whole script, in the module that Python was started with, it also sees to what a script needs: standard
    streams that exist and can show every character, and a Ctrl-C or SIGTERM that ends in one sentence wherever it
    arrives, within seconds also while something compiles.

    Args:
      also: further exception types whose message is a sentence for the user, such as the `ValueError` of a
        configuration that is built inside the block.

    Example:
      >>> try:
      ...     with clean_errors():
      ...         raise UserError("runs/a already holds a run. Choose another --run-dir or pass --resume.")
      ... except SystemExit as stop:
      ...     stop.code
      2
    """
    with contextlib.ExitStack() as stack:
        whole_script = stack.enter_context(_Script()) if _Script.wanted() else None
        try:
            yield
            return
        except BaseException as error:
            found, trace = _verdict(error, (UserError, *also)), error
        if found is None:
            raise trace
        text, code = found
        if text:
            _say(text)
        if whole_script is not None and code in ENDED_BY:
            whole_script.leave(code)
        raise SystemExit(code) from None


def _verdict(error: BaseException, for_the_user: tuple[type[Exception], ...]) -> tuple[str, Any] | None:
    """The sentence for an error, and the exit code; None of a bug."""
    if isinstance(error, SystemExit):
        return "", error.code
    if isinstance(error, for_the_user):
        words = isinstance(error, OSError) and sentence(error)
        return words or str(error), exit_code(_Script.ended_by) if _Script.ended_by else getattr(error, "exit_code", 2)
    if isinstance(error, KeyboardInterrupt) or _Script.ended_by:
        return _ended_by(_Script.ended_by or "SIGINT")
    if isinstance(error, Preempted):
        return _ended_by(str(error))
    if isinstance(error, BrokenPipeError) and is_broken(sys.stdout):
        return "", exit_code("SIGPIPE")  # as of every other filter that nobody reads from any more
    words = sentence(error) if isinstance(error, Exception) else None
    return None if words is None else (words, 2)


def _ended_by(name: str) -> tuple[str, int]:
    """The sentence for a signal, and the exit code."""
    if name == "SIGINT":
        return "interrupted before the work at hand was finished.", exit_code(name)
    return f"{name} ended the work before it was finished.", exit_code(name)


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        print(f"error: {' '.join(text.split())}", file=sys.stderr)


class _Script:
    """The context that a whole script needs around it.

    Attributes:
      entered: whether there is such a block already.
      ended_by: name of the signal that ends it, if one does. What is raised then need not be `KeyboardInterrupt`: JAX
        makes an error of its own of one inside a host callback.
    """

    ended_by: ClassVar[str] = ""
    entered: ClassVar[bool] = False

    @staticmethod
    def wanted() -> bool:
        """Whether this is the outermost block of the module that Python was started with, and not a test or a tool."""
        main: Any = sys.modules.get("__main__")
        return (
            getattr(main, "clean_errors", None) is clean_errors
            and threading.current_thread() is threading.main_thread()
            and not _Script.entered
        )

    def __enter__(self) -> _Script:
        _Script.entered = True
        make_usable()
        before = {number: signal.getsignal(number) for number in ENDING}
        # Not those that are ignored, as under nohup, nor what was not set from Python and cannot be put back.
        self._before = {number: each for number, each in before.items() if each not in (signal.SIG_IGN, None)}
        self._heeded, self._hearing = threading.Event(), contextlib.ExitStack()
        self._hearing.enter_context(heard(self._hear))
        for number in self._before:
            signal.signal(number, self._handle)
        self._hook, sys.unraisablehook = sys.unraisablehook, self._unraisable
        jax = sys.modules.get("jax")
        if jax is not None and jax.config.jax_enable_x64:
            jax.config.update("jax_enable_x64", False)
            print("JAX_ENABLE_X64 has no effect here: everything is computed in float32.", file=sys.stderr)
        return self

    def __exit__(self, *_: object) -> None:
        sys.unraisablehook = self._hook
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._heeded.set()
        self._hearing.close()
        _Script.ended_by, _Script.entered = "", False
        for stream in (sys.stdout, sys.stderr):
            settle(stream)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._heeded.set()
        _Script.ended_by = signal.Signals(number).name
        logging.getLogger("jax._src.callback").disabled = True  # it would log the interrupt with a traceback
        raise KeyboardInterrupt

    def _hear(self, number: int) -> None:
        """Ends the process for the main thread, where that does not return to Python for a while."""
        ours = number in ENDING and signal.getsignal(number) == self._handle  # and not that of a loop that listens
        if ours and not self._heeded.wait(SIGNAL_GRACE):
            text, code = _ended_by(signal.Signals(number).name)
            _say(text)
            self.leave(code)

    def _unraisable(self, found: Any) -> None:
        if issubclass(found.exc_type, KeyboardInterrupt):  # it arrived where nothing can be raised: a moment later
            again = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
            again.daemon = True
            again.start()
        else:
            self._hook(found)

    def leave(self, code: int) -> NoReturn:
        """Ends the process here and now.

        What Python does at its own end, it does beside the threads of XLA: those that still compute for a result that
        nobody waits for then call into an interpreter that is gone, which is a segmentation fault.
        """
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        if util := sys.modules.get("multiprocessing.util"):
            for child in sys.modules["multiprocessing"].active_children():
                child.terminate()
            util._run_finalizers(0)  # takes back the names of semaphores, or their tracker would warn that they leaked
        for stream in (sys.stdout, sys.stderr):
            settle(stream)
        os._exit(code)
