"""A policy evaluated in the named conditions of a task, and a video of an episode: one way for every policy.

Axes: T steps, B environments, A actions.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mjx_policies.compiler import compiler_options
from mjx_policies.envs.base import DynamicsSampler, Env
from mjx_policies.envs.registry import scene
from mjx_policies.envs.rendering.video import render_video, scene_camera
from mjx_policies.envs.vectorize import vectorize
from mjx_policies.evaluation.episodes import Episodes, run_episodes
from mjx_policies.evaluation.latency import Latency, measure_latency
from mjx_policies.evaluation.outcomes import episode_outcomes, summarize
from mjx_policies.evaluation.results import EvaluationResults, RecordedEpisode
from mjx_policies.policy import Policy, stateless
from mjx_policies.randomization.conditions import Condition, apply_condition
from mjx_policies.spec import table_slices
from mjx_policies.types import Array, Observation, PyTree

BATCH = 64  # parallel environments; part of what a seed means, so the same for every policy
EXAMPLE_SECONDS = 8.0  # s, of the video of an episode
EVALUATION_SEED = 1_000_003  # of initial states, commands and dynamics that no training run with a smaller seed has met


def make_evaluator(
    task: Env,
    policy: Callable[[PyTree], Policy | Callable[[Observation], Array]],
    conditions: Mapping[str, Condition],
    batch: int = BATCH,
    seed: int = EVALUATION_SEED,
    repeats: int = 1,
    recorded: int = 0,
) -> Callable[..., dict[str, EvaluationResults]]:
    """Builds `run(params, episodes, names=tuple(conditions), report=None, seed=seed) -> {name: EvaluationResults}`.

    Each condition takes as many whole episodes, `batch` at a time, all in one compiled program, and `report(name,
    episodes so far)` is called before the first batch and after each. Policies that are evaluated with the same seed
    and batch meet the same robots and initial states: episode i of one is a pair with episode i of the other.

    Args:
      task: without wrappers, for `batch` environments.
      policy: its parameters -> what acts.
      conditions: of `randomization.conditions`.
      batch: parallel environments.
      seed: of initial states, commands and dynamics.
      repeats: episodes in a row from one initial state, which differ in what the policy draws; a divisor of `batch`.
      recorded: episodes, the first, of which all coordinates are kept.

    Raises:
      ValueError: a condition that does not suit the task.
    """
    prepared = {name: apply_condition(task, each) for name, each in conditions.items()}
    placed = task.physics.model.nmocap > 0
    command = table_slices(task.spec.observation).get("command")
    control_dt = task.spec.control_dt

    @functools.partial(jax.jit, compiler_options=compiler_options())
    def play(params: PyTree, env: Env, dynamics: DynamicsSampler, key: Array) -> Episodes:
        def record(state: Any, action: Array) -> dict[str, Array]:
            data = env.data(state.envs)
            kept = {"action": action, "qpos": data.qpos} | ({"mocap_pos": data.mocap_pos} if placed else {})
            return kept | ({} if command is None else {"command": state.obs["state"][:, command]})

        envs = vectorize(env, batch, dynamics, repeats=repeats)
        return run_episodes(envs, policy(params), key, record, task.spec.criteria)

    def run(
        params: PyTree,
        episodes: int,
        names: Sequence[str] = tuple(conditions),
        report: Callable[[str, int], None] = lambda name, done: None,
        seed: int = seed,
    ) -> dict[str, EvaluationResults]:
        found = {}
        keys = jax.random.split(jax.random.key(seed), -(-episodes // batch))
        for name in names:
            env, dynamics = prepared[name]
            parts: list[Episodes] = []
            actions: list[np.ndarray] = []
            examples: dict[bool, RecordedEpisode] = {}
            kept: list[RecordedEpisode] = []
            report(name, 0)
            for start, key in zip(range(0, episodes, batch), keys, strict=True):
                part = jax.device_get(play(params, env, dynamics, key))
                recording, episode = part.recording, functools.partial(_recorded, part, start, control_dt)
                figures = dataclasses.replace(part, recording=None)
                parts.append(jax.tree.map(lambda x, start=start: x[: episodes - start], figures))
                actions = actions or [recording["action"][:n, b] for b, n in enumerate(parts[0].length)]
                outcomes = episode_outcomes(parts[-1], task.spec)
                last = min(batch, recorded - start)
                kept += map(episode, range(last))
                whole = ~outcomes.cut_off & ~(parts[-1].metrics["nan_resets"] > 0)
                for achieved in {True, False} - set(examples):
                    rows = np.flatnonzero((outcomes.achieved == achieved) & whole)
                    if len(rows):
                        steps = np.minimum(part.length, round(EXAMPLE_SECONDS / control_dt))
                        examples[achieved] = episode(_choose_example(recording, rows, steps))
                if not examples and start + batch >= episodes:  # there is nothing better
                    examples[False] = episode(0)
                report(name, min(episodes, start + batch))
            together = jax.tree.map(lambda *part: np.concatenate(part), *parts)
            outcomes = episode_outcomes(together, task.spec)
            best_first = dict(sorted(examples.items(), reverse=True))
            found[name] = EvaluationResults(
                outcomes, summarize(together, task.spec), actions, best_first, together.final, kept
            )
        return found

    return run


def _choose_example(recording: dict[str, np.ndarray], rows: np.ndarray, length: np.ndarray) -> int:
    """The first of these episodes; of robots that follow commands, the one that goes farthest in so many steps."""
    if "command" not in recording:
        return int(rows[0])
    last = np.maximum(length[rows] - 2, 0)
    way = recording["qpos"][last, rows, :2] - recording["qpos"][0, rows, :2]
    return int(rows[np.argmax(np.linalg.norm(way, axis=-1))])


def _recorded(part: Episodes, first: int, control_dt: float, row: int) -> RecordedEpisode:
    # What is recorded at the last step belongs to the next episode already.
    recording, length = part.recording, part.length[row]
    steps = slice(0, max(1, int(length) - 1))
    qpos = recording["qpos"][steps, row]
    nowhere = np.zeros((len(qpos), 0, 3), np.float32)
    mocap_pos = recording["mocap_pos"][steps, row] if "mocap_pos" in recording else nowhere
    command = recording["command"][steps, row] if "command" in recording else None
    return RecordedEpisode(first + row, float(length * control_dt), qpos, mocap_pos, command)


def record_video(
    name: str, episode: RecordedEpisode, control_dt: float, words: str, fps: int = 20, seconds: float = math.inf
) -> bytes:
    """An episode as an mp4 file, in real time, with words and, if there is one, its command in the corner.

    Args:
      name: of the task, in the registry.
      episode: what was recorded.
      control_dt: s, from one of its rows to the next.
      words: what it shows.
      fps: frames per second, as nearly as the rows allow.
      seconds: of the episode, from its beginning; all of it by default.
    """
    rows = slice(None if math.isinf(seconds) else round(seconds / control_dt))
    qpos, captions = episode.qpos[rows], [[words]] * len(episode.qpos[rows])
    if episode.command is not None:
        told = (f"command {x:+.2f} m/s  {y:+.2f} m/s  {yaw:+.2f} rad/s" for x, y, yaw in episode.command[rows])
        captions = [[words, command] for command in told]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "video.mp4")
        render_task(path, name, qpos, episode.mocap_pos[rows], captions, control_dt, fps)
        return path.read_bytes()


def render_task(
    path: Path,
    name: str,
    qpos: np.ndarray,
    mocap_pos: np.ndarray | None,
    captions: Sequence[Sequence[str]],
    control_dt: float,
    fps: int,
) -> None:
    """Writes an mp4 file of a task in real time: the rows of its control steps, at `fps` as nearly as they allow."""
    model, stride = scene(name), max(1, round(1 / (fps * control_dt)))
    placed = mocap_pos[::stride] if mocap_pos is not None and model.nmocap else None
    camera, rate = scene_camera(model), 1 / (stride * control_dt)
    render_video(model, qpos[::stride], path, rate, captions[::stride], camera=camera, mocap_pos=placed)


def time_policy(task: Env, policy: Policy | Callable[[Observation], Array], calls: int = 300) -> Latency:
    """The latency of one decision for one robot on this computer."""
    policy = policy if isinstance(policy, Policy) else stateless(policy)
    key_reset, key_init, key_act = jax.random.split(jax.random.key(0), 3)
    _, timestep = jax.jit(task.reset, compiler_options=compiler_options(runs_once=True))(key_reset, {})
    carry, step = jax.jit(policy.init)(key_init, timestep.obs), 0

    @functools.partial(jax.jit, compiler_options=compiler_options())
    def act(carry: PyTree, obs: Observation, step: Array) -> tuple[Array, PyTree]:
        return policy.act(carry, jax.random.fold_in(key_act, step), obs, step)

    def decide() -> Array:
        nonlocal carry, step
        action, carry = act(carry, timestep.obs, step)
        step += 1
        return action

    return measure_latency(decide, task.spec.control_dt, calls)
