"""Ranges for the robots of this library, each with its reason. Published figures that disagree span a range."""

from __future__ import annotations

from collections.abc import Callable

import mujoco

from mjx_policies.randomization.dynamics import (
    actuator_kd,
    actuator_kp,
    actuator_strength,
    armature,
    center_of_mass,
    damping,
    friction,
    friction_loss,
    gravity,
    inertia,
    mass,
    payload,
    term,
)
from mjx_policies.randomization.terms import RandomizationTerm


def go2() -> dict[str, RandomizationTerm]:
    """The randomization of a Unitree Go2. A dict like any other: replace, add or drop terms as an experiment needs."""
    return {
        # Wet tile to rubber on concrete; published models say 0.4 (unitree_mujoco) and 0.8 (Menagerie). The feet decide
        # by priority; all four stand on one floor, so they share the draw.
        "friction": friction(0.5, 1.56, "*_foot", operation="scale"),
        # Link masses of the URDF against a scale: cables, covers and screws are in no table.
        "mass": mass(0.9, 1.1),
        # Battery out (about 1 kg) to a computer, a lidar and what holds them on the back.
        "payload": payload(-1.0, 2.5, "trunk"),
        # The same load mounted off centre; the trunk is 38 cm long and 9 cm wide.
        "center_of_mass": center_of_mass((-0.03, -0.02, -0.02), (0.03, 0.02, 0.02), "trunk"),
        # Inertia comes from CAD with uniform density, and a payload adds its own.
        "inertia": inertia(0.8, 1.2),
        # 0.004 and 0.009 kg m^2 from rotor and gears, 0.01 and 0.02 in unitree_rl_mjlab.
        "armature": armature(0.9, 2.5),
        # 0.1 N m s/rad in unitree_mujoco; gear grease changes severalfold with temperature.
        "damping": damping(0.5, 3.0),
        # None in the URDF, 0.2 N m in unitree_mujoco; MJX needs some.
        "friction_loss": friction_loss(0.25, 1.5),
        # Motor constants, current sensing and winding temperature; the firmware's gains are exact, its torque is not.
        "kp": actuator_kp(0.9, 1.1),
        "kd": actuator_kd(0.85, 1.15),
        # The model holds the lowest published limits; a drained battery or a warm motor gives less.
        "strength": actuator_strength(0.85, 1.0),
        # A floor 1.5 degrees off level, which a calibrated IMU cannot tell from tilt of the robot.
        "gravity": gravity((-0.25, -0.25, -0.1), (0.25, 0.25, 0.1)),
    }


def franka(model: mujoco.MjModel) -> dict[str, RandomizationTerm]:
    """Franka Research 3 with its hand, and the objects that are on its table in this model."""
    links, joints = ("link[1-7]", "hand"), ("joint?", "finger_joint?")
    terms = {
        # Three published sets of link masses (FER, FR3 and Menagerie's Panda) differ by a fifth in most links.
        "mass": mass(0.8, 1.2, links),
        # The same sets put the centres up to some centimetres apart.
        "center_of_mass": center_of_mass((-0.02, -0.02, -0.02), (0.02, 0.02, 0.02), links),
        # 0.1 kg m^2 in Menagerie, 0.2 to 0.6 from Franka by way of drake; the finger's is right within a factor of 2.
        "armature": armature(0.5, 1.25, joints),
        # 0.2 N m and 0.003 N m s/rad in franka_description, none in its later editions; identified values are larger.
        "friction_loss": friction_loss(0.5, 2.5, joints),
        "damping": damping(0.5, 3.0, joints),
        # What the robot thinks it weighs, cables and all: an arm that floats up or sinks by some millimetres.
        "gravity_compensation": term("body_gravcomp", 0.97, 1.03, links, shared=True),
        # The maker's stiffness is a command, the torque behind it is measured to some percent.
        "kp": actuator_kp(0.9, 1.1),
        "kd": actuator_kd(0.85, 1.15),
        # 70 N of continuous grasping force is a figure for a new hand.
        "grip": actuator_strength(0.7, 1.0, "gripper"),
        # Rubber on dry wood to rubber on smooth or dusty plastic; both pads are of one make.
        "pad_friction": friction(0.7, 1.3, "*_pad", operation="scale"),
    }
    objects = {model.body(i).name for i in range(model.nbody)}
    loose = tuple(name for name in ("cube", "base", "block", "peg", "drawer") if name in objects)
    if loose:
        # Hollow plastic to solid oak.
        terms["object_mass"] = mass(0.5, 2.0, loose)
    resting = tuple(name for name in ("cube", "base", "block") if name in objects)
    if resting:
        # Of wood and plastic on each other, 0.3 to 0.9; a contact takes the larger of two, so all share the draw.
        terms["table_friction"] = friction(0.5, 1.5, ("table", *resting), operation="scale")
    if "drawer" in objects:
        # From a runner with ball bearings to wood in wood.
        terms["drawer_friction"] = friction_loss(0.25, 2.0, "drawer")
        terms["drawer_damping"] = damping(0.5, 2.0, "drawer")
    if "socket" in objects:
        # Greased steel to dry plastic, of the shaft in the hole.
        terms["hole_friction"] = friction(0.25, 1.25, ("socket_*", "peg_shaft"), operation="scale")
    return terms


def _go2(model: mujoco.MjModel) -> dict[str, RandomizationTerm]:
    del model  # of one robot on any ground
    return go2()


PRESETS: dict[str, Callable[[mujoco.MjModel], dict[str, RandomizationTerm]]] = {"go2": _go2, "franka": franka}
"""The presets by `EnvSpec.robot`: the terms for the model of a task."""
