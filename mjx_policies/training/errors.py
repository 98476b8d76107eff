"""Errors that a user can mend: one sentence on stderr and an exit code, instead of a traceback."""

from __future__ import annotations

import contextlib
import errno
import sys
from collections.abc import Iterator


class UserError(ValueError):
    """Something outside the program is wrong. The message says what, where, and what to do about it."""

    exit_code = 2


class NonFiniteError(UserError):
    """Training met a value that is not finite and stopped."""

    exit_code = 3


DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def disk_is_full(error: BaseException) -> bool:
    """Whether `error`, or what caused it, says that there is no room left (TensorStore says so in words only)."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in DISK_FULL:
            return True
        words = str(seen)
        if any(text in words for text in ("No space left on device", "Disk quota exceeded", "File too large")):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


@contextlib.contextmanager
def clean_errors(*also: type[Exception]) -> Iterator[None]:
    """Ends the process with one sentence for every `UserError`; use it as `@clean_errors()` or `with clean_errors():`.

    Other exceptions are bugs and keep their traceback. Exit codes: 2 for what the user can mend, 3 for training that
    met a value that is not finite, 130 after a second Ctrl-C.

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
    for_the_user: tuple[type[Exception], ...] = (UserError, *also)
    try:
        yield
    except for_the_user as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(getattr(error, "exit_code", 2)) from None
    except OSError as error:
        if not disk_is_full(error):
            raise
        lost = error.filename or "a file"
        print(f"error: the disk is full, {lost} could not be written. Make room and run again.", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("error: interrupted before the work at hand was finished.", file=sys.stderr)
        raise SystemExit(130) from None
