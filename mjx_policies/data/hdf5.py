"""HDF5 files read without trusting them.

HDF5 can name other files (external and soft links, external storage, virtual datasets), run code that it finds on the
disk (filters), and hold Python objects as text. Here a file is a tree of groups, arrays of numbers and short texts.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mjx_policies.data.dataset import MAX_EPISODE_BYTES
from mjx_policies.data.packages import load
from mjx_policies.data.paths import check_plain
from mjx_policies.deploy.model import show
from mjx_policies.training.errors import UserError

MAX_FILE = 2**40  # bytes
MAX_TEXT = 2**26  # bytes
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
    """What a group holds, in the file's order."""
    return list(group.keys())


def has(group: Any, name: str) -> bool:
    """Whether a group holds something of this name."""
    return group.get(name, getlink=True) is not None


def subgroup(group: Any, name: str) -> Any:
    """A group in a group.

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
    """An array.

    Raises:
      UserError: it is missing, elsewhere, no array of plain numbers, or would fill the memory.
    """
    return _array(group, name)[()]


def texts(group: Any, name: str) -> list[str]:
    """A vector of texts."""
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
    if array.dtype.kind not in "fiub" or array.dtype.fields is not None or array.shape is None:
        raise UserError(f"{array.name} is of the type {array.dtype}, it must hold plain numbers.")
    if math.prod(array.shape) * array.dtype.itemsize > MAX_EPISODE_BYTES:
        raise UserError(f"{array.name} would take more than the {MAX_EPISODE_BYTES:,} bytes an episode may have.")
    return array
