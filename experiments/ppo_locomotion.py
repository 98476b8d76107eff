"""Trains a policy with PPO, a Go2's by default: python experiments/ppo_locomotion.py

The run folder ends with config.json, checkpoints, metrics.csv, curves.png, evaluation.json and episode.mp4.
"""

from __future__ import annotations

from mjx_policies.experiments import _early  # noqa: F401 # isort: skip

from mjx_policies.experiments.runs.ppo import RECIPE, PPORun
from mjx_policies.experiments.runs.run import complete
from mjx_policies.training.command_line import parse
from mjx_policies.training.script import clean_errors

if __name__ == "__main__":
    with clean_errors():
        complete(parse(PPORun, __doc__), RECIPE)
