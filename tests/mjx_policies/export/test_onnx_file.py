"""Exported graphs against JAX: perceptrons, recurrence, samplers with noise; what cannot be exported says why."""

import dataclasses
import errno
import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest

from mjx_policies.deploy import contract
from mjx_policies.envs.registry import TASKS, load
from mjx_policies.export import Provenance, describe, export_policy, onnx_file
from mjx_policies.export.onnx_file import IR_VERSION, OPSET, _golden_inputs
from mjx_policies.export.parity import extremes
from mjx_policies.networks.mlp import MLP
from mjx_policies.spec import ActionTable

D, A = 5, 3
TABLE = ActionTable(
    names=("a", "b", "c"),
    default=(0.1, 0.0, -0.2),
    scale=(0.5, 1.0, 2.0),
    lower=(-1.0, -1.0, -1.0),
    upper=(1.0, 1.0, 1.5),
    stiffness=(20.0,) * 3,
    damping=(0.5,) * 3,
    velocity=(10.0,) * 3,
)
JOINTS = tuple(
    contract.Joint(name, d, d, s, 20.0, 0.5, lo, up, 0.9 * lo, 0.9 * up, 10.0, 5.0)
    for name, d, s, lo, up in zip(TABLE.names, TABLE.default, TABLE.scale, TABLE.lower, TABLE.upper, strict=True)
)
DESCRIBED = {
    "robot": contract.RobotModel("toy", "0" * 64, "wxyz"),
    "timing": contract.Timing(0.02, 0.005, 0.04, (0.0, 0.01)),
    "joints": JOINTS,
    "observation": (contract.ContractTerm("all", D, "1", "", 1.0, 0.0, 1, True, "first", 0.0, 0.0, True),),
    "action": contract.Action("joint_position", 0.0, 10.0, 1),
    "commands": (),
    "gait": None,
    "randomization": (),
    "training": contract.Training("Toy", 0, 0, "", {}),
}
OBSERVATIONS = np.random.default_rng(0).normal(size=(100, D)).astype(np.float32)


def mlp():
    net = MLP((16, A))
    params = net.init(jax.random.key(0), jnp.zeros(D))
    return lambda observation: net.apply(params, observation)


def session(exported):
    return onnxruntime.InferenceSession(exported.data, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def exported():
    return export_policy(mlp(), TABLE, DESCRIBED, OBSERVATIONS)


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_a_perceptron(exported, batch):
    rng = np.random.default_rng(batch)
    observation = rng.normal(scale=10, size=(batch, D)).astype(np.float32)
    action, target = session(exported).run(["action", "target"], {"observation": observation})
    expected = np.asarray(jax.vmap(mlp())(observation))
    np.testing.assert_allclose(action, expected, atol=1e-5)
    clipped = np.clip(np.array(TABLE.default) + np.array(TABLE.scale) * expected, TABLE.lower, TABLE.upper)
    np.testing.assert_allclose(target, clipped, atol=1e-5)
    assert (clipped != np.array(TABLE.default) + np.array(TABLE.scale) * expected).any(), "no limit was reached"


def test_the_file_is_whole_and_plain(exported):
    model = onnx.load_from_string(exported.data)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", OPSET)] and model.ir_version == IR_VERSION
    assert not model.functions and all(t.data_location == onnx.TensorProto.DEFAULT for t in model.graph.initializer)
    assert [p.key for p in model.metadata_props] == [contract.METADATA_KEY]
    assert contract.loads(model.metadata_props[0].value) == exported.contract


def test_nothing_is_computed_anew_that_does_not_depend_on_the_input(exported):
    model = onnx.load_from_string(exported.data)
    constants = {t.name for t in model.graph.initializer}
    assert not [node.name for node in model.graph.node if set(node.input) <= constants]


def test_other_tools_find_the_graph_in_order(exported):
    graph = onnx.load_from_string(exported.data).graph
    computed = [name for node in graph.node for name in node.output]
    read = {name for node in graph.node for name in node.input}
    outputs = [value.name for value in graph.output]
    assert read.isdisjoint(outputs), "an output is read inside"
    assert {value.name for value in graph.value_info} <= set(computed) - set(outputs), "types of what is not there"
    assert {tensor.name for tensor in graph.initializer} <= read
    sizes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    layers = [node for node in graph.node if node.op_type == "Gemm"]
    assert [[sizes[name] for name in node.input[1:]] for node in layers] == [[[D, 16], [16]], [[16, A], [A]]]
    assert not any(node.attribute for node in layers), "factors other than 1"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_the_graph_can_be_quantised_and_converted_to_float16(exported, tmp_path):
    from onnxruntime.quantization import quantize_dynamic
    from onnxruntime.transformers.float16 import convert_float_to_float16

    observation = OBSERVATIONS[:7]
    expected = session(exported).run(["action", "target"], {"observation": observation})
    (tmp_path / "policy.onnx").write_bytes(exported.data)
    quantize_dynamic(tmp_path / "policy.onnx", tmp_path / "int8.onnx")
    integers = onnx.load(tmp_path / "int8.onnx")
    assert sum(node.op_type == "MatMulInteger" for node in integers.graph.node) == 2
    half = convert_float_to_float16(onnx.load_from_string(exported.data), keep_io_types=True)
    assert any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in half.graph.initializer)
    for converted, atol in ((integers, 0.2), (half, 0.02)):
        run = onnxruntime.InferenceSession(converted.SerializeToString(), providers=["CPUExecutionProvider"]).run
        for found, wanted in zip(run(["action", "target"], {"observation": observation}), expected, strict=True):
            np.testing.assert_allclose(found, wanted, atol=atol)


