import contextlib
import runpy
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from mjx_policies.experiments.runs import results
from mjx_policies.training import loop, script

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture(scope="session", autouse=True)
def videos_are_short():
    """Shortens the videos of runs that scripts finish in this process: a frame takes as long as in a real one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results, "EXAMPLE_SECONDS", 0.2)
        yield


@pytest.fixture(autouse=True)
def scripts_leave_the_process_alone(monkeypatch):
    """A script that is stopped ends its process at once: not that of the tests, which raises its exit code instead."""

    def leave(self, code):
        raise SystemExit(code)

    monkeypatch.setattr(script._Script, "leave", leave)


@pytest.fixture
def stopping():
    """A context in which a SIGTERM arrives in the second iteration of training."""
    log = loop._Session.log

    def heard(session, *arguments):
        if session.iteration == 2:
            signal.raise_signal(signal.SIGTERM)
        return log(session, *arguments)

    @contextlib.contextmanager
    def stop():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop._Session, "log", heard)
            yield

    return stop


@pytest.fixture
def run_script(capsys, monkeypatch):
    """`(name, *arguments) -> (returncode, stdout, stderr)`: a script in this process, which spares its imports."""

    def run(name, *arguments):
        capsys.readouterr()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", [str(EXPERIMENTS / name), *map(str, arguments)])
            try:
                runpy.run_path(str(EXPERIMENTS / name), run_name="__main__")
                code = 0
            except SystemExit as stop:
                code = stop.code
        told = capsys.readouterr()
        return SimpleNamespace(returncode=code, stdout=told.out, stderr=told.err)

    return run
