"""Compares action heads on the same demonstrations: python experiments/compare_heads.py

Each head is trained from several seeds in one program and evaluated on Obstacle2D: success, mode coverage, time of
training and sampling, with 95 % intervals over seeds. The run folder ends with heads.md, heads.json, heads.png (paths),
the demonstrations and a run folder of each head, whose policies evaluate.py, play.py and export_onnx.py take by their
--number; with --sweep chunk they are in a folder for each tremor.

    python experiments/compare_heads.py --sweep steps     # success and latency by the steps of a sampler
    python experiments/compare_heads.py --sweep chunk     # success by the actions executed of a chunk, and by tremor
    python experiments/compare_heads.py --task FrankaPickCube    # of an arm: larger networks, one seed, 500 episodes
"""

from __future__ import annotations

from mjx_policies.experiments import _early  # noqa: F401 # isort: skip

import collections
import contextlib
import dataclasses
import functools
import io
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import tyro
from rich.box import MARKDOWN, SIMPLE_HEAD, Box
from rich.console import Console
from rich.table import Table

from mjx_policies.agents.bc import BCHyper
from mjx_policies.agents.sweep import member
from mjx_policies.envs.control.obstacle2d import Obstacle2D
from mjx_policies.envs.mocap import mocap_id
from mjx_policies.envs.physics import resolve_backend
from mjx_policies.envs.registry import load
from mjx_policies.errors import UserError, disk_is_full
from mjx_policies.evaluation.mode_coverage import success_and_coverage
from mjx_policies.evaluation.report import as_json, from_json
from mjx_policies.evaluation.results import EvaluationResults
from mjx_policies.evaluation.statistics import Estimate, mean
from mjx_policies.experiments.head_pictures import draw_estimates, draw_paths
from mjx_policies.experiments.runs import bc
from mjx_policies.experiments.runs.bc import BCRun, with_head_defaults
from mjx_policies.experiments.runs.bc_recipe import DISPLAY, assemble, check
from mjx_policies.experiments.runs.demonstrations import open_demonstrations
from mjx_policies.experiments.runs.evaluation import BATCH, EVALUATION_SEED, make_evaluator, time_policy
from mjx_policies.experiments.runs.grid import members
from mjx_policies.files import read_json, write_atomic, write_json
from mjx_policies.heads.registry import HEAD_DEFAULTS, HEADS, STEPPED, HeadName, read_fitted
from mjx_policies.randomization.conditions import Condition
from mjx_policies.spec import table_slices
from mjx_policies.training.command_line import parse, read_flag
from mjx_policies.training.config import at_least, may_change, none_twice, to_json
from mjx_policies.training.loop import Schedule, train
from mjx_policies.training.metrics import read_metrics
from mjx_policies.training.preemption import Preempted, Preemption
from mjx_policies.training.progress import LiteralConsole, duration, open_console
from mjx_policies.training.run_folder import RunFolder, provenance, read_config
from mjx_policies.training.script import clean_errors
from mjx_policies.training.waiting import working
from mjx_policies.types import PyTree

CHUNKS = (1, 4, 8, 16)
SAMPLER_STEPS = (1, 2, 5, 10, 16)
ENSEMBLE = 0.01  # decay of the weights, Zhao et al. 2023 (arXiv:2304.13705)
DRAWN = 60  # demonstrations, in each panel
CALLS = 100  # of a policy, timed
FIGURES = {
    "success": "success %",
    "lost": "lost %",
    "coverage": "coverage %",
    "both": "both modes",
    "training_seconds": "train s",
    "sampling_ms": "chunk ms",
}
"""Those in the table, and their titles there."""


