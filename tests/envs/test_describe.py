import subprocess
import sys

from mjx_policies.envs.control import obstacle2d
from mjx_policies.envs.control.pendulum import SPEC
from mjx_policies.envs.describe import describe
from mjx_policies.envs.registry import TASKS

PENDULUM = """\
## Observation `obs["state"]`

| index | term | unit | frame | scale | noise | bias |
|---|---|---|---|---|---|---|
| 0..1 | angle_cos_sin | 1 | – | 1 | ±0.01 | – |
| 2 | velocity | rad/s | – | 0.2 | ±0.1 | – |

## Action, every 0.02 s

| index | actuator | default | scale | lower | upper |
|---|---|---|---|---|---|
| 0 | hinge | 0 | 2 | -2 | 2 |

## Success

rod within 0.2 rad of upright throughout the last 1 s"""


def test_a_task_is_described_by_its_tables():
    assert describe(SPEC) == PENDULUM


def test_stages_are_listed_in_their_order():
    stages = "## Stages, the last of which is success\n\npassed, arrived"
    assert describe(obstacle2d.SPEC).endswith(stages)


def command(*tasks):
    arguments = [sys.executable, "-m", "mjx_policies.envs.describe", *tasks]
    return subprocess.run(arguments, capture_output=True, text=True, check=False)


def test_the_command_prints_the_tables_of_each_task_it_is_given():
    printed = command("Pendulum", "Go2Getup").stdout
    assert printed.startswith(f"# Pendulum\n\n{PENDULUM}\n\n# Go2Getup\n")
    assert '## Observation `obs["privileged"]`' in printed and "| 11 | RR_calf | " in printed


def test_without_a_task_the_command_lists_those_there_are():
    refused = command()
    assert refused.returncode == 2 and refused.stdout == "" and refused.stderr.count("\n") == 1
    assert refused.stderr.startswith("error: which task? ") and ", ".join(TASKS) in refused.stderr
