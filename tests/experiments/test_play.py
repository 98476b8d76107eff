import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "experiments" / "play.py"
MAKE = """
import sys
sys.path.insert(0, sys.argv[1])
import jax
from ppo_training import Run
from mjx_policies.agents import ppo_run
from mjx_policies.training.checkpoints import Checkpoints
from mjx_policies.training.run_folder import RunFolder
run = Run(task="Pendulum", num_envs=4, policy_layers=(8,), critic_layers=(8,))
runner = ppo_run.build(run).runner
with RunFolder.create(sys.argv[2], run) as folder:
    Checkpoints(folder.path / "checkpoints").save(96, jax.jit(runner.init)(jax.random.key(0), run.hyper))
"""


def play(*arguments):
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_a_run_is_filmed(tmp_path):
    subprocess.run([sys.executable, "-c", MAKE, str(SCRIPT.parent), str(tmp_path / "run")], check=True, timeout=120)
    done = play("--run", tmp_path / "run", "--video", tmp_path / "clip.mp4", "--seconds", 0.05)
    assert done.returncode == 0, done.stderr
    assert "Pendulum, trained for 96 steps" in done.stdout
    assert (tmp_path / "clip.mp4").stat().st_size > 1000


def test_a_folder_without_a_run_is_one_sentence(tmp_path):
    done = play("--run", tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "is not a run folder" in done.stderr
