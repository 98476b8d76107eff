"""Signals while a script still imports what takes long."""

import importlib
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
SCRIPTS = sorted(path for path in EXPERIMENTS.glob("*.py") if 'if __name__ == "__main__":' in path.read_text())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_imports_is_one_sentence(tmp_path, number):
    shutil.copy(EXPERIMENTS / "_early.py", tmp_path)
    (tmp_path / "script.py").write_text(f"import _early\nimport signal\nsignal.raise_signal({number})\n")
    done = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 128 + number and done.stdout == ""
    assert done.stderr == f"error: {number.name} ended the script before its work began.\n"


def test_who_imports_a_script_keeps_the_handlers(monkeypatch):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    monkeypatch.delitem(sys.modules, "mjx_policies.experiments._early", raising=False)
    importlib.import_module("mjx_policies.experiments._early")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_every_script_begins_with_it():
    """Before the first import of what does not come with Python; those cost milliseconds."""
    for path in SCRIPTS:
        lines = [line.split() for line in path.read_text().splitlines()]
        imported = [words for words in lines if words[:1] in (["import"], ["from"])]
        others = [words for words in imported if words[1].split(".")[0] not in sys.stdlib_module_names]
        assert others[0][:4] == ["from", "mjx_policies.experiments", "import", "_early"], path
