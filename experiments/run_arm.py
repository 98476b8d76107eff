"""Runs an exported BC policy on a simulated arm, in real time: python experiments/run_arm.py a/policy.onnx

What a real arm would be run with: controller, loop at the control rate, plans made in another thread while the arm
moves, and measurements that arrive --latency late. Episodes begin as those of the run's evaluation did, and success is
the same. The exit code is 0, or 1 if the success rate is lower than in evaluation.json beside the file by more than
--max-drop. The folder `arm` beside the file gets arm.json and a video; after Ctrl-C, arm.json of the episodes that
were done.

Each arm has a process of its own with three threads, which share Python's lock: the simulation takes it for about
0.2 ms of every 5 ms, the loop for 1 ms of every 50 ms, and the planner lets go of it while onnxruntime computes. As
many arms as there are cores leave every core mostly idle; the table says how many deadlines were missed all the same.
"""

from __future__ import annotations

from mjx_policies.experiments import _early  # noqa: F401 # isort: skip

import dataclasses
import functools
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from rich.table import Column, Table
from rich.text import Text

from mjx_policies.deploy.policy import ExportedPolicy, PolicyError, load_policy
from mjx_policies.deploy.robots.franka_driving import franka_limits
from mjx_policies.deploy.simulation.arm_episode import ArmEpisode, InitialState, Transport, run_episode
from mjx_policies.errors import UserError
from mjx_policies.evaluation.comparison import difference_of_rates
from mjx_policies.evaluation.report import read_success
from mjx_policies.evaluation.statistics import Estimate, proportion
from mjx_policies.experiments.workers import ExportedEpisodes, conclude, run_in_workers
from mjx_policies.training.command_line import parse_arguments
from mjx_policies.training.config import at_least
from mjx_policies.training.progress import open_console
from mjx_policies.training.script import clean_errors
from mjx_policies.training.waiting import working

TASK = "FrankaPickCube"
FPS = 20


@dataclasses.dataclass(frozen=True)
class Arms(ExportedEpisodes):
    """Runs an exported BC policy on a simulated arm."""

    latency: float = 0.05  # latency of measurements (s)
    refill: float = 0.5  # portion of a chunk that is left when the next one is requested
    sample_actions: bool = True  # sample actions where the policy can, as in its evaluation
    real_time: bool = True  # real time; otherwise lock-step, for a busy computer: nothing is late
    video_episodes: int = 3  # number of episodes in the video
    max_drop: float = 0.05  # maximum drop of the success rate below the evaluation's

    def __post_init__(self) -> None:
        at_least(self, episodes=1, processes=0, video_episodes=0, latency=0, max_drop=0)
        if not 0 < self.refill <= 1:
            raise ValueError(f"refill is {self.refill:g}, it must lie above 0, and not above 1")


def main(arms: Arms) -> int:
    """Writes the folder, prints the table and returns the exit code."""
    with clean_errors(ValueError, OSError, PolicyError):
        load_arm_policy(arms)
        evaluated = arms.policy.parent / "evaluation.json"
        before = read_success(evaluated) if evaluated.exists() else None
        results, video = arms.output_files("arm", "arm.json", "arm.mp4")
    console = open_console()
    with working(console, "placing cubes"):
        model, task, initial = initial_states(arms.episodes)
    by_number, stopped = run_in_workers(
        functools.partial(begin, arms, model, task, initial),
        range(arms.episodes),
        arms.processes,
        console,
        lambda episodes: f"{sum(episode.success for episode in episodes)} succeeded",
    )
    episodes = list(by_number.values())
    success = proportion(sum(episode.success for episode in episodes), len(episodes))

    def draw() -> str:
        return f", {video}" if record_episodes(episodes, initial, arms.video_episodes, video) else ""

    found = report(episodes, success, before)
    ended = conclude(arms, stopped, results, found, draw, [table(arms, found, success, before)], console)
    return ended or int(before is not None and before.value - success.value > arms.max_drop)


def load_arm_policy(arms: Arms) -> ExportedPolicy:
    """The policy of a file, checked to be one of this task.

    Raises:
      UserError, ValueError, PolicyError: a file that is refused, or that cannot be driven like this.
    """
    path, policy = arms.policy, load_policy(arms.policy)
    contract = policy.contract
    if contract.robot.name != "franka":
        raise UserError(f"{path} is for the robot {contract.robot.name}, not for an arm: sim2sim.py is for legs.")
    if contract.training.task != TASK:
        raise UserError(f"{path} is for {contract.training.task}, but this script knows how {TASK} begins and ends.")
    if contract.action.horizon == 1:
        raise UserError(
            f"{path} makes one action at a time, so there is nothing to do while the next one is made: "
            "train a policy with a --horizon of 16 or so."
        )
    franka_limits(contract, arms.latency)
    return policy


