"""Errors that a user can mend, and what to say of them."""

from __future__ import annotations

import errno
import sys
import traceback

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
UNUSABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.ELOOP)


class UserError(ValueError):
    """Something outside the program is wrong. The message says what, where, and what to do about it."""

    exit_code = 2


class NonFiniteError(UserError):
    """Training met a value that is not finite and stopped."""

    exit_code = 3


def disk_is_full(error: BaseException) -> bool:
    """Whether `error`, or what caused it, says that there is no room left (TensorStore and HDF5 do so in words)."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in DISK_FULL:
            return True
        words = str(seen)
        if any(text in words for text in ("No space left on device", "Disk quota exceeded", "File too large")):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def sentence(error: Exception) -> str | None:
    """The sentence for an error of the system that a user can mend; None for any other, which is a bug."""
    if disk_is_full(error):
        lost = getattr(error, "filename", None) or "a file"
        return f"the disk is full, {lost} could not be written. Make room and run again."
    if isinstance(error, OSError) and error.errno in UNUSABLE and error.filename is not None:
        return f"cannot use {str(error.filename)[:200]}: {error.strerror}. Choose another place, or change its rights."
    if _finds_no_device(error):
        asked = jax.config.jax_platforms if (jax := sys.modules.get("jax")) else None
        return f"JAX finds no device of the platform {asked or 'asked for'}: unset JAX_PLATFORMS, or set it to cpu."
    return None


def _finds_no_device(error: Exception) -> bool:
    """Whether JAX gave up on its platforms. Of one whose plugin is not installed it says so by an assertion alone."""
    if isinstance(error, RuntimeError):
        return "nable to initialize backend" in str(error)
    frames = list(traceback.walk_tb(error.__traceback__)) if isinstance(error, AssertionError) else []
    return bool(frames) and frames[-1][0].f_globals.get("__name__") == "jax._src.xla_bridge"
