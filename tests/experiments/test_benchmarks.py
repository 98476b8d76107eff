import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "experiments" / "benchmarks"


def run(script, *arguments):
    command = [sys.executable, str(BENCHMARKS / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=900)


def test_a_report_replaces_no_file_unless_told_to(tmp_path):
    (tmp_path / "README.md").write_text("mine")
    done = run("data_feed.py", "--json", tmp_path / "README.md")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "README.md exists already: choose another --json, or replace it with --overwrite." in done.stderr
    assert (tmp_path / "README.md").read_text() == "mine"


def test_throughput_measures_every_layer(tmp_path):
    done = run("throughput.py", "--quick", "--task", "Pendulum", "--json", tmp_path / "found.json")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    rates = found["env_steps_per_second"]
    assert list(rates) == sorted(["C batch", "cpu physics", "cpu environment", "cpu training"])
    assert all(rate > 0 for rate in rates.values())
    assert found["env_steps_per_call"]["cpu training"] == 16 * 4
    assert all(len(timing["seconds"]) == 2 for timing in found["timings"].values())
    whole = found["iteration"]["cpu"]
    training = found["timings"]["cpu training"]["seconds"]
    assert sum(whole.values()) == pytest.approx(sum(training) / 2)  # the parts are all of it


def test_the_cost_of_a_sweep_is_that_of_programs_that_are_traced_once(tmp_path):
    done = run("sweep_cost.py", "--quick", "--task", "Pendulum", "--seeds", 2, "--json", tmp_path / "found.json")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["traces"] == [1, 1] and len(found["ratios"]) == 2
    assert "an iteration of 2 seeds takes" in done.stdout


def test_a_backend_that_is_not_there_is_skipped_in_a_sentence():
    done = run("throughput.py", "--quick", "--task", "Pendulum", "--backends", "warp")
    assert done.returncode == 0 and "skipped warp: " in done.stdout


def test_a_killed_run_ends_as_one_left_in_peace():
    sizes = ("--num-envs", 16, "--iterations", 300, "--checkpoint-seconds", 0.2)
    done = run("survive_kills.py", "--task", "Pendulum", "--kills", 1, "--longest", 8, *sizes)
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())  # where a line ends depends on its numbers
    assert "kill 1 after " in said and "are equal, bit for bit" in said


@pytest.fixture
def watched_run(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import watched_run

    return watched_run


WRITER = """
import sys, time, pathlib
from mjx_policies.training.metrics import MetricsCsv
folder = pathlib.Path(sys.argv[1])
folder.mkdir()
table = MetricsCsv(folder / "metrics.csv")
for row in range(1, 6):
    time.sleep(0.2)
    table.write({"step": 10 * row, "tracking": row / 10})
time.sleep(float(sys.argv[2]))
sys.exit(int(sys.argv[3]))
"""


def test_a_watched_process_is_stopped_at_the_target(watched_run, tmp_path):
    command = [sys.executable, "-c", WRITER, str(tmp_path / "run"), "60", "0"]
    found = watched_run.watch(command, tmp_path / "run", "tracking", target=0.19, window=3)
    assert (found.iteration.steps, found.mean.steps) == (20, 30)
    assert 0 < found.started < found.iteration.seconds < found.mean.seconds < 30
    assert found.best == pytest.approx(0.2)


def test_a_budget_ends_a_process_that_does_not_get_there(watched_run, tmp_path):
    command = [sys.executable, "-c", WRITER, str(tmp_path / "run"), "60", "0"]
    found = watched_run.watch(command, tmp_path / "run", "tracking", target=0.9, budget=6.0, window=2)
    assert found.iteration is None and found.mean is None
    assert found.seconds < 7.0


def test_a_process_that_fails_is_told_with_its_last_words(watched_run, tmp_path):
    command = [sys.executable, "-c", "raise SystemExit('no robot here')"]
    with pytest.raises(ValueError, match="failed with code 1: no robot here"):
        watched_run.watch(command, tmp_path / "run", "tracking", target=0.9)
