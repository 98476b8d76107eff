"""A valid contract of a Go2 and small ONNX files that hold it, written with `onnx` and without the exporter."""

import dataclasses
import hashlib
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from mjx_policies.deploy import contract as contracts
from mjx_policies.deploy.contract import Action, Contract, ContractTerm, Golden, Joint, RobotModel, Timing, Training
from mjx_policies.spec import CommandRange, GaitClock

LEGS, PARTS = ("FL", "FR", "RL", "RR"), ("hip", "thigh", "calf")
DEFAULT = {"hip": 0.0, "thigh": 0.9, "calf": -1.8}
LIMITS = {"hip": (-1.05, 1.05), "thigh": (-1.5, 3.4), "calf": (-2.7, -0.84)}
TERMS = (  # name, size, unit, scale, measured
    ("gyro", 3, "rad/s", 0.25, True),
    ("gravity", 3, "1", 1.0, True),
    ("joint_position", 12, "rad", 1.0, True),
    ("joint_velocity", 12, "rad/s", 0.05, True),
    ("last_action", 12, "1", 1.0, False),
    ("command", 3, "m/s", 1.0, False),
    ("gait", 2, "1", 1.0, False),
)
HIDDEN, EXAMPLES = 8, 3


def joint(name):
    part = name.split("_")[1]
    (lower, upper), effort = LIMITS[part], 45.0 if part == "calf" else 23.5
    middle, half = (lower + upper) / 2, 0.45 * (upper - lower)
    home = DEFAULT[part]
    return Joint(name, home, home, 0.5, 25.0, 0.5, lower, upper, middle - half, middle + half, 20.0, effort)


def example_contract(**changes):
    """A contract that is valid in itself; `write_policy` gives it the hash and the examples of a graph."""
    inputs, outputs = {"observation": ((0.0,) * 47,)}, {"action": ((0.0,) * 12,), "target": ((0.0,) * 12,)}
    made = Contract(
        schema_version=contracts.SCHEMA_VERSION,
        robot=RobotModel("go2", "0" * 64, "wxyz"),
        timing=Timing(0.02, 0.004, 0.04, (0.0, 0.02)),
        joints=tuple(joint(f"{leg}_{part}") for leg in LEGS for part in PARTS),
        observation=tuple(
            ContractTerm(name, size, unit, "", scale, 0.0, 1, True, "first", 0.0, 0.0, measured)
            for name, size, unit, scale, measured in TERMS
        ),
        action=Action("joint_position", 0.0, 20.0, 1),
        state=(),
        noise=(),
        commands=(
            CommandRange("forward", "m/s", -0.8, 1.2),
            CommandRange("left", "m/s", -0.5, 0.5),
            CommandRange("turn", "rad/s", -1.0, 1.0),
        ),
        gait=GaitClock(3.0, 1.0),
        randomization=(),
        training=Training("Go2JoystickFlat", 0, 0, "", {}),
        golden=Golden(inputs, outputs, contracts.golden_sha256(inputs, outputs), 1e-5),
        graph_sha256="0" * 64,
    )
    return dataclasses.replace(made, **changes)


def perceptron(contract):
    """A model without a contract: two layers, then scale, offset and limits.

    Each state is added to what comes out of the first layer (its shape must be [HIDDEN]) and passed on with it; each
    noise is added to the action.
    """
    rng = np.random.default_rng(0)
    size, joints = contract.observation_size, len(contract.joints)
    actions = joints * contract.action.horizon
    rows = (-1, joints) if contract.action.horizon == 1 else (-1, contract.action.horizon, joints)
    constants = {
        "weight_0": rng.normal(size=(size, HIDDEN)) / np.sqrt(size),
        "bias_0": rng.normal(size=HIDDEN),
        "weight_1": rng.normal(size=(HIDDEN, actions)) / np.sqrt(HIDDEN),
        "bias_1": rng.normal(size=actions),
        **{name: [getattr(j, name) for j in contract.joints] for name in ("default", "scale", "lower", "upper")},
    }
    nodes = [
        helper.make_node("Gemm", ["observation", "weight_0", "bias_0"], ["hidden_0"]),
        helper.make_node("Tanh", ["hidden_0"], ["sum_0"]),
    ]
    for i, state in enumerate(contract.state):
        nodes.append(helper.make_node("Add", [f"sum_{i}", state.input], [f"sum_{i + 1}"]))
        nodes.append(helper.make_node("Tanh", [f"sum_{i + 1}"], [state.output]))
    nodes.append(helper.make_node("Gemm", [f"sum_{len(contract.state)}", "weight_1", "bias_1"], ["flat"]))
    nodes.append(helper.make_node("Reshape", ["flat", "rows"], ["plan_0"]))
    for i, noise in enumerate(contract.noise):
        nodes.append(helper.make_node("Add", [f"plan_{i}", noise.input], [f"plan_{i + 1}"]))
    nodes += [
        helper.make_node("Identity", [f"plan_{len(contract.noise)}"], ["action"]),
        helper.make_node("Mul", ["action", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "default"], ["free"]),
        helper.make_node("Max", ["free", "lower"], ["raised"]),
        helper.make_node("Min", ["raised", "upper"], ["target"]),
    ]
    inputs = {"observation": (size,), **{s.input: s.shape for s in contract.state}}
    inputs |= {n.input: n.shape for n in contract.noise}
    outputs = {"action": rows[1:], "target": rows[1:], **{s.output: s.shape for s in contract.state}}
    graph = helper.make_graph(
        nodes,
        "policy",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", *shape]) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", *shape]) for name, shape in outputs.items()],
        [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in constants.items()]
        + [numpy_helper.from_array(np.array(rows), "rows")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="test")


def graph_hash(model):
    return hashlib.sha256(model.graph.SerializeToString(deterministic=True)).hexdigest()


def complete(contract, model):
    """The contract with hash and examples of a model, which `onnx` itself computes rather than onnxruntime."""
    rng = np.random.default_rng(1)
    shapes = {"observation": (contract.observation_size,), **{s.input: s.shape for s in contract.state}}
    shapes |= {n.input: n.shape for n in contract.noise}
    arrays = {name: rng.normal(size=(EXAMPLES, *shape)).astype(np.float32) for name, shape in shapes.items()}
    names = [value.name for value in model.graph.output]
    answers = dict(zip(names, ReferenceEvaluator(model).run(names, arrays), strict=True))

    def rows(values):
        return {name: tuple(map(tuple, v.reshape(EXAMPLES, -1).astype(float).tolist())) for name, v in values.items()}

    inputs, outputs = rows(arrays), rows(answers)
    golden = Golden(inputs, outputs, contracts.golden_sha256(inputs, outputs), 1e-5)
    return contracts.seal(dataclasses.replace(contract, golden=golden, graph_sha256=graph_hash(model)))


def with_text(model, text):
    """The file's bytes with a contract's JSON."""
    sealed = onnx.ModelProto()
    sealed.CopyFrom(model)
    sealed.metadata_props.add(key=contracts.METADATA_KEY, value=text)
    return sealed.SerializeToString(deterministic=True)


def write_policy(path, contract=None, model=None):
    """Writes a policy's file and returns the contract inside it."""
    contract = example_contract() if contract is None else contract
    model = perceptron(contract) if model is None else model
    contract = complete(contract, model)
    path.write_bytes(with_text(model, contracts.dumps(contract)))
    return contract


@pytest.fixture(scope="session")
def policies():
    """The functions of this file."""
    functions = (example_contract, perceptron, graph_hash, complete, with_text, write_policy)
    return SimpleNamespace(**{function.__name__: function for function in functions})