@dataclasses.dataclass(frozen=True)
class HeadBenchmark(BCRun):
    """Trains every head on the same demonstrations, as `bc_pretrain.py` would, and compares them."""

    KIND: ClassVar[str] = "heads"

    heads: tuple[HeadName, ...] = may_change(())  # heads to compare; empty: all, or those that suit --sweep
    sweep: Literal["steps", "chunk"] | None = None  # steps of the sampler, or actions executed of a chunk
    initial_states: int = may_change(16)  # initial states of the evaluation, the same for all heads
    repeats: int = may_change(8)  # episodes from each initial state
    tremor: tuple[float, ...] = (0.0, 2.0)  # factors on the demonstrator's tremor in --sweep chunk; else 1
    slow_steps: int = 1_200  # gradient steps of act and fast, whose steps take longer
    task: str = "Obstacle2D"
    seeds: int = 10  # policies of each head, trained side by side
    hidden_size: int = 128  # width of hidden layers
    horizon: int = 16  # actions in a chunk; at most 2 for energy, 8 for fast, 1 for bins that are sampled
    n_obs_steps: int = 1  # observations that a policy sees
    sample_actions: bool = True  # sample also where a head knows its most likely chunk: that is one mode of several
    # observation terms left out: with the velocity a policy learns to stay wherever it stands; None: last_action, the
    # default for an arm
    exclude_terms: tuple[str, ...] | None = ("velocity",)
    steps: int = 2_000  # gradient steps
    batch_size: int = 64  # windows in a gradient step
    validation: float = 0.0  # share of the episodes held out
    episodes: int = 300  # demonstrations to learn from, the same for all heads
    # the weight decay of mixture and bins is a third of this, the observation dropout of act at least 0.5
    hyper: BCHyper = dataclasses.field(default_factory=lambda: BCHyper(learning_rate=3e-3, warmup_steps=100.0))
    head: tyro.conf.Suppress[HeadName] = "flow"  # this and what follows is of a run alone
    evaluations: tyro.conf.Suppress[int] = 1
    interim_episodes: tyro.conf.Suppress[int] = 64
    eval_episodes: tyro.conf.Suppress[int] = 256
    init_from: tyro.conf.Suppress[str] = ""
    grid: tyro.conf.Suppress[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, initial_states=1, repeats=1, slow_steps=1)
        none_twice(self, "heads", "tremor")
        if self.sweep == "chunk" and (self.inference_delay or self.real_time or self.ensemble is not None):
            raise ValueError(
                "the sweep of chunks has lengths and ensembles of its own: leave out "
                "inference_delay, real_time, ensemble"
            )
        if self.repeats < 2 and self.task == "Obstacle2D":
            raise ValueError("repeats is 1: whether a policy covers both modes shows in several episodes of one state")
        for head in self.heads:
            if self.sweep == "steps" and head not in STEPPED:
                raise ValueError(f"{head} does not sample in steps; {', '.join(STEPPED)} do")
            if self.sweep == "chunk" and self.run(head).horizon < self.horizon:
                raise ValueError(f"{head} has shorter chunks than the other heads, so leave it out of this sweep")
        if any(not 0 <= tremor <= 10 for tremor in self.tremor) or not self.tremor:
            raise ValueError("tremor must hold at least one number, each from 0 to 10")

    @property
    def compared(self) -> tuple[str, ...]:
        """The names of the heads that are compared."""
        return self.heads or {None: HEADS, "steps": tuple(STEPPED), "chunk": ("mse", "act", "mixture")}[self.sweep]

    def variants(self, run: BCRun) -> dict[str, tuple[BCRun, int | None]]:
        """The settings, and the steps of the sampler, with which the policies of a run are evaluated, by name."""
        if self.sweep == "steps":
            return {f"steps {steps}": (run, steps) for steps in SAMPLER_STEPS}
        if self.sweep == "chunk":
            lengths = [length for length in CHUNKS if length <= run.horizon]
            executed = {
                f"executed {length}": (dataclasses.replace(run, n_action_steps=length), None) for length in lengths
            }
            return executed | {"ensemble": (dataclasses.replace(run, ensemble=ENSEMBLE), None)}
        return {"": (run, None)}

    def folder(self, tremor: float = 1.0) -> Path:
        """The folder of demonstrations and heads, of a demonstrator with so many times its own tremor."""
        return Path(self.run_dir) if tremor == 1 else Path(self.run_dir, f"tremor-{tremor:g}")

    def run(self, head: str, tremor: float = 1.0) -> BCRun:
        """The policies of one head, with its own folder inside the one of the benchmark."""
        steps = self.slow_steps if HEAD_DEFAULTS[head].slow else self.steps
        folder = self.folder(tremor)
        warmup = dataclasses.replace(self.hyper, warmup_steps=self.hyper.warmup_steps * steps / self.steps)
        shared = {field.name: getattr(self, field.name) for field in dataclasses.fields(BCRun)}
        own = {"steps": steps, "hyper": warmup, "run_dir": str(folder / head)}
        return with_head_defaults(
            BCRun(**{**shared, **own, "demos": self.demos or str(folder / "demonstrations")}), head
        )


