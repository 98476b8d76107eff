"""Scenes of the Franka: the robot at a table, with the objects of each task.

World frame: the robot's base, x forward, y left, z up, zero on the table top. Lengths in m, masses in kg.

The table that objects rest on is an endless plane, the cheapest thing to collide with; what is seen is a box under it.
Objects collide with the table, with each other, with hand and fingers (`contype` and `conaffinity` 1); what stands
still has `conaffinity` 0, so that it does not collide with its like. Goals are mocap bodies that touch nothing. A body,
its joint and, where it has one geometry, that geometry share a name.
"""

from __future__ import annotations

import mujoco
import numpy as np

from mjx_policies.envs.franka.robot import robot_spec
from mjx_policies.envs.rendering.kinematics import facing
from mjx_policies.envs.sensors import add_contact_sensor

READY = (0.0, 0.0458985, 0.0, -2.3762899, 0.0, 2.4221884, 0.7853982)
"""rad; the tool centre point is at x 0.5, y 0, z 0.2, pointing down: just above where objects are."""

CUBE = 0.02  # half the side of a cube: 4 cm, of which the hand spans 8
BLOCK = (0.05, 0.05, 0.02)  # half the sides of the block to be pushed: too wide to be grasped
PEG_RADIUS, HOLE_WIDTH, HOLE_DEPTH = 0.004, 0.0085, 0.03
PEG_HANDLE = (0.010, 0.008, 0.015)  # half the sides of what the hand holds the peg by
PEG_LENGTH = 0.04  # of the shaft below the handle
DRAWER_RANGE = 0.2
HANDLE = (-0.05, 0.0, 0.12)  # of the closed drawer, from the foot of the cabinet's front
RED, GREEN, BLUE, ORANGE = ((0.84, 0.19, 0.19, 1), (0.16, 0.62, 0.38, 1), (0.18, 0.39, 0.8, 1), (0.96, 0.6, 0.15, 1))
GREY, WOOD = (0.45, 0.48, 0.52, 1), (0.72, 0.58, 0.42, 1)
FRICTION = (0.6, 0.005, 0.0001)  # of wood and plastic on each other; the pads of rubber decide by priority


def reach(lean: bool = False) -> mujoco.MjModel:
    """A point in the air to be reached. `lean` leaves decoration out: the robot moves the same."""
    spec = _table(lean)
    _add_goal(spec, radius=0.02)
    return spec.compile()


def push(lean: bool = False) -> mujoco.MjModel:
    """A block, and the place on the table where it is to go."""
    spec = _table(lean)
    _add_box(spec, "block", BLOCK, mass=0.3, rgba=ORANGE)
    goal = _add_goal_body(spec)
    _add_decoration(goal, mujoco.mjtGeom.mjGEOM_BOX, (BLOCK[0], BLOCK[1], 0.0005), GREEN)
    _touch(spec, "block")
    return _compile(spec, contacts=16)


def pick_cube(lean: bool = False) -> mujoco.MjModel:
    """A cube on the table, and a point in the air to bring it to."""
    spec = _table(lean)
    _add_box(spec, "cube", (CUBE,) * 3, mass=0.064, rgba=RED)
    _add_goal(spec, radius=0.02)
    _touch(spec, "cube")
    return _compile(spec, contacts=20)


def stack(lean: bool = False) -> mujoco.MjModel:
    """A cube to be put on another, the base."""
    spec = _table(lean)
    _add_box(spec, "cube", (CUBE,) * 3, mass=0.064, rgba=RED)
    _add_box(spec, "base", (CUBE,) * 3, mass=0.064, rgba=BLUE, y=0.1)
    _touch(spec, "cube")
    return _compile(spec, contacts=28)


