"""The contract as JSON: what is written is read, and nothing else is."""

import dataclasses
import json

import pytest

from mjx_policies.deploy import contract as contracts
from mjx_policies.deploy.contract import ContractError


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