ARM = {
    "seeds": 1,
    "initial_states": 500,
    "repeats": 1,
    "slow_steps": 2_000,
    "hidden_size": 512,
    "n_obs_steps": 2,
    "sample_actions": False,
    "exclude_terms": None,
    "batch_size": 128,
    "episodes": 200,
    "hyper": BCHyper(learning_rate=1e-3, weight_decay=3.0, warmup_steps=100.0),  # see runs/bc.py
}
"""Defaults for the tasks of an arm, which have one good answer and want precision."""


def main(asked: HeadBenchmark) -> None:
    """Compares, prints, writes and draws; a signal or a head that fails leaves the results of the others."""
    console, preemption, began = open_console(), Preemption(), time.perf_counter()
    path = asked.run_dir or f"runs/heads-{asked.task}-{datetime.now():%Y%m%d-%H%M%S}"
    with clean_errors(ValueError), working(console, "building the task and checking what it needs"):
        asked = dataclasses.replace(asked, run_dir=path, backend=resolve_backend(asked.backend))
        comparison = HeadComparison(asked, console, preemption)
    # No `with`, which would delete the folder after an early error, and with it the runs inside.
    with contextlib.closing(RunFolder.start(path, asked, asked.resume)), preemption:
        try:
            comparison.run()
        except Preempted:
            console.print(f"What was learned is saved: go on with --resume --run-dir {path}", highlight=False)
            raise
        finally:
            if comparison.rows:
                comparison.show(console, SIMPLE_HEAD)
                with working(console, "drawing"):
                    comparison.draw()
    console.print(f"{duration(time.perf_counter() - began)} in all; run folder: {path}", highlight=False)
    if comparison.failed:
        raise UserError("; ".join(f"{name} failed: {why}" for name, why in comparison.failed.items()))


