"""The contract as JSON: what is written is read, and nothing else is."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest

from mjx_policies.deploy import contract as contracts
from mjx_policies.deploy.contract import ContractError
from mjx_policies.deploy.controller import Controller, Mode
from mjx_policies.deploy.policy import PolicyOutput
from mjx_policies.deploy.robot import Reading


def test_what_is_written_is_read(policies):
    contract = contracts.seal(policies.example_contract())
    assert contracts.loads(contracts.dumps(contract)) == contract


def test_whole_numbers_are_numbers(policies):
    """A contract put together by hand may hold 20 where 20.0 is meant."""
    contract = policies.example_contract()
    joints = (dataclasses.replace(contract.joints[0], stiffness=20), *contract.joints[1:])
    text = contracts.dumps(dataclasses.replace(contract, joints=joints))
    assert contracts.loads(text).joints[0].stiffness == 20.0


def test_equal_contracts_give_equal_text(policies):
    first, second = policies.example_contract(), policies.example_contract()
    assert contracts.dumps(first) == contracts.dumps(second)


def edited(policies, change):
    data = json.loads(contracts.dumps(policies.example_contract()))
    change(data)
    return json.dumps(data)


CASES = {
    "a newer version": (lambda d: d.update(schema_version="2.0"), "schema version '2.0'"),
    "no version": (lambda d: d.pop("schema_version"), "schema version None"),
    "a missing key": (lambda d: d["timing"].pop("control_dt"), "contract.timing lacks control_dt"),
    "an unknown key": (lambda d: d.update(extra=1), "unknown keys extra"),
    "a text for a number": (
        lambda d: d["joints"][2].update(effort="45"),
        r"contract.joints\[2\].effort must be a finite",
    ),
    "a truth value for a number": (lambda d: d["joints"][0].update(effort=True), "effort must be a finite number"),
    "a number for a text": (lambda d: d["robot"].update(name=7), "contract.robot.name must be of type str"),
    "an object for a list": (lambda d: d.update(joints={}), "contract.joints must be a list"),
    "a list for an object": (lambda d: d.update(robot=[]), "contract.robot must be an object"),
    "an enormous integer": (lambda d: d["timing"].update(control_dt=10**400), "control_dt must be a finite number"),
    "no joints": (lambda d: d.update(joints=[]), "contract.joints is empty"),
    "a joint twice": (lambda d: d["joints"][1].update(name=d["joints"][0]["name"]), "contract.joints has a name twice"),
    "limits upside down": (lambda d: d["joints"][0].update(soft_lower=9.0), "limits out of order"),
    "no effort": (lambda d: d["joints"][0].update(effort=0.0), "effort must be above zero"),
    "another quaternion": (lambda d: d["robot"].update(quaternion_order="xyzw"), "this library knows wxyz"),
    "a foreign action": (lambda d: d["action"].update(type="muscle"), "knows joint_position, joint_torque"),
    "time standing still": (lambda d: d["timing"].update(control_dt=0.0), "control_dt must be above zero"),
    "a command upside down": (lambda d: d["commands"][0].update(low=9.0), "its range upside down"),
    "an hour of control": (lambda d: d["timing"].update(control_dt=3600.0), "control_dt is 3600, it must lie between"),
    "no time at all": (lambda d: d["timing"].update(control_dt=1e-300), "control_dt is 1e-300, it must lie between"),
    "an old measurement": (lambda d: d["timing"].update(max_observation_age=60.0), "max_observation_age is 60"),
    "a gain beyond all": (
        lambda d: d["joints"][0].update(stiffness=1e300),
        r"FL_hip: stiffness is 1e\+300, it must lie",
    ),
    "limits beyond all": (lambda d: d["joints"][0].update(lower=-1e300), r"FL_hip: lower is -1e\+300, it must lie"),
    "next to no effort": (lambda d: d["joints"][0].update(effort=1e-300), "FL_hip: effort is 1e-300"),
    "negative braking": (lambda d: d["gait"].update(braking_seconds=-1.0), "gait.braking_seconds is -1, it must lie"),
    "too many examples": (
        lambda d: d["golden"].update(
            {k: {n: v[:1] * 65 for n, v in d["golden"][k].items()} for k in ("inputs", "outputs")}
        ),
        "golden has more than 64 examples",
    ),
    "a version that is none": (lambda d: d.update(schema_version="1.x"), "schema version '1.x'"),
    "an altered example": (lambda d: d["golden"]["inputs"]["observation"][0].__setitem__(0, 0.5), "its own sha256"),
}


@pytest.mark.parametrize("change, sentence", CASES.values(), ids=CASES.keys())
def test_anything_else_is_refused(policies, change, sentence):
    with pytest.raises(ContractError, match=sentence):
        contracts.loads(edited(policies, change))


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"a": NaN}', '{"a": 1, "a": 2}', "[" * 100_000])
def test_what_is_no_contract_is_refused(text):
    with pytest.raises(ContractError):
        contracts.loads(text)


def resealed(data):
    """The text of contract data with the hash of whoever changed it on purpose."""
    blank = json.dumps({**data, "sha256": ""}, sort_keys=True, separators=(",", ":"))
    return json.dumps({**data, "sha256": hashlib.sha256(blank.encode()).hexdigest()})


def test_a_newer_minor_version_may_have_keys_that_are_not_known(policies):
    data = json.loads(contracts.dumps(policies.example_contract()))
    more = {**data, "battery": {"volts": [28.8]}}
    more["joints"] = [{**joint, "backlash": 0.01} for joint in more["joints"]]
    with pytest.raises(ContractError, match="has unknown keys battery"):
        contracts.loads(resealed(more))
    newer = {**more, "schema_version": "1.1"}
    found = contracts.loads(resealed(newer))
    expected = dataclasses.replace(contracts.loads(resealed(data)), schema_version="1.1", sha256=found.sha256)
    assert found == expected and found.sha256 == json.loads(resealed(newer))["sha256"]
    altered = json.loads(resealed(newer))
    altered["battery"]["volts"] = [12.0]
    with pytest.raises(ContractError, match="the contract does not match its own sha256"):
        contracts.loads(json.dumps(altered))
    with pytest.raises(ContractError, match="contract lacks gait"):
        contracts.loads(resealed({name: value for name, value in newer.items() if name != "gait"}))


def numbers(value, path=()):
    """Paths of all numbers, of the first entry of each list."""
    if isinstance(value, dict):
        for name, item in value.items():
            if name != "golden":
                yield from numbers(item, (*path, name))
    elif isinstance(value, list) and value:
        yield from numbers(value[0], (*path, 0))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path


class Still:
    """A policy that does nothing."""

    def __init__(self, contract):
        self.contract = contract

    def initial_state(self):
        return ()

    def step(self, observation, state):
        zero = np.zeros(len(self.contract.joints), np.float32)
        return PolicyOutput(zero, zero, ())


def test_a_number_that_is_no_robots_is_refused_or_does_no_harm(policies):
    """Whatever one number of a contract is, it is refused in a sentence, or a controller runs with it."""
    data = json.loads(contracts.dumps(policies.example_contract()))
    accepted = 0
    for path in numbers(data):
        for value in (1e-300, -1e-300, 1e308, -1e308, 0, -1, 3600, 10**9):
            changed = json.loads(json.dumps(data))
            owner = changed
            for key in path[:-1]:
                owner = owner[key]
            owner[path[-1]] = value
            try:
                contract = contracts.loads(resealed(changed))
            except ContractError:
                continue
            if any(
                term.size != was["size"] for term, was in zip(contract.observation, data["observation"], strict=True)
            ):
                continue  # the graph's shapes tell
            if contract.action.horizon > 1 or contract.observation[0].history > 1:
                continue  # likewise
            accepted += 1
            controller = Controller(Still(contract), contract.joint_names)
            posture = np.array([joint.default for joint in contract.joints])
            for tick, request in enumerate(("stand", None, "run", None, "damp")):
                now = tick * contract.timing.control_dt
                values = {
                    "gyro": np.array([1e-3 * tick, 0.0, 0.0]),
                    "orientation": np.array([1.0, 0.0, 0.0, 0.0]),
                    "joint_position": posture,
                    "joint_velocity": np.full(12, 1e-3 * tick),
                }
                if request == "run":
                    controller._start_time = -10.0  # it has stood for long
                output = controller.tick(now, Reading(now, tick, values), np.zeros(3), request)
                assert output.fault is None or output.fault.name != "internal", (path, value, output.fault)
                assert all(np.isfinite(part).all() for part in vars(output.targets).values()), (path, value)
            assert output.mode in (Mode.DAMP, Mode.FAULT)
    assert accepted > 20, "the test mutated something"
