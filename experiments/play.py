"""Plays the policy of a run: python experiments/play.py --run runs/Go2JoystickFlat-20260101-120000

With a display, MuJoCo's viewer opens in real time: up and down arrows change the forward velocity, A and D the
sideways velocity, left and right arrows the turn; space stands still, R starts anew. Elsewhere, or with --video, a
video shows a robot that follows a script of commands. A task without commands is played episode after episode.
"""

from __future__ import annotations

from mjx_policies.experiments import _early  # noqa: F401 # isort: skip

import dataclasses
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from rich.console import Console

from mjx_policies.envs.base import DynamicsSampler, Env
from mjx_policies.envs.command import measured_twist, takes_commands, with_command
from mjx_policies.envs.registry import scene
from mjx_policies.errors import UserError
from mjx_policies.experiments.display import MOVES, has_display, open_viewer
from mjx_policies.experiments.runs.evaluation import render_task
from mjx_policies.experiments.runs.loading import TrainedPolicy, load_policy, member_file
from mjx_policies.files import output_file
from mjx_policies.randomization.domain import randomize
from mjx_policies.training.command_line import parse_arguments
from mjx_policies.training.plots import running_mean
from mjx_policies.training.progress import open_console
from mjx_policies.training.script import clean_errors
from mjx_policies.training.waiting import working

FPS = 25
COMMAND_SECONDS = 3.0
EPISODES = 5


@dataclasses.dataclass(frozen=True)
class Play:
    """Plays the policy of a run."""

    run: Path  # run folder
    number: int = 0  # number of the run in a sweep
    video: str = ""  # mp4 file to write instead of opening a window; without a display: play.mp4 in the run folder
    overwrite: bool = False  # replace the file that --video names
    seconds: float = 0.0  # seconds of each command or episode in the video; 0: 3 s, or a whole episode
    randomization: float = 0.0  # scale of the training's domain randomization; 0: nominal
    seed: int = 0  # random seed of the initial state and the randomization

    def __post_init__(self) -> None:
        for name in ("seconds", "randomization"):
            if not 0 <= getattr(self, name) < np.inf:
                raise ValueError(f"--{name} is {getattr(self, name)}, it must not be negative")


def main(play: Play) -> None:
    jax.config.update("jax_platforms", "cpu")  # one robot runs fastest on the C engine
    with clean_errors(ValueError):
        if play.video:
            video_file(play)  # before what takes long
        policy = load_policy(play.run, backend="cpu", number=play.number)
        env, dynamics = randomize(policy.task, policy.config.randomization.scaled(play.randomization))
    console = open_console()
    console.print(f"{policy.config.task}, trained for {policy.steps:,} steps")
    if play.video or not has_display():
        record(play, policy, env, dynamics, console)
    else:
        drive(play, policy, env, dynamics, console)


def record(play: Play, policy: TrainedPolicy, env: Env, dynamics: DynamicsSampler, console: Console) -> None:
    """Records a video of the script."""
    path = video_file(play)
    follows = hasattr(policy.task, "commands")
    names, commands = script(policy.task, play.seconds or COMMAND_SECONDS) if follows else episodes(env, play.seconds)
    reset, advance = stepping(policy, env, dynamics)

    @jax.jit
    @jax.vmap
    def run(key):
        begin, key_act = reset(key)

        def step(carry, now):
            carry, twist, terminated = advance(carry, now[0], key_act, now[1])
            data = env.data(carry[0])
            return carry, (data.qpos, data.mocap_pos, twist, terminated)

        return jax.lax.scan(step, begin, (jnp.asarray(commands), jnp.arange(len(commands))))[1]

    with working(console, f"drawing {path}"):
        keys = jax.random.split(jax.random.key(play.seed), 1 if follows else EPISODES)
        qpos, mocap_pos, twist, ended = map(np.concatenate, jax.device_get(run(keys)))  # one episode after the other
        captions = [[name] for name in names]
        if follows:
            half_second = round(0.5 / env.spec.control_dt)
            measured = np.stack([running_mean(column, half_second) for column in twist.T], axis=1)
            captions = [caption(*row) for row in zip(names, commands, measured, ended, strict=True)]
        render_task(path, policy.config.task, qpos, mocap_pos, captions, env.spec.control_dt, FPS)
    end = ", and it fell" if follows else ", and the task was lost on the way"
    console.print(f"{path}: {len(qpos) * env.spec.control_dt:.0f} s" + (end if ended.any() else ""))


def video_file(play: Play) -> Path:
    """The path of the video.

    Raises:
      UserError: somebody else's file is there, or none can be.
    """
    if play.video and Path(play.video).suffix != ".mp4":
        raise UserError(f"--video {play.video} must end in .mp4.")
    return output_file(
        play.video, "--video", play.overwrite, default=play.run / member_file("play.mp4", play.run, play.number)
    )


def episodes(env: Env, seconds: float) -> tuple[list[str], np.ndarray]:
    """A name for each control step of all episodes, and unused commands [T, 3] for each of one."""
    steps = max(1, round((seconds or env.spec.episode_seconds) / env.spec.control_dt))
    names = [f"episode {i + 1}" for i in range(EPISODES) for _ in range(steps)]
    return names, np.zeros((steps, 3), np.float32)


