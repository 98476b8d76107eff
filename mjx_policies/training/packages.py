"""Packages that come with an extra of this library, and what to say where one is needed and missing."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from typing import Any

from mjx_policies.errors import UserError


def load(module: str, purpose: str, extra: str) -> Any:
    """Imports a package, or a part of one, when it is needed.

    Args:
      module: its name.
      purpose: what needs it, the first words of the message.
      extra: of this library, which installs it.

    Raises:
      UserError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.split(".")[0]
        if (error.name or "").split(".")[0] != package:
            raise  # it is there, but broken
        raise UserError(_missing(package, purpose, extra)) from None


def require(packages: Sequence[str], purpose: str, extra: str) -> None:
    """Like `load` for several packages, without the time that importing them takes."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise UserError(_missing(package, purpose, extra))


def _missing(package: str, purpose: str, extra: str) -> str:
    return f"{purpose} needs {package}, which is missing: pip install 'mjx-policies[{extra}]', in a clone '.[{extra}]'."
