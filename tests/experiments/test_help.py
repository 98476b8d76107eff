"""The help texts of all scripts: within a terminal of 80 columns, and every flag but --task with a description."""

import importlib
import re
from pathlib import Path

import pytest

from mjx_policies.training.command_line import parse_arguments

ROOT = Path(__file__).parents[2]
CONFIGURATION = re.compile(r"parse(?:_arguments)?\((\w+), __doc__")
SCRIPTS = [path for path in sorted((ROOT / "experiments").glob("*.py")) if CONFIGURATION.search(path.read_text())]
METAVAR = r"(?:STR|INT|FLOAT|PATH|\]|\}|--no-[\w.-]+)"


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_help_is_made_for_a_terminal(path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    script = importlib.import_module(f"mjx_policies.experiments.{path.stem}")
    kind = getattr(script, CONFIGURATION.search(path.read_text())[1])
    with pytest.raises(SystemExit):
        parse_arguments(kind, script.__doc__, ("--help",))
    text = capsys.readouterr().out
    lines = [line for line in text.splitlines() if not line.startswith(("usage:", "    python "))]
    assert max(map(len, lines)) <= 80 and "|--" not in text and str(ROOT) not in text
    words = " ".join(re.sub("[│╭╮╰╯─]", " ", text).split())
    assert not re.findall(rf"--(?!task )\S+ {METAVAR} \((?:default|required)", words), "a flag without a description"
