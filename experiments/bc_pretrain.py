"""Trains a policy by behaviour cloning: python experiments/bc_pretrain.py --task FrankaPickCube --head act

Without --demos the task's expert demonstrates first. The run folder ends with config.json, checkpoints, metrics.csv,
curves.png, evaluation.json, episode.mp4 and demonstrations.json, by which a resumed run knows whether its data changed.
The result is the checkpoint with the highest success in simulation; in a sweep, on average over its runs.
"""

from __future__ import annotations

from mjx_policies.experiments import _early  # noqa: F401 # isort: skip

from mjx_policies.experiments.runs.bc import BCRun, with_head_defaults
from mjx_policies.experiments.runs.bc_recipe import RECIPE
from mjx_policies.experiments.runs.run import complete
from mjx_policies.heads.registry import HEADS
from mjx_policies.training.command_line import parse, read_flag
from mjx_policies.training.script import clean_errors

if __name__ == "__main__":
    with clean_errors():
        head = read_flag("head", BCRun.head)
        default = with_head_defaults(BCRun(), head) if head in HEADS else None
        complete(parse(BCRun, __doc__, default=default), RECIPE)