@pytest.mark.parametrize("size", [150.0, 1e4])
def test_large_outputs_are_exported_and_loaded(size):
    """Torques, for example, are large: the tolerance goes with them, and stays what it was for all others."""
    act = mlp()
    found = export_policy(lambda o: size * act(o), TABLE, DESCRIBED, OBSERVATIONS)
    golden = found.contract.golden
    actions = np.abs(np.array(golden.outputs["action"]))
    assert actions.max() > size / 2 and golden.tolerance <= 1e-3 * (1 + 1e-9)
    assert contract.allowance(golden.tolerance, actions.max()) == pytest.approx(1e-5 * actions.max(), rel=1e-6)
    assert contract.allowance(golden.tolerance, 3.0) == golden.tolerance


def test_extremes_are_measured_in_deviations():
    """A raw unit may be a thousand deviations, and the zero too: there any sound policy differs by its rounding."""
    met = np.random.default_rng(0).normal((0.5, 0.0, 3.0), (1e-3, 1.0, 0.0), (1000, 3)).astype(np.float32)
    mean, deviation = met.mean(axis=0, dtype=float), met.std(axis=0, dtype=float)
    golden = _golden_inputs({"observation": (3,)}, (), (), met)["observation"]
    for found in (extremes(met, 5000), golden):
        away = np.abs(found - mean)
        assert found.dtype == np.float32 and (away <= 10.01 * deviation + 1e-6).all()
        assert (away[:, :2].max(axis=0) > 9.9 * deviation[:2]).all() and (found[:, 2] == 3.0).all()


def test_bytes_are_the_same_in_another_process(exported):
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_onnx_file as t; "
        "sys.stdout.buffer.write(t.export_policy(t.mlp(), t.TABLE, t.DESCRIBED, t.OBSERVATIONS).data)"
    )
    folder = str(Path(__file__).parent)
    found = subprocess.run([sys.executable, "-c", script, folder], capture_output=True, check=True)
    assert found.stdout == exported.data


