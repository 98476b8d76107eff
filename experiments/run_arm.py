"""A cloned policy's file on a simulated arm, in real time: python experiments/run_arm.py runs/a/policy.onnx

What a real arm would be run with: controller, loop at the control rate, plans made in another thread while the arm
moves, and measurements that arrive `latency` late. Episodes begin as those of the run's evaluation did and are judged
as they were. The exit code is 0, or 1 if fewer succeed than there, by more than `max_drop`; evaluation.json beside the
file says how many did. The folder `arm` beside the file gets arm.json and a video; after Ctrl-C, arm.json of the
episodes that were done.

Each arm has a process of its own with three threads, which share Python's lock: the simulation takes it for about
0.2 ms of every 5 ms, the loop for 1 ms of every 50 ms, and the planner lets go of it while onnxruntime computes. As
many arms as there are cores leave every core mostly idle; the table says how many ticks were late all the same.
"""

from __future__ import annotations

from mjx_policies.experiments import _early  # noqa: F401 # isort: skip

import concurrent.futures
import concurrent.futures.process
import dataclasses
import functools
import multiprocessing
import os
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mjx_policies.deploy.chunks import ChunkError
from mjx_policies.deploy.contract import ContractError
from mjx_policies.deploy.policy import Policy, PolicyError, load_policy
from mjx_policies.deploy.robots.franka_driving import franka_limits
from mjx_policies.deploy.simulation.arm_episode import Driving, Episode, Start, Task, run_episode
from mjx_policies.evaluation.comparison import difference_of_rates
from mjx_policies.evaluation.statistics import Estimate, proportion
from mjx_policies.training.command_line import parse_arguments
from mjx_policies.training.errors import UserError, clean_errors
from mjx_policies.training.files import output_file, read_json, write_json
from mjx_policies.training.preemption import Preemption, exit_code
from mjx_policies.training.progress import open_console
from mjx_policies.training.waiting import counting, working

TASK = "FrankaPickCube"
ROBOT = "franka"
BATCH = 64  # episodes that an evaluation begins at once, which decides where they begin
FPS = 20


@dataclasses.dataclass(frozen=True)
class Arms:
    """Episodes, and what is asked of them."""

    policy: tyro.conf.Positional[Path]  # an exported file
    episodes: int = 100
    latency: float = 0.05  # s, from a measurement to its arrival
    refill: float = 0.5  # share of a chunk that is left when the next one is asked for
    draw: bool = True  # by samples where the policy can, as it was evaluated
    real_time: bool = True  # else as fast as it goes, on a busy computer: nothing is late and a plan is there at once
    robots: int = 0  # arms at once; 0: one for each core
    films: int = 3  # episodes in the video
    max_drop: float = 0.05  # of the success, below that of the evaluation
    out: Path | None = None  # folder; arm beside the file by default
    overwrite: bool = False  # replace files that are in the folder of --out already

    def __post_init__(self) -> None:
        for name, least in {"episodes": 1, "robots": 0, "films": 0, "latency": 0.0, "max_drop": 0.0}.items():
            if not getattr(self, name) >= least:  # true of NaN too
                raise ValueError(f"--{name.replace('_', '-')} is {getattr(self, name)}, it must be at least {least:g}")
        if not 0 < self.refill <= 1:
            raise ValueError(f"--refill is {self.refill:g}, it must lie above 0, and not above 1")


def main(arms: Arms) -> int:
    """Writes the folder, prints the table and returns the exit code."""
    folder = arms.policy.parent / "arm"
    with clean_errors(ValueError, OSError):
        open_policy(arms)
        before = read_success(arms.policy.parent / "evaluation.json")
        results, video = (
            output_file(arms.out and arms.out / name, "--out", arms.overwrite, default=folder / name)
            for name in ("arm.json", "arm.mp4")
        )
    console = open_console()
    with working(console, "placing cubes"):
        model, task, starts = draw_starts(arms.episodes)
    with clean_errors(ChunkError, ContractError, PolicyError):
        episodes, stopped = run(arms, model, task, starts, console)
    if not episodes:
        print(f"error: {stopped} came before any episode was done, so there is nothing to write.", file=sys.stderr)
        return exit_code(stopped)
    success = proportion(sum(episode.success for episode in episodes), len(episodes))
    found = report(arms, episodes, success, before) | {"stopped_by": stopped}
    with clean_errors(OSError):
        write_json(results, found)
    filmed = bool(arms.films) and not stopped
    try:
        if filmed:
            with clean_errors(OSError), working(console, f"drawing {video}"):
                film_episodes(episodes, starts, arms.films, video)
    finally:
        console.print(table(arms, found, success, before))
    console.print(f"{results}" + (f", {video}" if filmed else ""))
    if stopped:
        console.print(f"{len(episodes)} of {arms.episodes} episodes, stopped by {stopped}")
        return exit_code(stopped)
    return 1 if before is not None and before.value - success.value > arms.max_drop else 0


