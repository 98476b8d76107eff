"""The packages that read and write files, which are an optional part of an installation."""

from __future__ import annotations

import importlib
from typing import Any

from mjx_policies.training.errors import UserError


def load(module: str, purpose: str) -> Any:
    """Imports `pyarrow`, `h5py`, `av` or a part of one, when it is needed.

    Raises:
      UserError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if (error.name or "").split(".")[0] != module.split(".")[0]:
            raise  # it is there, but broken
        package = module.split(".")[0]
        raise UserError(
            f"{purpose} needs {package}, which is missing: pip install 'mjx-policies[data]', in a clone '.[data]'."
        ) from None
