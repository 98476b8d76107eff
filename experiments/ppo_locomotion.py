"""Trains a legged robot with PPO and shows what it learned: python experiments/ppo_locomotion.py

The run folder ends with config.json, checkpoints, metrics.csv, curves.png, evaluation.json and walk.mp4.
"""

from __future__ import annotations

import _early  # noqa: F401 - a signal is one sentence from here on
from ppo_training import Display, Run, complete

from mjx_policies.agents import ppo_run
from mjx_policies.training.command_line import parse
from mjx_policies.training.errors import clean_errors

DISPLAY = Display(
    progress=("env/reward", "env/track_linear", "env/track_yaw"),
    curves=(
        "env/track_linear",
        "env/track_yaw",
        "env/reward",
        "env/terminations",
        "policy/std",
        "policy/kl",
        "learning_rate",
        "loss/value",
    ),
    film="walk.mp4",
)


def main(run: Run) -> None:
    complete(run, ppo_run.default_steps(), DISPLAY)


if __name__ == "__main__":
    with clean_errors():
        main(parse(Run, __doc__))