def open_policy(arms: Arms) -> Policy:
    """The policy.

    Raises:
      UserError: a file that is refused, or that cannot be driven like this.
    """
    path = arms.policy
    try:
        policy = load_policy(path)
    except (ContractError, PolicyError) as error:
        raise UserError(str(error)) from None
    contract = policy.contract
    if contract.robot.name != ROBOT:
        raise UserError(f"{path} is for the robot {contract.robot.name}, not for an arm: sim2sim.py is for legs.")
    if contract.training.task != TASK:
        raise UserError(f"{path} is for {contract.training.task}, but this script knows how {TASK} begins and ends.")
    if contract.action.horizon == 1:
        raise UserError(
            f"{path} makes one action at a time, so there is nothing to do while the next one is made: "
            "clone a policy with a --horizon of 16 or so."
        )
    franka_limits(contract, arms.latency)
    return policy


def read_success(path: Path) -> Estimate | None:
    """How many episodes succeeded when the run was evaluated; None if it was not.

    Raises:
      UserError: the file is of something else.
    """
    if not path.exists():
        return None
    evaluation = read_json(path)
    try:
        return Estimate(**evaluation["conditions"]["nominal"]["success"])
    except (KeyError, TypeError):
        raise UserError(f"{path} does not say how often {TASK} succeeded: run evaluate.py --run again.") from None


