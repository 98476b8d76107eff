import doctest
import errno
import importlib
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mjx_policies.errors import NonFiniteError, UserError, disk_is_full
from mjx_policies.files import replacing
from mjx_policies.training.checkpoint import CheckpointError
from mjx_policies.training.run_folder import RunFolderError
from mjx_policies.training.script import clean_errors

SCRIPT = Path(__file__).with_name("toy_script.py")


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


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "runs/a"), "cannot use runs/a: Permission denied."),
        (OSError(errno.EROFS, "Read-only file system", "/x"), "cannot use /x: Read-only file system."),
        (OSError(errno.ENAMETOOLONG, "File name too long", "y" * 300), f"cannot use {'y' * 200}: File name too long."),
        (RuntimeError("Unable to flush file's cached information (No space left on device)"), "the disk is full"),
        (
            RuntimeError("Unable to initialize backend 'cuda': no device (set JAX_PLATFORMS='' to choose one)"),
            "JAX finds no device of the platform ",
        ),
    ],
)
def test_what_the_system_refuses_is_a_sentence(capsys, error, words):
    with pytest.raises(SystemExit) as caught, clean_errors():
        raise error
    said = capsys.readouterr().err
    assert caught.value.code == 2 and said.startswith(f"error: {words}") and said.count("\n") == 1


def test_a_full_disk_comes_with_advice_also_where_errors_of_the_system_are_told_as_they_are(tmp_path, capsys):
    with pytest.raises(SystemExit), clean_errors(OSError), replacing(tmp_path / "policy.onnx"):
        raise OSError(errno.ENOSPC, "No space left on device")
    path = tmp_path / "policy.onnx"
    assert (
        capsys.readouterr().err == f"error: the disk is full, {path} could not be written. Make room and run again.\n"
    )
    with pytest.raises(SystemExit), clean_errors(OSError):
        raise OSError(errno.EIO, "Input/output error")
    assert capsys.readouterr().err == "error: [Errno 5] Input/output error\n"


INTERRUPTED = "error: interrupted before the work at hand was finished.\n"


@pytest.mark.parametrize(
    ("ending", "code", "out", "err"),
    [
        ("interrupt in a callback", 130, "", INTERRUPTED),
        ("interrupt of a child", 130, "", "error: ffmpeg ended with code 255.\n"),
        ("interrupt where nothing can be raised", 130, "", INTERRUPTED),
        ("exit handlers", 130, "", INTERRUPTED),
        ("semaphore", 130, "", INTERRUPTED),
        ("heard by a loop", 0, "heard\n", ""),
        ("terminated", 143, "", "error: SIGTERM ended the work before it was finished.\n"),
        ("terminated while it compiles", 143, "", "error: SIGTERM ended the work before it was finished.\n"),
        ("preempted", 143, "", ""),
        ("preempted between", 140, "", "error: SIGUSR2 ended the work before it was finished.\n"),
        ("print", 0, "5 +- 1 -> 3 x 2 ... >= 90 % ?\n", "+- ?\n"),
    ],
)
def test_endings_of_a_script(ending, code, out, err):
    process = run_script(ending)
    assert (process.returncode, process.stdout, process.stderr) == (code, out, err)


def run_script(*arguments, before="", shell=""):
    """Runs `toy_script.py` under an encoding that knows little, with what a shell has around the command."""
    command = shlex.join([sys.executable, "-W", "error", str(SCRIPT), *map(str, arguments)])
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    return subprocess.run(
        ["bash", "-c", f"{before} {command} {shell}"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_who_reads_no_further_ends_a_filter_without_a_word():
    process = run_script("lines", shell="| head -n 1; exit ${PIPESTATUS[0]}")
    assert (process.returncode, process.stdout, process.stderr) == (141, "line 0\n", "")


def test_a_script_that_is_interrupted_while_it_waits():
    command = [sys.executable, str(SCRIPT), "wait"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "waiting\n"
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=60) == ("", INTERRUPTED) and process.returncode == 130
        finally:
            process.kill()  # or whoever comes next would be told of what still runs


def test_a_script_in_the_background_ignores_interrupts_as_it_was_told():
    process = run_script("exit handlers", before="trap '' INT;")
    assert (process.returncode, process.stdout, process.stderr) == (0, "handler\n", "")


@pytest.mark.parametrize(
    ("shell", "out"), [("<&-", "said\n"), (">&-", ""), ("<&- >&- 2>&-", ""), ("< /dev/null", "said\n")]
)
def test_closed_streams_are_no_trouble(tmp_path, shell, out):
    process = run_script("streams", tmp_path / "file", shell=shell)
    assert (process.returncode, process.stdout, process.stderr) == (0, out, "")
    assert (tmp_path / "file").read_text() == "kept"


def test_double_precision_is_refused_with_a_word():
    code = "import jax.numpy as jnp; from mjx_policies.training.script import clean_errors\nwith clean_errors():\n"
    code += "    print(jnp.zeros(1, float).dtype)"
    environment = {**os.environ, "JAX_ENABLE_X64": "1"}
    process = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (process.returncode, process.stdout) == (0, "float32\n")
    assert process.stderr == "JAX_ENABLE_X64 has no effect here: everything is computed in float32.\n"


def test_a_full_device_for_the_output_is_a_sentence():
    process = run_script("lines", shell="> /dev/full")
    assert process.returncode == 2
    assert process.stderr == "error: the disk is full, a file could not be written. Make room and run again.\n"


def test_a_full_disk_is_recognised_behind_other_errors():
    error = RuntimeError("write failed")
    error.__cause__ = OSError(errno.EDQUOT, "quota")
    assert disk_is_full(error) and disk_is_full(ValueError("RESOURCE: No space left on device [1]"))
    assert not disk_is_full(RuntimeError("other"))


@pytest.mark.parametrize("name", ["config", "script", "loop", "preemption", "progress"])
def test_the_examples_in_docstrings_run(name):
    assert doctest.testmod(importlib.import_module(f"mjx_policies.training.{name}")).failed == 0


def test_a_platform_without_a_device_is_a_sentence():
    code = "import jax\nfrom mjx_policies.training.script import clean_errors\nwith clean_errors(): jax.devices()"
    process = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "JAX_PLATFORMS": "cuda"},
        capture_output=True,
        text=True,
        check=False,
    )
    expected = "error: JAX finds no device of the platform cuda: unset JAX_PLATFORMS, or set it to cpu.\n"
    if process.returncode:  # on a machine without such a device
        assert (process.returncode, process.stderr) == (2, expected)
