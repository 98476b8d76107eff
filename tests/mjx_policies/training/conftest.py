import importlib.util
import io
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console

SCRIPT = Path(__file__).with_name("toy_run.py")


@pytest.fixture(scope="session")
def toy():
    """The module `toy_run.py`."""
    spec = importlib.util.spec_from_file_location("toy_run", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["toy_run"] = module  # type hints of its dataclasses are looked up there
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def start_toy():
    """Starts `toy_run.py`, or another script beside it; whatever still runs at the end of the test is killed."""
    started = []

    def start(*arguments, script="toy_run.py"):
        command = [sys.executable, "-W", "error", str(SCRIPT.with_name(script)), *map(str, arguments)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def no_room_for_tensorboard(monkeypatch):
    """Every file that tensorboardX opens lies on a disk that is full."""
    monkeypatch.setattr("tensorboardX.record_writer.open_file", lambda path: open("/dev/full", "wb"))  # noqa: SIM115


@pytest.fixture
def quiet():
    """A console that is no terminal and keeps what is written."""
    return Console(file=io.StringIO(), force_terminal=False, soft_wrap=True)


@pytest.fixture
def assert_same_bits():
    """Compares two trees: structure, dtypes, shapes and every bit."""

    def check(a, b):
        assert jax.tree.structure(a) == jax.tree.structure(b)
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
            assert type(x) is type(y)
            if hasattr(x, "dtype"):
                assert x.dtype == y.dtype
                if jax.numpy.issubdtype(x.dtype, jax.dtypes.prng_key):
                    x, y = jax.random.key_data(x), jax.random.key_data(y)
            assert np.asarray(x).shape == np.asarray(y).shape
            assert np.asarray(x).tobytes() == np.asarray(y).tobytes()

    return check