def script(task: Env, seconds: float) -> tuple[list[str], np.ndarray]:
    """A name and a command [3] for each control step."""
    steps = max(1, round(seconds / task.spec.control_dt))
    low, high = np.asarray(task.commands.low), np.asarray(task.commands.high)
    scenes = {
        "stand": (0, 0, 0),
        "forward": (high[0] / 2, 0, 0),
        "fast": (high[0], 0, 0),
        "left": (0, high[1], 0),
        "right": (0, low[1], 0),
        "turn": (0, 0, high[2]),
        "backward": (low[0] / 2, 0, 0),
    }
    names = [name for name in scenes for _ in range(steps)]
    return names, np.repeat(np.asarray(list(scenes.values()), np.float32), steps, axis=0)


def caption(name: str, command: np.ndarray, measured: np.ndarray, fallen: bool) -> list[str]:
    """Lines of text for one frame; the measured velocity is a mean over half a second."""
    lines = [f"{title} {in_words(twist)}" for title, twist in (("command ", command), ("measured", measured))]
    return [name + (" (fell)" if fallen else ""), *lines, "m/s, m/s, rad/s"]


def in_words(twist: np.ndarray) -> str:
    return " ".join(f"{value:+.2f}" for value in twist)


def stepping(policy: TrainedPolicy, env: Env, dynamics: DynamicsSampler):
    """Builds `reset(key) -> (carry, key)` and `advance(carry, command, key, number) -> (carry, twist, terminated)`."""
    robot = policy.acts(policy.params)

    def reset(key):
        key_dynamics, key_reset, key_init, key_act = jax.random.split(key, 4)
        state, timestep = env.reset(key_reset, dynamics(key_dynamics).dynamics)
        return (state, timestep.obs, robot.init(key_init, timestep.obs)), key_act

    def advance(carry, command, key, number):
        state, obs, memory = carry
        if takes_commands(state):
            state = with_command(state, command)
        action, memory = robot.act(memory, jax.random.fold_in(key, number), obs, number)
        state, timestep = env.step(state, action)
        twist = measured_twist(env, state) if takes_commands(state) else command
        return (state, timestep.obs, memory), twist, timestep.terminated

    return reset, advance


class Stick:
    """The command that keys make, within the range that the robot was trained for."""

    STEP = np.asarray([0.1, 0.1, 0.2], np.float32)  # m/s, m/s, rad/s

    def __init__(self, low: np.ndarray, high: np.ndarray):
        self.low, self.high = low, high
        self.command = np.zeros(3, np.float32)
        self.restart = False

    def press(self, key: int) -> None:
        """Takes a key; the viewer calls it on its own thread."""
        if key in MOVES:
            axis, sign = MOVES[key]
            command = self.command.copy()
            command[axis] = np.round(
                np.clip(command[axis] + sign * self.STEP[axis], self.low[axis], self.high[axis]), 3
            )
            self.command = command
        elif key == ord(" "):
            self.command = np.zeros(3, np.float32)
        elif key == ord("R"):
            self.restart = True


def drive(play: Play, policy: TrainedPolicy, env: Env, dynamics: DynamicsSampler, console: Console) -> None:
    """Opens the viewer and follows the keys until it is closed."""
    commanded = hasattr(policy.task, "commands")
    limits = (policy.task.commands.low, policy.task.commands.high) if commanded else (np.zeros(3), np.zeros(3))
    stick = Stick(*map(np.asarray, limits))
    reset, advance = map(jax.jit, stepping(policy, env, dynamics))
    key = jax.random.key(play.seed)
    model = scene(policy.config.task)
    data = mujoco.MjData(model)
    carry, key_act = reset(key)
    advance(carry, stick.command, key_act, 0)  # compiled before the clock runs
    if commanded:
        console.print("up/down: forward, A/D: sideways, left/right: turn, space: stand, R: start anew")
    twist = np.zeros(3)
    with (
        open_viewer(model, data, stick.press, ", or pass --video play.mp4") as show,
        console.status("") as status,
    ):

        def place() -> None:
            now = env.data(carry[0])
            data.qpos[:], data.mocap_pos[:] = now.qpos, now.mocap_pos
            mujoco.mj_forward(model, data)

        due = time.perf_counter()
        steps, episode, episode_steps = 0, 0, round(env.spec.episode_seconds / env.spec.control_dt)
        while show(place):
            if stick.restart or (not commanded and steps >= episode_steps):
                stick.restart, steps, episode = False, 0, episode + 1
                carry, key_act = reset(jax.random.fold_in(key, episode))
            carry, measured, _ = advance(carry, stick.command, key_act, steps)
            steps += 1
            twist = twist + 0.1 * (np.asarray(measured) - twist)  # a mean over about ten steps, or nobody could read it
            if commanded:
                status.update(f"command {in_words(stick.command)}   measured {in_words(twist)}   m/s, m/s, rad/s")
            due = max(due + env.spec.control_dt, time.perf_counter() - 0.1)  # a pause is not caught up
            time.sleep(max(0.0, due - time.perf_counter()))


if __name__ == "__main__":
    with clean_errors():
        main(parse_arguments(Play, __doc__))
