"""The configuration that a command line asks for, for a new run or for one that goes on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TypeVar

import tyro

from mjx_policies.training.errors import UserError
from mjx_policies.training.run_folder import read_config

C = TypeVar("C")


@dataclasses.dataclass(frozen=True)
class _Which:
    """The two flags that say which run is meant."""

    run_dir: str = ""
    resume: bool = False


def parse(kind: type[C], description: str | None = None, arguments: Sequence[str] | None = None) -> C:
    """Reads a configuration that has the fields `run_dir` and `resume` from a command line.

    With `--resume` whatever is not given is as the run in `--run-dir` has it, so that nothing has to be given twice.

    Args:
      kind: the frozen dataclass.
      description: above the list of flags.
      arguments: those of this process by default.

    Raises:
      UserError: there is no such run to resume.
      SystemExit: the arguments make no configuration, which is then told, or ask for help.
    """
    which, _ = tyro.cli(_Which, args=arguments, return_unknown_args=True, add_help=False)
    if not which.resume:
        return tyro.cli(kind, description=description, args=arguments)
    if not which.run_dir:
        raise UserError("--resume continues the run in --run-dir, which is missing: pass the folder of the run.")
    return tyro.cli(kind, description=description, args=arguments, default=read_config(which.run_dir, kind))
