"""Two models that every backend can simulate."""

import mujoco
import pytest

# Two legs under a trunk that is not symmetric; a servo, and a motor with a filter, which has a state of its own.
WALKER = """
<mujoco>
  <compiler autolimits="true"/>
  <option timestep="0.004" integrator="implicitfast" iterations="50" ls_iterations="50"/>
  <worldbody>
    <geom name="floor" type="plane" size="5 5 .1"/>
    <body name="target" mocap="true" pos="0 0 1"/>
    <body name="trunk" pos="0 0 .3">
      <freejoint/>
      <inertial pos=".01 .002 -.003" mass="3" fullinertia=".02 .04 .05 .001 .002 .0005"/>
      <site name="imu" pos=".05 0 .02"/>
      <body name="left" pos="0 .1 0">
        <joint name="left" axis="0 1 0" damping=".3" armature=".01" frictionloss=".05"/>
        <geom name="left" type="sphere" size=".03" pos=".02 0 -.25" mass=".5"/>
      </body>
      <body name="right" pos="0 -.1 0">
        <joint name="right" axis="1 1 0" damping=".3" armature=".01"/>
        <geom name="right" type="sphere" size=".04" pos="0 0 -.25" mass=".5"/>
      </body>
    </body>
  </worldbody>
  <actuator>
    <position name="left" joint="left" kp="15" kv="1" forcerange="-15 15"/>
    <general name="right" joint="right" dyntype="filter" dynprm=".03" gainprm="2"/>
  </actuator>
  <sensor>
    <framepos name="position" objtype="site" objname="imu"/>
    <framequat name="orientation" objtype="site" objname="imu"/>
    <gyro name="gyro" site="imu"/>
    <accelerometer name="accelerometer" site="imu"/>
    <contact name="left_contact" geom1="left" geom2="floor" data="found force" reduce="mindist" num="1"/>
    <contact name="right_contact" geom1="right" geom2="floor" data="found force" reduce="mindist" num="1"/>
  </sensor>
</mujoco>
"""
PENDULUM = """
<mujoco>
  <option timestep="0.01"/>
  <worldbody><body name="rod" pos="0 0 1">
    <joint name="hinge" axis="0 1 0" damping=".02"/>
    <geom name="rod" type="capsule" fromto="0 0 0 .3 0 0" size=".02"/>
  </body></worldbody>
  <actuator><motor name="hinge" joint="hinge"/></actuator>
</mujoco>
"""


@pytest.fixture(scope="package")
def walker():
    return mujoco.MjModel.from_xml_string(WALKER)


@pytest.fixture(scope="package")
def pendulum():
    return mujoco.MjModel.from_xml_string(PENDULUM)


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """The engine writes its warnings to a file in the working directory."""
    monkeypatch.chdir(tmp_path)
