"""A log of fixed size that outlives the process: a ring of records in a memory-mapped file.

What was written stays when the process is killed at any moment, because the pages belong to the kernel; when the
power fails, only what the kernel had written out by then. A record that was being written has a wrong checksum and is
left out. Layout, little-endian:

    magic [8] | header size uint32 | CRC32 of the JSON uint32 | JSON, padded with spaces | capacity records
    record: number uint64, from 1, 0 where none was written | CRC32 of number and fields uint32 | 0 uint32 | fields

Record `number` lies in slot `(number - 1) % capacity`. Nothing is pickled. Axes: N records.
"""

from __future__ import annotations

import dataclasses
import json
import mmap
import os
import re
import stat
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mjx_policies.deploy.contract import Contract
from mjx_policies.deploy.controller import Mode, Output
from mjx_policies.deploy.safety import FAULTS

MAGIC = b"MJXPLOG1"
MAX_HEADER = 2**16  # bytes
MAX_BYTES = 2**32  # of a file
SENTENCE = 200  # bytes of text that a record holds
CODES = ("", *FAULTS)
"""Fault names by code, 0 for none."""

_PREFIX = struct.Struct("<8sII")
_STAMP = struct.Struct("<QII")
_TYPES = re.compile(r"<[fiu][1248]|\|S[1-9][0-9]{0,3}|\|[iu]1")


class LogError(ValueError):
    """A log cannot be written or read; the message says where and why."""


@dataclasses.dataclass(frozen=True)
class LogField:
    """One column of a log.

    Attributes:
      name: unique.
      type: of numpy, such as `<f8`, `<f4`, `|u1`, `<u8` or, for text in UTF-8, `|S200`.
      shape: of one value.
    """

    name: str
    type: str
    shape: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class RecordedLog:
    """The rows of a log, read by `read_log`.

    Attributes:
      records: [N] structured, in order, with the field `number` besides those written.
      torn: slots whose record was being written when the process ended, or was damaged later.
    """

    records: np.ndarray
    torn: int