def peg_insert(lean: bool = False) -> mujoco.MjModel:
    """A peg in the hand, and a socket with a hole for it.

    The hole is square and made of four boxes, because MJX has no cylinder against a box; the peg is a capsule, whose
    round tip finds its way in as a chamfer would. The socket collides with the shaft alone, which is longer than the
    hole is deep: the handle and the fingers that hold it never come down to the socket.
    """
    spec = _table(lean)
    spec.option.timestep = 0.0025  # a quarter of a millimetre of play
    peg = _add_free_body(spec, "peg")
    _add_geom(peg, "peg_handle", mujoco.mjtGeom.mjGEOM_BOX, PEG_HANDLE, mass=0.03, rgba=ORANGE)
    tip = -PEG_HANDLE[2] - PEG_LENGTH
    shaft = _add_geom(peg, "peg_shaft", mujoco.mjtGeom.mjGEOM_CAPSULE, (PEG_RADIUS, 0, 0), mass=0.02, rgba=GREY)
    shaft.fromto = [0, 0, -PEG_HANDLE[2], 0, 0, tip + PEG_RADIUS]
    shaft.conaffinity = 3
    peg.add_site(name="peg_tip", pos=[0, 0, tip], group=4)
    socket = spec.worldbody.add_body(name="socket", mocap=True, pos=[0.5, 0, 0])
    inner, outer, height = HOLE_WIDTH / 2, 0.03, HOLE_DEPTH / 2
    wall = (outer - inner) / 2  # half its thickness
    for name, size, x, y in (
        ("front", (wall, outer, height), -inner - wall, 0),
        ("back", (wall, outer, height), inner + wall, 0),
        ("left", (inner, wall, height), 0, inner + wall),
        ("right", (inner, wall, height), 0, -inner - wall),
    ):
        geom = _add_geom(socket, f"socket_{name}", mujoco.mjtGeom.mjGEOM_BOX, size, rgba=BLUE)
        geom.pos, geom.contype, geom.conaffinity = [x, y, height], 2, 0
    _touch(spec, "peg_handle")
    return _compile(spec, contacts=20)


def drawer(lean: bool = False) -> mujoco.MjModel:
    """A cabinet with a drawer, to be pulled open by its upright handle."""
    spec = _table(lean)
    cabinet = spec.worldbody.add_body(name="cabinet", mocap=True, pos=[0.6, 0, 0])
    body = _add_geom(cabinet, "cabinet", mujoco.mjtGeom.mjGEOM_BOX, (0.12, 0.15, 0.1), rgba=WOOD)
    body.pos, body.conaffinity = [0.14, 0, 0.1], 0
    drawer = cabinet.add_body(name="drawer")
    drawer.add_joint(
        name="drawer",
        type=mujoco.mjtJoint.mjJNT_SLIDE,
        axis=[-1, 0, 0],
        range=[0, DRAWER_RANGE],
        damping=5.0,  # N s/m
        frictionloss=2.0,  # N
        armature=0.1,
    )
    front = _add_geom(drawer, "front", mujoco.mjtGeom.mjGEOM_BOX, (0.01, 0.13, 0.07), mass=1.0, rgba=WOOD)
    front.pos, front.conaffinity = [0.01, 0, 0.12], 0
    x, y, z = HANDLE
    handle = _add_geom(drawer, "handle", mujoco.mjtGeom.mjGEOM_CAPSULE, (0.008, 0, 0), mass=0.1, rgba=GREY)
    handle.fromto, handle.conaffinity = [x, y, z - 0.03, x, y, z + 0.03], 0
    for end in (-0.025, 0.025):
        bracket = _add_decoration(drawer, mujoco.mjtGeom.mjGEOM_CAPSULE, (0.005, 0, 0), GREY)
        bracket.fromto = [x, y, z + end, 0, y, z + end]
    for side in (-0.12, 0.12):
        wall = _add_decoration(drawer, mujoco.mjtGeom.mjGEOM_BOX, (0.1, 0.005, 0.05), WOOD)
        wall.pos = [0.12, side, 0.11]
    drawer.add_site(name="handle", pos=HANDLE, group=4)
    _touch(spec, "handle")
    return _compile(spec, contacts=20)


