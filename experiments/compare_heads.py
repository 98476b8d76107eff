"""Compares action heads where there are two good answers: python experiments/compare_heads.py

Every head clones the same demonstrations, many seeds side by side in one program, and drives around the obstacle of
Obstacle2D: success, how often it passes on either side, what training and sampling cost, each with its 95 % interval
over seeds. The folder of the results ends with heads.md, heads.json and heads.png, the paths of each head.

    python experiments/compare_heads.py --sweep steps     # success and latency by the steps of a sampler
    python experiments/compare_heads.py --sweep chunk     # success by the actions executed of a chunk, and by tremor
    python experiments/compare_heads.py --task FrankaPickCube    # of an arm: larger networks, one seed, 500 episodes
"""

from __future__ import annotations

from mjx_policies.experiments import _early  # noqa: F401 # isort: skip

import contextlib
import dataclasses
import math
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from mjx_policies.agents.bc import BCHyper
from mjx_policies.envs.base import Env
from mjx_policies.envs.experts.registry import load_expert
from mjx_policies.envs.franka.actions import ActionName
from mjx_policies.envs.physics import Backend
from mjx_policies.envs.registry import load
from mjx_policies.evaluation.statistics import Estimate, mean
from mjx_policies.experiments.head_contest import (
    Demonstrated,
    Learned,
    Tried,
    demonstrate,
    figures,
    learn,
    make_judge,
    sampling_seconds,
)
from mjx_policies.experiments.head_pictures import draw_bars, draw_lines, draw_paths
from mjx_policies.experiments.runs import bc as bc_run
from mjx_policies.experiments.runs.bc import BCRun
from mjx_policies.experiments.runs.demonstrations import fit_head, prepare
from mjx_policies.heads.base import ActionHead
from mjx_policies.heads.registry import HEADS, STEPPED
from mjx_policies.training.command_line import parse_arguments
from mjx_policies.training.errors import UserError, clean_errors
from mjx_policies.training.files import make_folder, write_atomic, write_json
from mjx_policies.training.progress import duration, open_console
from mjx_policies.training.run_folder import provenance
from mjx_policies.training.waiting import working

RESULTS = ("heads.json", "heads.md", "heads.png")
CHUNKS = (1, 4, 8, 16)
SAMPLER_STEPS = (1, 2, 5, 10, 16)
ENSEMBLE = 0.01  # decay of the weights, Zhao et al. 2023 (arXiv:2304.13705)
ARM = {
    "seeds": 1,
    "demos": 200,
    "starts": 500,
    "repetitions": 1,
    "remember": 2,
    "draw": False,
    "size": 512,
    "slow_steps": 2000,
    "batch_size": 128,
    "learning_rate": 1e-3,
    "weight_decay": 3.0,  # see runs/bc.py
    "light_decay": 1.0,
}
"""Defaults for the tasks of an arm, which have one good answer and want precision."""
UNSEEN = {"Obstacle2D": ("velocity",)}
"""What a policy is not told, for it would learn to go on as it does: to stay wherever it stands, short of the goal."""
SHORT = {"bins": 1, "energy": 2, "fast": 8}
"""Control steps of a chunk for heads that cannot do with many. Bins draw each number by itself, so the steps of a chunk
would not agree on a way; an energy learns from uniform chunks, and those of many numbers are never near a real one;
tokens are learnt one after the other, and of many of them one is soon wrong."""
SLOW = ("act", "fast")
"""Transformers, whose gradient steps take long on a processor."""
LIGHT = ("mixture", "bins")
"""Heads that do worse where weights are kept as small as suits the others: see RESULTS.md."""