class HeadComparison:
    """The heads of a benchmark, trained and evaluated one after the other.

    Args:
      asked: what is to be compared.
      console: where progress and results go.
      preemption: of the process.

    Raises:
      ValueError: the task or one of the heads cannot be trained as asked.
    """

    def __init__(self, asked: HeadBenchmark, console: Console, preemption: Preemption):
        self.asked, self.console, self.preemption = asked, console, preemption
        self.batch = asked.repeats * min(BATCH, asked.initial_states)
        self.task = load(asked.task, asked.backend, self.batch, asked.actions)
        for head in asked.compared:
            check(dataclasses.replace(asked.run(head), demos=asked.demos), self.task)
        self.rows: dict[str, dict[str, Estimate]] = {}
        self.panels: dict[str, dict[str, dict[str, Estimate]]] = {}  # see `draw_estimates`
        self.evaluations: dict[str, list[EvaluationResults]] = {}
        self.failed: dict[str, str] = {}
        self.diverged: dict[str, int] = {}  # policies of a head, which are left out
        self.earlier = self.read() if asked.resume else {}

    def run(self) -> None:
        """Trains and evaluates every head; `Preempted` ends it."""
        varied = self.asked.sweep == "chunk" and not self.asked.demos
        for tremor in self.asked.tremor if varied else (1.0,):
            runs = [self.asked.run(head, tremor) for head in self.asked.compared]
            folder, first = self.asked.folder(tremor), dataclasses.replace(runs[0], demos=self.asked.demos)
            folder.mkdir(exist_ok=True)
            with working(self.console, "reading demonstrations"):
                self.store = open_demonstrations(first, self.task, folder, self.preemption, self.console, tremor)
            for run in runs:
                try:
                    self.compare(run, tremor)
                except Preempted:
                    raise
                except Exception as error:  # whatever it is, the other heads are worth having
                    if disk_is_full(error):
                        raise
                    if not isinstance(error, UserError):
                        self.console.print_exception()
                    self.failed[run.head] = str(error)

    def compare(self, run: BCRun, tremor: float) -> None:
        """Trains one head, evaluates it in each variant, and writes the results so far."""
        params, seconds = self.train(run)
        if not params:
            raise UserError("all policies diverged: lower --hyper.learning-rate")
        for variant, (changed, num_steps) in self.asked.variants(run).items():
            found, sampling = self.evaluate(changed, params, num_steps)
            row = success_and_coverage(found, self.asked.repeats)
            row |= {"training_seconds": mean([seconds]), "sampling_ms": mean([1000 * sampling])}
            demonstrator = f"tremor {tremor:g}" if self.asked.sweep == "chunk" and not self.asked.demos else ""
            name = ", ".join(filter(None, (run.head, demonstrator, variant)))
            self.rows[name] = row
            if self.asked.sweep is None:
                self.evaluations[name] = found
            for figure in ("success", "sampling_ms") if self.asked.sweep == "steps" else ("success",):
                panel = self.panels.setdefault(f"{FIGURES[figure]} {demonstrator}".strip(), {})
                line, x = (run.head, variant.split()[-1]) if variant else ("", run.head)
                panel.setdefault(line, {})[x] = row[figure]
            self.write()

    def train(self, run: BCRun) -> tuple[dict[int, PyTree], float]:
        """Trains the policies of one head in their run folder, or goes on there.

        Returns:
          The parameters of each policy that did not diverge, by its number, and s that training took all of them
          together, without compilation.
        """
        path, names = Path(run.run_dir), [each.name for each in members(run)] if run.seeds > 1 else []
        console, preemption, resume = self.console, self.preemption, (path / "config.json").exists()
        console.print(f"{run.head}: {path}", highlight=False)
        if resume:  # the folder of the demonstrations may have been moved with this one, or be spelled otherwise
            run = dataclasses.replace(run, demos=read_config(path, BCRun).demos)
        with (
            RunFolder.start(path, run, resume) as folder,
            assemble(run, self.task, folder, console, preemption, self.store) as parts,
        ):
            job = dataclasses.replace(parts.job, runs=names)
            schedule = Schedule(parts.total_steps, checkpoint_seconds=run.checkpoint_seconds, tensorboard=False)
            outcome = train(job, folder, schedule, show=DISPLAY.progress, console=console, preemption=preemption)
        preemption.check()
        speeds = read_metrics(path / "metrics.csv")["steps_per_second"]  # none of what each process began with,
        timed = np.isfinite(speeds).mean()  # which is in the time of compilation
        seconds = outcome.seconds["train"] / timed if timed else outcome.seconds["compile"]
        learner = outcome.state.learner
        params = {s: parts.params(member(learner, s) if names else learner) for s in range(run.seeds)}
        if outcome.diverged:
            self.diverged[run.head] = len(outcome.diverged)
        return {s: each for s, each in params.items() if s not in outcome.diverged}, seconds

    def evaluate(
        self, run: BCRun, params: Mapping[int, PyTree], num_steps: int | None
    ) -> tuple[list[EvaluationResults], float]:
        """The policies of one head in the same episodes as those of the others, and s that a chunk takes."""
        spec, episodes = self.task.spec, self.asked.initial_states * self.asked.repeats
        fitted = read_fitted(run.head, (run.horizon, spec.action.size), Path(run.run_dir))
        network = bc.make_actor(run, spec, bc.blank_scales(run, spec), fitted, num_steps)
        evaluate = make_evaluator(
            self.task,
            functools.partial(bc.make_policy, run, spec, network),
            {"nominal": Condition("", run.randomization)},
            self.batch,
            repeats=self.asked.repeats,
            recorded=episodes if isinstance(self.task, Obstacle2D) else 0,
        )
        found = []
        with working(self.console, f"{run.head}: compiling the evaluation") as say:
            for number, each in params.items():

                def report(name: str, done: int, who: str = f"{run.head}, seed {run.seed + number}") -> None:
                    self.preemption.check()
                    say(f"evaluating {who}: {done:,} of {episodes:,} episodes")

                found.append(evaluate(each, episodes, report=report, seed=EVALUATION_SEED + number)["nominal"])
            every_step = dataclasses.replace(run, n_action_steps=1, ensemble=None, inference_delay=0)
            policy = bc.make_policy(every_step, spec, network, next(iter(params.values())))
            return found, time_policy(self.task, policy, CALLS).median

    def show(self, console: Console, box: Box) -> None:
        """Prints one row for each head and how it was trained; rates in whole percent, so that 80 columns hold them."""
        rows = self.earlier | self.rows
        used = [name for name in FIGURES if name in next(iter(rows.values()))]
        if self.asked.sweep is not None:  # whose rows have long names
            used = [name for name in used if name in ("success", "lost", "sampling_ms")]
        table = Table(box=box, padding=(0, int(box == MARKDOWN)))
        for number, title in enumerate(["", *(FIGURES[name] for name in used)]):
            table.add_column(title, justify="right" if number else "left", no_wrap=True)
        for name, row in rows.items():
            table.add_row(name, *(cell(figure, row[figure]) for figure in used))
        console.print(heading(self.asked), "", table, *settings(self.asked), sep="\n", highlight=False)
        for head, number in self.diverged.items():
            console.print(
                f"{head}: {number} of {self.asked.seeds} policies diverged and are left out.", highlight=False
            )

    def write(self) -> None:
        """Writes heads.json and heads.md."""
        about = {"asked": to_json(self.asked), "interval": 0.95, "made_with": provenance()}
        rows = as_json(self.earlier | self.rows)
        write_json(Path(self.asked.run_dir, "heads.json"), {**about, "diverged": self.diverged, "heads": rows})
        text = io.StringIO()
        self.show(LiteralConsole(file=text, width=200), MARKDOWN)
        write_atomic(Path(self.asked.run_dir, "heads.md"), text.getvalue())

    def read(self) -> dict[str, dict[str, Estimate]]:
        """The rows of an earlier process that stay until they are measured anew; none that were measured otherwise."""
        file = Path(self.asked.run_dir, "heads.json")
        found = read_json(file) if file.exists() else {}
        if not isinstance(found, dict) or not isinstance(found.get("asked"), dict):
            return {}
        same = all(found["asked"].get(name) == getattr(self.asked, name) for name in ("initial_states", "repeats"))
        with contextlib.suppress(AttributeError, KeyError, TypeError):  # of another version: it is replaced
            return from_json(found["heads"]) if same else {}
        return {}

    def draw(self) -> None:
        """Draws heads.png."""
        png, title = Path(self.asked.run_dir, "heads.png"), heading(self.asked).partition(";")[0]
        if self.asked.sweep is None and isinstance(self.task, Obstacle2D):
            columns = table_slices(self.task.spec.observation)
            states = np.split(self.store.arrays[bc.OBSERVATION], self.store.starts[1:])[:DRAWN]
            paths = [state[:, columns["position"]] - state[:, columns["obstacle"]] for state in states]
            draw_paths(png, self.evaluations, mocap_id(self.task.physics.model, "obstacle"), paths, title)
        else:
            x_labels = {"steps": "steps of the sampler", "chunk": "actions executed of each chunk", None: ""}
            draw_estimates(png, self.panels, x_labels[self.asked.sweep], title)


