"""Files that are either whole or absent, and reading files that somebody else may have written."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mjx_policies.errors import UserError, disk_is_full


def flush_to_disk(path: Path) -> None:
    """Asks the operating system to put a file, or the entries of a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path, flag: str) -> None:
    """A folder for results; what cannot be written is better known before the work.

    Raises:
      UserError: it cannot be made; `flag` is what asked for it.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if disk_is_full(error):
            raise
        raise UserError(f"cannot create the folder {path} for {flag}: {error.strerror}.") from None


def output_file(named: str | Path | None, flag: str, overwrite: bool, default: Path | None = None) -> Path:
    """The file that a script is going to write, checked before the work whose result it takes.

    A script replaces what it wrote before in its own place, `default`. What a flag names is never replaced unless the
    user says `--overwrite`: it may be anybody's. The folder is made if there is none.

    Args:
      named: what the flag says; empty or None where it was not given.
      flag: its name, such as `--out`.
      overwrite: whether `--overwrite` was given.
      default: where the file goes if the flag does not say.

    Raises:
      UserError: there is something already, or the place cannot be written.
    """
    path = Path(named) if named else default
    if path is None:
        raise ValueError(f"neither {flag} nor a default names a file")
    make_folder(path.parent, flag)
    try:
        found: int | None = os.lstat(path).st_mode
    except FileNotFoundError:
        found = None
    except OSError as error:
        raise UserError(f"cannot write {path}, named by {flag}: {error.strerror}.") from None
    if found is not None and path.is_dir():
        raise UserError(f"{path} is a folder: name a file in it for {flag}.")
    if found is not None and not (stat.S_ISREG(found) or stat.S_ISLNK(found)):
        raise UserError(f"{path} is not a plain file: choose another {flag}.")
    in_its_place = default is not None and path.resolve() == default.resolve()
    if found is not None and not overwrite and not in_its_place:
        raise UserError(f"{path} exists already: choose another {flag}, or replace it with --overwrite.")
    try:  # by doing it, which also tells of a disk that is mounted read-only, and of names that are too long
        with tempfile.TemporaryFile(dir=path.parent), contextlib.suppress(FileNotFoundError):
            os.lstat(_temporary(path))
    except OSError as error:
        if disk_is_full(error):
            raise
        raise UserError(f"cannot write {path}, named by {flag}: {error.strerror}.") from None
    return path


def flush_tree_to_disk(folder: Path) -> None:
    """`flush_to_disk` for everything below a folder and the folder itself, the innermost first."""
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            flush_to_disk(Path(parent, name))
        flush_to_disk(Path(parent))


@contextlib.contextmanager
def naming(path: Path, written_as: Path | None = None) -> Iterator[None]:
    """Names the file in an `OSError` of a block that names none, as where the disk is full, or names `written_as`."""
    try:
        yield
    except OSError as error:
        if error.filename is None or str(error.filename) == str(written_as):
            error.filename = str(path)
        raise


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Another name to write under: what is there when the block ends takes the place of `path`, unless it failed."""
    temporary = _temporary(path)
    try:
        with naming(path, temporary):
            yield temporary
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def write_atomic(path: Path, text: str) -> None:
    """Replaces a file in one step: after a crash there is the old text or the new one, never a part of it."""
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    flush_to_disk(path.parent)


def remove_leftovers(path: Path) -> None:
    """Deletes what processes that were killed in `replacing` left beside a file."""
    for temporary in path.parent.glob(f".{path.name}.*.tmp"):
        temporary.unlink(missing_ok=True)


def canonical_json(data: Any) -> str:
    """The one text for some JSON data: sorted keys, no NaN."""
    return json.dumps(data, indent=2, sort_keys=True, allow_nan=False) + "\n"


def write_json(path: Path, data: Any) -> None:
    """Writes `canonical_json` with `write_atomic`."""
    write_atomic(path, canonical_json(data))


def read_json(path: Path, max_bytes: int = 1 << 20) -> Any:
    """Reads JSON that may come from anywhere.

    Args:
      path: the file.
      max_bytes: longer files are refused unread.

    Raises:
      UserError: missing, a link or no plain file, too long, not JSON, or holding NaN or a key twice.
    """
    text = read_plain_file(path, max_bytes)
    try:
        return json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON: {error}.") from None


def read_plain_file(path: Path, max_bytes: int) -> bytes:
    """The bytes of a regular file, no link followed; see `read_json` for arguments and errors."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        reason = "it is a link" if path.is_symlink() else error.strerror
        raise UserError(f"cannot read {path}: {reason}.") from None
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise UserError(f"cannot read {path}: it is not a plain file.")
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise UserError(f"{path} is longer than the {max_bytes} bytes that such a file may have.")
    return data


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice")
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"it holds {name}")
