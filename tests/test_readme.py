"""README.md's commands exist: scripts, flags, and programs that run as they stand."""

import importlib.util
import re
import runpy
import sys
from pathlib import Path

import pytest

from mjx_policies.training.command_line import parse_arguments

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"^    python (experiments/\w+\.py)([^#\n]*)", README, re.MULTILINE)
PROGRAMS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look up annotations
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def scripts(monkeypatch):
    """Loads a script as `python experiments/NAME.py` does, without running it."""
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    return lambda name: load(ROOT / name)


def test_every_command_is_one_that_its_script_takes(scripts):
    assert len(COMMANDS) > 10
    for name, arguments in COMMANDS:
        kinds = re.findall(r"parse(?:_arguments)?\(([A-Z]\w*)", (ROOT / name).read_text())
        (kind,) = set(kinds)
        parse_arguments(getattr(scripts(name), kind), arguments=arguments.split())


def test_every_picture_is_there_and_small():
    pictures = re.findall(r"!\[[^]]*\]\(([^)]*)\)", README)
    assert len(pictures) == 4
    assert all((ROOT / picture).stat().st_size < 400_000 for picture in pictures)


def test_the_controller_drives_a_simulated_robot(tmp_path, monkeypatch, capsys):
    policies = load(ROOT / "tests" / "mjx_policies" / "deploy" / "conftest.py")
    policies.write_policy(tmp_path / "policy.onnx")
    (program,) = (text for text in PROGRAMS if "SimulatedRobot" in text)
    short = program.replace("runs/walk/policy.onnx", str(tmp_path / "policy.onnx")).replace(
        "seconds=10.0", "seconds=0.3"
    )
    assert short.count("0.3") == 1
    monkeypatch.chdir(ROOT)
    (tmp_path / "program.py").write_text(short)
    runpy.run_path(str(tmp_path / "program.py"))
    (ticks,) = re.findall(r"ticks=(\d+)", capsys.readouterr().out)
    assert 1 <= int(ticks) <= 16  # a tick every 0.02 s, fewer where the computer is busy


def test_the_library_trains_with_one_compilation(tmp_path):
    (program,) = (text for text in PROGRAMS if "PPORun" in text)
    short = program.replace("num_envs=256", "num_envs=8").replace("range(100)", "range(2)")
    (tmp_path / "program.py").write_text(short)
    found = runpy.run_path(str(tmp_path / "program.py"))
    assert found["action"].shape == (1,)
    assert found["step"]._cache_size() == 1
