import importlib.util
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def probes():
    """The module `probes.py`."""
    spec = importlib.util.spec_from_file_location("probes", Path(__file__).with_name("probes.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules["probes"] = module  # type hints of its dataclasses are looked up there
    spec.loader.exec_module(module)
    return module
