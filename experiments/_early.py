"""The first import of a script: a signal that ends it while the rest is imported is one sentence, too.

From `clean_errors` on it sees to signals itself, see `mjx_policies.training.script`.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType


def end(number: int, frame: FrameType | None) -> None:
    """Ends the process at once, since nothing was begun yet."""
    os.write(2, f"error: {signal.Signals(number).name} ended the script before its work began.\n".encode())
    os._exit(128 + number)


def is_script() -> bool:
    """Whether Python was started with a file of this folder; a test that imports one keeps its own handlers."""
    file = getattr(sys.modules["__main__"], "__file__", None)
    return file is not None and Path(file).resolve().parent == Path(__file__).resolve().parent


if is_script():
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, end)
