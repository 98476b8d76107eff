import importlib.util
import sys
from pathlib import Path

import pytest


def load(name):
    """A module of this folder."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # type hints of its dataclasses are looked up there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def probes():
    """The module `probes.py`."""
    return load("probes")


@pytest.fixture(scope="session")
def counting():
    """The module `counting.py`."""
    return load("counting")
