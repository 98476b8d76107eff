"""The packages that read and write files, which are an optional part of an installation."""

from __future__ import annotations

from typing import Any

from mjx_policies.training import packages


def load(module: str, purpose: str) -> Any:
    """Imports `pyarrow`, `h5py`, `av` or a part of one, when it is needed.

    Raises:
      UserError: it is not installed.
    """
    return packages.load(module, purpose, "data")