def test_a_recurrent_policy_returns_its_state():
    cell = nn.GRUCell(features=8)
    params = cell.init(jax.random.key(0), jnp.zeros(8), jnp.zeros(D))

    def act(observation, hidden):
        hidden, out = cell.apply(params, hidden, observation)
        return out[:A], hidden

    state = (contract.State("hidden", "next_hidden", (8,), 0.0),)
    run = session(export_policy(act, TABLE, DESCRIBED, OBSERVATIONS, state=state)).run
    hidden, expected = np.zeros((1, 8), np.float32), jnp.zeros(8)
    for observation in OBSERVATIONS[:20]:
        action, hidden = run(["action", "next_hidden"], {"observation": observation[None], "hidden": hidden})
        expected_action, expected = act(observation, expected)
        np.testing.assert_allclose(action[0], expected_action, atol=1e-5)
    np.testing.assert_allclose(hidden[0], expected, atol=1e-5)


def test_an_iterative_sampler_takes_its_noise_as_an_input():
    net = MLP((16, A))
    params = net.init(jax.random.key(0), jnp.zeros(D + A))

    def act(observation, noise):
        x = noise
        for _ in range(8):
            x = x + net.apply(params, jnp.concatenate([observation, x])) / 8
        return x

    noise = (contract.NoiseInput("noise", (A,), "normal", 0.0),)
    run = session(export_policy(act, TABLE, DESCRIBED, OBSERVATIONS, noise=noise)).run
    start = np.random.default_rng(1).normal(size=(4, A)).astype(np.float32)
    (action,) = run(["action"], {"observation": OBSERVATIONS[:4], "noise": start})
    np.testing.assert_allclose(action, jax.vmap(act)(OBSERVATIONS[:4], start), atol=1e-5)


def test_randomness_inside_is_refused():
    def act(observation):
        return mlp()(observation) + jax.random.normal(jax.random.key(0), (A,))

    with pytest.raises(ValueError, match="cannot be exported"):
        export_policy(act, TABLE, DESCRIBED, OBSERVATIONS)


def test_a_full_disk_is_no_fault_of_the_policy(monkeypatch):
    def full(model):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(onnx_file, "_fold", full)
    with pytest.raises(OSError, match="No space left"):
        export_policy(mlp(), TABLE, DESCRIBED, OBSERVATIONS)


@pytest.mark.parametrize("name", TASKS)
def test_every_task_exports(name):
    task = load(name, "cpu", 1)
    spec = task.spec
    size = sum(term.size for term in spec.observation)
    net = MLP((8, spec.action.size))
    params = net.init(jax.random.key(0), jnp.zeros(size))
    observations = np.random.default_rng(0).normal(size=(20, size)).astype(np.float32)
    described = describe(spec, task.physics.model, Provenance(name, 0, 0))
    found = export_policy(lambda o: net.apply(params, o), spec.action, described, observations)
    assert found.contract.joint_names == spec.action.names
    assert [(t.name, t.size, t.scale) for t in found.contract.observation] == [
        (t.name, t.size, t.scale) for t in spec.observation
    ]
    assert found.contract.timing.control_dt == spec.control_dt
    (action,) = session(found).run(["action"], {"observation": observations})
    np.testing.assert_allclose(action, jax.vmap(lambda o: net.apply(params, o))(observations), atol=1e-5)


def test_the_contract_of_a_quadruped():
    task = load("Go2JoystickFlat", "cpu", 1)
    found = describe(task.spec, task.physics.model, Provenance("Go2JoystickFlat", 0, 0))
    hip, calf = found["joints"][0], found["joints"][2]
    assert (hip.name, hip.effort, hip.velocity, hip.stiffness) == ("FL_hip", 23.5, 30.1, 25.0)
    assert (calf.name, calf.effort, calf.velocity) == ("FL_calf", 45.0, 15.7)
    np.testing.assert_allclose([hip.soft_lower, hip.soft_upper], [-0.9 * 1.0472, 0.9 * 1.0472], rtol=1e-6)
    assert [(c.name, c.low, c.high) for c in found["commands"]] == [
        ("forward", -0.8, 1.2),
        ("left", -0.5, 0.5),
        ("turn", -1.0, 1.0),
    ]
    assert dataclasses.asdict(found["gait"]) == {"hz": 3.0, "braking_seconds": 1.0}
