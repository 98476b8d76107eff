import io
import math
import time

from rich.console import Console

from mjx_policies.training.progress import ProgressReport


def test_without_a_terminal_there_is_a_line_now_and_then(quiet):
    with ProgressReport(1_000_000, ("train/reward", "tracking"), quiet, line_seconds=1000.0) as progress:
        for phase in ("compiling", "training", "evaluating", "training"):
            progress.phase(phase)
        for step in range(100_000, 1_000_001, 100_000):
            progress.update(step, 5000.0, {"train/reward": 0.5, **({"tracking": 0.25} if step == 100_000 else {})})
        progress.say("a [bracket] stays")
    assert quiet.file.getvalue().splitlines() == [
        "compiling ...",
        " 10%  100k steps  5.00k/s  reward 0.5  tracking 0.25  3m 00s left",
        "100%  1.00M steps  5.00k/s  reward 0.5  tracking 0.25",
        "a [bracket] stays",
    ]


def test_lines_come_back_after_the_pause(quiet):
    with ProgressReport(100, (), quiet, line_seconds=0.05) as progress:
        for step in range(3):
            progress.update(step, math.nan, {})
            time.sleep(0.06)
    assert quiet.file.getvalue().splitlines() == ["  0%  0 steps", "  1%  1 steps", "  2%  2 steps"]


def test_a_terminal_shows_a_bar_with_phase_and_elapsed_time():
    terminal = Console(file=io.StringIO(), force_terminal=True, width=140, color_system=None)
    with ProgressReport(100, ("reward",), terminal) as progress:
        progress.phase("compiling")
        time.sleep(0.15)
        progress.phase("training")
        progress.update(50, 10.0, {"reward": 1.25})
        progress.say("saved")
    text = terminal.file.getvalue()
    assert "compiling" in text and "training" in text and "50%" in text and "saved" in text
    assert "reward 1.25" in text and "5s left" in text and "0:00:00" in text