def cell(figure: str, estimate: Estimate) -> str:
    """A figure as a cell of the table."""
    if not estimate.count:
        return "unknown"
    if figure == "both":
        return f"{round(estimate.value * estimate.count)} of {estimate.count}"
    if "%" not in FIGURES[figure]:
        return f"{estimate.value:.3g}"
    return "{:.0f} [{:.0f},{:.0f}]".format(*(100 * x for x in (estimate.value, estimate.low, estimate.high)))


def heading(asked: HeadBenchmark) -> str:
    """The heading: task, counts and intervals."""
    counts = f"seeds {asked.seeds}, initial states {asked.initial_states}, episodes from each {asked.repeats}"
    over = "seeds" if asked.seeds > 1 else "initial states"
    return f"{asked.task}: {counts}; means with 95 % intervals over {over}"


def settings(asked: HeadBenchmark) -> list[str]:
    """A sentence on the heads that were trained alike."""
    heads = collections.defaultdict(list)
    for run in map(asked.run, asked.compared):
        decay = f"{run.steps:,} gradient steps, weight decay {run.hyper.weight_decay:.2g}"
        hidden = run.hyper.observation_dropout
        decay += f", observation dropout {hidden:g}" if hidden else ""
        executed = "" if asked.sweep == "chunk" else f" {run.n_action_steps} executed,"
        heads[f"chunks of {run.horizon},{executed} {decay}"].append(run.head)
    return [f"{', '.join(names)}: {words}." for words, names in heads.items()]


def configuration() -> HeadBenchmark:
    """Reads the command line, whose defaults depend on the task."""
    task = read_flag("task", HeadBenchmark.task)
    defaults: dict[str, Any] = {} if task == HeadBenchmark.task else ARM
    return parse(HeadBenchmark, __doc__, default=HeadBenchmark(task=task, **defaults))


if __name__ == "__main__":
    with clean_errors():
        main(configuration())
