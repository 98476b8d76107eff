"""Training in processes of its own: killed, signalled, locked out."""

import random
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from mjx_policies.training.checkpoint import verify_checkpoint
from mjx_policies.training.checkpoints import checkpoint_steps
from mjx_policies.training.metrics import WALL_CLOCK, read_table

STEPS_PER_ITERATION = 10
TIMEOUT = 600.0  # s, for processes on a busy machine


def wait_until(condition, process, seconds=TIMEOUT):
    end = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None:
            pytest.fail(f"ended early: {process.communicate()}")
        assert time.monotonic() < end
        time.sleep(0.005)


def rows(run_dir):
    path = run_dir / "metrics.csv"
    return path.read_text().count("\n") - 1 if path.exists() else 0


def table_without_clock(path):
    columns, cells = read_table(path)
    kept = [i for i, name in enumerate(columns) if name not in WALL_CLOCK]
    return [[line[i] for i in kept] for line in [columns, *cells]]


def kill_and_resume(start_toy, run_dir, kills, seed):
    """Kills a run `kills` times at random moments and checks what is left each time; then lets it finish."""
    moments = random.Random(seed)
    for number in range(kills):
        resume = ["--resume"] if number else []
        process = start_toy(run_dir, "--steps", 10**6, *resume)
        before = checkpoint_steps(run_dir / "checkpoints")
        # The first new checkpoint, and then up to a handful of saves, the next one perhaps only half done.
        wait_until(lambda seen=before: checkpoint_steps(run_dir / "checkpoints")[-1:] > seen[-1:], process)
        time.sleep(moments.uniform(0.0, 0.12))
        process.kill()
        assert process.wait() == -signal.SIGKILL
        newest = checkpoint_steps(run_dir / "checkpoints")[-1]
        verify_checkpoint(run_dir / "checkpoints" / f"{newest:012d}")
        logged = int(read_table(run_dir / "metrics.csv")[1][-1][0])
        assert newest <= logged <= newest + STEPS_PER_ITERATION  # a checkpoint after every iteration was asked for
    last = newest + 5 * STEPS_PER_ITERATION
    process = start_toy(run_dir, "--steps", last, "--resume")
    out, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, err
    assert f"resumed at step {newest} of {last}" in out
    return last


def test_a_run_that_is_killed_twenty_times_equals_one_that_was_not(toy, start_toy, tmp_path):
    with ThreadPoolExecutor(2) as pool:
        tasks = [pool.submit(kill_and_resume, start_toy, tmp_path / str(seed), 10, seed) for seed in range(2)]
        lengths = [task.result() for task in tasks]
    longest = max(lengths)
    process = start_toy(tmp_path / "whole", "--steps", longest)
    assert process.wait(timeout=TIMEOUT) == 0, process.communicate()
    whole = table_without_clock(tmp_path / "whole" / "metrics.csv")
    for seed, length in enumerate(lengths):
        table = table_without_clock(tmp_path / str(seed) / "metrics.csv")
        expected = whole[: len(table)]
        assert len(table) == length // STEPS_PER_ITERATION + 1
        assert table == expected


def test_a_terminated_run_exits_as_such_and_says_what_is_saved(start_toy, tmp_path):
    process = start_toy(tmp_path / "run", "--steps", 10**6, "--pause", 0.01)
    wait_until(lambda: rows(tmp_path / "run") >= 2, process)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 143 and err == "SIGTERM: stopping once the work at hand is done\n"
    newest = checkpoint_steps(tmp_path / "run" / "checkpoints")[-1]
    assert f"SIGTERM asked to stop: saved at step {newest}" in out and "preempted" in out


def test_a_second_interrupt_ends_at_once_and_a_running_folder_is_locked(start_toy, tmp_path):
    process = start_toy(tmp_path / "run", "--steps", 10**6, "--pause", 3.0)
    wait_until(lambda: (tmp_path / "run" / "metrics.csv").exists(), process)
    intruder = start_toy(tmp_path / "run", "--resume")
    _, err = intruder.communicate(timeout=TIMEOUT)
    assert intruder.returncode == 2
    assert (
        err == f"error: process {process.pid} is training in {tmp_path / 'run'}. Wait, or choose another --run-dir.\n"
    )
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 130
    assert err.endswith("error: interrupted before the work at hand was finished.\n")  # JAX may log its callback before


def test_a_run_that_meets_nan_exits_with_three(start_toy, tmp_path):
    process = start_toy(tmp_path / "run", "--steps", 100, "--nan-at", 4)
    _, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 3
    assert (
        err.startswith("error: stopped at step 50: loss is nan; reward is nan. The last good") and err.count("\n") == 1
    )
    assert checkpoint_steps(tmp_path / "run" / "checkpoints")[-1] == 40


def test_two_hosts_agree_save_once_and_resume(start_toy, tmp_path):
    def both(*arguments):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        pair = [start_toy(rank, port, tmp_path / "run", *arguments, script="two_hosts.py") for rank in range(2)]
        ends = [process.communicate(timeout=TIMEOUT) for process in pair]
        assert [process.returncode for process in pair] == [0, 0], ends
        return [out.splitlines() for out, _ in ends]

    first, second = both(6, 2)
    assert first[-1] == "preempted 2 [2.0, 3.0, 4.0, 5.0]" and second[-1] == "preempted 2 [6.0, 7.0, 8.0, 9.0]"
    assert "a signal elsewhere asked to stop: saved at step 2 of 6." in "\n".join(first)
    first, second = both(6, -1, "--resume")
    assert first[-1] == "done 6 [6.0, 7.0, 8.0, 9.0]" and second[-1] == "done 6 [10.0, 11.0, 12.0, 13.0]"
    assert any(line.startswith("resumed at step 2") for line in first)
    assert not any(line.startswith("resumed") for line in second)
    assert [row[0] for row in read_table(tmp_path / "run" / "metrics.csv")[1]] == ["1", "2", "3", "4", "5", "6"]