@dataclasses.dataclass(frozen=True)
class Contest:
    """Trains every head on the same demonstrations."""

    heads: tuple[str, ...] = ()  # to compare; by default all, or those that suit the sweep
    sweep: Literal["steps", "chunk"] | None = None  # what success is drawn against, in the place of one table of heads
    task: str = "Obstacle2D"
    backend: Backend = "auto"
    actions: ActionName | None = None  # what they mean, in the tasks of an arm; None: what the task chose
    seeds: int = 10  # policies of each head, which learn side by side
    demos: int = 300  # demonstrations, the same for all
    starts: int = 16  # of the evaluation, the same for all
    repetitions: int = 8  # of each start
    horizon: int = 16  # control steps of a chunk; at most 1 for bins, 2 for energy, 8 for fast
    execute: int = 8  # of a chunk, before the next one is made, or all of a shorter one
    unseen: tuple[str, ...] | None = None  # terms of the observation left out; None: velocity in Obstacle2D
    tremor: tuple[float, ...] = (0.0, 2.0)  # of the demonstrator in the sweep of chunks, times its own; else 1
    size: int = 128  # width of hidden layers
    steps: int = 2000  # gradient steps
    slow_steps: int = 1200  # of act and fast, whose steps take longer
    batch_size: int = 64
    learning_rate: float = 3e-3
    weight_decay: float = 1e-6  # times learning_rate, off the weights of all heads but mixture and bins in each step
    light_decay: float = 1e-6  # the same of mixture and bins
    remember: int = 1  # observations that a policy sees
    draw: bool = True  # act by samples also where a head knows its most likely chunk, or it could not take both ways
    seed: int = 0  # of the first policy, and of the demonstrations
    out: str = ""  # folder for the results; empty: runs/heads-<task>-<time>
    overwrite: bool = False  # replace results that are in --out

    def __post_init__(self) -> None:
        for name in ("seeds", "demos", "starts", "repetitions", "size", "steps", "slow_steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, it must be at least 1")
        if self.repetitions < 2 and self.task == "Obstacle2D":
            raise ValueError("repetitions is 1: whether a policy takes both ways shows only where a start is repeated")
        unknown = [name for name in self.heads if name not in HEADS]
        if unknown:
            raise ValueError(f"there is no head {unknown[0]!r}; choose of {', '.join(HEADS)}")
        for name in self.heads:
            if self.sweep == "steps" and name not in STEPPED:
                raise ValueError(f"{name} does not sample in steps; {', '.join(STEPPED)} do")
            if self.sweep == "chunk" and name in SHORT:
                raise ValueError(f"{name} has shorter chunks than the other heads, so leave it out of this sweep")
        if any(not 0 <= tremor <= 10 for tremor in self.tremor) or not self.tremor:
            raise ValueError("tremor must hold at least one number, each from 0 to 10")
        if self.execute > self.horizon:
            raise ValueError(f"execute is {self.execute}, more than the {self.horizon} actions of a chunk")
        for name in self.heads or HEADS:
            self.config(name)  # says what else is wrong

    def config(self, head: str) -> BCRun:
        """Of the runs of one head."""
        steps = self.slow_steps if head in SLOW else self.steps
        weight_decay = self.light_decay if head in LIGHT else self.weight_decay
        return BCRun(
            task=self.task,
            backend=self.backend,
            actions=self.actions,
            seed=self.seed,
            seeds=self.seeds,
            head=head,
            size=self.size,
            horizon=min(self.horizon, SHORT.get(head, self.horizon)),
            execute=min(self.execute, SHORT.get(head, self.execute)),
            remember=self.remember,
            unseen=UNSEEN.get(self.task) if self.unseen is None else self.unseen,
            draw=self.draw,
            steps=steps,
            batch_size=self.batch_size,
            validation=0.0,
            hyper=BCHyper(learning_rate=self.learning_rate, weight_decay=weight_decay, warmup_steps=steps / 20),
        )

    @property
    def folder(self) -> Path:
        """Of the results."""
        return Path(self.out)


@dataclasses.dataclass(frozen=True)
class Clones:
    """One head, trained.

    Attributes:
      config: of its runs.
      network: the actor.
      learned: all seeds.
    """

    config: BCRun
    network: ActionHead
    learned: Learned


class Shown:
    """Says which head is at work on what, and how far it is.

    Args:
      console: where to.
    """

    def __init__(self, console: Console):
        self._console, self._open = console, contextlib.ExitStack()
        self._words, self._update = "", lambda words: None

    def __enter__(self) -> Shown:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def phase(self, words: str) -> None:
        """What begins now."""
        self._open.close()
        self._words, self._update = words, self._open.enter_context(working(self._console, words))

    def progress(self, done: int, total: int) -> None:
        """How far it is."""
        self._update(f"{self._words}: {done:,} of {total:,}")


def main(contest: Contest) -> None:
    """Compares, prints, writes and draws."""
    console, begin = open_console(), time.perf_counter()
    contest = dataclasses.replace(
        contest, out=contest.out or f"runs/heads-{contest.task}-{datetime.now():%Y%m%d-%H%M%S}"
    )
    with clean_errors(ValueError):
        robots = contest.seeds * contest.repetitions * contest.starts
        task = load(contest.task, contest.backend, robots, contest.actions)
        load_expert(contest.task, task)
    for name in RESULTS:
        if (contest.folder / name).exists() and not contest.overwrite:
            raise UserError(
                f"{contest.folder} holds a {name} already: choose another --out, or replace it with --overwrite."
            )
    make_folder(contest.folder, "--out")
    with Shown(console) as shown, clean_errors(ValueError):
        match contest.sweep:
            case None:
                compare(contest, task, shown, console)
            case "chunk":
                sweep_chunk(contest, task, shown, console)
            case "steps":
                sweep_steps(contest, task, shown, console)
    console.print(f"{duration(time.perf_counter() - begin)} in all; results: {contest.folder}", highlight=False)


