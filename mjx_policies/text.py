"""Words of unknown origin, made fit for a message."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def show(value: Any) -> str:
    """A value of unknown origin, safe and short enough for a message."""
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def show_all(values: Iterable[str]) -> str:
    """The first few values, sorted, for a message."""
    found = sorted(values)
    return ", ".join(map(show, found[:8])) + (f" and {len(found) - 8} more" if len(found) > 8 else "")
