import io
import math
import re
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console
from rich.table import Table

import mjx_policies
from mjx_policies.training import progress as progress_module
from mjx_policies.training.progress import LiteralConsole, ProgressReport, open_console


@pytest.fixture
def clock(monkeypatch):
    """The time that `progress` sees; tests set `now`."""
    fake = SimpleNamespace(now=0.0, monotonic=lambda: fake.now)
    monkeypatch.setattr(progress_module, "time", fake)
    return fake


def test_without_a_terminal_there_is_a_line_now_and_then(quiet, clock):
    with ProgressReport(1_000_000, ("train/reward", "tracking"), quiet, line_seconds=70.0) as progress:
        for phase in ("compiling", "training", "evaluating", "training"):
            progress.phase(phase)
        for step in range(100_000, 1_000_001, 100_000):
            clock.now += 20.0
            progress.update(step, 5000.0, {"train/reward": 0.5, **({"tracking": 0.25} if step == 100_000 else {})})
        progress.say("a [bracket] stays")
    assert quiet.file.getvalue().splitlines() == [
        "compiling ...",
        " 10%  100k steps  5.00k/s  reward 0.5  tracking 0.25",
        " 50%  500k steps  5.00k/s  reward 0.5  tracking 0.25  1m 40s left",
        " 90%  900k steps  5.00k/s  reward 0.5  tracking 0.25  20s left",
        "100%  1.00M steps  5.00k/s  reward 0.5  tracking 0.25",
        "a [bracket] stays",
    ]


def test_a_sentence_in_a_pipe_stays_on_one_line(capsys):
    sentence = "SIGTERM asked to stop. " * 20
    open_console().print(sentence)
    assert capsys.readouterr().out == f"{sentence}\n"


@pytest.mark.parametrize("text", ["run[lr=3e-4]", "x[/y]", "[bold]lift", ":smile:"])
def test_brackets_are_shown_as_they_are(text):
    console = LiteralConsole(file=io.StringIO(), force_terminal=True, width=100, color_system=None)
    table = Table(text, title=f"title {text}", caption=f"caption {text}")
    table.add_row(f"row {text}")
    console.print(f"plain {text}", table)
    with console.status(f"status {text}") as status:
        time.sleep(0.15)
        status.update(f"update {text}")
        time.sleep(0.15)
    with ProgressReport(10, (), console) as progress:
        progress.phase(f"phase {text}")
        progress.say(f"said {text}")
    shown = " ".join(console.file.getvalue().split())
    for where in ("plain", "title", "caption", "row", "status", "update", "phase", "said"):
        assert f"{where} {text}" in shown, where


def test_nothing_in_the_tree_reads_texts_as_markup():
    """Scripts print on `open_console`, and columns of progress bars that show texts say `markup=False`."""
    package = Path(mjx_policies.__file__).parents[1]
    for folder in ("mjx_policies", "envs", "agents", "randomization", "experiments"):
        for path in (package / folder).rglob("*.py"):
            source = path.read_text()
            assert not re.search(r"[^\w.]Console\((?!\)|quiet=True)", source), path
            for column in re.findall(r"TextColumn\((.*)\)", source):
                assert "markup=False" in column or "percentage" in column, (path, column)


def test_a_terminal_shows_a_bar_with_phase_and_elapsed_time():
    terminal = Console(file=io.StringIO(), force_terminal=True, width=140, color_system=None)
    with ProgressReport(100, ("reward",), terminal) as progress:
        progress.phase("compiling")
        time.sleep(0.15)
        progress.phase("training")
        progress.update(25, math.nan, {"reward": 1.25})
        time.sleep(0.1)
        progress.update(50, 10.0, {})
        progress.say("saved")
    text = terminal.file.getvalue()
    assert "compiling" in text and "training" in text and "50%" in text and "saved" in text
    assert "reward 1.25" in text and "10/s" in text and "0s left" in text and "0:00:00" in text
