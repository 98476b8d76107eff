"""Paths of the parts of a dataset; of one that may come from anywhere, none outside its folder, and no links."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from mjx_policies.errors import UserError, disk_is_full
from mjx_policies.text import show

HDF5 = (".hdf5", ".h5")


def beside(path: Path, ending: str) -> Path:
    """The path whose name is this one's with an ending, also where this one is `.` or `..`."""
    named = path.resolve() if path.name in ("", "..") else path
    return named.parent / f"{named.name}{ending}"


def about(path: Path) -> Path:
    """The folder beside a dataset that says how it came about."""
    return beside(path, ".about")


@contextlib.contextmanager
def telling(path: Path, what: str) -> Iterator[None]:
    """One sentence for what the system has against a path, such as a name that is too long: `cannot read PATH: ...`."""
    try:
        yield
    except OSError as error:
        if disk_is_full(error):
            raise
        raise UserError(f"cannot {what} {path}: {error.strerror or error}. Check the path.") from None


def check_folder(path: Path) -> None:
    """Checks that a dataset which is a folder has no name of a file, unless there is such a folder.

    Raises:
      UserError: it has.
    """
    with telling(path, "write"):
        if (path.suffix in HDF5 or path.suffix[1:].isalpha()) and not path.is_dir():
            raise UserError(
                f"{path} is named like a file, and a dataset of LeRobot is a folder: leave {path.suffix} out, or write "
                f"robomimic, whose files end in {' or '.join(HDF5)}."
            )


def inside(root: Path, relative: str, max_bytes: int) -> Path:
    """The plain file `relative` below a folder.

    Args:
      root: the dataset's folder, which the user named and which may itself be a link.
      relative: as the dataset names it, with `/`.
      max_bytes: a longer file is refused.

    Raises:
      UserError: it is missing, lies elsewhere, is or passes through a link, is no plain file, or is too long.
    """
    pure = PurePosixPath(relative)
    if pure.is_absolute() or ".." in pure.parts or "\0" in relative or not pure.parts:
        raise UserError(f"{root} names the file {show(relative)}, which is not in its folder.")
    path = root
    for part in pure.parts:
        path = path / part
        try:
            found = os.lstat(path)
        except OSError as error:
            raise UserError(
                f"cannot read {path}: {error.strerror}. The dataset is incomplete, copy it again."
            ) from None
        if stat.S_ISLNK(found.st_mode):
            raise UserError(f"cannot read {path}: it is a link. Copy the dataset with its files in place of links.")
    return check_plain(path, max_bytes)


def check_plain(path: Path, max_bytes: int) -> Path:
    """A path that is a plain file and not too long; see `inside` for errors."""
    try:
        found = os.lstat(path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}. Check the path.") from None
    if stat.S_ISLNK(found.st_mode):
        raise UserError(f"cannot read {path}: it is a link. Name the file itself.")
    if not stat.S_ISREG(found.st_mode):
        raise UserError(f"cannot read {path}: it is not a plain file.")
    if found.st_size > max_bytes:
        raise UserError(f"{path} is longer than the {max_bytes:,} bytes that such a file may have.")
    return path
