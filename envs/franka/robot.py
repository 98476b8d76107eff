"""The Franka arm and hand as tasks see them: model, joint order, limits.

The model is a Franka Research 3; `robot_spec("panda")` turns it into the first generation (FER, Panda), which has the
same link lengths but other ranges, speeds and masses. Axes: J = 7 joints, first to last.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Literal, get_args

import mujoco
import numpy as np

FR3_XML = pathlib.Path(__file__).parents[1] / "models" / "fr3.xml"
JOINTS = tuple(f"joint{i}" for i in range(1, 8))
FINGERS = ("finger_joint1", "finger_joint2")
ACTUATORS = (*JOINTS, "gripper")
HOME = (0.0, -0.25943, 0.0, -2.43148, 0.0, 2.17205, 0.7853982)
"""rad; the tool centre point is at x 0.45, y 0, z 0.3 m, pointing down, its x axis forward."""

OPENING = 0.04  # m, of each finger, fully open
GRIPPER_SPEED = 0.2  # m/s of each finger, as published
STIFFNESS = (1000.0,) * 4 + (400.0,) * 3 + (2000.0,)  # of the servos: N m / rad, N / m
SOFT_LIMIT = 0.9  # of each joint's range: targets of the arm stay within it, as a controller's do
DAMPING = (65.0,) * 2 + (60.0,) * 2 + (15.0,) * 3 + (0.0,)  # N m s / rad; the fingers' is that of their joints

Variant = Literal["fr3", "panda"]
Seven = tuple[float, float, float, float, float, float, float]


@dataclasses.dataclass(frozen=True)
class JointLimits:
    """Limits of the joints of one generation, as published.

    Attributes:
      lower, upper: [J] rad, ends of the range.
      velocity: [J] rad/s, far from the ends of the range.
      effort: [J] N m.
    """

    lower: Seven
    upper: Seven
    velocity: Seven
    effort: Seven = (87.0, 87.0, 87.0, 87.0, 12.0, 12.0, 12.0)


LIMITS: dict[str, JointLimits] = {
    "fr3": JointLimits(  # before system version 5.9.0: the ranges lie within those of later ones
        lower=(-2.7437, -1.7837, -2.9007, -3.0421, -2.8065, 0.5445, -3.0159),
        upper=(2.7437, 1.7837, 2.9007, -0.1518, 2.8065, 4.5169, 3.0159),
        velocity=(2.62, 2.62, 2.62, 2.62, 5.26, 4.18, 5.26),
    ),
    "panda": JointLimits(
        lower=(-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973),
        upper=(2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973),
        velocity=(2.175, 2.175, 2.175, 2.175, 2.61, 2.61, 2.61),
    ),
}

# Mass (kg), centre of mass (m), inertia about it as xx, yy, zz, xy, xz, yz (kg m^2): robots/fer/inertials.yaml of
# frankarobotics/franka_description.
_PANDA_LINKS = {
    "link1": (
        2.7907,
        (0.00033, -0.02204, -0.04762),
        (0.01564782655, 0.01439883526, 0.00500443991, 5.31236e-6, -3.676721e-5, -0.00248480843),
    ),
    "link2": (
        2.5420,
        (0.00038, -0.09211, 0.01908),
        (0.01662427728, 0.00462501261, 0.01545124526, 3.086077e-5, 8.3594e-6, 0.0035589983),
    ),
    "link3": (
        2.2513,
        (0.05152, 0.01696, -0.02971),
        (0.00631741992, 0.00866285493, 0.00657804051, 0.00097309955, 0.00292525834, 0.00093469224),
    ),
    "link4": (
        2.2037,
        (-0.05113, 0.05825, 0.01698),
        (0.00784585566, 0.00649543136, 0.01003079917, -0.00339591957, 0.00158704074, -0.00181477884),
    ),
    "link5": (
        2.2855,
        (-0.00005, 0.03730, -0.09280),
        (0.02297014781, 0.02095060919, 0.00430606551, -9.49345e-6, -2.063156e-5, 0.00382345782),
    ),
    "link6": (
        1.353,
        (0.06572, -0.00371, 0.00153),
        (0.00087964522, 0.00277796968, 0.00286701969, -0.00021487814, -0.00011911662, 1.274322e-5),
    ),
    "link7": (
        0.35973,
        (0.00089, -0.00044, 0.05491),
        (0.00019541063, 0.00019210361, 0.00017936256, 1.65231e-6, 1.48826e-6, -1.31132e-6),
    ),
}


def joint_limits(variant: Variant = "fr3") -> JointLimits:
    """Ranges, speeds and efforts of the arm's joints.

    Raises:
      ValueError: unknown variant.
    """
    _check(variant)
    return LIMITS[variant]


def within(limits: JointLimits, share: float) -> JointLimits:
    """The limits with their ranges shrunk about their middles by a factor; or grown, above 1."""
    lower, upper = np.array(limits.lower), np.array(limits.upper)
    middle, half = (lower + upper) / 2, share * (upper - lower) / 2
    return dataclasses.replace(limits, lower=tuple((middle - half).tolist()), upper=tuple((middle + half).tolist()))


def robot_spec(variant: Variant = "fr3", lean: bool = False) -> mujoco.MjSpec:
    """The robot alone, to be put into a scene; no keyframe, no floor.

    Args:
      variant: the generation.
      lean: drops decoration when compiled, which MJX would carry along in every robot of a batch.

    Raises:
      ValueError: unknown variant.
    """
    _check(variant)
    spec = mujoco.MjSpec.from_file(str(FR3_XML))
    spec.compiler.discardvisual = lean
    if variant == "panda":
        _make_panda(spec)
    return spec


def _make_panda(spec: mujoco.MjSpec) -> None:
    """Ranges, masses and inertias of the first generation; rotors are those of the FR3, no others are published."""
    spec.modelname = "panda"
    limits = LIMITS["panda"]
    for name, lower, upper in zip(JOINTS, limits.lower, limits.upper, strict=True):
        spec.joint(name).range = [lower, upper]
    for name, (mass, centre, figures) in _PANDA_LINKS.items():
        xx, yy, zz, xy, xz, yz = figures
        tensor = physical_inertia(np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]))
        body = spec.body(name)
        body.mass, body.ipos = mass, list(centre)
        body.fullinertia = [*np.diag(tensor), tensor[0, 1], tensor[0, 2], tensor[1, 2]]


def physical_inertia(tensor: np.ndarray) -> np.ndarray:  # [3, 3] -> [3, 3]
    """The inertia tensor of some distribution of mass nearest to `tensor`, which is returned if it is one itself.

    A tensor I belongs to the second moments S = tr(I) / 2 - I, and masses are positive where S has no negative
    eigenvalue; the published tensor of the Panda's link 4 has one, which becomes zero.
    """
    moments = np.trace(tensor) / 2 * np.eye(3) - tensor
    values, axes = np.linalg.eigh(moments)
    if values[0] >= 0:
        return tensor
    moments = axes @ np.diag(np.maximum(values, 1e-9)) @ axes.T  # not quite zero: MuJoCo checks in floating point
    return np.trace(moments) * np.eye(3) - moments


def _check(variant: str) -> None:
    if variant not in get_args(Variant):
        raise ValueError(f"unknown Franka {variant!r}; known: {', '.join(get_args(Variant))}")