class RingLog:
    """Writes a log; the oldest record makes room for the newest.

    Args:
      path: a file that does not exist yet: the log of a crash must not be overwritten.
      capacity: records it holds.
      fields: of a record, such as `tick_fields`.

    Raises:
      LogError: the file exists, cannot be created, or the disk has no room for it.
    """

    def __init__(self, path: str | os.PathLike[str], capacity: int, fields: Sequence[LogField]):
        self.path = Path(path)
        header = {"version": 1, "capacity": capacity, "fields": [dataclasses.astuple(field) for field in fields]}
        text = json.dumps(header, sort_keys=True).encode()
        self._dtype, self._capacity = _layout(json.loads(text), f"the log {self.path}")
        # Padded so that records are aligned.
        text = text.ljust(-(-(_PREFIX.size + len(text)) // 64) * 64 - _PREFIX.size)
        self._start = _PREFIX.size + len(text)
        if self._start > MAX_HEADER:
            raise LogError(f"the log {self.path} has too many fields: its header needs {self._start:,} bytes")
        self._size = _STAMP.size + self._dtype.itemsize
        total = self._start + capacity * self._size
        if total > MAX_BYTES:
            raise LogError(f"the log {self.path} would take {total:,} bytes, at most {MAX_BYTES:,}: lower its capacity")
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except FileExistsError:
            raise LogError(f"the log {self.path} exists already: choose another name or move it away") from None
        except OSError as error:
            raise LogError(f"the log {self.path} cannot be created: {error.strerror}") from None
        try:
            # Takes the room now: a page that the disk has no room for would kill the process in the middle of a walk.
            os.posix_fallocate(descriptor, 0, total)
            os.pwrite(descriptor, _PREFIX.pack(MAGIC, self._start, zlib.crc32(text)) + text, 0)
            os.fsync(descriptor)
            self._map: mmap.mmap | None = mmap.mmap(descriptor, total)
        except OSError as error:
            self.path.unlink()
            raise LogError(f"the log {self.path} cannot be created: {error.strerror}") from None
        finally:
            os.close(descriptor)
        self._row = np.zeros((), self._dtype)
        self._number = 0

    def write(self, values: Mapping[str, Any]) -> None:
        """Appends a record; fields that are not given are NaN, or zero where they are no floats.

        Raises:
          LogError: there is no such field, or a value does not fit it.
        """
        if self._map is None:
            raise LogError(f"the log {self.path} is closed")
        row = self._row
        for name in self._dtype.names or ():
            row[name] = np.nan if row.dtype[name].base.kind == "f" else row.dtype[name].base.type()
        for name, value in values.items():
            if name not in (self._dtype.names or ()):
                raise LogError(
                    f"the log {self.path} has no field {name!r}; it has: {', '.join(self._dtype.names or ())}"
                )
            if isinstance(value, str):
                value = value.encode()[: row.dtype[name].itemsize]
            if np.shape(value) != row.dtype[name].shape:
                raise LogError(f"field {name!r} of a log has shape {row.dtype[name].shape}, not {np.shape(value)}")
            with np.errstate(over="ignore"):  # beyond the field's type: infinite
                row[name] = value
        self._number += 1
        payload = row.tobytes()
        checksum = zlib.crc32(payload, zlib.crc32(self._number.to_bytes(8, "little")))
        offset = self._start + (self._number - 1) % self._capacity * self._size
        self._map[offset : offset + self._size] = _STAMP.pack(self._number, checksum, 0) + payload

    def close(self) -> None:
        """Puts everything on the disk and lets go of the file; closing twice is fine."""
        if self._map is not None:
            self._map.flush()
            self._map.close()
            self._map = None

    def __enter__(self) -> RingLog:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def read_log(path: str | os.PathLike[str]) -> RecordedLog:
    """The records of a log, the oldest first; also of one that is being written.

    Raises:
      LogError: it is not a log, or not a whole one.
    """
    path = Path(path)
    try:
        # Not blocking: opening a pipe would wait for somebody to write to it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise LogError(f"the log {path} cannot be opened: {error.strerror}") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise LogError(f"the log {path} is not a plain file")
        if status.st_size > MAX_BYTES:
            raise LogError(f"the log {path} has {status.st_size:,} bytes, more than the {MAX_BYTES:,} allowed")
        with open(descriptor, "rb", closefd=False) as file:
            header, start = _read_header(file.read(MAX_HEADER), path)
            dtype, capacity = _layout(header, f"the log {path}")
            size = _STAMP.size + dtype.itemsize
            expected = start + capacity * size
            if status.st_size != expected:
                fault = "truncated" if status.st_size < expected else "longer than it should be"
                raise LogError(f"the log {path} is {fault}: {status.st_size:,} bytes, its header says {expected:,}")
            file.seek(start)
            data = file.read(capacity * size)
    finally:
        os.close(descriptor)
    if len(data) != capacity * size:
        raise LogError(f"the log {path} became shorter while it was read")
    stored = np.dtype([("number", "<u8"), ("crc", "<u4"), ("zero", "<u4"), *_columns(dtype)])
    rows = np.frombuffer(data, stored)
    good, torn = [], 0
    for slot, number in enumerate(rows["number"].tolist()):
        record = data[slot * size : (slot + 1) * size]
        payload, checksum = record[_STAMP.size :], zlib.crc32(record[:8])
        if number and (number - 1) % capacity == slot and zlib.crc32(payload, checksum) == rows["crc"][slot]:
            good.append((number, slot))
        elif any(record):
            torn += 1
    kept = np.array([slot for _, slot in sorted(good)], np.intp)
    names = ["number", *(dtype.names or ())]
    return RecordedLog(rows[kept][names], torn)


def describe(code: int) -> str:
    """The meaning of a record's fault code."""
    if code == 0:
        return "no fault"
    if not 0 < code < len(CODES):
        return f"unknown fault {code}"
    return f"{CODES[code]}: {FAULTS[CODES[code]]}"


def tick_fields(contract: Contract) -> tuple[LogField, ...]:
    """Fields that hold a tick of the controller, see `tick_values`; joints in the policy's order."""
    joints = (len(contract.joints),)
    return (
        LogField("time", "<f8"),
        LogField("mode", "|u1"),
        LogField("fault", "|u1"),  # see `describe`
        LogField("held", "|u1"),
        LogField("missed", "<u4"),  # deadlines so far
        LogField("age", "<f8"),
        LogField("inference_seconds", "<f8"),
        LogField("command", "<f4", (len(contract.commands),)),
        LogField("gyro", "<f4", (3,)),
        LogField("orientation", "<f4", (4,)),
        LogField("joint_position", "<f4", joints),
        LogField("joint_velocity", "<f4", joints),
        LogField("observation", "<f4", (contract.observation_size,)),
        LogField("action", "<f4", joints),
        LogField("target", "<f4", joints),
        LogField("text", f"|S{SENTENCE}"),  # of the fault, or why a request was refused
    )


def tick_values(time: float, output: Output, missed: int) -> dict[str, Any]:
    """A tick as values of `tick_fields`; readings are the newest good ones."""
    fault = output.fault if output.mode is Mode.FAULT else None
    values: dict[str, Any] = {
        "time": time,
        "mode": int(output.mode),
        "fault": CODES.index(fault.name) if fault else 0,
        "held": int(output.held),
        "missed": missed,
        "age": output.age,
        "inference_seconds": output.inference_seconds,
        "command": output.command,
        "observation": output.observation,
        "action": output.action,
        "target": output.target,
        "text": output.note or (fault.sentence if fault else ""),
    }
    for name in ("gyro", "orientation", "joint_position", "joint_velocity"):
        values[name] = output.values.get(name)
    return {name: value for name, value in values.items() if value is not None}


def _read_header(data: bytes, path: Path) -> tuple[Any, int]:
    """The header and where the records start."""
    if len(data) < _PREFIX.size or not data.startswith(MAGIC):
        raise LogError(f"{path} is not a log of this library")
    _, start, checksum = _PREFIX.unpack_from(data)
    text = data[_PREFIX.size : start]
    if not _PREFIX.size < start <= len(data) or zlib.crc32(text) != checksum:
        raise LogError(f"the log {path} has a damaged header")
    try:
        return json.loads(text), start
    except (ValueError, RecursionError) as error:
        raise LogError(f"the log {path} has a header that is not JSON: {error}") from None


def _layout(header: Any, where: str) -> tuple[np.dtype, int]:
    """The type of a record and how many there are, from a header that anybody may have written."""
    if not isinstance(header, dict) or header.get("version") != 1:
        raise LogError(f"{where} is of another version")
    capacity, fields = header.get("capacity"), header.get("fields")
    if type(capacity) is not int or not 0 < capacity <= MAX_BYTES:
        raise LogError(f"{where} has a capacity of {capacity!r} records, it must be at least 1")
    if not isinstance(fields, list) or not fields:
        raise LogError(f"{where} has no fields")
    columns: list[tuple[str, str, tuple[int, ...]]] = []
    for field in fields:
        match field:
            case [str(name), str(kind), [*shape]] if name and _TYPES.fullmatch(kind):
                if all(type(size) is int and 0 <= size <= 2**16 for size in shape) and len(shape) <= 4:
                    columns.append((name, kind, tuple(shape)))
                    continue
        raise LogError(f"{where} has a field it cannot hold: {str(field)[:80]}")
    names = [name for name, _, _ in columns]
    if len({*names, "number", "crc", "zero"}) != len(names) + 3:
        raise LogError(f"{where} has a field twice, or one named number, crc or zero")
    try:
        return np.dtype(columns), capacity
    except ValueError as error:  # too large together
        raise LogError(f"{where} has fields that do not fit: {error}") from None


def _columns(dtype: np.dtype) -> list[tuple[str, np.dtype]]:
    return [(name, dtype[name]) for name in dtype.names or ()]