def draw_starts(episodes: int) -> tuple[mujoco.MjModel, Task, list[Start]]:
    """The table with its arm, what counts, and where the first episodes of an evaluation begin."""
    # Not at the top: the processes that drive arms need no JAX.
    import jax

    from mjx_policies.compiler import compiler_options
    from mjx_policies.envs.franka import pick_cube, sensing
    from mjx_policies.envs.progress import HOLD_SECONDS
    from mjx_policies.envs.registry import load
    from mjx_policies.envs.vectorize import vectorize
    from mjx_policies.experiments.runs.evaluation import EVALUATION_SEED
    from mjx_policies.randomization.conditions import apply_condition, conditions

    plain = load(TASK, num_envs=BATCH, actions="joint_target")
    env, dynamics = apply_condition(plain, conditions(plain)["nominal"])
    envs = vectorize(env, BATCH, dynamics)

    model = plain.physics.model

    @functools.partial(jax.jit, compiler_options=compiler_options(runs_once=True))
    def begin(key):
        data = env.data(envs.init(key, stagger=False)[0].envs)
        return data.qpos, jax.vmap(lambda each: sensing.mocap_position(model, each, "goal"))(data)

    starts = []
    for key in jax.random.split(jax.random.key(EVALUATION_SEED), -(-episodes // BATCH)):
        qpos, goal = (np.asarray(rows, np.float64) for rows in begin(key))
        starts += [Start(*row) for row in zip(qpos, goal, strict=True)]
    task = Task("cube", pick_cube.GOAL_RADIUS, HOLD_SECONDS, sensing.TABLE, pick_cube.EPISODE_SECONDS)
    return model, task, starts[:episodes]


_opened: dict[str, Any] = {}  # of a process that drives arms


def begin_work(arms: Arms, model: mujoco.MjModel, task: Task, ready: Any) -> None:
    """In a new process; waits for the others, whose imports would make the first arm late."""
    for number in (signal.SIGINT, signal.SIGTERM):  # may reach the whole group, and the parent ends the others
        signal.signal(number, signal.SIG_IGN)
    _opened.update(policy=open_policy(arms), model=model, task=task)
    ready.wait()


def work(start: Start, driving: Driving, number: int) -> Episode:
    """One episode."""
    return run_episode(_opened["policy"], _opened["model"], _opened["task"], start, driving, seed=number)


def run(
    arms: Arms, model: mujoco.MjModel, task: Task, starts: list[Start], console: Console
) -> tuple[list[Episode], str]:
    """All episodes, several arms side by side; and the name of the signal that ended it early, empty without one."""
    driving = Driving(arms.latency, arms.refill, arms.draw, arms.real_time)
    workers = min(arms.robots or len(os.sched_getaffinity(0)), len(starts))
    context = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(
        workers, mp_context=context, initializer=begin_work, initargs=(arms, model, task, context.Barrier(workers))
    )
    found: dict[int, Episode] = {}
    finished = False
    try:
        with Preemption() as preemption, counting(console, "episodes", len(starts)) as progress:
            numbers = {pool.submit(work, start, driving, number): number for number, start in enumerate(starts)}
            waiting = set(numbers)
            while waiting and not preemption.requested:
                done, waiting = concurrent.futures.wait(waiting, 0.5, concurrent.futures.FIRST_COMPLETED)
                found.update((numbers[future], future.result()) for future in done)
                progress(len(found), f"{sum(episode.success for episode in found.values())} succeeded")
        finished = not waiting
    except concurrent.futures.process.BrokenProcessPool:
        raise UserError("a process of the simulation died, perhaps for want of memory: try fewer --robots.") from None
    finally:
        if not finished:  # the pool itself would finish what it has begun
            for worker in list(pool._processes.values()):
                worker.kill()
        pool.shutdown(wait=finished, cancel_futures=True)
    return [found[number] for number in sorted(found)], preemption.requested or ""


def report(arms: Arms, episodes: list[Episode], success: Estimate, before: Estimate | None) -> dict[str, Any]:
    """Everything, as JSON has it."""
    plans = 1e3 * np.concatenate([episode.plan_seconds for episode in episodes])
    ages = 1e3 * np.concatenate([episode.age for episode in episodes])
    return {
        "arms": {name: str(value) if isinstance(value, Path) else value for name, value in vars(arms).items()},
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
        "reading_age_ms": dict(zip(("p50", "p99"), np.percentile(ages, [50, 99]).tolist(), strict=True))
        if ages.size
        else {},
        "plans": sum(episode.chunks.plans for episode in episodes),
        "plan_ms": dict(zip(("p50", "p99"), np.percentile(plans, [50, 99]).tolist(), strict=True))
        if plans.size
        else {},
        "faults": Counter(episode.fault for episode in episodes if episode.fault),
        "episodes": [
            {"success": episode.success, "seconds": episode.seconds, "fault": episode.fault} for episode in episodes
        ],
    }


def table(arms: Arms, found: dict[str, Any], success: Estimate, before: Estimate | None) -> Table:
    """For the terminal."""
    way = "real time" if arms.real_time else "lock-step"
    rows = Table(title=f"{arms.policy}: {success.count} episodes in {way}, measurements {1e3 * arms.latency:g} ms late")
    rows.add_column("")
    rows.add_column("", justify="right")
    rows.add_row("success [95 %]", str(success))
    if before is not None:
        rows.add_row("when it was evaluated", str(before))
        rows.add_row("difference", str(difference_of_rates(success, before)))
    period, plan, age = found["period_off_by_ms"], found["plan_ms"], found["reading_age_ms"]
    rows.add_row("ticks, deadlines missed", f"{found['ticks']:,}, {found['deadlines_missed']}")
    rows.add_row("period off by, p99 and most", f"{period['p99']:.1f} ms, {period['max']:.1f} ms")
    rows.add_row("simulation behind real time", f"{found['simulation_skipped_s']:.2f} s")
    rows.add_row(
        "steps without a plan, a reading",
        f"{found['steps_without_plan']}, {found['steps_without_reading']} of {found['steps']:,}",
    )
    if age:
        rows.add_row("age of readings, p50 and p99", f"{age['p50']:.1f} ms, {age['p99']:.1f} ms")
    if plan:
        rows.add_row(
            "plans, p50 and p99 of their making", f"{found['plans']:,}, {plan['p50']:.1f} ms, {plan['p99']:.1f} ms"
        )
    for fault, count in found["faults"].most_common():
        rows.add_row(Text(f"{count} ended by a fault", "bold red"), fault)
    return rows


def film_episodes(episodes: list[Episode], starts: list[Start], number: int, path: Path) -> None:
    """One that failed, if any did, then the first ones that did not."""
    from mjx_policies.envs.film import film
    from mjx_policies.envs.registry import scene

    moved = [i for i, episode in enumerate(episodes) if len(episode.qpos)]
    failed = [i for i in moved if not episodes[i].success]
    chosen = (failed[:1] + [i for i in moved if episodes[i].success] + failed[1:])[:number]
    if not chosen:
        return
    rows, goals, captions = [], [], []
    for i in chosen:
        episode, words = episodes[i], "success" if episodes[i].success else "no success"
        rows.append(episode.qpos)
        goals.append(np.broadcast_to(starts[i].goal, (len(episode.qpos), 1, 3)))
        captions += [[f"episode {i}: {words}"]] * len(episode.qpos)
    qpos, mocap_pos = np.concatenate(rows), np.concatenate(goals)
    film(scene(TASK), qpos, path, FPS, captions, camera="scene", mocap_pos=mocap_pos)


if __name__ == "__main__":
    with clean_errors(ValueError):
        chosen = parse_arguments(Arms, __doc__)
    with clean_errors():
        sys.exit(main(chosen))
