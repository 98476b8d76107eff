"""Clones of many seeds, which learn side by side from the same demonstrations and are then tried from the same starts.

Axes: S seeds, P repetitions of each start, N starts, T steps.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mjx_policies.agents.bc import BCState
from mjx_policies.compiler import compiler_options
from mjx_policies.data.store import Store, in_memory
from mjx_policies.envs.base import Env
from mjx_policies.envs.control.obstacle2d import Obstacle2D
from mjx_policies.envs.experts.base import Expert
from mjx_policies.envs.experts.registry import load_expert
from mjx_policies.envs.mocap import mocap_id
from mjx_policies.envs.vectorize import vectorize
from mjx_policies.evaluation.episodes import Episodes, run_episodes
from mjx_policies.evaluation.latency import measure_latency
from mjx_policies.evaluation.statistics import Estimate, mean, proportion
from mjx_policies.experiments.collection.demonstrators import Demonstrator, expert_demonstrator
from mjx_policies.experiments.collection.rollouts import Rollouts, make_recorder, to_episodes
from mjx_policies.experiments.runs import bc as bc_run
from mjx_policies.experiments.runs.bc import BCRun
from mjx_policies.experiments.runs.bc_steps import cloning
from mjx_policies.experiments.runs.demonstrations import Demonstrations
from mjx_policies.experiments.runs.evaluation import EVALUATION_SEED
from mjx_policies.heads.base import ActionHead
from mjx_policies.policy import Policy
from mjx_policies.training.errors import UserError

ITERATIONS = 10  # calls that training is divided into, so that it can say how far it is
MOST_ATTEMPTS = 10  # of an expert, for each demonstration
BATCH = 300  # attempts at once
CALLS = 40  # of each seed's sampler, timed
BOTH = 0.2  # coverage of a seed that goes both ways; 1 is that of a fair coin from every start


@dataclasses.dataclass(frozen=True)
class Demonstrated:
    """What an expert did.

    Attributes:
      store: successes, end to end.
      paths: [T + 1, 2] m of each, seen from the obstacle; none where there is no obstacle.
    """

    store: Store
    paths: list[np.ndarray]


@dataclasses.dataclass(frozen=True)
class Learned:
    """Clones of all seeds.

    Attributes:
      state: [S, ...].
      compiling, training: s.
    """

    state: BCState
    compiling: float
    training: float


@dataclasses.dataclass(frozen=True)
class Tried:
    """What became of all episodes.

    Attributes:
      success, lost: [S, P, N] bool.
      side: [S, P, N] 1 where the obstacle was passed on the left, -1 on the right, NaN where it was not passed.
      path: [S, P, N, T, 2] m, seen from the obstacle, NaN once the episode is over; None without an obstacle.
      seconds: that it took, compilation included.
    """

    success: np.ndarray
    lost: np.ndarray
    side: np.ndarray
    path: np.ndarray | None
    seconds: float


def shaky_actor(expert: Expert, tremor: float) -> Demonstrator:
    """The expert with so many times its own tremor, 0 for an expert that does just what it means; pauses remain."""
    whole = expert_demonstrator(expert)

    def act(carry, state, obs, key, step):
        action, label, carry = whole.act(carry, state, obs, key, step)
        return jnp.clip(label + tremor * (action - label), -1.0, 1.0), label, carry

    return whole._replace(act=act)


def demonstrate(
    task: Env, name: str, wanted: int, seed: int, tremor: float = 1.0, report: Callable[[int], None] = lambda done: None
) -> Demonstrated:
    """Lets the task's expert act until so many attempts have succeeded; `report` is told how many have.

    Raises:
      UserError: it hardly ever succeeds.
      ValueError: the task has no expert.
    """
    expert = load_expert(name, task)
    record = make_recorder(task, shaky_actor(expert, tremor))
    episodes, paths = [], []
    for number in range(-(-MOST_ATTEMPTS * wanted // BATCH)):
        seeds = np.random.default_rng((seed, number)).integers(2**32, size=BATCH, dtype=np.uint32)
        attempts: Rollouts = jax.device_get(record(seeds))
        kept = np.flatnonzero(attempts.success)[: wanted - len(episodes)]
        found = to_episodes(attempts, name)
        episodes += found[: len(kept)]
        if isinstance(task, Obstacle2D):
            away = attempts.qpos - attempts.mocap_pos[:, mocap_id(task.physics.model, "obstacle"), :2]
            paths += [away[: attempts.length[b] + 1, b] for b in kept]
        report(len(episodes))
        if len(episodes) == wanted:
            return Demonstrated(in_memory(episodes, [bc_run.OBSERVATION]), paths)
    raise UserError(f"the expert solved {name} in fewer than one of {MOST_ATTEMPTS} attempts: see why it fails.")


def learn(
    config: BCRun,
    task: Env,
    network: ActionHead,
    demonstrations: Demonstrations,
    report: Callable[[int, int], None] = lambda done, steps: None,
) -> Learned:
    """Trains all seeds; `report` is told how many gradient steps of how many are done."""
    steps = -(-config.steps // ITERATIONS)
    seconds = []
    with cloning(config, task.spec, network, demonstrations, steps) as job:
        begin = time.perf_counter()
        state = jax.block_until_ready(job.init())
        starting = time.perf_counter() - begin
        for number in range(ITERATIONS):
            begin = time.perf_counter()
            state, _ = job.step(state)
            jax.block_until_ready(state)
            seconds.append(time.perf_counter() - begin)
            report((number + 1) * steps, ITERATIONS * steps)
    learner = state.learner if config.seeds > 1 else jax.tree.map(lambda x: x[None], state.learner)
    each = min(seconds[0], statistics.median(seconds[1:]))  # the first call compiles
    return Learned(learner, starting + seconds[0] - each, each + sum(seconds[1:]))


def make_judge(
    config: BCRun, task: Env, network: ActionHead, starts: int, repetitions: int
) -> Callable[[BCState], Tried]:
    """Builds `state [S, ...] -> Tried`. All seeds and repetitions meet the same starts, but each draws anew."""
    envs, model = vectorize(task, starts), task.physics.model
    obstacle = mocap_id(model, "obstacle") if isinstance(task, Obstacle2D) else None

    def record(state: Any, action: jax.Array) -> jax.Array | None:
        del action
        data = task.data(state.envs)
        return None if obstacle is None else data.qpos - data.mocap_pos[:, obstacle, :2]

    def one(state: BCState, seed: jax.Array, repetition: jax.Array) -> Episodes:
        policy = bc_run.make_policy(config, task.spec, network, state.average)

        def act(carry, key, obs, step):
            key = jax.random.fold_in(jax.random.fold_in(key, seed), repetition)
            return policy.act(carry, key, obs, step)

        return run_episodes(envs, Policy(policy.init, act), jax.random.key(EVALUATION_SEED), record)

    def play(state: BCState) -> Episodes:
        seeds = jnp.arange(len(state.step))
        return jax.vmap(jax.vmap(one, (None, None, 0)), (0, 0, None))(state, seeds, jnp.arange(repetitions))

    play = jax.jit(play, compiler_options=compiler_options())

    def judge(state: BCState) -> Tried:
        begin = time.perf_counter()
        episodes = jax.device_get(play(state))
        path = None
        if episodes.recording is not None:
            path = np.moveaxis(episodes.recording, 2, 3).astype(float)
            # What is recorded at the last step belongs to the next episode already.
            path[np.arange(path.shape[3]) >= episodes.length[..., None] - 1] = np.nan
        diverged = episodes.metrics["nan_resets"] > 0
        return Tried(
            success=(episodes.final["success"] > 0) & ~diverged,
            lost=episodes.terminated | diverged,
            side=episodes.final.get("side", np.full(diverged.shape, np.nan)),
            path=path,
            seconds=time.perf_counter() - begin,
        )

    return judge


def sampling_seconds(config: BCRun, task: Env, network: ActionHead, state: BCState) -> list[float]:  # [S, ...]
    """Median time that one robot waits for a chunk, for each seed's parameters."""
    plan = jax.jit(
        lambda member, key, seen: bc_run.make_plan(config, network, member)(key, seen),
        compiler_options=compiler_options(),
    )
    seen = bc_run.example(config, task.spec)
    found = []
    for number in range(len(state.step)):
        member = jax.tree.map(lambda x, number=number: x[number], state.average)
        keys = iter(list(jax.random.split(jax.random.key(number), 10 * CALLS)))
        found.append(measure_latency(lambda: plan(member, next(keys), seen), task.spec.control_dt, CALLS).median)  # noqa: B023
    return found


