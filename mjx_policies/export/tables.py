"""The contract's entries, from the tables that a policy was trained with: nothing here is typed by hand.

Axes: A action.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import mujoco
import numpy as np

from mjx_policies.deploy import contract

if TYPE_CHECKING:
    from mjx_policies.spec import EnvSpec

PACKAGES = ("jax", "flax", "mujoco", "jax2onnx", "onnx", "onnxruntime")
MAX_AGE = 2  # control periods that a measurement may be old
SOFT = 0.9  # of a joint's range, within which targets are kept on a robot; of all of it where it slides as a gripper


@dataclasses.dataclass(frozen=True)
class Provenance:
    """The provenance of a policy: where it comes from and what it was trained against.

    Attributes:
      task: its name.
      steps: environment steps.
      seed: of the run.
      delay: s, shortest and longest from an action to the motors.
      ranges: what quantities of the simulation were drawn from.
      commit: of the code; empty if unknown.
    """

    task: str
    steps: int
    seed: int
    delay: tuple[float, float] = (0.0, 0.0)
    ranges: tuple[contract.Range, ...] = ()
    commit: str = ""


def describe(
    spec: EnvSpec, model: mujoco.MjModel, provenance: Provenance, history: int = 1, horizon: int = 1
) -> dict[str, Any]:
    """Fields of a `Contract` that say what goes in, what comes out and where it comes from: all but the graph's own.

    Args:
      spec: of the task.
      model: the nominal robot, for limits of joints and torques.
      provenance: of the policy.
      history: observations that the policy takes, the oldest first; `by_time` is how it finds them.
      horizon: actions that it makes of them.

    Raises:
      ValueError: the actions are not what the robot's actuators are told.
    """
    table = spec.action
    known = {model.actuator(i).name for i in range(model.nu)}
    if strangers := [name for name in table.names if name not in known]:
        raise ValueError(
            f"this policy's actions, such as {strangers[0]}, are no targets of the robot's servos, so no controller "
            "could carry them out: train one with --actions joint_target"
        )
    servo = bool(table.stiffness)
    zeros = (0.0,) * table.size
    lower, upper = np.array(table.lower), np.array(table.upper)
    soft_lower, soft_upper = lower, upper
    if servo:  # the joints reach as far as their actuators; in training targets may be kept within less than that
        lower, upper = np.array([model.actuator(name).ctrlrange for name in table.names]).T
        # A gripper is made to close, and a target short of that would press less.
        inset = np.where(_slides(table.names, model), 0.0, 1 - SOFT) * (upper - lower) / 2
        soft_lower, soft_upper = np.maximum(soft_lower, lower + inset), np.minimum(soft_upper, upper - inset)
    forces = [float(model.actuator(name).forcerange[1]) for name in table.names] if servo else table.upper
    columns: dict[str, Any] = {
        "name": table.names,
        "default": table.default,
        "home": spec.home or table.default,
        "scale": table.scale,
        "stiffness": table.stiffness or zeros,
        "damping": table.damping or zeros,
        "lower": lower.tolist(),
        "upper": upper.tolist(),
        "soft_lower": soft_lower.tolist(),
        "soft_upper": soft_upper.tolist(),
        "velocity": table.velocity or zeros,
        "effort": forces,
    }
    joints = tuple(
        contract.Joint(**dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)
    )
    observation = tuple(
        contract.ContractTerm(
            name=term.name,
            size=term.size,
            unit=term.unit,
            frame=term.frame,
            scale=term.scale,
            clip=0.0,
            history=history,
            newest_first=history == 1,
            fill="first",
            noise=term.noise,
            bias=term.bias,
            measured=term.measured,
        )
        for term in spec.observation
    )
    return {
        "robot": contract.RobotModel(spec.robot or provenance.task, model_sha256(model), "wxyz"),
        "timing": contract.Timing(
            control_dt=spec.control_dt,
            physics_dt=float(model.opt.timestep),
            max_observation_age=MAX_AGE * spec.control_dt,
            delay=tuple(float(x) for x in provenance.delay),
        ),
        "joints": joints,
        "observation": observation,
        "action": contract.Action(
            type="joint_position" if servo else "joint_torque",
            clip=table.clip,
            rate_limit=max(table.velocity, default=0.0),  # one for all joints, that of the fastest
            horizon=horizon,
        ),
        "commands": spec.commands,
        "gait": spec.gait,
        "randomization": provenance.ranges,
        "training": contract.Training(
            task=provenance.task,
            steps=provenance.steps,
            seed=provenance.seed,
            commit=provenance.commit,
            versions=versions(),
        ),
    }


def by_time(spec: EnvSpec, history: int) -> np.ndarray:  # -> [history, D]
    """The place of each observation in what a contract describes, which puts the history of each term side by side."""
    starts = np.cumsum([0, *(term.size * history for term in spec.observation)])
    rows = [
        start + np.arange(term.size * history).reshape(history, term.size)
        for start, term in zip(starts, spec.observation, strict=False)
    ]
    return np.concatenate(rows, axis=1)


def versions(packages: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """The versions of the packages that had a hand in it."""
    return {name: importlib.metadata.version(name) for name in packages}


def model_sha256(model: mujoco.MjModel) -> str:
    """A hash of the model's numbers that move it: a robot with other masses or gains has another hash.

    Taken over fields rather than over MuJoCo's binary format, which changes with its version.
    """
    digest = hashlib.sha256()
    for name in MODEL_FIELDS:
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(getattr(model, name)).tobytes())
    return digest.hexdigest()


MODEL_FIELDS = (
    "body_mass",
    "body_inertia",
    "body_ipos",
    "body_iquat",
    "body_pos",
    "body_quat",
    "body_parentid",
    "jnt_type",
    "jnt_axis",
    "jnt_pos",
    "jnt_range",
    "dof_armature",
    "dof_damping",
    "dof_frictionloss",
    "geom_type",
    "geom_size",
    "geom_pos",
    "geom_quat",
    "geom_friction",
    "actuator_gainprm",
    "actuator_biasprm",
    "actuator_ctrlrange",
    "actuator_forcerange",
    "actuator_trnid",
)


def _slides(names: tuple[str, ...], model: mujoco.MjModel) -> np.ndarray:  # -> [A] bool
    """The actuators that drive a joint that slides."""
    joints = [model.actuator(name).trnid[0] for name in names]
    return model.jnt_type[joints] == mujoco.mjtJoint.mjJNT_SLIDE


def ranges(terms: Mapping[str, Any]) -> tuple[contract.Range, ...]:
    """Randomization terms as entries of the contract."""
    return tuple(
        contract.Range(name, term.operation, _numbers(term.low), _numbers(term.high)) for name, term in terms.items()
    )


def _numbers(value: Any) -> tuple[float, ...]:
    return tuple(np.asarray(value, float).ravel().tolist())
