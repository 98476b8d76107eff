"""Kills a training run at random moments, resumes it each time, and compares its end with that of a run left in peace.

    python experiments/benchmarks/survive_kills.py --kills 20

Both run experiments/ppo_locomotion.py. SIGKILL leaves a process no time for anything, as a power cut or a full memory
does. It must cost at most what was done since the last checkpoint, and never a bit of the result.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from mjx_policies.errors import UserError
from mjx_policies.training.checkpoint import read_checkpoint, verify_checkpoint
from mjx_policies.training.checkpoints import checkpoint_steps, newest_checkpoint
from mjx_policies.training.command_line import parse_arguments
from mjx_policies.training.config import at_least
from mjx_policies.training.metrics import read_metrics
from mjx_policies.training.progress import open_console
from mjx_policies.training.script import clean_errors

EXPERIMENTS = Path(__file__).parents[1]


@dataclasses.dataclass(frozen=True)
class Kills:
    """Kills a run and compares it with one left in peace."""

    kills: int = 20  # number of kills
    task: str = "Go2JoystickFlat"  # task name, as listed in the README
    num_envs: int = 64  # number of parallel environments
    iterations: int = 400  # iterations of the run
    checkpoint_seconds: float = 1.0  # seconds between checkpoints
    longest: float = 20.0  # maximum life of a process (s); the minimum is 0
    seed: int = 0  # random seed of the moments
    keep: str = ""  # folder for both run folders, which are deleted otherwise

    def __post_init__(self) -> None:
        at_least(self, kills=1, num_envs=1, iterations=1)

    @property
    def steps(self) -> int:
        """The environment steps of a run."""
        return self.iterations * self.num_envs * 10


def main(config: Kills) -> None:
    console = open_console()
    moments = random.Random(config.seed)
    with contextlib.ExitStack() as stack:
        folder = Path(config.keep or stack.enter_context(tempfile.TemporaryDirectory()))
        peaceful, killed = folder / "peaceful", folder / "killed"
        for path in (peaceful, killed):
            if path.exists():
                raise UserError(f"{path} exists already: pass another --keep.")
        with console.status("a run left in peace"):
            finish(config, peaceful)
        for number in range(1, config.kills + 1):
            seconds = moments.uniform(0, config.longest)
            with console.status(f"kill {number} of {config.kills}, after {seconds:.1f} s"):
                process = start(config, killed)
                ended = wait(process, seconds)
                process.send_signal(signal.SIGKILL)
                process.wait()
            console.print(f"kill {number} after {seconds:.1f} s: {report(killed)}")
            if ended is not None:
                raise UserError(
                    f"the run ended by itself with exit code {ended} before kill {number}: "
                    + ("give it more --iterations." if ended == 0 else f"see {folder}, which --keep would have kept.")
                )
        with console.status("the rest of the killed run"):
            finish(config, killed)
        different = compare(peaceful, killed)
    if different:
        raise UserError(f"after {config.kills} kills these parameters differ: {', '.join(different)}.")
    console.print(f"after {config.kills} kills all parameters, the optimizer and the normaliser are equal, bit for bit")


def start(config: Kills, folder: Path) -> subprocess.Popen:
    """Begins or resumes the run."""
    command = [
        *(sys.executable, str(EXPERIMENTS / "ppo_locomotion.py"), "--task", config.task, "--run-dir", str(folder)),
        *("--num-envs", str(config.num_envs), "--steps", str(config.steps)),
        *("--checkpoint-seconds", str(config.checkpoint_seconds), "--evaluations", "0", "--eval-episodes", "1"),
    ]
    if (folder / "config.json").is_file():
        command.append("--resume")
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=dict(os.environ))


def finish(config: Kills, folder: Path) -> None:
    """Runs to the last checkpoint; the evaluation and the video after it are not compared."""
    process, checkpoints = start(config, folder), folder / "checkpoints"

    def finished() -> bool:
        return checkpoints.is_dir() and config.steps in checkpoint_steps(checkpoints)

    while process.poll() is None and not finished():
        time.sleep(0.05)
    process.kill()
    errors = process.communicate()[1].decode()
    if not finished():
        raise UserError(f"the run ended with exit code {process.returncode}: {errors.strip().splitlines()[-1:]}")


def wait(process: subprocess.Popen, seconds: float) -> int | None:
    """Waits; returns the exit code of a process that did not live as long."""
    due = time.monotonic() + seconds
    while time.monotonic() < due:
        if process.poll() is not None:
            return process.returncode
        time.sleep(0.01)
    return None


def report(folder: Path) -> str:
    """The work that a resumed run will have to do again."""
    rows = read_metrics(folder / "metrics.csv") if (folder / "metrics.csv").is_file() else {}
    if "seconds" not in rows:  # a new table knows no column but the step
        return "nothing had begun"
    saved = checkpoint_steps(folder / "checkpoints") if (folder / "checkpoints").is_dir() else []
    newest = saved[-1] if saved else 0
    steps, seconds = rows["step"], rows["seconds"]
    first = np.searchsorted(steps, newest, side="right")  # row that no checkpoint knows
    lost = seconds[-1] - seconds[max(first - 1, 0)] if first < len(steps) else 0.0
    return f"checkpoint of step {newest}, {len(steps) - first} iterations, {lost:.2f} s of training, to do again"


def compare(one: Path, other: Path) -> list[str]:
    """Names of the leaves of the learner that differ in any bit."""
    a, b = learned(one), learned(other)
    return [name for name in sorted(a | b) if name not in a or name not in b or a[name].tobytes() != b[name].tobytes()]


def learned(run: Path) -> dict[str, np.ndarray]:
    """The leaves of the learner in the newest checkpoint, whatever its shapes."""
    path, template = newest_checkpoint(run / "checkpoints"), {}
    for name, kind in verify_checkpoint(path)["leaves"].items():
        if name.startswith("learner."):
            dtype, _, shape = kind.rstrip("]").partition("[")
            sizes = tuple(int(size) for size in shape.split(",") if size)
            template[name.removeprefix("learner.")] = jax.ShapeDtypeStruct(sizes, dtype)
    return {name: np.asarray(leaf) for name, leaf in read_checkpoint(path, template, at="learner")[0].items()}


if __name__ == "__main__":
    with clean_errors(ValueError):
        main(parse_arguments(Kills, __doc__))
