"""Standard streams that a script can rely on: open, and able to show every character that it prints."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import select
import sys
from typing import Any

PLAIN = str.maketrans(
    {
        "–": "-", "—": "-", "−": "-", "±": "+-", "×": "x", "·": ".", "…": "...", "→": "->", "≥": ">=", "≤": "<=",
        "²": "2", "³": "3", "°": " deg", "µ": "u", "‘": "'", "’": "'", "“": '"', "”": '"', "•": "*", "\u00a0": " ",
    }
)  # fmt: skip


def plain(error: UnicodeError) -> tuple[str, int]:
    """An error handler of codecs: characters that look alike in ASCII, or a question mark."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(PLAIN)
    return "".join(letter if letter.isascii() else "?" for letter in text), error.end


def make_usable() -> None:
    """Opens standard streams that are closed on the null device, and lets none fail at a character it cannot show."""
    codecs.register_error("plain", plain)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream: Any = getattr(sys, name)
        if stream is None or stream.closed:
            opened = os.open(os.devnull, os.O_RDWR)
            try:
                os.fstat(number)
            except OSError:  # or the next file to be opened would get its number, and what libraries print with it
                os.dup2(opened, number)
            setattr(sys, name, open(opened, "r" if number == 0 else "w", closefd=False))  # noqa: SIM115 - while it runs
        elif number and isinstance(stream, io.TextIOWrapper) and not stream.encoding.lower().startswith("utf"):
            stream.reconfigure(errors="plain")


def is_broken(stream: Any) -> bool:
    """Whether the other end of a pipe or socket that `stream` writes to is closed."""
    try:
        poll = select.poll()
        poll.register(stream.fileno(), select.POLLOUT)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except (AttributeError, OSError, ValueError):
        return False


def settle(stream: Any) -> None:
    """Writes out what a stream still holds, to the null device if its own is full or gone."""
    try:
        stream.flush()
    except (AttributeError, ValueError):  # there is no such stream, or it is closed
        return
    except OSError:
        drop(stream)


def drop(stream: Any) -> None:
    """Sends what is written to a stream from now on, and what it still holds, to the null device."""
    with contextlib.suppress(AttributeError, OSError, ValueError), open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())
