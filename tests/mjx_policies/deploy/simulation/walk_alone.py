"""A file is enough: mujoco, numpy, onnxruntime and the contract make a Go2 walk. python walk_alone.py POLICY MODEL"""

import json
import sys

import mujoco
import numpy as np
import onnxruntime


def down(data: mujoco.MjData) -> np.ndarray:
    """The direction of gravity in the imu's frame: the last row of its rotation matrix, turned round."""
    rotation = np.empty(9)
    mujoco.mju_quat2Mat(rotation, data.sensor("orientation").data)
    return -rotation[6:]


def walk(policy: str, xml: str, robots: int = 256, seconds: float = 20.0, seed: int = 0) -> dict[str, float]:
    """Share of robots that fell, and their tracking exp(-|v - v*|^2 / 0.25) until then."""
    session = onnxruntime.InferenceSession(policy, providers=["CPUExecutionProvider"])
    contract = json.loads(session.get_modelmeta().custom_metadata_map["mjx_policies.contract"])
    dt, joints, gait = contract["timing"]["control_dt"], contract["joints"], contract["gait"]
    low, high = np.array([[command["low"], command["high"]] for command in contract["commands"]]).T

    spec = mujoco.MjSpec.from_file(xml)
    spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_PLANE, size=[0, 0, 1], contype=0, conaffinity=1)
    model = spec.compile()
    model.opt.timestep = contract["timing"]["physics_dt"]
    actuators = [model.actuator(joint["name"]).id for joint in joints]
    driven, trunk = model.actuator_trnid[actuators, 0], model.jnt_bodyid[0]  # the body with the free joint
    qpos, qvel = model.jnt_qposadr[driven], model.jnt_dofadr[driven]
    servos = model.actuator_biastype[actuators[0]] != mujoco.mjtBias.mjBIAS_NONE  # else motors, told torques
    stiffness, damping = np.array([[joint["stiffness"], joint["damping"]] for joint in joints]).T

    rng = np.random.default_rng(seed)
    fleet = [mujoco.MjData(model) for _ in range(robots)]
    for data in fleet:
        mujoco.mj_resetDataKeyframe(model, data, model.key("home").id)
        mujoco.mj_forward(model, data)
    action, command = np.zeros((robots, len(joints))), rng.uniform(low, high, (robots, 3))
    phase, until, age = np.zeros(robots), rng.uniform(3, 8, robots), np.full(robots, 1e9)
    fallen, scores = np.zeros(robots, bool), []
    for step in range(round(seconds / dt)):
        redraw, before = step * dt >= until, command.copy()
        until[redraw] += rng.uniform(3, 8, redraw.sum())
        command[redraw] = rng.uniform(low, high, (redraw.sum(), 3)) * (rng.random((redraw.sum(), 1)) > 0.1)
        age[(command != before).any(axis=1)] = 0.0  # of what the robot is told: a stand after a stand is nothing new
        stepping = command.any(axis=1) | (age < gait["braking_seconds"])
        values = {
            "gyro": [data.sensor("gyro").data for data in fleet],
            "gravity": [down(data) for data in fleet],
            "joint_position": [data.qpos[qpos] - [joint["home"] for joint in joints] for data in fleet],
            "joint_velocity": [data.qvel[qvel] for data in fleet],
            "last_action": action,
            "command": command,
            "gait": np.stack([np.cos(2 * np.pi * phase), np.sin(2 * np.pi * phase)], 1) * stepping[:, None],
        }
        observation = np.concatenate(
            [np.array(values[t["name"]]) * t["scale"] for t in contract["observation"]], axis=1
        )
        action, target = session.run(["action", "target"], {"observation": observation.astype(np.float32)})
        target = np.clip(target, [joint["soft_lower"] for joint in joints], [joint["soft_upper"] for joint in joints])
        for robot, data in enumerate(fleet):
            for _ in range(round(dt / model.opt.timestep)):
                torque = stiffness * (target[robot] - data.qpos[qpos]) - damping * data.qvel[qvel]
                data.ctrl[actuators] = target[robot] if servos else torque
                mujoco.mj_step(model, data)
            touching = any({0, trunk} == set(model.geom_bodyid[contact.geom]) for contact in data.contact)
            fallen[robot] |= touching or down(data)[2] > -0.5
        velocity = np.array([data.sensor("local_linvel").data[:2] for data in fleet])
        scores.append(np.where(fallen, np.nan, np.exp(-np.sum((command[:, :2] - velocity) ** 2, axis=1) / 0.25)))
        phase, age = np.where(stepping, (phase + gait["hz"] * dt) % 1, phase), age + dt
    return {"falls": float(fallen.mean()), "track_linear": float(np.nanmean(scores))}


if __name__ == "__main__":
    print(walk(sys.argv[1], sys.argv[2]))
