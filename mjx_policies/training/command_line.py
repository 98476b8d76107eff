"""The configuration that a command line asks for, for a new run or for one that goes on."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import tyro

from mjx_policies.errors import UserError
from mjx_policies.training.script import clean_errors

C = TypeVar("C")


def parse_arguments(
    kind: type[C], description: str | None = None, arguments: Sequence[str] | None = None, default: C | None = None
) -> C:
    """Reads a configuration from a command line.

    What the configuration objects to, or a configuration in it, is told in one sentence that begins with `error:` and
    names the flag; tyro would put the name of a class before it.

    Args:
      kind: the frozen dataclass.
      description: above the list of flags; a docstring, whose indented lines stay as they are.
      arguments: those of this process by default.
      default: values of what is not given; those of the class by default.

    Raises:
      SystemExit: the arguments make no configuration, which is then told, or ask for help.
    """
    if description and {"-h", "--help"} & set(sys.argv[1:] if arguments is None else arguments):
        print(_filled(description), end="\n\n")  # tyro would print each paragraph as one line
    with _unchecked(kind, default):
        given: Any = tyro.MISSING_NONPROP if default is None else default
        found = tyro.cli(kind, args=arguments, description="", default=given)
    with clean_errors():
        _check(found)
    return found


def _filled(text: str) -> str:
    """A docstring with its paragraphs filled to the width of the terminal, and the command on a line of its own."""
    width = shutil.get_terminal_size().columns
    blocks = re.sub(": (python .*)", r".\n\n    \1", inspect.cleandoc(text), count=1).split("\n\n")
    fill = functools.partial(textwrap.fill, width=width, break_long_words=False, break_on_hyphens=False)
    return "\n\n".join(block if block.startswith(" ") else fill(block) for block in blocks)


@contextlib.contextmanager
def _unchecked(kind: Any, default: Any) -> Iterator[None]:
    """A context in which neither a configuration nor what it is made of objects to its values."""
    changed = {each: vars(each).get("__post_init__") for each in _kinds(kind, default)}
    for each in changed:
        each.__post_init__ = lambda self: None
    try:
        yield
    finally:
        for each, own in changed.items():
            if own is None:
                del each.__post_init__  # it has that of its base
            else:
                each.__post_init__ = own


def _kinds(kind: Any, default: Any) -> Iterator[Any]:
    """A configuration's class, and those of its fields, that check their values."""
    if hasattr(kind, "__post_init__"):
        yield kind
    for field in dataclasses.fields(kind):
        value = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        value = value if default is None else getattr(default, field.name)
        if dataclasses.is_dataclass(value):
            yield from _kinds(type(value), value)


def _check(config: Any, prefix: str = "") -> None:
    """Raises a `UserError` for what a configuration, or what it is made of, objects to."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            _check(value, f"{prefix}{field.name}.")
    if hasattr(config, "__post_init__"):
        try:
            config.__post_init__()
        except ValueError as error:
            raise UserError(naming_flags(str(error), type(config), prefix)) from None


def read_flag(name: str, default: str) -> str:
    """The value of one flag of this process's command line, on which the defaults of the others depend."""
    kind = dataclasses.make_dataclass("Which", [(name, str, default)])
    return getattr(tyro.cli(kind, return_unknown_args=True, add_help=False)[0], name)


def naming_flags(message: str, kind: type, prefix: str = "") -> str:
    """A sentence that begins with the name of a field, with that of its flag instead.

    Args:
      message: the sentence.
      kind: whose field it is.
      prefix: of its flags, where it is a field of a configuration itself; the sentence may begin with it too.

    Example:
      >>> @dataclasses.dataclass
      ... class Config:
      ...     run_dir: str = ""
      >>> naming_flags("run_dir is missing", Config)
      '--run-dir is missing'
    """
    found = re.match(r"([a-z_][\w.]*) (?=is |are |lies |must )", message)
    name = found[1].removeprefix(prefix) if found else ""
    if found is None or name.split(".")[0] not in {field.name for field in dataclasses.fields(kind)}:
        return message
    return f"--{(prefix + name).replace('_', '-')} {message[found.end() :]}"


def parse(
    kind: type[C],
    description: str | None = None,
    arguments: Sequence[str] | None = None,
    place: str = "run_dir",
    before: Callable[[str], C] | None = None,
    default: C | None = None,
) -> C:
    """Reads a configuration that has the fields `run_dir` and `resume` from a command line.

    With `--resume` whatever is not given is as the run in `--run-dir` has it, so that nothing has to be given twice.

    Args:
      kind: the frozen dataclass.
      description: above the list of flags.
      arguments: those of this process by default.
      place: the field that says where the work lies that goes on, in place of `run_dir`.
      before: what lies there -> its configuration; that of a run folder by default.
      default: values of what is not given where nothing goes on; those of the class by default.

    Raises:
      UserError: there is no such run to resume.
      SystemExit: the arguments make no configuration, which is then told, or ask for help.
    """
    which = dataclasses.make_dataclass("Which", [(place, str, ""), ("resume", bool, False)])
    found: Any = tyro.cli(which, args=arguments, return_unknown_args=True, add_help=False)[0]
    if not found.resume:
        return parse_arguments(kind, description, arguments, default)
    path = getattr(found, place)
    if not path:
        raise UserError(f"--resume goes on with --{place.replace('_', '-')}, which is missing: pass its path.")
    if before is None:
        from mjx_policies.training.run_folder import read_config  # and with it JAX, which not all scripts need

        return parse_arguments(kind, description, arguments, default=read_config(path, kind))
    return parse_arguments(kind, description, arguments, default=before(path))