def _table(lean: bool) -> mujoco.MjSpec:
    """The robot, the table, light and a camera that sees all of it."""
    spec = robot_spec(lean=lean)
    spec.stat.extent, spec.stat.center = 1.2, [0.4, 0, 0.25]
    spec.visual.headlight.ambient = [0.35, 0.35, 0.35]
    spec.visual.headlight.diffuse = [0.4, 0.4, 0.4]
    world = spec.worldbody
    world.add_light(
        name="sun", type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL, dir=[-0.3, -0.4, -1], pos=[0, 0, 3], diffuse=[0.6] * 3
    )
    table = _add_geom(world, "table", mujoco.mjtGeom.mjGEOM_PLANE, (0, 0, 0.05))
    table.group, table.conaffinity = 3, 0
    top = _add_decoration(world, mujoco.mjtGeom.mjGEOM_BOX, (0.55, 0.6, 0.02), (0.78, 0.74, 0.68, 1))
    top.pos = [0.35, 0, -0.02]
    for x in (-0.12, 0.82):
        for y in (-0.52, 0.52):
            leg = _add_decoration(world, mujoco.mjtGeom.mjGEOM_BOX, (0.03, 0.03, 0.34), GREY)
            leg.pos = [x, y, -0.38]
    ground = _add_decoration(world, mujoco.mjtGeom.mjGEOM_PLANE, (0, 0, 0.05), (0.52, 0.55, 0.58, 1))
    ground.pos = [0, 0, -0.72]
    _add_camera(spec, "scene", position=(0.6, 1.1, 0.6), target=(0.38, 0, 0.25), fovy=45)
    return spec


def _add_camera(spec: mujoco.MjSpec, name: str, position, target, fovy: float) -> None:
    axes = np.asarray(facing(np.subtract(target, position).astype(np.float32)), float)
    camera = spec.worldbody.add_camera(name=name, pos=position, fovy=fovy)
    camera.alt.type = mujoco.mjtOrientation.mjORIENTATION_XYAXES
    camera.alt.xyaxes = [*axes[:, 0], *axes[:, 1]]


def _add_free_body(spec: mujoco.MjSpec, name: str, y: float = 0.0):
    body = spec.worldbody.add_body(name=name, pos=[0.5, y, 0.1])
    body.add_freejoint(name=name)
    return body


def _add_box(spec: mujoco.MjSpec, name: str, size, mass: float, rgba, y: float = 0.0) -> None:
    _add_geom(_add_free_body(spec, name, y), name, mujoco.mjtGeom.mjGEOM_BOX, size, mass, rgba)


def _add_geom(body, name: str, kind: mujoco.mjtGeom, size, mass: float = 0.0, rgba=GREY):
    return body.add_geom(name=name, type=kind, size=size, mass=mass, rgba=rgba, friction=FRICTION)


def _add_decoration(body, kind: mujoco.mjtGeom, size, rgba):
    return body.add_geom(type=kind, size=size, mass=0, rgba=rgba, group=2, contype=0, conaffinity=0)


def _add_goal_body(spec: mujoco.MjSpec):
    return spec.worldbody.add_body(name="goal", mocap=True, pos=[0.5, 0, 0])


def _add_goal(spec: mujoco.MjSpec, radius: float) -> None:
    _add_decoration(_add_goal_body(spec), mujoco.mjtGeom.mjGEOM_SPHERE, (radius, 0, 0), GREEN)


def _touch(spec: mujoco.MjSpec, geom: str) -> None:
    """Contact of each finger's pad with an object."""
    for side in ("left", "right"):
        add_contact_sensor(spec, f"{side}_touch", f"{side}_pad", geom, force=True)


def _compile(spec: mujoco.MjSpec, contacts: int) -> mujoco.MjModel:
    """MJX sizes its arrays by all that could touch; the `contacts` deepest are kept."""
    spec.add_numeric(name="max_contact_points", size=1, data=[contacts])
    return spec.compile()
