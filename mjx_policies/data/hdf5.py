"""HDF5 files read without trusting them.

HDF5 can name other files (external and soft links, external storage, virtual datasets), run code that it finds on the
disk (filters), and hold Python objects as text. Here a file is a tree of groups, arrays of numbers and short texts.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mjx_policies.data.dataset import MAX_EPISODE_BYTES
from mjx_policies.data.episodes import NAME
from mjx_policies.data.packages import load
from mjx_policies.data.paths import check_plain
from mjx_policies.errors import UserError
from mjx_policies.text import show

MAX_FILE = 2**40  # bytes
MAX_TEXT = 2**26  # bytes
MAX_DEPTH = 8  # of groups in groups
JPEG = b"\xff\xd8\xff"  # how such a file begins
# H5Z_FILTER_DEFLATE, SHUFFLE, FLETCHER32, SZIP, NBIT, SCALEOFFSET, and LZF of h5py: those that come with the library.
FILTERS = frozenset((1, 2, 3, 4, 5, 6, 32000))


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The root of a file, and one sentence for whatever is wrong in it."""
    h5py = load("h5py", "a dataset in HDF5")
    check_plain(path, MAX_FILE)
    try:
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except UserError as error:
        raise type(error)(f"{path}: {error}") from None
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:  # what h5py makes of damage
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise UserError(f"{path} is damaged or no HDF5 file, copy it again: {reason}.") from None


def names(group: Any) -> list[str]:
    """The names in a group, in the file's order."""
    return list(group.keys())


def has(group: Any, name: str) -> bool:
    """Whether a group holds something of this name."""
    return group.get(name, getlink=True) is not None


def subgroup(group: Any, name: str) -> Any:
    """Opens a group within a group.

    Raises:
      UserError: it is missing, a link, or no group.
    """
    found = _member(group, name)
    if not isinstance(found, load("h5py", "a dataset in HDF5").Group):
        raise UserError(f"{group.name} holds {show(name)}, which must be a group.")
    return found


def is_group(group: Any, name: str) -> bool:
    """Whether a member of a group is a group itself."""
    return isinstance(_member(group, name), load("h5py", "a dataset in HDF5").Group)


