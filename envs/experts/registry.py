"""Experts by the name of the task that they solve."""

from __future__ import annotations

import importlib
from typing import Any

from mjx_policies.envs.experts.base import Expert

EXPERT_TASKS: dict[str, tuple[str, str]] = {
    "Obstacle2D": ("obstacle2d", "obstacle2d_expert"),
    "FrankaReach": ("reach", "reach_expert"),
    "FrankaPush": ("push", "push_expert"),
    "FrankaPickCube": ("pick_cube", "pick_cube_expert"),
    "FrankaStack": ("stack", "stack_expert"),
    "FrankaPegInsert": ("peg_insert", "peg_insert_expert"),
    "FrankaDrawer": ("drawer", "drawer_expert"),
}
"""Module of this package and builder of each expert; a module is imported when its expert is asked for."""


def load_expert(name: str, task: Any) -> Expert:
    """Builds the expert for a task.

    Args:
      name: of the task, a key of `EXPERT_TASKS`.
      task: what `envs.load` built for this name: the expert acts in its space of actions.

    Raises:
      ValueError: no expert for such a task; the message lists the tasks that have one.
    """
    if name not in EXPERT_TASKS:
        raise ValueError(f"there is no expert for {name!r}; tasks with an expert: {', '.join(EXPERT_TASKS)}")
    module, builder = EXPERT_TASKS[name]
    return getattr(importlib.import_module(f"mjx_policies.envs.experts.{module}"), builder)(task)
