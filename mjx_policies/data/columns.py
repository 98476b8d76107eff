"""Arrays as columns of Arrow tables and back, bit for bit. Axes: T rows.

A column is a scalar for the shape [1], a list of fixed size for a vector, lists of lists for more axes, and a PNG file
with its name, `{bytes, path}`, for pictures: the types that Hugging Face `datasets` gives to LeRobot's features.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from mjx_policies.data.dataset import MAX_EPISODE_BYTES
from mjx_policies.data.packages import load
from mjx_policies.errors import UserError

CHANNELS = {1: "L", 3: "RGB", 4: "RGBA"}  # of pictures, and their modes in Pillow
MAX_PNG = 2**26  # bytes


def is_picture(dtype: str, shape: tuple[int, ...]) -> bool:
    """Whether an array of this type, without time, is kept as pictures."""
    return dtype == "uint8" and len(shape) == 3 and shape[-1] in CHANNELS


def to_arrow(values: np.ndarray) -> Any:  # [T, ...]
    """Writes numbers as a column."""
    pa = load("pyarrow", "writing a dataset")
    column = pa.array(np.ascontiguousarray(values).reshape(-1))
    shape = values.shape[1:]
    if shape == (1,):
        return column
    if len(shape) == 1:
        return pa.FixedSizeListArray.from_arrays(column, shape[0])
    for size in reversed(shape):
        column = pa.ListArray.from_arrays(np.arange(0, len(column) + 1, size, dtype=np.int32), column)
    return column


def from_arrow(column: Any, dtype: str, shape: tuple[int, ...], where: str) -> np.ndarray:  # [T, ...]
    """Reads the numbers of a column.

    Args:
      column: Arrow's chunked array.
      dtype, shape: what it must hold, without time.
      where: names it in an error.
    """
    pa = load("pyarrow", "reading a dataset")
    rows, levels = len(column), list(shape)
    array = column.combine_chunks()
    array = pa.concat_arrays(array.chunks) if isinstance(array, pa.ChunkedArray) else array
    while True:
        if isinstance(array.type, pa.BaseExtensionType):
            array = array.storage
        if array.null_count:
            raise UserError(f"{where} has empty entries: every step must have a value.")
        if not pa.types.is_nested(array.type):
            break
        size = levels.pop(0) if levels else None
        if pa.types.is_fixed_size_list(array.type):
            fits = array.type.list_size == size
        elif pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
            fits = size is not None and bool((array.value_lengths().to_numpy(zero_copy_only=False) == size).all())
        else:
            raise UserError(f"{where} is of the type {array.type}, it must hold numbers.")
        if not fits:
            raise UserError(
                f"{where} holds {array.type}, not rows of the shape {list(shape)} that meta/info.json gives."
            )
        array = array.flatten()
    if levels not in ([], [1]) or len(array) != rows * math.prod(shape):
        raise UserError(f"{where} holds single values, not rows of the shape {list(shape)} that meta/info.json gives.")
    if not (pa.types.is_primitive(array.type) or pa.types.is_boolean(array.type)) or pa.types.is_temporal(array.type):
        raise UserError(f"{where} is of the type {array.type}, it must hold numbers.")
    values = array.to_numpy(zero_copy_only=False)
    if not np.can_cast(values.dtype, dtype, "same_kind"):
        raise UserError(f"{where} holds {values.dtype}, meta/info.json says {dtype}.")
    return values.astype(dtype).reshape(rows, *shape)


def to_pictures(frames: np.ndarray) -> Any:  # [T, H, W, C] uint8
    """A column of PNG files, which lose nothing."""
    pa = load("pyarrow", "writing a dataset")
    files = []
    for frame in frames:
        buffer = io.BytesIO()
        Image.fromarray(frame[..., 0] if frame.shape[-1] == 1 else frame).save(buffer, "PNG", compress_level=1)
        files.append(buffer.getvalue())
    names = [f"frame-{index:06d}.png" for index in range(len(frames))]
    return pa.StructArray.from_arrays([pa.array(files, pa.binary()), pa.array(names, pa.string())], ["bytes", "path"])


def from_pictures(column: Any, shape: tuple[int, ...], where: str) -> np.ndarray:  # [T, H, W, C]
    """The pictures of a column; a path in it is never opened."""
    pa = load("pyarrow", "reading a dataset")
    if not (pa.types.is_struct(column.type) and "bytes" in {field.name for field in column.type}):
        raise UserError(f"{where} is of the type {column.type}, it must hold pictures.")
    files = (entry.as_py() and entry.as_py()["bytes"] for entry in column)
    return decode_pictures(files, len(column), shape, where)


def decode_pictures(files: Iterable[bytes | None], count: int, shape: tuple[int, ...], where: str) -> np.ndarray:
    """PNG or JPEG files as arrays: [T, H, W, C], or [T, H, W] where the shape has two sizes only."""
    height, width, *channels = shape
    frames = np.empty((count, *shape), np.uint8)
    for index, data in enumerate(files):
        name = f"picture {index} of {where}"
        with _picture(data, name) as image:
            if image.size != (width, height):  # known before anything is decoded
                raise UserError(f"{name} is {image.height} by {image.width}, not {height} by {width}.")
            frames[index] = np.asarray(image.convert(CHANNELS[channels[0] if channels else 1])).reshape(shape)
    return frames


def picture_shape(data: bytes, where: str) -> tuple[int, ...]:
    """The shape of what `decode_pictures` makes of such a file: [H, W, 3], or [H, W] of one that is grey."""
    with _picture(data, where) as image:
        return (image.height, image.width, *(() if image.mode == "L" else (3,)))


@contextlib.contextmanager
def _picture(data: bytes | None, name: str) -> Iterator[Any]:
    """An image of Pillow, not decoded yet, and one sentence for whatever is wrong with it."""
    if not data or len(data) > MAX_PNG:
        raise UserError(f"{name} is missing, lies outside the file, or is too long.")
    try:
        with Image.open(io.BytesIO(data), formats=["PNG", "JPEG"]) as image:
            yield image
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{name} is damaged.") from None


def read_table(
    path: Path, columns: list[str] | None = None, filters: Any = None, optional: frozenset[str] = frozenset()
) -> Any:
    """A parquet file, or some of its columns and rows.

    Args:
      path: the file.
      columns: that it must have; all by default.
      filters: of rows, as pyarrow has them.
      optional: further columns, of which those come that it has.

    Raises:
      UserError: it is damaged, lacks a column, has one twice, or would fill the memory.
    """
    parquet = load("pyarrow.parquet", "reading a dataset")
    with _opened(path, columns) as file:
        names = file.schema_arrow.names
        if columns is not None:
            columns = columns + [name for name in names if name in optional and name not in columns]
        table = parquet.read_table(path, columns=columns, filters=filters, partitioning=None)
        table.validate(full=True)  # offsets and texts, which a damaged file may have anywhere
        return table


def read_rows_of(path: Path, columns: list[str], start: int, count: int) -> Any:
    """Rows `start` to `start + count` of a parquet file, or as many of them as it has; see `read_table` for errors."""
    with _opened(path, columns) as file:
        groups: list[int] = []
        first = passed = 0
        for group in range(file.metadata.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if passed < start + count and passed + rows > start:
                first = first if groups else passed
                groups.append(group)
            passed += rows
        table = file.read_row_groups(groups, columns=columns).slice(start - first, count)
        table.validate(full=True)
        return table


@contextlib.contextmanager
def _opened(path: Path, columns: list[str] | None) -> Iterator[Any]:
    """A parquet file that has some columns, each once, and one sentence for whatever is wrong in it."""
    pa, parquet = load("pyarrow", "reading a dataset"), load("pyarrow.parquet", "reading a dataset")
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            _check_size(path, file.metadata, len(names if columns is None else columns))
            if len(set(names)) != len(names):
                raise UserError(f"{path} has a column twice. Copy the dataset again.")
            missing = [name for name in columns or () if name not in names]
            if missing:
                raise UserError(f"{path} lacks the column {missing[0]!r}. The dataset is damaged, copy it again.")
            yield file
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise UserError(f"{path} is damaged, copy it again: {reason}.") from None


def _check_size(path: Path, metadata: Any, columns: int) -> None:
    """Checks that what the file says of itself fits into memory: a few bytes can stand for very many equal values.

    Columns are not asked one by one, since pyarrow 26 ends the process where what a file says of them is damaged.
    """
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        if max(group.total_byte_size, 8 * columns * group.num_rows) > MAX_EPISODE_BYTES:
            raise UserError(f"{path} holds a row group of more than {MAX_EPISODE_BYTES:,} bytes: split it.")
