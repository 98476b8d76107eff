"""A Go2 as others model it, in MJCF: written from published figures, not from our own model or from any file.

Links, joints, centres of mass, inertias and collision sizes are those of unitreerobotics/unitree_ros
`go2_description/urdf/go2_description.urdf`; torques, joint damping, armature, dry friction and sliding friction those
of unitree_mujoco. What differs from our own model, apart from those:
- cylinders and boxes collide where ours are capsules and spheres, with each other too;
- rotors are left out of the links and of the inertia, as there; 15.0 kg in all in the place of 16.1;
- elliptic friction cones, steps of 2 ms, Newton's method to the end;
- legs and motors in the order FR, FL, RR, RL; the trunk has another name.
"""

from __future__ import annotations

PARTS = ("hip", "thigh", "calf")
TORQUE = {"hip": 23.7, "thigh": 23.7, "calf": 45.43}  # N m
RANGE = {"hip": (-1.0472, 1.0472), "calf": (-2.7227, -0.83776)}
THIGH_RANGE = {"F": (-1.5708, 3.4907), "R": (-0.5236, 4.5379)}
TIMESTEP = 0.002  # s
HOME = {"hip": 0.0, "thigh": 0.9, "calf": -1.8}
HEIGHT = 0.29  # m, of the trunk above the ground in that pose


def _inertial(mass: float, place: tuple, diagonal: tuple) -> str:
    words = " ".join(f"{x:g}" for x in place), " ".join(f"{x:g}" for x in diagonal)
    return f'<inertial mass="{mass:g}" pos="{words[0]}" diaginertia="{words[1]}"/>'


def _leg(leg: str) -> str:
    x, y = (1 if leg[0] == "F" else -1), (1 if leg[1] == "L" else -1)
    low, high = THIGH_RANGE[leg[0]]
    return f"""
    <body name="{leg}_hip" pos="{0.1934 * x} {0.0465 * y} 0">
      {_inertial(0.678, (-0.0054 * x, 0.00194 * y, -0.000105), (0.00048, 0.000884, 0.000596))}
      <joint name="{leg}_hip_joint" axis="1 0 0" range="{RANGE["hip"][0]} {RANGE["hip"][1]}"/>
      <geom type="cylinder" size="0.046 0.02" pos="0 {0.08 * y} 0" euler="1.5708 0 0"/>
      <body name="{leg}_thigh" pos="0 {0.0955 * y} 0">
        {_inertial(1.152, (-0.00374, -0.0223 * y, -0.0327), (0.00584, 0.0058, 0.00103))}
        <joint name="{leg}_thigh_joint" range="{low} {high}"/>
        <geom type="box" size="0.1065 0.01225 0.017" pos="0 0 -0.1065" euler="0 1.5708 0"/>
        <body name="{leg}_calf" pos="0 0 -0.213">
          {_inertial(0.154, (0.00548, -0.000975 * y, -0.115), (0.00108, 0.0011, 0.0000329))}
          <joint name="{leg}_calf_joint" range="{RANGE["calf"][0]} {RANGE["calf"][1]}"/>
          <geom type="cylinder" size="0.012 0.06" pos="0.008 0 -0.06" euler="0 -0.21 0"/>
          <geom type="cylinder" size="0.011 0.0325" pos="0.02 0 -0.148" euler="0 0.05 0"/>
          <body name="{leg}_foot" pos="0 0 -0.213">
            {_inertial(0.04, (0, 0, 0), (9.6e-6, 9.6e-6, 9.6e-6))}
            <geom name="{leg}_foot" type="sphere" size="0.022" pos="-0.002 0 0"/>
          </body>
        </body>
      </body>
    </body>"""


def mjcf() -> str:
    """The robot without a floor, with the sensors and the pose `home` that the gate needs."""
    legs = ("FR", "FL", "RR", "RL")
    motors = "\n".join(
        f'    <motor name="{leg}_{part}" joint="{leg}_{part}_joint" forcerange="{-TORQUE[part]} {TORQUE[part]}"/>'
        for leg in legs
        for part in PARTS
    )
    pose = " ".join(str(HOME[part]) for _ in legs for part in PARTS)
    return f"""
<mujoco model="foreign_go2">
  <compiler angle="radian" autolimits="true" eulerseq="xyz"/>
  <option timestep="{TIMESTEP}" cone="elliptic" impratio="100"/>
  <default>
    <geom friction="0.4" condim="3" priority="1"/>
    <joint axis="0 1 0" damping="0.1" armature="0.01" frictionloss="0.2"/>
  </default>
  <worldbody>
    <body name="base_link" pos="0 0 {HEIGHT}">
      <freejoint/>
      <inertial mass="6.921" pos="0.021112 0 -0.005366"
                fullinertia="0.02448 0.098077 0.107 0.00012166 0.0014849 -0.0000312"/>
      <geom type="box" size="0.1881 0.04675 0.057"/>
      <geom name="head" type="cylinder" size="0.05 0.045" pos="0.285 0 0.01"/>
      <geom type="sphere" size="0.047" pos="0.293 0 -0.06"/>
      <site name="imu" pos="-0.02557 0 0.04232"/>{"".join(_leg(leg) for leg in legs)}
    </body>
  </worldbody>
  <actuator>
{motors}
  </actuator>
  <sensor>
    <framequat name="orientation" objtype="site" objname="imu"/>
    <gyro name="gyro" site="imu"/>
    <velocimeter name="local_linvel" site="imu"/>
  </sensor>
  <keyframe>
    <key name="home" qpos="0 0 {HEIGHT} 1 0 0 0 {pose}"/>
  </keyframe>
</mujoco>
"""
