"""Observation terms of a Franka besides its joints, from a reading.

| term | from the reading's |
|---|---|
| `finger_opening` | `joint_position` of the joint `gripper`: m, of each finger |
| `tcp_position`, `tcp_rotation` | `joint_position` of the arm |
| `<name>_position` | `<name>_position` [3] m, where a tracker sees a thing, from the TCP |
| `<name>_rotation` | `<name>_orientation` [4] w, x, y, z of it |
| `goal` | no reading: where the operator wants something, from the TCP |

All frames have the axes of the arm's base, x forward and z up, and its origin where none is named. The TCP is the tool
centre point between the pads. Rotations are the first two columns of their matrix, Zhou et al. 2019 (arXiv:1812.07035).
Axes: J = 7 joints of the arm, A joints in the policy's order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from mjx_policies.deploy.contract import Contract, ContractError
from mjx_policies.deploy.observation import Source
from mjx_policies.deploy.robots.franka import JOINTS

GRIPPER = "gripper"

# Origin of each joint's frame in the one before it (m), and its roll about the common x axis in quarter turns, the same
# for both generations: frankarobotics/franka_description, robots/fr3/kinematics.yaml.
_ORIGINS = np.array(
    [
        [0.0, 0.0, 0.333],
        [0.0, 0.0, 0.0],
        [0.0, -0.316, 0.0],
        [0.0825, 0.0, 0.0],
        [-0.0825, 0.384, 0.0],
        [0.0, 0.0, 0.0],
        [0.088, 0.0, 0.0],
    ]
)
_TURNS = (0, -1, 1, 1, -1, 1, 1)
_ROLLS = [np.array([[1, 0, 0], [0, 1 - abs(turn), -turn], [0, turn, 1 - abs(turn)]]) for turn in _TURNS]
_TOOL = 0.107 + 0.1034  # m, flange, then TCP of the hand, along the last axis
_TOOL_YAW = -np.pi / 4  # of the hand on the flange


def tcp_pose(q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # [J] -> [3], [3, 3]
    """Position (m) and rotation matrix of the TCP for joint angles in rad."""
    position, rotation = np.zeros(3), np.eye(3)
    for origin, roll, angle in zip(_ORIGINS, _ROLLS, [*q[:-1], q[-1] + _TOOL_YAW], strict=True):
        cosine, sine = np.cos(angle), np.sin(angle)
        position = position + rotation @ origin
        rotation = rotation @ roll @ np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
    return position + _TOOL * rotation[:, 2], rotation


def sixd(matrix: np.ndarray) -> np.ndarray:  # [3, 3] -> [6]
    """A rotation's first column, then its second."""
    return matrix[:, :2].T.ravel()


def to_matrix(orientation: np.ndarray) -> np.ndarray:  # [4] w, x, y, z -> [3, 3]
    """The rotation matrix of a quaternion; one slightly off unit length is forgiven."""
    w, x, y, z = orientation / np.linalg.norm(orientation)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def franka_sources(contract: Contract, goal: Callable[[], np.ndarray] | None = None) -> dict[str, Source]:
    """The sources for `Controller`, one for each term of the contract that the module knows.

    Args:
      contract: of the policy.
      goal: [3] m in the base's frame, asked in every step; for policies that observe one.

    Raises:
      ContractError: the policy is not of this arm, or it observes a goal and none was given.
    """
    names = contract.joint_names
    if missing := [name for name in JOINTS if name not in names]:
        raise ContractError(f"the policy drives no {', '.join(missing)}: it is not for a Franka")
    arm = [names.index(name) for name in JOINTS]

    def tcp(values: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        return tcp_pose(values["joint_position"][arm])

    def source(term: str) -> Source | None:
        thing, _, what = term.rpartition("_")
        if term == "finger_opening" and GRIPPER in names:
            return lambda values: values["joint_position"][[names.index(GRIPPER)]]
        if term == "tcp_position":
            return lambda values: tcp(values)[0]
        if term == "tcp_rotation":
            return lambda values: sixd(tcp(values)[1])
        if term == "goal":
            if goal is None:
                raise ContractError("the policy observes a goal: say where it is")
            return lambda values: goal() - tcp(values)[0]
        if what == "position" and thing != "joint":
            return lambda values: values[term] - tcp(values)[0]
        if what == "rotation":
            return lambda values: sixd(to_matrix(values[f"{thing}_orientation"]))
        return None

    found = {term.name: source(term.name) for term in contract.observation}
    return {name: each for name, each in found.items() if each is not None}
