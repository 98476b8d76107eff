"""Configurations, which are nested frozen dataclasses, as JSON and back."""

from __future__ import annotations

import dataclasses
import enum
import math
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from mjx_policies.errors import UserError

C = TypeVar("C")
CLASS = "_class"  # key that holds the name of a dataclass, so that unions can be read back
_FREE = "may_change"
_ANOTHER = "{where} holds other settings than are wanted here: another script or version has written it."


def may_change(default: Any) -> Any:
    """A field that a resumed run may set differently, because what is learned up to then does not depend on it.

    Example:
      >>> @dataclasses.dataclass(frozen=True)
      ... class Config:
      ...     total_steps: int = may_change(1_000_000)
      ...     learning_rate: float = 3e-4
      >>> differences(Config(), Config(2_000_000)), differences(Config(), Config(learning_rate=1e-3))
      ([], ['learning_rate: 0.0003 in the run, now 0.001'])
    """
    return dataclasses.field(default=default, metadata={_FREE: True})


def at_least(config: Any, **smallest: float) -> None:
    """Refuses numbers below their smallest.

    Raises:
      ValueError: names the first.
    """
    for name, least in smallest.items():
        if not getattr(config, name) >= least:  # true of NaN too
            raise ValueError(f"{name} is {getattr(config, name)}, it must be at least {least:g}")


def none_twice(config: Any, *names: str) -> None:
    """Refuses options that name something twice.

    Raises:
      ValueError: names the first.
    """
    for name in names:
        values = getattr(config, name) or ()
        if len(set(values)) < len(values):
            raise ValueError(f"{name} is {' '.join(map(str, values))}, which names one twice")


def to_json(config: Any, where: str = "config") -> Any:
    """JSON data for a configuration; dataclasses carry their class name, and infinities become strings.

    Raises:
      UserError: a value that JSON cannot hold, named by its path.
    """
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        fields = {f.name: to_json(getattr(config, f.name), f"{where}.{f.name}") for f in _fields(config)}
        return {CLASS: type(config).__name__, **fields}
    if isinstance(config, enum.Enum):
        return config.name
    if isinstance(config, Path):
        return str(config)
    if isinstance(config, float) and not math.isfinite(config):
        return str(config)
    if config is None or type(config) in (bool, int, float, str):
        return config
    if isinstance(config, tuple | list):
        return [to_json(value, f"{where}[{i}]") for i, value in enumerate(config)]
    if isinstance(config, Mapping) and all(isinstance(key, str) for key in config):
        return {key: to_json(value, f"{where}[{key!r}]") for key, value in config.items()}
    raise UserError(f"{where} is a {type(config).__name__}, which cannot be written to config.json.")


def from_json(kind: type[C], data: Any, where: str = "config") -> C:
    """Rebuilds a configuration of type `kind` from the data that `to_json` gave.

    Fields that the data lacks take their default, so that a run outlives the addition of a field.

    Raises:
      UserError: unknown or missing fields, or a value of another type, named by its path; or the class's own objection.
    """
    return _read(kind, data, where)


def differences(before: Any, now: Any) -> list[str]:
    """The differences that keep a run with configuration `before` from going on with `now`, a line per field."""
    return list(_differences(before, now, ""))


def _differences(before: Any, now: Any, where: str) -> Iterator[str]:
    if dataclasses.is_dataclass(before) and type(before) is type(now):
        for field in _fields(before):
            if not field.metadata.get(_FREE):
                path = f"{where}.{field.name}" if where else field.name
                yield from _differences(getattr(before, field.name), getattr(now, field.name), path)
    elif to_json(before) != to_json(now):
        yield f"{where or 'config'}: {before!r} in the run, now {now!r}"


def _fields(config: Any) -> list[dataclasses.Field]:
    return [field for field in dataclasses.fields(config) if field.init]


def _read(kind: Any, data: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return _read(arguments[0], data, where)
    if origin in (typing.Union, types.UnionType):
        return _read_union(arguments, data, where)
    if origin is typing.Literal:
        if any(data == choice and type(data) is type(choice) for choice in arguments):
            return data
    elif dataclasses.is_dataclass(kind):
        return _read_dataclass(kind, data, where)
    elif (origin or kind) in (tuple, list, Sequence):
        return _read_sequence(origin or kind, arguments, data, where)
    elif (origin or kind) in (dict, Mapping):
        if isinstance(data, dict):
            value_kind = arguments[1] if arguments else Any
            return {key: _read(value_kind, value, f"{where}[{key!r}]") for key, value in data.items()}
    elif isinstance(kind, type) and issubclass(kind, enum.Enum):
        if isinstance(data, str) and data in kind.__members__:
            return kind[data]
    elif isinstance(kind, type) and issubclass(kind, Path):
        if isinstance(data, str):
            return kind(data)
    elif kind is float:
        if type(data) in (int, float):
            return float(data)
        if data in ("inf", "-inf", "nan"):
            return float(data)
    elif kind in (None, type(None)):
        if data is None:
            return None
    elif (kind in (bool, int, str) and type(data) is kind) or kind in (Any, object):
        return data
    raise UserError(f"{where} should be {_name(kind)}, not {str(data)[:80]!r}.")


def _read_union(kinds: Sequence[Any], data: Any, where: str) -> Any:
    named = [kind for kind in kinds if isinstance(data, dict) and getattr(kind, "__name__", "") == data.get(CLASS)]
    if named:
        return _read(named[0], data, where)
    # The exact type first: 1 is an int and "inf" a str wherever the union offers one.
    for kind in sorted(kinds, key=lambda kind: kind is not type(data)):
        try:
            return _read(kind, data, where)
        except UserError:
            continue
    if all(map(dataclasses.is_dataclass, kinds)):
        raise UserError(_ANOTHER.format(where=where))
    raise UserError(f"{where} should be {' or '.join(map(_name, kinds))}, not {str(data)[:80]!r}.")


def _read_dataclass(kind: Any, data: Any, where: str) -> Any:
    if not isinstance(data, dict) or data.get(CLASS) != kind.__name__:
        raise UserError(_ANOTHER.format(where=where))
    hints = typing.get_type_hints(kind, include_extras=True)
    names = [field.name for field in _fields(kind)]
    unknown = sorted(set(data) - {CLASS, *names})
    if unknown:
        raise UserError(f"{where} has the field {unknown[0]!r}, which this version does not know.")
    values = {name: _read(hints[name], data[name], f"{where}.{name}") for name in names if name in data}
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where} makes no sense: {error}.") from None


def _read_sequence(kind: Any, arguments: tuple, data: Any, where: str) -> Any:
    if not isinstance(data, list):
        raise UserError(f"{where} should be a list, not {str(data)[:80]!r}.")
    if kind is tuple and arguments and arguments[-1] is not Ellipsis:
        if len(arguments) != len(data):
            raise UserError(f"{where} should have {len(arguments)} entries, not {len(data)}.")
        kinds = list(arguments)
    else:
        kinds = [arguments[0] if arguments else Any] * len(data)
    values = [_read(k, value, f"{where}[{i}]") for i, (k, value) in enumerate(zip(kinds, data, strict=True))]
    return values if kind is list else tuple(values)


def _name(kind: Any) -> str:
    return getattr(kind, "__name__", None) or str(kind)