def coverage(success: np.ndarray, side: np.ndarray) -> np.ndarray:  # [S, P, N], [S, P, N] -> [S]
    """Twice the probability that two successes from one start passed on different sides: 1 for a fair coin.

    An unbiased estimate for each start, averaged over those with two successes; NaN, unknown, if none has. A policy
    that takes either side, but always the same one from the same start, covers nothing.
    """
    left = (success & (side > 0)).sum(axis=1)  # [S, N]
    count = success.sum(axis=1)
    pairs = count * (count - 1) // 2
    usable = pairs > 0
    each = np.where(usable, 2 * left * (count - left) / np.maximum(pairs, 1), 0.0)
    return np.where(usable.any(axis=1), each.sum(axis=1) / np.maximum(usable.sum(axis=1), 1), np.nan)


def figures(tried: Tried) -> dict[str, Estimate]:
    """Means over seeds with their intervals, over episodes if there is one seed; the sides only around an obstacle.

    `both` is the portion of the seeds that go both ways from one and the same start: those that cover at least `BOTH`,
    of those whose coverage is known.
    """
    found = {"success": tried.success.mean(axis=(1, 2)), "lost": tried.lost.mean(axis=(1, 2))}
    if tried.path is not None:
        covered, count = coverage(tried.success, tried.side), tried.success.sum(axis=(1, 2))
        left = np.where(count > 0, (tried.success & (tried.side > 0)).sum(axis=(1, 2)) / np.maximum(count, 1), np.nan)
        found |= {
            "coverage": covered,
            "left": left,
            "both": np.where(np.isnan(covered), np.nan, covered >= BOTH),
        }
    estimates = {name: mean(of_seeds, lowest=0.0, highest=1.0) for name, of_seeds in found.items()}
    if len(tried.success) == 1:
        for name, outcomes in (("success", tried.success), ("lost", tried.lost)):
            estimates[name] = proportion(int(outcomes.sum()), outcomes.size)
    return estimates
