"""The host loop: compiled iterations, and between them rows, evaluations, checkpoints and requests to stop.

The loop knows nothing of what is trained. All that decides the future is in the state, so a run that is killed and
resumed equals one that was not, bit for bit on the same machine.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, Literal

import jax
import numpy as np
from rich.console import Console

from mjx_policies.errors import NonFiniteError, UserError
from mjx_policies.files import naming
from mjx_policies.training.checkpoint import PyTree, write_checkpoint
from mjx_policies.training.checkpoints import Checkpoints, Restored, checkpoint_steps
from mjx_policies.training.clock import Clock
from mjx_policies.training.hosts import any_host, is_first_host
from mjx_policies.training.job import Job, Outcome, Schedule, State
from mjx_policies.training.metrics import MetricsCsv, Number, TensorBoard, read_table
from mjx_policies.training.preemption import Preemption
from mjx_policies.training.progress import ProgressReport, duration
from mjx_policies.training.run_folder import RunFolder
from mjx_policies.training.trees import describe, mismatches, not_finite, not_finite_runs, own_buffers, strong

__all__ = ["Job", "Outcome", "Schedule", "train"]

MAX_SAVING = 0.05  # part of the time that checkpoints by the clock may take


def train(
    job: Job[State],
    run: RunFolder,
    schedule: Schedule,
    *,
    show: Sequence[str] = ("reward",),
    report: Callable[[dict[str, Number]], bool | None] | None = None,
    console: Console | None = None,
    preemption: Preemption | None = None,
) -> Outcome[State]:
    """Trains until `schedule.total_steps`, a signal, or `report`; a resumed run continues from its checkpoint.

    SIGTERM, SIGINT and SIGUSR2 finish the iteration, save, and return with status `preempted`.

    A sweep logs the means over its runs, and each run's own values to `sweep.csv`. A run of it that holds a value that
    is not finite has diverged: from there on its values count as NaN, and the others go on.

    Args:
      job: what is trained.
      run: the folder: of `RunFolder.create` for a new run, of `RunFolder.open` to continue.
      schedule: when to log, evaluate and save.
      show: full names of metrics beside the progress bar.
      report: called with every logged row; true ends the run.
      console: where progress goes; standard output by default.
      preemption: an open one, of a caller who wants to hear of signals after training as well; by default its own.

    Raises:
      NonFiniteError: a metric or the watched state is not finite, of a sweep those of every run. The state is kept in
        `crash/`, and the last good checkpoint stays the newest.
      UserError: the disk is full, a checkpoint is not usable, or the step changes the structure of the state.

    Example:
      >>> import tempfile, jax.numpy as jnp
      >>> job = Job(
      ...     init=lambda: {"x": jnp.asarray(8.0)},
      ...     step=lambda state: ({"x": state["x"] / 2}, {"loss": state["x"]}),
      ...     steps_per_iteration=1,
      ... )
      >>> schedule = Schedule(total_steps=3, tensorboard=False)
      >>> with tempfile.TemporaryDirectory() as folder, RunFolder.start(folder, schedule, resume=False) as run:
      ...     outcome = train(job, run, schedule, console=Console(quiet=True))
      >>> outcome.status, float(outcome.state["x"])
      ('done', 1.0)
    """
    last = -(-schedule.total_steps // job.steps_per_iteration)
    console = console if is_first_host() else Console(quiet=True)
    with contextlib.ExitStack() as stack:
        preemption = preemption or stack.enter_context(Preemption())
        progress = stack.enter_context(ProgressReport(last * job.steps_per_iteration, show, console))
        if run.changes:
            progress.say(f"not made as before ({'; '.join(run.changes)}): from here on its last bits may differ")
        session = _Session(job, run, schedule, progress)
        stack.callback(session.close)
        session.start()
        status: Literal["done", "preempted", "stopped"] = "done"
        while session.iteration < last and status == "done":
            metrics = session.iterate()
            evaluates = job.evaluate is not None and _due(session.iteration, schedule.eval_every)
            score = None
            if evaluates or _due(session.iteration, schedule.log_every) or session.iteration == last:
                row = session.log(metrics, evaluates)
                score = session.score() if evaluates else None
                if report is not None and report(row):
                    status = "stopped"
            preempted, saves = any_host(preemption.requested is not None, session.wants_saving(score))
            if preempted and session.iteration < last:
                status = "preempted"
            if saves or status != "done" or session.iteration == last:
                session.require_finite(metrics)
                session.save(score)
        if status == "preempted":
            progress.say(
                f"{preemption.requested or 'a signal elsewhere'} asked to stop: saved at step {session.step} of "
                f"{schedule.total_steps}."
            )
        seconds = dict(session.clock.seconds)
        return Outcome(status, session.state, session.step, session.row, seconds, session.diverged)


class _Session(Generic[State]):
    """The state of the loop between iterations, and the few things it does with it."""

    def __init__(self, job: Job[State], run: RunFolder, schedule: Schedule, progress: ProgressReport):
        self.job, self.run, self.schedule, self.progress = job, run, schedule, progress
        self.clock = Clock()
        self.checkpoints = Checkpoints(run.path / "checkpoints", schedule.keep)
        self.writers: list[MetricsCsv | TensorBoard] = []
        self.sweep: MetricsCsv | None = None
        self.diverged: dict[int, int] = {}
        self.iteration = 0
        self.row: dict[str, Number] = {}
        self._best = -math.inf
        self._step = job.step
        if job.jit:
            options = dict(job.compiler_options) or None
            self._step = jax.jit(_strongly_typed(job.step), donate_argnums=0, compiler_options=options)
        self._compiled = False

    @property
    def step(self) -> int:
        """The environment steps so far."""
        return self.iteration * self.job.steps_per_iteration

    def start(self) -> None:
        """Builds the state, or takes it from the newest checkpoint."""
        if self.schedule.keep_best and self.job.evaluate is None:
            raise UserError("keep_best compares evaluations, and this job has no evaluate.")
        self.progress.phase("building the initial state")
        with self.clock("start"):
            state = self.job.init()
            self.state: State = own_buffers(state) if self.job.jit else state
            self._kinds = describe(self.state)
            restored = self.checkpoints.restore(self.state, self.progress.say) if self.run.resumed else None
            if restored is not None:
                self._continue_from(restored)
                self.progress.say(f"resumed at step {self.step} of {self.schedule.total_steps}")
            elif self.run.resumed and is_first_host():
                self._begin_again()
            resume_at = self.step if self.run.resumed else None
            if is_first_host():
                self.writers.append(MetricsCsv(self.run.path / "metrics.csv", resume_at))
            if is_first_host() and self.schedule.tensorboard:
                self.writers.append(TensorBoard(self.run.path / "tensorboard", resume_at))
            if is_first_host() and self.job.runs:
                self.sweep = MetricsCsv(self.run.path / "sweep.csv", resume_at)
        self.require_finite({})
        self._mark()
        self._save_after(0.0)

    def _continue_from(self, restored: Restored) -> None:
        self.state, self.iteration = restored.state, restored.meta.get("iteration", -1)
        if self.step != restored.step:
            raise UserError(
                f"the checkpoint of step {restored.step} was made after {self.iteration} iterations, which does not "
                f"fit {self.job.steps_per_iteration} steps per iteration. Use the configuration that it was made with."
            )
        self._best = -math.inf if restored.meta["best"] is None else restored.meta["best"]
        for activity, seconds in restored.meta["seconds"].items():
            self.clock.seconds[activity] += seconds
        self.diverged = {int(number): step for number, step in restored.meta.get("diverged", {}).items()}

    def _begin_again(self) -> None:
        """Says that a run to be resumed has no checkpoint, and keeps the rows that it wrote under another name."""
        kept = ""
        for table in (self.run.path / name for name in ("sweep.csv", "metrics.csv")):
            if table.exists() and (rows := read_table(table)[1]):
                names = (table.with_name(f"{table.stem}-{number}.csv") for number in itertools.count(1))
                aside = table.rename(next(name for name in names if not name.exists()))
                kept = f"; its rows up to step {rows[-1][0]} are kept in {aside}"
        self.progress.say(f"{self.run.path} holds no checkpoint yet, so the run begins again at step 0{kept}")

    def iterate(self) -> Mapping[str, jax.Array]:
        """One iteration; the first one compiles, and is waited for so that the time can be told apart."""
        self.progress.phase("training" if self._compiled else "compiling")
        before = self.clock.seconds["compile"]
        with self.clock("train" if self._compiled else "compile"):
            self.state, metrics = self._step(self.state)
            self.iteration += 1
            if not self._compiled:
                jax.block_until_ready((self.state, metrics))
        if not self._compiled:
            self._compiled = True
            self.progress.say(f"compiled in {duration(self.clock.seconds['compile'] - before)}")
            _require_same_structure(self._kinds, self.state, metrics, len(self.job.runs))
            self._mark()
        return metrics

    def log(self, metrics: Mapping[str, jax.Array], evaluates: bool) -> dict[str, Number]:
        """Fetches the metrics, evaluates if it is time, and writes a row."""
        with self.clock("train"):
            values = _to_numbers(metrics)
        self.require_finite(values, state_too=False)
        speed = self._mark()
        if evaluates and self.job.evaluate is not None:
            self.progress.phase("evaluating")
            with self.clock("evaluate"):
                found = _to_numbers(self.job.evaluate(self.state))
            values |= {f"eval/{name}": value for name, value in found.items()}
            if self.schedule.keep_best and self.schedule.keep_best not in values:
                known = ", ".join(sorted(values))
                raise UserError(
                    f"keep_best is {self.schedule.keep_best!r}, which is no metric here; there are {known}."
                )
        if self.job.runs:
            values = self._log_runs(values)
        times = {"step": self.step, "seconds": round(self.clock.total, 3), "steps_per_second": round(speed, 1)}
        self.row = {**times, **values}
        for writer in self.writers:
            with naming(writer.path):
                writer.write(self.row)
        self.progress.update(self.step, speed, self.row)
        return self.row

    def _log_runs(self, values: Mapping[str, Any]) -> dict[str, Number]:
        """Writes a row for each run of a sweep; the means over those that have not diverged."""
        count = len(self.job.runs)
        values = {name: np.array(np.broadcast_to(value, count)) for name, value in values.items()}
        for value in values.values():
            if np.issubdtype(value.dtype, np.inexact):
                value[list(self.diverged)] = np.nan
        if self.sweep is not None:
            with naming(self.sweep.path):
                self.sweep.write(
                    *(
                        {"step": self.step, "number": number} | {name: value[number] for name, value in values.items()}
                        for number in range(count)
                    )
                )
        there = np.array([number not in self.diverged for number in range(count)])
        return {name: _mean(value[there]) for name, value in values.items()}

    def score(self) -> float | None:
        """The score that `keep_best` compares, if the last row has a finite one."""
        value = float(self.row.get(self.schedule.keep_best, math.nan))
        return value if math.isfinite(value) else None

    def wants_saving(self, score: float | None) -> bool:
        """Whether the clock or a new best score asks for a checkpoint."""
        return time.monotonic() >= self._next_save or (score is not None and score > self._best)

    def save(self, score: float | None) -> None:
        """Saves the state, rows first: a checkpoint never knows more than the table."""
        before = self.clock.seconds["checkpoint"]
        with self.clock("checkpoint"):
            for writer in (*self.writers, *([self.sweep] if self.sweep else [])):
                with naming(writer.path):
                    writer.sync()
            if score is not None:
                self._best = max(self._best, score)
            best = self._best if math.isfinite(self._best) else None
            meta = {"iteration": self.iteration, "best": best, "seconds": self.clock.seconds}
            meta |= {"diverged": {str(number): step for number, step in self.diverged.items()}} if self.job.runs else {}
            self.checkpoints.save(self.step, self.state, meta, score)
        self._save_after(self.clock.seconds["checkpoint"] - before)

    def require_finite(self, metrics: Mapping[str, jax.Array | Number], state_too: bool = True) -> None:
        """Stops the run, with a dump, at a value that is not finite; a sweep where that is so of every run."""
        checked = {name: np.asarray(value) for name, value in metrics.items() if name not in self.job.may_be_nan}
        if self.job.runs:
            bad = self._diverging(checked, state_too)
        else:
            bad = [f"{name} is {float(value)}" for name, value in checked.items() if not np.isfinite(value)]
            if not bad and state_too:
                bad = [f"{name} holds a value that is not finite" for name in not_finite(self.job.watch(self.state))]
        if not bad:
            return
        dump = self.run.path / "crash" / f"{self.step:012d}"
        write_checkpoint(dump, self.state, {"iteration": self.iteration, "not_finite": bad})
        steps = checkpoint_steps(self.checkpoints.folder)
        good = f"The last good checkpoint is that of step {steps[-1]}." if steps else "There is no checkpoint yet."
        raise NonFiniteError(
            f"stopped at step {self.step}: {'; '.join(bad[:3])}. {good} The state is in {dump}. A resumed run takes "
            "the same path again: start a new one with a lower learning rate or a tighter gradient clip."
        )

    def _diverging(self, metrics: Mapping[str, np.ndarray], state_too: bool) -> list[str]:
        """Names each run of a sweep that diverges, once; why it has to stop if none is left."""
        count, found = len(self.job.runs), dict[int, str]()
        for name, value in metrics.items():
            value = np.broadcast_to(value, count)
            found = {int(n): f"{name} is {value[n]}" for n in np.flatnonzero(~np.isfinite(value))} | found
        if state_too:
            held = not_finite_runs(self.job.watch(self.state))
            found = {n: f"{name} holds a value that is not finite" for n, name in held.items()} | found
        new = {number: found[number] for number in sorted(found) if number not in self.diverged}
        self.diverged |= dict.fromkeys(new, self.step)
        if len(self.diverged) == count:
            return [f"all {count} runs have diverged", *(f"{self.job.runs[n]}: {why}" for n, why in new.items())]
        for number, why in new.items():
            self.progress.say(f"{self.job.runs[number]} diverged at step {self.step}: {why}; the other runs go on")
        return []

    def close(self) -> None:
        """Closes the tables."""
        for writer in (*self.writers, *([self.sweep] if self.sweep else [])):
            with contextlib.suppress(OSError):  # what counts was put on the disk by `save`, which would have said so
                writer.close()

    def _mark(self) -> float:
        """Steps per second of training since the last call; NaN if there were none."""
        iteration, seconds = self.iteration, self.clock.seconds["train"]
        before, self._marked = getattr(self, "_marked", (iteration, seconds)), (iteration, seconds)
        steps = (iteration - before[0]) * self.job.steps_per_iteration
        return steps / (seconds - before[1]) if steps and seconds > before[1] else math.nan

    def _save_after(self, seconds: float) -> None:
        """Sets the time of the next checkpoint, given how long the last one took."""
        pause = self.schedule.checkpoint_seconds
        self._next_save = time.monotonic() + (max(pause, seconds / MAX_SAVING) if pause else 0.0)


def _due(iteration: int, every: int) -> bool:
    return every > 0 and iteration % every == 0


def _strongly_typed(step: Callable) -> Callable:
    def strongly_typed(state: PyTree) -> tuple[PyTree, Mapping[str, jax.Array]]:
        state, metrics = step(state)
        return jax.tree.map(strong, state), metrics

    return strongly_typed


def _to_numbers(metrics: Mapping[str, jax.Array | Number]) -> dict[str, Any]:
    """Metrics as NumPy scalars, which keep their dtype and so their shortest digits; flags become 0 or 1."""
    arrays = {name: np.asarray(value) for name, value in jax.device_get(dict(metrics)).items()}
    return {name: (array.astype(int) if array.dtype == bool else array)[()] for name, array in arrays.items()}


def _mean(values: np.ndarray) -> Number:  # [N] -> []
    """The mean of what is measured, of the same type where that has fractions."""
    values = values[~np.isnan(values)]
    mean = values.mean(dtype=float) if len(values) else math.nan
    return values.dtype.type(mean) if np.issubdtype(values.dtype, np.inexact) else mean


def _require_same_structure(
    kinds: Mapping[str, str], state: PyTree, metrics: Mapping[str, jax.Array], runs: int = 0
) -> None:
    changed = mismatches(kinds, describe(state))
    if changed:
        raise UserError(f"the step changes the structure of the state: {'; '.join(changed[:5])}.")
    shapes = ((), (runs,)) if runs else ((),)
    shaped = {name: np.shape(value) for name, value in metrics.items() if np.shape(value) not in shapes}
    if shaped:
        wanted = f"have a number for each of {runs} runs" if runs else "be scalars"
        raise UserError(f"metrics must {wanted}, but these have shapes: {shaped}. Take their mean in the step.")
