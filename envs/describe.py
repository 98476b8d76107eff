"""The tables of a task as Markdown, `python -m mjx_policies.envs.describe Go2Getup`: what it observes and does."""

from __future__ import annotations

import sys

from mjx_policies.envs.base import EnvSpec
from mjx_policies.envs.registry import TASKS, load
from mjx_policies.errors import UserError
from mjx_policies.spec import table_markdown
from mjx_policies.training.script import clean_errors


def describe(spec: EnvSpec) -> str:
    """Observations, what only a simulator knows, and actions of a task, with units, noise and limits."""
    parts = {
        'Observation `obs["state"]`': table_markdown(spec.observation),
        'Observation `obs["privileged"]`': table_markdown(spec.privileged) if spec.privileged else "",
        f"Action, every {spec.control_dt:g} s": spec.action.markdown(),
        "Stages, the last of which is success": ", ".join(spec.stages),
        "Success" + " of an episode without a fall" * bool(spec.commands): " and ".join(map(str, spec.criteria)),
    }
    return "\n\n".join(f"## {title}\n\n{table}" for title, table in parts.items() if table)


if __name__ == "__main__":
    with clean_errors(ValueError):
        if not sys.argv[1:]:
            raise UserError(f"which task? Pass one or more of {', '.join(TASKS)}.")
        for name in sys.argv[1:]:
            print(f"# {name}\n\n{describe(load(name, num_envs=1).spec)}\n")
