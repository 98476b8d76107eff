"""The demonstrations of a behaviour cloning run: datasets or the task's expert, as windows with their scales.

Axes: N examples of a batch, H horizon, A action.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from mjx_policies.actor import Reference, Scales
from mjx_policies.agents.bc import relative
from mjx_policies.data import lerobot
from mjx_policies.data.dataset import Dataset, readable
from mjx_policies.data.episodes import Episode
from mjx_policies.data.formats import read
from mjx_policies.data.holdout import Split, hold_out, statistics_of_episodes, windows_of
from mjx_policies.data.statistics import Accumulator, min_max, standard
from mjx_policies.data.store import Store, build, fingerprint, in_memory, open_store
from mjx_policies.data.windows import Windows
from mjx_policies.envs.base import Env, EnvSpec
from mjx_policies.envs.experts.registry import load_expert
from mjx_policies.errors import UserError
from mjx_policies.experiments.collection.collect import (
    MAX_SEED,
    Collection,
    CollectionProgress,
    collect_until,
)
from mjx_policies.experiments.collection.demonstration_files import check_rate, check_task, describe_robot
from mjx_policies.experiments.collection.demonstrators import expert_demonstrator
from mjx_policies.experiments.collection.rollouts import make_recorder
from mjx_policies.experiments.runs.bc import OBSERVATION, BCRun, reference
from mjx_policies.files import read_json, write_json
from mjx_policies.heads import registry
from mjx_policies.heads.registry import Fitted
from mjx_policies.normalize import Scale
from mjx_policies.spec import table_size
from mjx_policies.training.preemption import Preemption

MAX_FITTED = 20_000  # chunks that codes or tokens are fitted to
ROLLOUTS = 128  # of an expert at once
IN_MEMORY = 2**30  # bytes of demonstrations; more are mapped from a file
FINGERPRINT = "demonstrations.json"  # in the run folder: tells whether datasets change while a run is stopped


@dataclasses.dataclass(frozen=True)
class Demonstrations:
    """The demonstrations of a run, as windows.

    Attributes:
      windows: of all episodes.
      split: of the episodes.
      training, validation: [W] numbers of windows.
      scales: of the training episodes.
    """

    windows: Windows
    split: Split
    training: np.ndarray
    validation: np.ndarray
    scales: Scales


def prepare(store: Store, config: BCRun, spec: EnvSpec) -> Demonstrations:
    """Windows, held-out episodes and scales.

    Raises:
      UserError: no episode is long enough for a window.
    """
    windows = Windows(store, config.window)
    split = hold_out(len(store.lengths), config.validation, config.seed)
    found = statistics_of_episodes(store, split.training)
    training, validation = (windows_of(windows, episodes) for episodes in split)
    base = reference(spec)
    action = min_max(found["action"]) if base is None else relative_scale(windows, training, base)
    scales = Scales({name: standard(found[name]) for name in store.arrays if name != "action"}, action)
    return Demonstrations(windows, split, training, validation, scales)


def relative_scale(windows: Windows, chosen: np.ndarray, base: Reference) -> Scale:
    """The scale of actions [H, A] relative to a reference, each step of a chunk to [-1, 1].

    The first steps differ little from where the robot is and the last ones much: with one scale for all, the steps that
    are executed would be the least precise.
    """
    found = Accumulator()
    differences = jax.jit(lambda window: relative(window, base))
    for start in range(0, len(chosen), MAX_FITTED):
        rows = np.asarray(differences(windows.take(chosen[start : start + MAX_FITTED])))
        found.add(rows.reshape(len(rows), -1))
    shape = (windows.config.horizon, -1)
    return cast(Scale, jax.tree.map(lambda x: x.reshape(shape), min_max(found.result())))


def fit_head(config: BCRun, demonstrations: Demonstrations, spec: EnvSpec) -> Fitted:
    """The codes or tokens of a head, fitted to the demonstrations; None for heads without."""
    if config.head not in registry.FITTED:
        return None
    every = -(-len(demonstrations.training) // MAX_FITTED)
    window = jax.tree.map(jnp.asarray, demonstrations.windows.take(demonstrations.training[::every]))
    chunks = demonstrations.scales.action.apply(relative(window, reference(spec)))
    return registry.fit(config.head, chunks, config.seed)


def check_datasets(run: BCRun, task: Env) -> None:
    """Refuses a run whose datasets do not suit the task, see `check_dataset`."""
    for path in (*([run.demos] if run.demos else []), *run.extra_datasets):
        check_dataset(path, run.task, task)


def check_dataset(path: str, name: str, task: Env) -> Dataset:
    """A dataset of the task, at its rate and with actions of its kind.

    Raises:
      UserError: there is no such dataset, or it is of another task or rate or has other actions.
    """
    dataset = read(path)
    check_task(dataset, path, name)
    check_rate(dataset, path, name, task.spec.control_dt)
    found, table = dataset.features["action"], task.spec.action
    if found.shape != (table.size,):
        raise UserError(
            f"the actions in {path} have {found.shape[0]} numbers, those of {name} {table.size}: "
            "train or collect with the same --actions."
        )
    if found.names and found.names != table.names:
        raise UserError(
            f"the actions in {path} are {', '.join(found.names)}, those of {name} {', '.join(table.names)}: "
            "train or collect with the same --actions."
        )
    return dataset


def open_demonstrations(
    run: BCRun, task: Env, folder: Path, preemption: Preemption, console: Console, tremor: float = 1.0
) -> Store:
    """The states and actions of the first demonstrations, in memory or, if they are many, mapped from a file.

    Where a run names no dataset, the task's expert demonstrates into `folder`, with `tremor` times its own.
    """
    path = Path(run.demos) if run.demos else folder / "demonstrations"
    if not run.demos:
        demonstrate(run, task, path, preemption, console, tremor)
    dataset = read(path)
    count = min(run.episodes, len(dataset)) if run.episodes else len(dataset)
    if not count:
        raise UserError(f"{path} holds no demonstration.")
    if count < run.episodes:
        raise UserError(f"{path} holds {count} demonstrations, fewer than --episodes {run.episodes}; 0 takes all.")
    datasets = [(dataset, count), *((more, len(more)) for more in map(read, run.extra_datasets))]
    for each, _ in datasets:
        for sentence in each.notes:
            console.print(f"{each.path}: {sentence}", highlight=False)

    def say(sentence: str) -> None:
        console.print(sentence, highlight=False)

    def episodes() -> Iterator[Episode]:
        for each, count in datasets:
            for episode in readable(each, say, count):
                preemption.check()
                yield episode

    names = [OBSERVATION]
    if (folder / "store").exists():  # the run's own copy
        store = open_store(folder / "store")
    elif sum(sum(each.lengths[:count]) * row_bytes(each) for each, count in datasets) <= IN_MEMORY:
        store = in_memory(episodes(), names)
        check_unchanged(store, folder / FINGERPRINT)
    else:
        store = build(folder / "store", episodes(), names)
    size = table_size(task.spec.observation)
    if store.arrays[OBSERVATION].shape[1:] != (size,):
        found = list(store.arrays[OBSERVATION].shape[1:])
        raise UserError(f"{path} has a state of {found} numbers, {run.task} one of [{size}]: record it again.")
    return store


def check_unchanged(store: Store, path: Path) -> None:
    """Refuses to resume a run whose demonstrations have changed: its scales and held-out episodes belong to them.

    Args:
      store: what there is to learn from now.
      path: of the fingerprint; written if it is not there yet.

    Raises:
      UserError: it is something else.
    """
    now = fingerprint(store)
    before = read_json(path) if path.exists() else None
    if before is None:
        write_json(path, now)
    elif before != now:
        counts = [
            " and ".join(f"{each.get(name)} {name}" for name in ("episodes", "steps"))
            if isinstance(each, dict)
            else "?"
            for each in (before, now)
        ]
        raise UserError(
            f"the demonstrations have changed since the run in {path.parent} began: {counts[0]} then, {counts[1]} "
            f"{'with other numbers ' if counts[0] == counts[1] else ''}now. Restore the datasets to resume it, or "
            "choose another --run-dir for a new run."
        )


def row_bytes(dataset: Dataset) -> int:
    """The size of the state and the action of one step, in float32."""
    features = [dataset.features[name] for name in (OBSERVATION, "action") if name in dataset.features]
    return sum(4 * math.prod(feature.shape) for feature in features)


def demonstrate(run: BCRun, task: Env, path: Path, preemption: Preemption, console: Console, tremor: float) -> None:
    """Lets the task's expert demonstrate until there are enough successes; goes on where an earlier process ended."""
    if lerobot.recognise(path) and len(lerobot.read(path)) >= run.episodes:
        return
    record = make_recorder(task, expert_demonstrator(load_expert(run.task, task), tremor))
    collection = Collection(record, run.task, run.seed % MAX_SEED, ROLLOUTS)
    with lerobot.Writer(path, append=path.exists(), **describe_robot(task.spec)) as writer:
        # Those that there are already count.
        collect_until(run.episodes, collection, writer, CollectionProgress(), console, preemption)
        preemption.check()
