import contextlib
import io
import math
import os
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


def test_without_a_terminal_there_is_a_line_where_there_are_no_rows(quiet):
    with ProgressReport(100, (), quiet, line_seconds=0.05) as progress:
        progress.phase("compiling")
        time.sleep(0.4)
        progress.phase("training")
        progress.update(10, math.nan, {})
        progress.update(20, math.nan, {})  # too soon for a line of its own, unless there is no other
        time.sleep(0.4)
    lines = quiet.file.getvalue().splitlines()
    assert lines[0] == "compiling ..." and "compiling ... 0s" in lines[1:4]
    assert any(line.startswith(" 20%  20 steps") for line in lines) and lines[-1] == "training ... 0s"
    assert len(lines) < 20


def test_phases_without_a_line_of_their_own_do_not_put_off_the_next_line(quiet):
    with ProgressReport(100, (), quiet, line_seconds=0.2) as progress:
        for _ in range(10):
            for phase in ("training", "evaluating"):
                progress.phase(phase)
                time.sleep(0.05)
    assert len(quiet.file.getvalue().splitlines()) >= 2


@pytest.mark.parametrize("width", [80, 60])
def test_a_narrow_terminal_keeps_the_bar_and_the_percentage(width):
    terminal = LiteralConsole(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    with ProgressReport(5_000_000, ("env/reward", "env/track_linear"), terminal) as progress:
        progress.phase("training")
        progress.update(1_234_567, 26_789.0, {"env/reward": 0.125, "env/track_linear": 0.75})
        progress.update(2_345_678, 26_789.0, {})
        time.sleep(0.2)
    last = terminal.file.getvalue().split("\x1b[2K")[-1]
    assert " 47%" in last and "━━━" in last and "training" in last and "0:00:00" in last
    assert "track_linear" not in last and (width < 80 or "2.35M steps" in last)


def test_where_nobody_reads_the_work_goes_on(capfd):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as pipe:
        console = LiteralConsole(file=pipe)
        console.print("not read")
        console.print("not read either")
        pipe.write("nor this")
        pipe.flush()
    assert capfd.readouterr().err == "standard output is closed: going on without it\n"


def test_a_console_without_unicode_has_a_spinner_and_a_bar_too():
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    terminal = LiteralConsole(file=file, force_terminal=True, width=100, color_system=None)
    with terminal.status("waiting"), contextlib.suppress(KeyError):
        time.sleep(0.15)
    with ProgressReport(100, (), terminal) as progress:
        progress.phase("training")
        progress.update(40, 10.0, {})
    assert b"waiting" in file.buffer.getvalue() and b"40%" in file.buffer.getvalue()


def test_a_sentence_in_a_pipe_stays_on_one_line(capsys):
    sentence = "SIGTERM asked to stop. " * 20
    open_console().print(sentence)
    assert capsys.readouterr().out == f"{sentence}\n"


@pytest.mark.parametrize("text", ["run[lr=3e-4]", "x[/y]", "[bold]lift", ":smile:"])
def test_brackets_are_printed_as_they_are(text):
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
    printed = " ".join(console.file.getvalue().split())
    for where in ("plain", "title", "caption", "row", "status", "update", "phase", "said"):
        assert f"{where} {text}" in printed, where


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
