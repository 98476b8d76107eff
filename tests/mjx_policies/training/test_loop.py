import dataclasses
import errno
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from mjx_policies.errors import NonFiniteError, UserError
from mjx_policies.files import read_json, write_json
from mjx_policies.training import checkpoint as checkpoint_module
from mjx_policies.training.checkpoint import CheckpointError, read_checkpoint
from mjx_policies.training.checkpoints import Checkpoints, checkpoint_steps
from mjx_policies.training.loop import Job, Schedule, train
from mjx_policies.training.metrics import WALL_CLOCK, read_metrics, read_table
from mjx_policies.training.preemption import Preemption
from mjx_policies.training.progress import LiteralConsole
from mjx_policies.training.run_folder import RunFolder
from mjx_policies.training.script import clean_errors


def table_without_clock(path):
    columns, rows = read_table(path)
    kept = [i for i, name in enumerate(columns) if name not in WALL_CLOCK]
    return [[cells[i] for i in kept] for cells in [columns, *rows]]


def schedule(**changes):
    return Schedule(**{"total_steps": 80, "eval_every": 3, "tensorboard": False, **changes})


class Crash(Exception):
    """Stands for a process that ends without warning."""


def crash_at(step):
    def report(row):
        if row["step"] == step:
            raise Crash

    return report


@pytest.fixture(scope="module")
def whole(toy, tmp_path_factory):
    """An uninterrupted run: what it ended with, and its table."""
    path = tmp_path_factory.mktemp("whole") / "run"
    outcome = toy.train_toy(path, toy.ToyConfig(schedule=schedule()), console=Console(quiet=True))
    return outcome, table_without_clock(path / "metrics.csv")