def initial_states(episodes: int) -> tuple[mujoco.MjModel, Transport, list[InitialState]]:
    """The table with its arm, what counts, and where the first episodes of an evaluation begin."""
    # Not at the top: the processes that drive arms need no JAX.
    import jax

    from mjx_policies.compiler import compiler_options
    from mjx_policies.envs.franka import pick_cube, sensing
    from mjx_policies.envs.progress import HOLD_SECONDS
    from mjx_policies.envs.registry import load
    from mjx_policies.envs.vectorize import vectorize
    from mjx_policies.experiments.runs.evaluation import BATCH, EVALUATION_SEED
    from mjx_policies.randomization.conditions import apply_condition, conditions

    plain = load(TASK, num_envs=BATCH, actions="joint_target")
    env, dynamics = apply_condition(plain, conditions(plain)["nominal"])
    envs, model = vectorize(env, BATCH, dynamics), plain.physics.model

    @functools.partial(jax.jit, compiler_options=compiler_options(runs_once=True))
    def reset(key):
        data = env.data(envs.init(key, stagger=False)[0].envs)
        return data.qpos, jax.vmap(lambda each: sensing.mocap_position(model, each, "goal"))(data)

    states = []
    for key in jax.random.split(jax.random.key(EVALUATION_SEED), -(-episodes // BATCH)):
        qpos, goal = (np.asarray(rows, np.float64) for rows in reset(key))
        states += [InitialState(*row) for row in zip(qpos, goal, strict=True)]
    task = Transport("cube", pick_cube.GOAL_RADIUS, HOLD_SECONDS, sensing.TABLE, pick_cube.EPISODE_SECONDS)
    return model, task, states[:episodes]


def begin(
    arms: Arms, model: mujoco.MjModel, task: Transport, initial: Sequence[InitialState]
) -> Callable[[int], ArmEpisode]:
    """Builds a worker's function, number -> episode."""
    policy = load_arm_policy(arms)
    how = {name: getattr(arms, name) for name in ("latency", "refill", "sample_actions", "real_time")}
    return lambda number: run_episode(policy, model, task, initial[number], seed=number, **how)


def quantiles(rows: Iterable[np.ndarray]) -> dict[str, float]:
    """Quantiles in ms of times in s; empty where there are none."""
    times = 1e3 * np.concatenate(list(rows))
    return dict(zip(("p50", "p99"), np.percentile(times, [50, 99]).tolist(), strict=True)) if times.size else {}


def report(episodes: list[ArmEpisode], success: Estimate, before: Estimate | None) -> dict[str, Any]:
    """All figures, as JSON data."""
    return {
        "success": dataclasses.asdict(success),
        "success_when_evaluated": None if before is None else dataclasses.asdict(before),
        "ticks": sum(episode.loop.ticks for episode in episodes),
        "deadlines_missed": sum(episode.loop.missed for episode in episodes),
        "period_off_by_ms": {
            "p99": 1e3 * max(episode.loop.jitter_p99 for episode in episodes),  # of the worst episode
            "max": 1e3 * max(episode.loop.jitter_max for episode in episodes),
        },
        "simulation_skipped_s": sum(episode.skipped for episode in episodes),
        "steps": sum(episode.chunks.steps for episode in episodes),
        "steps_without_plan": sum(episode.chunks.held for episode in episodes),
        "steps_without_reading": sum(episode.held for episode in episodes),
        "reading_age_ms": quantiles(episode.age for episode in episodes),
        "plans": sum(episode.chunks.plans for episode in episodes),
        "plan_ms": quantiles(episode.plan_seconds for episode in episodes),
        "faults": Counter(episode.fault for episode in episodes if episode.fault),
        "episodes": [
            {"success": episode.success, "seconds": episode.seconds, "fault": episode.fault} for episode in episodes
        ],
    }


def table(arms: Arms, found: dict[str, Any], success: Estimate, before: Estimate | None) -> Table:
    """The figures, for the terminal."""
    way = "real time" if arms.real_time else "lock-step"
    period, plan, age = found["period_off_by_ms"], found["plan_ms"], found["reading_age_ms"]
    without = f"{found['steps_without_plan']}, {found['steps_without_reading']} of {found['steps']:,}"
    figures = {
        "success [95 %]": success,
        "when it was evaluated": before,
        "difference": before and difference_of_rates(success, before),
        "ticks, deadlines missed": f"{found['ticks']:,}, {found['deadlines_missed']}",
        "period off by, worst p99 and most": f"{period['p99']:.1f} ms, {period['max']:.1f} ms",
        "simulation behind real time": f"{found['simulation_skipped_s']:.2f} s",
        "steps without a plan, a reading": without,
        "age of readings, p50 and p99": age and f"{age['p50']:.1f} ms, {age['p99']:.1f} ms",
        "plans, p50 and p99 of their making": plan
        and f"{found['plans']:,}, {plan['p50']:.1f} ms, {plan['p99']:.1f} ms",
    }
    title = f"{arms.policy}: {success.count} episodes in {way}, measurements {1e3 * arms.latency:g} ms late"
    rows = Table(Column(), Column(justify="right"), title=title, show_header=False)
    for name, figure in figures.items():
        if figure:
            rows.add_row(name, str(figure))
    for fault, count in found["faults"].most_common():
        rows.add_row(Text(f"{count} ended by a fault", "bold red"), fault)
    return rows


def record_episodes(episodes: list[ArmEpisode], initial: Sequence[InitialState], number: int, path: Path) -> bool:
    """Records a video of one that failed, if any did, then of the first ones that did not; whether there were any."""
    from mjx_policies.envs.registry import scene
    from mjx_policies.envs.rendering.video import render_video

    moved = [i for i, episode in enumerate(episodes) if len(episode.qpos)]
    failed = [i for i in moved if not episodes[i].success]
    chosen = (failed[:1] + [i for i in moved if episodes[i].success] + failed[1:])[:number]
    if not chosen:
        return False
    rows, goals, captions = [], [], []
    for i in chosen:
        episode, words = episodes[i], "success" if episodes[i].success else "no success"
        rows.append(episode.qpos)
        goals.append(np.broadcast_to(initial[i].goal, (len(episode.qpos), 1, 3)))
        captions += [[f"episode {i}: {words}"]] * len(episode.qpos)
    qpos, mocap_pos = np.concatenate(rows), np.concatenate(goals)
    render_video(scene(TASK), qpos, path, FPS, captions, camera="scene", mocap_pos=mocap_pos)
    return True


if __name__ == "__main__":
    with clean_errors():
        sys.exit(main(parse_arguments(Arms, __doc__)))