def compare(contest: Contest, task: Env, shown: Shown, console: Console) -> None:
    """A table of heads, and their paths."""
    demonstrated = ask_expert(contest, task, 1.0, shown)
    rows: dict[str, dict[str, Any]] = {}
    tried: dict[str, Tried] = {}
    for name in contest.heads or HEADS:
        clones = clone(contest, task, name, demonstrated, shown)
        shown.phase(f"{name}: evaluating")
        tried[name] = make_judge(clones.config, task, clones.network, contest.starts, contest.repetitions)(
            clones.learned.state
        )
        shown.phase(f"{name}: timing")
        rows[name] = figures(tried[name]) | cost(clones, tried[name], task)
        # Whatever happens to the next head, this one's results are there.
        write_results(contest, rows)
    draw(contest, tried, demonstrated, rows)
    console.print(terminal_table(contest, rows))
    for sentence in (*verdicts(rows), *differences(rows)):
        console.print(sentence, highlight=False)


def ask_expert(contest: Contest, task: Env, tremor: float, shown: Shown) -> Demonstrated:
    """Demonstrations of one kind."""
    shown.phase("demonstrating" if tremor == 1 else f"demonstrating with {tremor:g} times the tremor")
    return demonstrate(
        task, contest.task, contest.demos, contest.seed, tremor, lambda done: shown.progress(done, contest.demos)
    )


def clone(contest: Contest, task: Env, name: str, demonstrated: Demonstrated, shown: Shown) -> Clones:
    """Trains all seeds of a head."""
    config = contest.config(name)
    shown.phase(f"{name}: compiling and learning")
    demonstrations = prepare(demonstrated.store, config, task.spec)
    fitted = fit_head(config, demonstrations, task.spec)
    network = bc_run.make_actor(config, task.spec, demonstrations.scales, fitted)
    return Clones(config, network, learn(config, task, network, demonstrations, shown.progress))


def cost(clones: Clones, tried: Tried, task: Env) -> dict[str, Any]:
    """What it took: s, of all seeds together, and of one sample."""
    seconds = sampling_seconds(clones.config, task, clones.network, clones.learned.state)
    return {
        "horizon": clones.config.horizon,
        "execute": clones.config.execute,
        "steps": clones.config.steps,
        "weight_decay": float(clones.config.hyper.weight_decay),
        "training_seconds": clones.learned.training,
        "compiling_seconds": clones.learned.compiling,
        "trying_seconds": tried.seconds,
        "sampling_seconds": mean(seconds, lowest=0.0),
    }


def sweep_chunk(contest: Contest, task: Env, shown: Shown, console: Console) -> None:
    """Success against the actions executed of each chunk, and with temporal ensembling."""
    heads = contest.heads or ("mse", "act", "mixture")
    lengths = [length for length in CHUNKS if length <= contest.horizon]
    success: dict[str, dict[str, dict[int, Estimate]]] = {}
    ensembled: dict[str, dict[str, Estimate]] = {}
    rows: dict[str, dict[str, Any]] = {}
    for tremor in contest.tremor:
        demonstrated = ask_expert(contest, task, tremor, shown)
        panel = f"demonstrations with {tremor:g} times the tremor" if tremor else "demonstrations without tremor"
        for name in heads:
            clones = clone(contest, task, name, demonstrated, shown)

            def tell(words: str, clones: Clones = clones, **changes: Any) -> dict[str, Estimate]:
                shown.phase(f"{clones.config.head}: evaluating {words}")
                config = dataclasses.replace(clones.config, **changes)
                judge = make_judge(config, task, clones.network, contest.starts, contest.repetitions)
                return figures(judge(clones.learned.state))

            for length in lengths:
                found = tell(f"{length} of {contest.horizon} actions", execute=length)
                success.setdefault(panel, {}).setdefault(name, {})[length] = found["success"]
                rows[f"{name}, tremor {tremor:g}, {length} executed"] = found
            found = tell("temporal ensembling", ensemble=ENSEMBLE)
            ensembled.setdefault(panel, {})[name] = found["success"]
            rows[f"{name}, tremor {tremor:g}, ensemble"] = found
            write_results(contest, rows)
    seeds = count(contest.seeds, "seed")
    title = f"{contest.task}: success by the actions executed of a chunk of {contest.horizon}, {seeds}"
    draw_lines(contest.folder / "heads.png", success, "actions executed of each chunk", title, ensembled)
    console.print(terminal_table(contest, rows))