def test_where_nobody_reads_the_run_goes_on_and_its_folder_is_whole(toy, tmp_path, assert_same_bits, whole, capfd):
    """As behind `| head`, which closes the pipe that the progress goes to."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as pipe:
        ended = toy.train_toy(tmp_path / "run", toy.ToyConfig(schedule=schedule()), console=LiteralConsole(file=pipe))
    assert "standard output is closed: going on without it" in capfd.readouterr().err
    assert_same_bits(ended.state, whole[0].state)
    assert table_without_clock(tmp_path / "run" / "metrics.csv") == whole[1]
    restored = Checkpoints(tmp_path / "run" / "checkpoints").restore(ended.state, print)
    assert restored.step == 80
    assert_same_bits(restored.state, ended.state)


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_a_crashed_and_resumed_run_equals_an_uninterrupted_one(toy, tmp_path, quiet, assert_same_bits, optimizer):
    config = toy.ToyConfig(optimizer=optimizer, schedule=schedule(checkpoint_seconds=0.0))
    whole = toy.train_toy(tmp_path / "whole", config, console=quiet)
    with pytest.raises(Crash):
        toy.train_toy(tmp_path / "parts", config, console=quiet, report=crash_at(40))
    assert checkpoint_steps(tmp_path / "parts" / "checkpoints")[-1] == 30
    with pytest.raises(Crash):
        toy.train_toy(tmp_path / "parts", config, resume=True, console=quiet, report=crash_at(60))
    parts = toy.train_toy(tmp_path / "parts", config, resume=True, console=quiet)
    assert_same_bits(whole.state, parts.state)
    assert table_without_clock(tmp_path / "whole/metrics.csv") == table_without_clock(tmp_path / "parts/metrics.csv")
    assert whole.step == parts.step == 80 and whole.status == parts.status == "done"


def test_a_finished_run_can_be_extended(toy, tmp_path, quiet, assert_same_bits, whole):
    toy.train_toy(tmp_path / "run", toy.ToyConfig(schedule=schedule(total_steps=30)), console=quiet)
    longer = toy.ToyConfig(schedule=schedule())
    parts = toy.train_toy(tmp_path / "run", longer, resume=True, console=quiet)
    assert_same_bits(whole[0].state, parts.state)
    assert whole[1] == table_without_clock(tmp_path / "run/metrics.csv")
    again = toy.train_toy(tmp_path / "run", longer, resume=True, console=quiet)
    assert_same_bits(whole[0].state, again.state)
    assert again.status == "done" and again.metrics == {}


def test_a_run_without_a_checkpoint_resumes_from_its_beginning(toy, tmp_path, quiet, assert_same_bits, whole):
    config = toy.ToyConfig(schedule=schedule(checkpoint_seconds=1e6))
    with pytest.raises(Crash):
        toy.train_toy(tmp_path / "run", config, console=quiet, report=crash_at(50))
    assert checkpoint_steps(tmp_path / "run" / "checkpoints") == []
    before = (tmp_path / "run" / "metrics.csv").read_text()
    (tmp_path / "run" / "metrics-1.csv").write_text("of another day")
    parts = toy.train_toy(tmp_path / "run", config, resume=True, console=quiet)
    assert_same_bits(whole[0].state, parts.state)
    assert whole[1] == table_without_clock(tmp_path / "run/metrics.csv")
    assert (tmp_path / "run" / "metrics-2.csv").read_text() == before
    assert (
        f"{tmp_path / 'run'} holds no checkpoint yet, so the run begins again at step 0; "
        f"its rows up to step 50 are kept in {tmp_path / 'run' / 'metrics-2.csv'}\n"
    ) in quiet.file.getvalue()


def test_a_run_that_moved_to_another_version_says_so(toy, tmp_path, quiet):
    config = toy.ToyConfig(schedule=schedule(total_steps=20))
    toy.train_toy(tmp_path / "run", config, console=quiet)
    assert "not made as before" not in quiet.file.getvalue()
    data = read_json(tmp_path / "run" / "config.json")
    data["made_with"]["versions"]["jaxlib"] = "0.1.2"
    write_json(tmp_path / "run" / "config.json", data)
    toy.train_toy(tmp_path / "run", config, resume=True, console=quiet)
    assert "not made as before (jaxlib 0.1.2, now " in quiet.file.getvalue()


def test_the_step_is_traced_once_and_resumed_seconds_add_up(toy, tmp_path, quiet):
    traces = []
    config = toy.ToyConfig(schedule=schedule(checkpoint_seconds=0.0))
    job = toy.toy_job(config)

    def counted(state):
        traces.append(1)
        return job.step(state)

    counting = dataclasses.replace(job, step=counted)
    with RunFolder.create(tmp_path / "run", config) as run, pytest.raises(Crash):
        train(counting, run, config.schedule, console=quiet, report=crash_at(40))
    before = read_metrics(tmp_path / "run" / "metrics.csv")["seconds"][-2]
    with RunFolder.open(tmp_path / "run", config) as run:
        outcome = train(counting, run, config.schedule, console=quiet)
    assert len(traces) == 2  # once for each of the two calls of `train`
    seconds = read_metrics(tmp_path / "run" / "metrics.csv")["seconds"]
    assert np.all(np.diff(seconds) >= 0) and sum(outcome.seconds.values()) >= seconds[-1] - 1e-3 > before


def test_rows_and_evaluations_come_when_they_are_due(toy, tmp_path, quiet):
    config = toy.ToyConfig(schedule=schedule(total_steps=245, log_every=4, eval_every=10))
    outcome = toy.train_toy(tmp_path / "run", config, console=quiet)
    table = read_metrics(tmp_path / "run" / "metrics.csv")
    assert table["step"].tolist() == [40, 80, 100, 120, 160, 200, 240, 250]  # 245 is rounded up to whole iterations
    assert table["step"][np.isfinite(table["eval/distance"])].tolist() == [100, 200]
    assert outcome.step == 250 and outcome.metrics["loss"] == pytest.approx(table["loss"][-1])


def test_no_evaluation_is_due_unless_it_is_asked_for(toy, tmp_path, quiet):
    config = toy.ToyConfig(schedule=schedule(total_steps=20, eval_every=0))
    toy.train_toy(tmp_path / "run", config, console=quiet)
    assert "eval/distance" not in read_metrics(tmp_path / "run" / "metrics.csv")


def test_the_best_checkpoint_stays(tmp_path, quiet):
    scores = {1: 0.1, 2: 0.9, 3: np.nan, 4: 0.3, 5: 0.4, 6: np.inf}
    job = Job(
        init=lambda: {"n": jnp.zeros((), jnp.int32)},
        step=lambda state: ({"n": state["n"] + 1}, {"n": state["n"]}),
        steps_per_iteration=1,
        evaluate=lambda state: {"score": scores[int(state["n"])]},
    )
    plan = schedule(total_steps=6, eval_every=1, checkpoint_seconds=0.0, keep=2, keep_best="eval/score")
    with RunFolder.create(tmp_path / "run", plan) as run:
        train(job, run, plan, console=quiet)
    assert checkpoint_steps(tmp_path / "run" / "checkpoints") == [2, 5, 6]
    misspelt = dataclasses.replace(plan, keep_best="eval/scores")
    with (
        RunFolder.create(tmp_path / "misspelt", misspelt) as run,
        pytest.raises(
            UserError, match=r"keep_best is 'eval/scores', which is no metric here; there are eval/score, n\."
        ),
    ):
        train(job, run, misspelt, console=quiet)
    blind = dataclasses.replace(job, evaluate=None)
    with RunFolder.create(tmp_path / "blind", plan) as run, pytest.raises(UserError, match="no evaluate"):
        train(blind, run, plan, console=quiet)


def test_report_can_end_the_run(toy, tmp_path, quiet):
    config = toy.ToyConfig(schedule=schedule())
    outcome = toy.train_toy(tmp_path / "run", config, console=quiet, report=lambda row: row["step"] >= 50)
    assert outcome.status == "stopped" and outcome.step == 50
    assert checkpoint_steps(tmp_path / "run" / "checkpoints") == [50]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR2])
def test_a_signal_finishes_the_update_saves_and_can_be_resumed(toy, tmp_path, quiet, assert_same_bits, whole, number):
    def report(row):
        if row["step"] == 20:
            signal.raise_signal(number)

    config = toy.ToyConfig(schedule=schedule())
    outcome = toy.train_toy(tmp_path / "run", config, console=quiet, report=report)
    assert outcome.status == "preempted" and outcome.step == 20
    assert f"{signal.Signals(number).name} asked to stop: saved at step 20 of 80." in quiet.file.getvalue()
    resumed = toy.train_toy(tmp_path / "run", config, resume=True, console=quiet)
    assert_same_bits(whole[0].state, resumed.state)


def test_a_signal_in_the_last_iteration_is_heard_after_training(toy, tmp_path, quiet):
    def report(row):
        if row["step"] == 80:
            signal.raise_signal(signal.SIGTERM)

    with Preemption() as preemption:
        config = toy.ToyConfig(schedule=schedule())
        outcome = toy.train_toy(tmp_path / "run", config, console=quiet, report=report, preemption=preemption)
        assert outcome.status == "done" and preemption.requested == "SIGTERM"


def test_a_metric_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(toy, tmp_path, quiet):
    config = toy.ToyConfig(nan_at=3, schedule=schedule(checkpoint_seconds=0.0))
    with pytest.raises(
        NonFiniteError, match=r"step 40: loss is nan.*last good checkpoint is that of step 30"
    ) as caught:
        toy.train_toy(tmp_path / "run", config, console=quiet)
    assert caught.value.exit_code == 3
    assert checkpoint_steps(tmp_path / "run" / "checkpoints") == [20, 30]
    assert read_metrics(tmp_path / "run" / "metrics.csv")["step"][-1] == 30
    template = toy.toy_job(config).init()
    dump, meta = read_checkpoint(tmp_path / "run/crash/000000000040", jax.tree.map(jnp.asarray, template))
    assert int(dump.counters.iteration) == 4 and "loss is nan" in meta["not_finite"]


def test_a_state_that_is_not_finite_is_never_saved(tmp_path, quiet):
    def step(state):
        poisoned = jnp.where(state["n"] == 3, jnp.inf, state["w"])
        return {"n": state["n"] + 1, "w": poisoned, "best": state["best"]}, {"loss": 0.0 * state["n"]}

    def init():
        return {"n": jnp.zeros((), jnp.int32), "w": jnp.zeros(3), "best": jnp.asarray(-jnp.inf)}

    plan = schedule(total_steps=8, checkpoint_seconds=0.0)
    job = Job(init, step, 1, watch=lambda state: {"w": state["w"]})
    with RunFolder.create(tmp_path / "a", plan) as run, pytest.raises(NonFiniteError, match="step 4: w holds"):
        train(job, run, plan, console=quiet)
    assert checkpoint_steps(tmp_path / "a" / "checkpoints") == [2, 3]
    watching_all = dataclasses.replace(job, watch=lambda state: state)
    with RunFolder.create(tmp_path / "b", plan) as run, pytest.raises(NonFiniteError, match="step 0: best holds"):
        train(watching_all, run, plan, console=quiet)


def test_a_full_disk_stops_with_one_sentence_and_loses_nothing_else(toy, tmp_path, quiet, monkeypatch):
    config = toy.ToyConfig(schedule=schedule(checkpoint_seconds=0.0))
    calls = []

    def full(path):
        calls.append(path)
        if len(calls) > 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_module, "flush_tree_to_disk", full)
        with pytest.raises(CheckpointError, match="not saved: the disk is full") as caught:
            toy.train_toy(tmp_path / "run", config, console=quiet)
    assert caught.value.exit_code == 2
    assert checkpoint_steps(tmp_path / "run" / "checkpoints") == [20, 30]
    assert not list((tmp_path / "run" / "checkpoints").glob(".*"))
    resumed = toy.train_toy(tmp_path / "run", config, resume=True, console=quiet)
    assert resumed.status == "done"


@pytest.mark.usefixtures("no_room_for_tensorboard")
def test_a_disk_that_is_full_for_tensorboard_stops_with_one_sentence(toy, tmp_path, quiet, capsys):
    config = toy.ToyConfig(schedule=schedule(tensorboard=True))
    with pytest.raises(SystemExit) as caught, clean_errors():
        toy.train_toy(tmp_path / "run", config, console=quiet)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: the disk is full, {tmp_path}/run/tensorboard/events.") and error.count("\n") == 1


def test_a_damaged_checkpoint_falls_back_to_the_one_before(toy, tmp_path, quiet, assert_same_bits):
    config = toy.ToyConfig(schedule=schedule(checkpoint_seconds=0.0))
    whole = toy.train_toy(tmp_path / "run", config, console=quiet)
    (tmp_path / "run/checkpoints/000000000080/manifest.json").write_text("{")
    resumed = toy.train_toy(tmp_path / "run", config, resume=True, console=quiet)
    assert "Going back to step 70." in quiet.file.getvalue()
    assert_same_bits(whole.state, resumed.state)
    assert checkpoint_steps(tmp_path / "run" / "checkpoints") == [70, 80]


def test_a_step_that_changes_the_state_or_returns_arrays_is_told(tmp_path, quiet):
    plan = schedule(total_steps=3)
    grows = Job(lambda: {"x": jnp.zeros(2)}, lambda s: ({"x": jnp.zeros(3) + s["x"].sum()}, {}), 1, jit=False)
    with (
        RunFolder.create(tmp_path / "a", plan) as run,
        pytest.raises(UserError, match=r"x: expected float32\[2\], got float32\[3\]"),
    ):
        train(grows, run, plan, console=quiet)
    shaped = Job(lambda: {"x": jnp.zeros(2)}, lambda s: (s, {"loss": s["x"]}), 1)
    with RunFolder.create(tmp_path / "b", plan) as run, pytest.raises(UserError, match="metrics must be scalars"):
        train(shaped, run, plan, console=quiet)


def test_another_number_of_steps_per_iteration_is_refused(toy, tmp_path, quiet):
    config = toy.ToyConfig(schedule=schedule(total_steps=30))
    toy.train_toy(tmp_path / "run", config, console=quiet)
    job = dataclasses.replace(toy.toy_job(config), steps_per_iteration=20)
    with RunFolder.open(tmp_path / "run", config) as run, pytest.raises(UserError, match="steps per iteration"):
        train(job, run, schedule(), console=quiet)


def test_a_host_side_step_is_not_traced(tmp_path, quiet):
    seen = []

    def step(state):
        seen.append(int(state["n"]))
        return {"n": state["n"] + 1}, {"loss": np.float32(0.5)}

    plan = schedule(total_steps=3)
    with RunFolder.create(tmp_path / "run", plan) as run:
        train(Job(lambda: {"n": np.zeros((), np.int64)}, step, 1, jit=False), run, plan, console=quiet)
    assert seen == [0, 1, 2]


def test_impossible_schedules_and_jobs_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        Schedule(total_steps=0)
    with pytest.raises(ValueError, match="negative"):
        Schedule(checkpoint_seconds=-1.0)
    with pytest.raises(ValueError, match="steps_per_iteration is 0"):
        Job(dict, lambda s: (s, {}), 0)


def test_tensorboard_files_are_written(toy, tmp_path, quiet):
    config = toy.ToyConfig(schedule=schedule(total_steps=20, tensorboard=True))
    toy.train_toy(tmp_path / "run", config, console=quiet)
    assert len(list((tmp_path / "run" / "tensorboard").glob("events.*"))) == 1


RATES = (0.5, 0.9, 1.1)


def sweeping(diverge_at=(), metric_too=True):
    """Three runs that differ in a rate; run `number` of `diverge_at` is NaN after so many iterations."""
    at = jnp.array([dict(diverge_at).get(number, -1) for number in range(3)])

    def step(state):
        n = state["n"] + 1
        x = jnp.where(n == at, jnp.nan, state["x"] * jnp.array(RATES))
        loss = x if metric_too else jnp.nan_to_num(x)
        return {"x": x, "n": n}, {"loss": loss, "even": n % 2 == 0, "same": jnp.ones(())}

    return Job(
        init=lambda: {"x": jnp.ones(3), "n": jnp.zeros(3, jnp.int32)},
        step=step,
        steps_per_iteration=1,
        evaluate=lambda state: {"far": np.asarray(state["x"]) * 10},
        watch=lambda state: {"x": state["x"]},
        runs=("a", "b", "c"),
    )


def sweep(path, console, job, steps=4, resume=False, **options):
    plan = schedule(total_steps=steps, eval_every=2, checkpoint_seconds=0.0)
    with RunFolder.start(path, plan, resume) as run:
        return train(job, run, plan, console=console, show=("loss",), **options)


def test_a_sweep_logs_means_and_each_run_in_a_table_of_its_own(tmp_path, quiet):
    outcome = sweep(tmp_path / "run", quiet, sweeping())
    powers = np.array(RATES, np.float32)[None] ** np.arange(1, 5)[:, None]  # [steps, runs]
    means, each = (read_metrics(tmp_path / "run" / name) for name in ("metrics.csv", "sweep.csv"))
    np.testing.assert_allclose(means["loss"], powers.mean(axis=1), rtol=1e-6)
    assert means["even"].tolist() == [0, 1, 0, 1] and means["same"].tolist() == [1] * 4
    assert each["step"].tolist() == np.repeat([1, 2, 3, 4], 3).tolist() and each["number"].tolist() == [0, 1, 2] * 4
    np.testing.assert_allclose(each["loss"].reshape(4, 3), powers, rtol=1e-6)
    np.testing.assert_allclose(each["eval/far"].reshape(4, 3)[1::2], 10 * powers[1::2], rtol=1e-6)
    assert np.isnan(each["eval/far"].reshape(4, 3)[::2]).all()
    assert outcome.metrics["loss"] == np.float32(means["loss"][-1]) and outcome.diverged == {}


@pytest.mark.parametrize("metric_too", [True, False])
def test_a_run_that_diverges_is_named_once_and_the_others_go_on(tmp_path, quiet, metric_too):
    """Whether it shows in a metric or, when it is saved, in the state alone."""
    outcome = sweep(tmp_path / "run", quiet, sweeping({1: 2}.items(), metric_too))
    assert outcome.status == "done" and outcome.diverged == {1: 2}
    told = quiet.file.getvalue()
    why = "loss is nan" if metric_too else "x holds a value that is not finite"
    assert told.count("diverged") == 1 and f"b diverged at step 2: {why}; the other runs go on" in told
    means, each = (read_metrics(tmp_path / "run" / name)["loss"] for name in ("metrics.csv", "sweep.csv"))
    assert means[-1] == pytest.approx((0.5**4 + 1.1**4) / 2)
    first = 1 if metric_too else 2  # rows without it
    assert np.isnan(each.reshape(4, 3)[first:, 1]).all() and np.isfinite(np.delete(each.reshape(4, 3), 1, axis=1)).all()


def test_a_sweep_stops_where_all_runs_have_diverged(tmp_path, quiet):
    with pytest.raises(NonFiniteError, match="stopped at step 3: all 3 runs have diverged; b: loss is nan"):
        sweep(tmp_path / "run", quiet, sweeping({0: 2, 1: 3, 2: 1}.items()))
    assert checkpoint_steps(tmp_path / "run" / "checkpoints")[-1] == 2
    assert (tmp_path / "run" / "crash" / f"{3:012d}").exists()


def test_a_sweep_that_is_resumed_equals_one_that_was_not_stopped(tmp_path, quiet, assert_same_bits):
    job = sweeping({2: 2}.items())
    whole = sweep(tmp_path / "whole", quiet, job, steps=6)
    with pytest.raises(Crash):
        sweep(tmp_path / "parts", quiet, job, steps=6, report=crash_at(5))
    parts = sweep(tmp_path / "parts", quiet, job, steps=6, resume=True)
    assert_same_bits(whole.state, parts.state)
    assert whole.diverged == parts.diverged == {2: 2}
    for name in ("metrics.csv", "sweep.csv"):
        assert table_without_clock(tmp_path / "whole" / name) == table_without_clock(tmp_path / "parts" / name)


def test_metrics_of_a_sweep_have_a_number_for_each_run(tmp_path, quiet):
    job = sweeping()
    wrong = dataclasses.replace(job, step=lambda state: (state, {"loss": jnp.zeros((3, 2))}))
    with pytest.raises(UserError, match="metrics must have a number for each of 3 runs"):
        sweep(tmp_path / "run", quiet, wrong)