def shape_of(group: Any, name: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an array, which is not read."""
    array = _array(group, name)
    return array.shape, array.dtype


def numbers(group: Any, name: str) -> np.ndarray:
    """Reads an array of numbers.

    Raises:
      UserError: it is missing, elsewhere, no array of plain numbers, or would fill the memory.
    """
    return _array(group, name)[()]


def arrays_below(group: Any, pictures: bool = False) -> tuple[list[tuple[str, Any, str]], list[str]]:
    """The arrays in a group and in the groups in it, of which an observation can be made.

    Args:
      group: whose names, where groups lie in it, are joined by `_`.
      pictures: whether files of pictures count, see `is_pictures`.

    Returns:
      Name, group and key of each array, and the names of what holds no row of plain numbers for each step.

    Raises:
      UserError: something lies in another file, or is nested too deep.
    """
    found: list[tuple[str, Any, str]] = []
    left_out: list[str] = []

    def visit(inside: Any, prefix: str, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise UserError(f"{inside.name} is nested more than {MAX_DEPTH} deep.")
        for key in names(inside):
            if is_group(inside, key):
                visit(subgroup(inside, key), f"{prefix}{key}_", depth + 1)
                continue
            name, array = prefix + key, _stored(inside, key)
            fits = _is_numeric(array) and array.ndim >= 1 and math.prod(array.shape[1:]) > 0
            fits = fits or (pictures and is_pictures(inside, key))
            fits = fits and NAME.fullmatch(name) is not None and name != "action"
            if fits:
                found.append((name, inside, key))
            else:
                left_out.append(name)

    visit(group, "", 0)
    return found, left_out


def is_pictures(group: Any, name: str) -> bool:
    """Whether an array holds a JPEG file for each step: bytes of any number, or as many for each."""
    array = _stored(group, name)
    if load("h5py", "a dataset in HDF5").check_vlen_dtype(array.dtype) == np.uint8:
        return array.ndim == 1 and len(array) > 0
    return (
        array.dtype == np.uint8
        and array.ndim == 2
        and array.shape[0] > 0
        and array.shape[1] > len(JPEG)
        and array[0, : len(JPEG)].tobytes() == JPEG
    )


def picture_files(group: Any, name: str, count: int | None = None) -> list[bytes]:
    """The files of `is_pictures`, or the first `count` of them."""
    array = _stored(group, name)
    files: list[bytes] = []
    size = 0
    for index in range(len(array) if count is None else min(count, len(array))):
        files.append(np.asarray(array[index], np.uint8).tobytes())
        size += len(files[-1])
        if size > MAX_EPISODE_BYTES:
            raise UserError(f"{array.name} would take more than the {MAX_EPISODE_BYTES:,} bytes an episode may have.")
    return files


def texts(group: Any, name: str) -> list[str]:
    """Reads a vector of texts."""
    h5py = load("h5py", "a dataset in HDF5")
    array = _stored(group, name)
    if array.ndim != 1 or h5py.check_string_dtype(array.dtype) is None or len(array) > MAX_TEXT // 16:
        raise UserError(f"{array.name} must be a list of texts.")
    return [value.decode() if isinstance(value, bytes) else str(value) for value in array[()]]


def attribute(group: Any, name: str, kind: type, default: Any = None) -> Any:
    """A number or text beside a group, of the given Python type; `default` where there is none.

    Raises:
      UserError: it is something else.
    """
    if name not in group.attrs:
        return default
    h5py = load("h5py", "a dataset in HDF5")
    identifier = group.attrs.get_id(name)
    text = h5py.check_string_dtype(identifier.dtype) is not None
    if (
        identifier.shape != ()
        or identifier.get_storage_size() > MAX_TEXT
        or not (text or identifier.dtype.kind in "fiub")
    ):
        raise UserError(f"the attribute {show(name)} of {group.name} must be one number or text.")
    value = group.attrs[name]
    value = value.decode() if isinstance(value, bytes) else value.item() if isinstance(value, np.generic) else value
    if kind is int and text:
        return _whole(value)
    if kind is int and type(value) is int and value >= 2**63:
        return default  # a seed that fits nowhere else
    if kind is float and type(value) is int:
        value = float(value)
    if kind is bool and value in (0, 1):
        value = bool(value)
    if type(value) is not kind:
        raise UserError(f"the attribute {show(name)} of {group.name} is {show(value)}, it must be {kind.__name__}.")
    return value


def _member(group: Any, name: str) -> Any:
    h5py = load("h5py", "a dataset in HDF5")
    if "/" in name:
        raise UserError(f"{show(name)} is a path in the place of a name.")
    link = group.get(name, getlink=True)
    if link is None:
        raise UserError(f"{group.name} lacks {show(name)}.")
    if not isinstance(link, h5py.HardLink):
        raise UserError(
            f"{group.name} holds {show(name)} as a link, maybe into another file: copy the data in its place."
        )
    return group[name]


def _stored(group: Any, name: str) -> Any:
    """An array whose bytes all lie in this file and can be read without foreign code."""
    h5py = load("h5py", "a dataset in HDF5")
    array = _member(group, name)
    if not isinstance(array, h5py.Dataset):
        raise UserError(f"{group.name} holds {show(name)}, which must be an array.")
    if array.external or array.is_virtual:
        raise UserError(f"{array.name} lies in another file: copy the data in its place.")
    properties = array.id.get_create_plist()
    used = {properties.get_filter(index)[0] for index in range(properties.get_nfilters())}
    if used - FILTERS:
        raise UserError(
            f"{array.name} is packed with filter {min(used - FILTERS)}, which needs foreign code: use gzip."
        )
    return array


def _array(group: Any, name: str) -> Any:
    array = _stored(group, name)
    if not _is_numeric(array):
        raise UserError(f"{array.name} is of the type {array.dtype}, it must hold plain numbers.")
    if math.prod(array.shape) * array.dtype.itemsize > MAX_EPISODE_BYTES:
        raise UserError(f"{array.name} would take more than the {MAX_EPISODE_BYTES:,} bytes an episode may have.")
    return array


def _is_numeric(array: Any) -> bool:
    return array.dtype.kind in "fiub" and array.dtype.fields is None and array.shape is not None


def _whole(text: str) -> int | None:
    """A number that was written as text; None for a text such as `None`."""
    return int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else None