def sweep_steps(contest: Contest, task: Env, shown: Shown, console: Console) -> None:
    """Success and latency against the steps of the sampler; each head is trained once."""
    demonstrated = ask_expert(contest, task, 1.0, shown)
    success: dict[str, dict[int, Estimate]] = {}
    milliseconds: dict[str, dict[int, Estimate]] = {}
    rows: dict[str, dict[str, Any]] = {}
    for name in contest.heads or tuple(STEPPED):
        clones = clone(contest, task, name, demonstrated, shown)
        for steps in SAMPLER_STEPS:
            shown.phase(f"{name}: evaluating {steps} steps")
            blank = bc_run.blank_scales(clones.config, task.spec)
            network = bc_run.make_actor(clones.config, task.spec, blank, num_steps=steps)
            judge = make_judge(clones.config, task, network, contest.starts, contest.repetitions)
            state = clones.learned.state
            seconds = sampling_seconds(clones.config, task, network, state)
            found = figures(judge(state)) | {"sampling_seconds": mean(seconds, lowest=0.0)}
            rows[f"{name}, {count(steps, 'step')}"] = found
            success.setdefault(name, {})[steps] = found["success"]
            milliseconds.setdefault(name, {})[steps] = mean([1000 * each for each in seconds], lowest=0.0)
            write_results(contest, rows)
    panels = {"success": success, "time of one sample [ms]": milliseconds}
    title = f"{contest.task}: steps from noise to a chunk, {count(contest.seeds, 'seed')}"
    draw_lines(contest.folder / "heads.png", panels, "steps of the sampler", title, portions=("success",))
    console.print(terminal_table(contest, rows))


COLUMNS = {
    "success": "success",
    "lost": "collided or lost",
    "coverage": "coverage",
    "both": "seeds that go both ways",
    "training_seconds": "training [s]",
    "sampling_seconds": "sampling [ms]",
}


def cells(row: Mapping[str, Any]) -> list[str]:
    """Of a table, in the order of `COLUMNS`."""
    found = []
    for name in COLUMNS:
        value = row.get(name)
        if name == "both" and value is not None:
            found.append(f"{round(value.value * value.count)} of {value.count}" if value.count else "unknown")
        elif isinstance(value, Estimate):
            found.append(interval(value, 1000 if name.endswith("_seconds") else 1))
        else:
            found.append("–" if value is None else f"{value:.1f}")
    return found


def short_cells(row: Mapping[str, Any]) -> list[str]:
    """The same for 80 columns: rates in whole percent, times without intervals."""
    found = []
    for name, whole in zip(COLUMNS, cells(row), strict=True):
        value = row.get(name)
        if not isinstance(value, Estimate) or name == "both" or not value.count:
            found.append(whole)
        elif name.endswith("_seconds"):
            found.append(f"{1000 * value.value:.3g}")
        else:
            found.append("{:.0f} [{:.0f},{:.0f}]".format(*(100 * x for x in (value.value, value.low, value.high))))
    return found


def interval(estimate: Estimate, scale: float = 1.0) -> str:
    """A value and its interval; `unknown` for what was not measured."""
    if not estimate.count:
        return "unknown"
    value, low, high = (f"{scale * x:.2f}" for x in (estimate.value, estimate.low, estimate.high))
    return f"{value} [{low}, {high}]" if math.isfinite(estimate.high - estimate.low) else value


def used(rows: Mapping[str, Mapping[str, Any]]) -> list[int]:
    """Numbers of the columns that hold anything."""
    return [i for i, name in enumerate(COLUMNS) if any(name in row for row in rows.values())]


SHORT_COLUMNS = {
    "success": "success %",
    "lost": "lost %",
    "coverage": "coverage %",
    "both": "both ways",
    "training_seconds": "train s",
    "sampling_seconds": "plan ms",
}


