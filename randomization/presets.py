"""Ranges for the robots of this library, each with its reason. Published figures that disagree span a range."""

from __future__ import annotations

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
)
from mjx_policies.randomization.terms import Term


def go2() -> dict[str, Term]:
    """Unitree Go2. A dict like any other: replace, add or drop terms as an experiment needs."""
    return {
        # Wet tile to rubber on concrete; published models say 0.4 (unitree_mujoco) and 0.8 (Menagerie). The feet decide
        # by priority; all four stand on one floor, so they share the draw.
        "friction": friction(0.5, 1.56, "*_foot", operation="scale"),
        # Link masses of the URDF against a scale: cables, covers and screws are in no table.
        "mass": mass(0.9, 1.1),
        # Battery out (about 1 kg) to a computer and a lidar on the back.
        "payload": payload(-1.0, 2.0, "trunk"),
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


PRESETS = {"go2": go2}  # by `EnvSpec.robot`
