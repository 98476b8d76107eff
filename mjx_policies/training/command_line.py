"""The configuration that a command line asks for, for a new run or for one that goes on."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any, TypeVar

import tyro

from mjx_policies.training.errors import UserError, clean_errors
from mjx_policies.training.run_folder import read_config

C = TypeVar("C")


@dataclasses.dataclass(frozen=True)
class _Which:
    """The two flags that say which run is meant."""

    run_dir: str = ""
    resume: bool = False


def parse_arguments(
    kind: type[C], description: str | None = None, arguments: Sequence[str] | None = None, default: C | None = None
) -> C:
    """Reads a configuration from a command line.

    What the configuration objects to is told in one sentence that begins with `error:`, as all that a user can mend;
    tyro would put the name of the class before it, which is none of the user's business.

    Args:
      kind: the frozen dataclass.
      description: above the list of flags.
      arguments: those of this process by default.
      default: values of what is not given; those of the class by default.

    Raises:
      SystemExit: the arguments make no configuration, which is then told, or ask for help.
    """
    # The same class without its own objections, which come below. It keeps what tyro finds its comments by.
    about = ("__doc__", "__module__", "__qualname__", "__firstlineno__")  # the last since Python 3.13
    known = {name: vars(kind).get(name, getattr(kind, name)) for name in about if hasattr(kind, name)}
    unchecked: Any = type(kind.__name__, (kind,), {"__post_init__": lambda self: None, **known})
    given: dict[str, Any] = {"args": arguments, "description": description}
    if default is not None:
        given["default"] = unchecked(**_values(default))
    found = tyro.cli(unchecked, **given)
    with clean_errors():
        try:
            return kind(**_values(found))
        except ValueError as error:
            raise UserError(naming_flags(str(error), kind)) from None


def naming_flags(message: str, kind: type) -> str:
    """A sentence that begins with the name of a field, with that of its flag instead.

    Example:
      >>> @dataclasses.dataclass
      ... class Config:
      ...     run_dir: str = ""
      >>> naming_flags("run_dir is missing", Config)
      '--run-dir is missing'
    """
    found = re.match(r"([a-z_][\w.]*) (?=is |are |lies |must )", message)
    if found is None or found[1].split(".")[0] not in {field.name for field in dataclasses.fields(kind)}:
        return message
    return f"--{found[1].replace('_', '-')} {message[found.end() :]}"


def _values(config: Any) -> dict[str, Any]:
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(config) if field.init}


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
        return parse_arguments(kind, description, arguments)
    if not which.run_dir:
        raise UserError("--resume continues the run in --run-dir, which is missing: pass the folder of the run.")
    return parse_arguments(kind, description, arguments, default=read_config(which.run_dir, kind))
