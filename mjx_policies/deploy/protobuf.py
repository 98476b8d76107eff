"""Protocol buffers, read strictly: what two readers might understand differently is refused.

Usual readers skip fields they do not know, let the last of two values win, merge two messages into one and cut numbers
that are too large. So a file can mean one thing to whoever checks it and another to whoever runs it, which is why none
of that is accepted here. See https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import dataclasses
import struct
from typing import Any, NamedTuple

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types
WIRE_TYPES = {"int32": VARINT, "int64": VARINT, "uint64": VARINT, "float": FIXED32, "double": FIXED64}
FORMATS = {"float": "f", "double": "d"}


class WireError(ValueError):
    """The bytes are not what they should be; the message says where and what."""


class WireField(NamedTuple):
    """One field of a message; `kind` is `string`, `bytes`, a key of `WIRE_TYPES` or the schema of another message."""

    name: str
    kind: str | Schema
    repeated: bool = False


@dataclasses.dataclass(eq=False)
class Schema:
    """The fields of a message by number; `one_of` names those of which at most one may be there."""

    name: str
    fields: dict[int, WireField]
    one_of: frozenset[str] = frozenset()


@dataclasses.dataclass(frozen=True, eq=False)
class Message:
    """The fields of a message that was read.

    Attributes:
      raw: its bytes, without tag and length.
      values: by name, a list for each repeated field and a value for each other one; absent fields are absent.
    """

    raw: memoryview
    values: dict[str, Any]

    def one(self, name: str, default: Any = None) -> Any:
        """The value of a field, or `default`."""
        return self.values.get(name, default)

    def all(self, name: str) -> list[Any]:
        """The values of a repeated field."""
        return self.values.get(name, [])


def read(data: bytes, schema: Schema, max_values: int = 200_000, max_depth: int = 32) -> Message:
    """Reads a message.

    Args:
      data: the whole of it.
      schema: says what it may hold.
      max_values: how many fields and numbers it may hold, all messages inside it included; bytes count as one.
      max_depth: of messages in messages.

    Raises:
      WireError: see the module.
    """
    return _Reader(data, max_values, max_depth).message(schema, 0, len(data), max_depth)


class _Reader:
    def __init__(self, data: bytes, max_values: int, max_depth: int):
        self.data, self.view = data, memoryview(data)
        self.left, self.max_values, self.max_depth = max_values, max_values, max_depth

    def message(self, schema: Schema, start: int, end: int, depth: int) -> Message:
        if depth == 0:
            raise WireError(f"at byte {start:,}: more than {self.max_depth} messages are nested in each other")
        values: dict[str, Any] = {}
        position = start
        while position < end:
            at = position
            tag, position = self.varint(position, end)
            number, wire = tag >> 3, tag & 7
            field = schema.fields.get(number)
            if field is None:
                raise WireError(f"at byte {at:,}: {schema.name} has no field {number}")
            found, position = self.field(field, f"{schema.name}.{field.name}", wire, position, end, depth)
            if field.repeated:
                values.setdefault(field.name, []).extend(found)
            elif field.name in values:
                raise WireError(f"at byte {at:,}: {schema.name}.{field.name} occurs twice")
            else:
                (values[field.name],) = found
        if len(schema.one_of & values.keys()) > 1:
            chosen = ", ".join(sorted(schema.one_of & values.keys()))
            raise WireError(f"at byte {start:,}: {schema.name} has more than one of {chosen}")
        return Message(self.view[start:end], values)

    def field(
        self, field: WireField, name: str, wire: int, position: int, end: int, depth: int
    ) -> tuple[list[Any], int]:
        """The values behind one tag, and where the next one begins."""
        kind = field.kind
        expected = WIRE_TYPES.get(kind, BYTES) if isinstance(kind, str) else BYTES
        packed = wire == BYTES != expected and field.repeated
        if wire != expected and not packed:
            raise WireError(f"at byte {position:,}: {name} has wire type {wire} in the place of {expected}")
        if wire != BYTES:
            self.count(1, position)
            value, position = self.number(kind, name, position, end)
            return [value], position

        length, start = self.varint(position, end)
        if length > end - start:
            raise WireError(f"at byte {start:,}: {name} ends beyond what it is in: the file was cut off or damaged")
        stop = start + length
        if not packed:
            self.count(1, position)
            if isinstance(kind, Schema):
                return [self.message(kind, start, stop, depth - 1)], stop
            if kind == "bytes":
                return [self.view[start:stop]], stop
            try:
                return [str(self.view[start:stop], "utf-8")], stop
            except UnicodeDecodeError:
                raise WireError(f"at byte {start:,}: {name} is not UTF-8 text") from None
        if expected != VARINT:
            size = struct.calcsize(FORMATS[str(kind)])
            if length % size:
                raise WireError(f"at byte {start:,}: {name} ends within a number")
            self.count(length // size, start)
            return list(struct.unpack(f"<{length // size}{FORMATS[str(kind)]}", self.view[start:stop])), stop
        found = []
        while start < stop:
            self.count(1, start)
            value, start = self.number(kind, name, start, stop)
            found.append(value)
        return found, stop

    def count(self, values: int, position: int) -> None:
        self.left -= values
        if self.left < 0:
            raise WireError(f"at byte {position:,}: there are more than {self.max_values:,} fields and numbers")

    def number(self, kind: Any, name: str, position: int, end: int) -> tuple[float, int]:
        """A scalar and what comes behind it."""
        if kind in FORMATS:
            size = struct.calcsize(FORMATS[kind])
            if size > end - position:
                raise WireError(f"at byte {position:,}: {name} ends beyond what it is in")
            return struct.unpack_from(f"<{FORMATS[kind]}", self.data, position)[0], position + size
        at = position
        value, position = self.varint(position, end)
        if kind != "uint64" and value >= 1 << 63:
            value -= 1 << 64
        if kind == "int32" and not -(1 << 31) <= value < 1 << 31:
            raise WireError(f"at byte {at:,}: {name} does not fit into 32 bits")
        return value, position

    def varint(self, position: int, end: int) -> tuple[int, int]:
        """An unsigned number of 64 bits at most and what comes behind it."""
        data, at, value = self.data, position, 0
        for shift in range(0, 70, 7):
            if position >= end:
                raise WireError(f"at byte {at:,}: a number is cut off")
            byte = data[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value >= 1 << 64 or (byte == 0 and shift):  # other readers cut it, or another writer pads it
                    break
                return value, position
        raise WireError(f"at byte {at:,}: a number is too long")
