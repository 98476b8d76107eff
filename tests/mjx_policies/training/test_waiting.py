import io
import re
import time
from types import SimpleNamespace

from mjx_policies.training import waiting
from mjx_policies.training.progress import LiteralConsole


def test_work_without_a_terminal_says_now_and_then_that_it_goes_on():
    console = LiteralConsole(file=io.StringIO())
    with waiting.working(console, "drawing a[b].mp4", line_seconds=0.02):
        end = time.monotonic() + 60
        while console.file.getvalue().count("\n") < 3 and time.monotonic() < end:
            time.sleep(0.01)
    lines = console.file.getvalue().splitlines()
    assert lines[0] == "drawing a[b].mp4 ..." and len(lines) >= 3
    assert all(re.fullmatch(r"drawing a\[b\]\.mp4 \.\.\. \d+s", line) for line in lines[1:])
    time.sleep(0.1)
    assert len(console.file.getvalue().splitlines()) == len(lines), "it goes on after the work"


def test_the_words_change_with_the_work():
    for terminal in (False, True):
        console = LiteralConsole(file=io.StringIO(), force_terminal=terminal, width=80, color_system=None)
        with waiting.working(console, "evaluating", line_seconds=0.02) as update:
            update("evaluating a[b], 64 of 256")
            time.sleep(0.3)
        assert "a[b], 64 of 256" in console.file.getvalue()


def test_what_is_done_is_told_every_nine_seconds_and_at_the_end(monkeypatch):
    fake = SimpleNamespace(now=0.0, monotonic=lambda: fake.now)
    monkeypatch.setattr(waiting, "time", fake)
    console = LiteralConsole(file=io.StringIO())
    with waiting.counting(console, "robots", 40) as progress:
        for done in range(41):
            progress(done, f"[{done}] failed")
            fake.now += 1.0
    assert console.file.getvalue().splitlines() == [
        "robots: 0 of 40, [0] failed",
        "robots: 9 of 40, [9] failed, 31s left",
        "robots: 18 of 40, [18] failed, 22s left",
        "robots: 27 of 40, [27] failed, 13s left",
        "robots: 36 of 40, [36] failed, 4s left",
        "robots: 40 of 40, [40] failed",
    ]


def test_nothing_to_say_leaves_no_comma():
    for terminal in (False, True):
        console = LiteralConsole(file=io.StringIO(), force_terminal=terminal, width=80, color_system=None)
        with waiting.counting(console, "episodes", 40) as progress:
            progress(10, "")
        said = console.file.getvalue()
        assert "episodes" in said and ", ," not in said and "episodes: \n" not in said and ":  " not in said


def test_in_a_terminal_there_is_a_bar():
    console = LiteralConsole(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    with waiting.counting(console, "robots", 40) as progress:
        progress(10, "mass[1], 3 failed")
    assert "robots: mass[1], 3 failed" in console.file.getvalue() and "10/40" in console.file.getvalue()


def test_words_that_do_not_fit_a_terminal_are_left_out():
    console = LiteralConsole(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    with waiting.counting(console, "episodes", 1_000, first=100) as progress:
        progress(900, "success 100.0% [99.6%, 100.0%]", "1,042 rollouts")
    said = console.file.getvalue()
    assert "episodes: success 100.0% [99.6%, 100.0%]" in said and "900/1000" in said
    assert "…" not in said and "rollouts" not in said


def test_a_count_that_stands_still_is_not_silent(monkeypatch):
    monkeypatch.setattr(waiting, "LINE_SECONDS", 0.02)
    console = LiteralConsole(file=io.StringIO())
    with waiting.counting(console, "episodes", 10) as progress:
        progress(4, "4 rollouts")
        end = time.monotonic() + 60
        while console.file.getvalue().count("4 rollouts") < 3 and time.monotonic() < end:
            time.sleep(0.01)
        progress(10, "11 rollouts")
    lines = console.file.getvalue().splitlines()
    assert lines[0] == "episodes: 4 of 10, 4 rollouts" and lines[1].startswith("episodes: 4 of 10, 4 rollouts ... ")
    assert lines[-1] == "episodes: 10 of 10, 11 rollouts" and len(lines) >= 4


def test_what_was_done_before_says_nothing_of_the_speed(monkeypatch):
    fake = SimpleNamespace(now=0.0, monotonic=lambda: fake.now)
    monkeypatch.setattr(waiting, "time", fake)
    console = LiteralConsole(file=io.StringIO())
    with waiting.counting(console, "episodes", 40, first=20) as progress:
        fake.now = 10.0
        progress(30)
    assert console.file.getvalue() == "episodes: 30 of 40, 10s left\n"
