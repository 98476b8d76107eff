import doctest
import errno
import importlib

import pytest

from mjx_policies.training.checkpoint import CheckpointError
from mjx_policies.training.errors import NonFiniteError, UserError, clean_errors, disk_is_full
from mjx_policies.training.run_folder import RunFolderError


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (UserError("no\n  such task."), 2, "error: no such task.\n"),
        (CheckpointError("damaged."), 2, "error: damaged.\n"),
        (RunFolderError("taken."), 2, "error: taken.\n"),
        (NonFiniteError("nan."), 3, "error: nan.\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "a.csv"),
            2,
            "error: the disk is full, a.csv could not be written. Make room and run again.\n",
        ),
        (KeyboardInterrupt(), 130, "error: interrupted before the work at hand was finished.\n"),
    ],
)
def test_user_errors_end_with_one_sentence(capsys, error, code, text):
    @clean_errors()
    def main():
        raise error

    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == code and capsys.readouterr().err == text


def test_bugs_keep_their_traceback(capsys):
    for error in (ValueError("shape"), PermissionError(errno.EACCES, "denied")):
        with pytest.raises(type(error)), clean_errors():
            raise error
    with pytest.raises(SystemExit), clean_errors(ValueError):
        raise ValueError("rate must not be negative")
    assert capsys.readouterr().err == "error: rate must not be negative\n"


def test_a_full_disk_is_recognised_behind_other_errors():
    error = RuntimeError("write failed")
    error.__cause__ = OSError(errno.EDQUOT, "quota")
    assert disk_is_full(error) and disk_is_full(ValueError("RESOURCE: No space left on device [1]"))
    assert not disk_is_full(RuntimeError("other"))


@pytest.mark.parametrize("name", ["config", "errors", "loop", "preemption", "progress"])
def test_the_examples_in_docstrings_run(name):
    assert doctest.testmod(importlib.import_module(f"mjx_policies.training.{name}")).failed == 0