def terminal_table(contest: Contest, rows: Mapping[str, Mapping[str, Any]]) -> Table:
    """One row for each head, within 80 columns."""
    table = Table(title=heading(contest), title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("", no_wrap=True)
    for i in used(rows):
        table.add_column(SHORT_COLUMNS[list(COLUMNS)[i]], justify="right", no_wrap=True)
    for name, row in rows.items():
        table.add_row(name, *(short_cells(row)[i] for i in used(rows)))
    return table


def heading(contest: Contest) -> str:
    """What the numbers are of."""
    over = "episodes" if contest.seeds == 1 else "seeds"
    return (
        f"{contest.task}: {count(contest.seeds, 'seed')}, {count(contest.starts, 'start')} "
        f"{count(contest.repetitions, 'time')} each; "
        f"means with 95 % intervals over {over}"
    )


def count(number: int, noun: str) -> str:
    """1 seed, 2 seeds."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def markdown(contest: Contest, rows: Mapping[str, Mapping[str, Any]]) -> str:
    """The same as `terminal_table`."""
    titles = [list(COLUMNS.values())[i] for i in used(rows)]
    lines = [f"# {heading(contest)}", "", f"| | {' | '.join(titles)} |", f"|---|{'---:|' * len(titles)}"]
    lines += [f"| {name} | {' | '.join(cells(row)[i] for i in used(rows))} |" for name, row in rows.items()]
    return "\n".join([*lines, "", *verdicts(rows), *differences(rows), ""])


def verdicts(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Which heads took both ways."""
    judged = {name: row for name, row in rows.items() if "both" in row}
    if not judged:
        return []
    always = [name for name, row in judged.items() if row["both"].value == 1]
    never = [name for name, row in judged.items() if row["both"].value == 0]
    unknown = [name for name, row in judged.items() if not row["both"].count]
    sometimes = [name for name in judged if name not in (*always, *never, *unknown)]
    return [
        f"{what}: {', '.join(names)}."
        for what, names in (
            ("Around on both sides in every seed", always),
            ("Around on both sides in some seeds", sometimes),
            ("Around on both sides in no seed", never),
            ("Too few successes to know the sides", unknown),
        )
        if names
    ]


def differences(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """In what heads were not treated alike."""
    found = []
    titles = {
        "horizon": "Actions of a chunk",
        "execute": "Executed of it",
        "steps": "Gradient steps",
        "weight_decay": "Weight decay",
    }
    for key, words in titles.items():
        values: dict[float, list[str]] = {}
        for name, row in rows.items():
            if key in row:
                values.setdefault(row[key], []).append(name)
        if values:
            most = max(values, key=lambda value: len(values[value]))
            others = [f"{value:,g} of {', '.join(names)}" for value, names in values.items() if value != most]
            found.append(f"{words}: {'; '.join([f'{most:,g}', *others])}.")
    return found


def write_results(contest: Contest, rows: Mapping[str, Mapping[str, Any]]) -> None:
    """heads.json and heads.md, replaced in one step."""

    def plain(value: Any) -> Any:
        if isinstance(value, Estimate):
            return {name: plain(x) for name, x in dataclasses.asdict(value).items()}
        return None if isinstance(value, float) and not math.isfinite(value) else value

    found = [{"name": name, **{key: plain(value) for key, value in row.items()}} for name, row in rows.items()]
    asked = {name: list(value) if isinstance(value, tuple) else value for name, value in vars(contest).items()}
    about = {"asked": asked, "interval": 0.95, "made_with": provenance()}
    write_json(contest.folder / "heads.json", {**about, "rows": found})
    write_atomic(contest.folder / "heads.md", markdown(contest, rows))


def draw(
    contest: Contest, tried: Mapping[str, Tried], demonstrated: Demonstrated, rows: Mapping[str, Mapping[str, Any]]
) -> None:
    """heads.png."""
    png = contest.folder / "heads.png"
    if demonstrated.paths:
        seeds = count(contest.seeds, "seed")
        title = f"Around an obstacle, from the left of the picture to the right; {seeds} of each head"
        draw_paths(png, tried, demonstrated.paths, title)
    else:
        draw_bars(png, {name: row["success"] for name, row in rows.items()}, heading(contest))


def parse() -> Contest:
    """Reads the command line, whose defaults depend on the task."""

    @dataclasses.dataclass(frozen=True)
    class Which:
        task: str = Contest.task

    which, _ = tyro.cli(Which, return_unknown_args=True, add_help=False)
    defaults: dict[str, Any] = ARM if which.task.startswith("Franka") else {}
    return parse_arguments(Contest, __doc__, default=Contest(task=which.task, **defaults))


if __name__ == "__main__":
    with clean_errors(ValueError):
        main(parse())
