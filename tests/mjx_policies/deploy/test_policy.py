"""Stepping policies: answers, states and noises, what is refused at load, what is refused in a step."""

import contextlib
import dataclasses
import resource
import time

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from mjx_policies.deploy import contract as contracts
from mjx_policies.deploy import policy as module
from mjx_policies.deploy.contract import Action, ContractError, NoiseInput, State
from mjx_policies.deploy.policy import ExportedPolicy, PolicyError, PolicyOutput, load_policy
from mjx_policies.deploy.validation import parse_model

D, A = 47, 12
LEGS = [f"{leg}_{part}" for leg in ("FL", "FR", "RL", "RR") for part in ("hip", "thigh", "calf")]


@pytest.fixture(scope="module")
def go2(policies, tmp_path_factory):
    path = tmp_path_factory.mktemp("go2") / "go2.onnx"
    policies.write_policy(path)
    return path


@pytest.fixture(scope="module")
def walker(go2):
    return load_policy(go2, "go2", LEGS)


@pytest.fixture(scope="module")
def dreamer(policies, tmp_path_factory):
    """A policy with a memory, a counter [] and a noise."""
    path = tmp_path_factory.mktemp("dreamer") / "dreamer.onnx"
    contract = policies.example_contract(
        state=(State("memory", "next_memory", (8,), 0.25),), noise=(NoiseInput("noise", (A,), "normal", 0.5),)
    )
    model = policies.perceptron(contract)
    graph = model.graph
    graph.input.append(helper.make_tensor_value_info("count", 1, ["B"]))
    graph.output.append(helper.make_tensor_value_info("next_count", 1, ["B"]))
    graph.initializer.append(numpy_helper.from_array(np.array(1.0, np.float32), "one"))
    graph.node.append(helper.make_node("Add", ["count", "one"], ["next_count"]))
    contract = dataclasses.replace(contract, state=(*contract.state, State("count", "next_count", (), 3.0)))
    policies.write_policy(path, contract, model)
    return load_policy(path)


def observations(number, seed=0):
    return np.random.default_rng(seed).normal(size=(number, D)).astype(np.float32)


def by_hand(path, observation):
    """Action and target [B, A] in float64, from the weights in the file."""
    w = {t.name: numpy_helper.to_array(t).astype(float) for t in onnx.load(path).graph.initializer}
    action = np.tanh(observation @ w["weight_0"] + w["bias_0"]) @ w["weight_1"] + w["bias_1"]
    return action, np.clip(w["default"] + w["scale"] * action, w["lower"], w["upper"])


def test_a_step_is_the_network(go2, walker):
    batch = observations(50)
    action, target = by_hand(go2, batch)
    for i, observation in enumerate(batch):
        step = walker.step(observation, walker.initial_state())
        assert isinstance(step, PolicyOutput) and step.state == ()
        assert step.action.shape == step.target.shape == (A,) and step.action.dtype == np.float32
        np.testing.assert_allclose(step.action, action[i], atol=1e-5)
        np.testing.assert_allclose(step.target, target[i], atol=1e-5)


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_a_batch_is_many_robots(go2, walker, batch):
    observation = observations(batch)
    step = walker.step(observation, walker.initial_state(batch))
    np.testing.assert_allclose(step.action, by_hand(go2, observation)[0], atol=1e-5)
    assert step.target.shape == (batch, A)


def test_what_a_step_returned_stays_as_it_was(walker, dreamer):
    for policy in (walker, dreamer):
        one, other = observations(2)
        first = policy.step(one, policy.initial_state())
        kept = [array.copy() for array in (first.action, first.target, *first.state)]
        policy.step(other, first.state)
        first_again = policy.step(one, policy.initial_state())
        for array, before, again in zip(
            (first.action, first.target, *first.state),
            kept,
            (first_again.action, first_again.target, *first_again.state),
            strict=True,
        ):
            np.testing.assert_array_equal(array, before)
            np.testing.assert_array_equal(array, again)


def test_arguments_are_left_alone_and_may_be_views(go2, walker):
    wide = np.repeat(observations(1), 2, axis=0).T.copy()  # [D, 2]; a column is not contiguous
    observation = wide[:, 0]
    observation.flags.writeable = False
    step = walker.step(observation, ())
    np.testing.assert_allclose(step.action, by_hand(go2, observation)[0], atol=1e-5)


def test_a_state_is_carried(dreamer):
    memory, count = dreamer.initial_state()
    assert memory.tolist() == [0.25] * 8 and memory.dtype == np.float32
    assert count.shape == () and count == 3
    batch = dreamer.initial_state(2)
    assert batch[0].shape == (2, 8) and batch[1].tolist() == [3.0, 3.0]
    state = dreamer.initial_state()
    for observation in observations(20):
        step = dreamer.step(observation, state)
        many = dreamer.step(np.stack([observation] * 2), tuple(np.stack([array] * 2) for array in state))
        for one, two in zip((step.action, *step.state), (many.action, *many.state), strict=True):
            np.testing.assert_allclose(two, np.stack([one] * 2), atol=1e-6)
        state = step.state
    assert state[1] == 23 and np.abs(state[0] - memory).max() > 0.1


def test_noise_is_that_of_the_contract_unless_it_is_given(dreamer):
    observation, state = observations(1)[0], dreamer.initial_state()
    still = dreamer.step(observation, state).action
    zero = dreamer.step(observation, state, [np.zeros(A, np.float32)]).action
    np.testing.assert_allclose(still, zero + 0.5, atol=1e-6)
    # A noise that was given does not stay.
    np.testing.assert_array_equal(dreamer.step(observation, state).action, still)
    batch = dreamer.step(observation[None], dreamer.initial_state(1)).action
    np.testing.assert_allclose(batch[0], still, atol=1e-6)


def test_a_plan_has_several_actions(policies, tmp_path):
    contract = policies.example_contract(action=Action("joint_position", 0.0, 20.0, 4))
    policies.write_policy(tmp_path / "plan.onnx", contract)
    policy = load_policy(tmp_path / "plan.onnx")
    assert policy.step(observations(1)[0], ()).action.shape == (4, A)
    assert policy.step(observations(3), ()).target.shape == (3, 4, A)


def test_nan_goes_in_and_comes_out(walker):
    observation = observations(1)[0]
    observation[3] = np.nan
    assert np.isnan(walker.step(observation, ()).action).all()
    observation[3] = np.inf
    assert np.isfinite(walker.step(observation, ()).target).all()  # tanh and limits


BAD = {
    "double": (lambda: np.zeros(D), "float64 [47]"),
    "short": (lambda: np.zeros(D - 1, np.float32), "float32 [46]"),
    "column": (lambda: np.zeros((D, 1), np.float32), "float32 [47, 1]"),
    "three axes": (lambda: np.zeros((1, 1, D), np.float32), "float32 [1, 1, 47]"),
    "number": (lambda: np.float32(0), "not float32"),
    "no axis": (lambda: np.zeros((), np.float32), "float32 []"),
    "list": (lambda: [0.0] * D, "not list"),
    "nothing": (lambda: None, "not NoneType"),
    "big endian": (lambda: np.zeros(D, ">f4"), "not >f4 [47]"),
}


@pytest.mark.parametrize("make, found", BAD.values(), ids=BAD.keys())
def test_an_observation_of_another_kind_is_refused(walker, make, found):
    with pytest.raises(PolicyError) as caught:
        walker.step(make(), ())
    text = str(caught.value)
    assert "'observation' must be a numpy array float32 [47] or [B, 47], not" in text and found in text


def test_a_state_or_noise_of_another_kind_is_refused(walker, dreamer):
    observation = observations(1)[0]
    memory, count = dreamer.initial_state()
    noise = np.zeros(A, np.float32)

    def objection(policy, *arguments):
        with pytest.raises(PolicyError) as caught:
            policy.step(*arguments)
        return str(caught.value)

    assert "the state must be a tuple of 0 arrays" in objection(walker, observation, (memory,))
    assert "the state must be a tuple of 2 arrays" in objection(dreamer, observation, (memory,))
    assert "the state must be a tuple of 2 arrays" in objection(dreamer, observation, None)
    assert "'memory' must be a numpy array float32 [8], not float32 [7]" in objection(
        dreamer, observation, (memory[1:], count)
    )
    assert "'memory' must be a numpy array float32 [1, 8], not float32 [8]" in objection(
        dreamer, observation[None], (memory, count)
    )
    assert "'count' must be a numpy array float32 [], not float" in objection(dreamer, observation, (memory, 1.0))
    for wrong in (noise, (), (noise, noise)):
        assert "the noise must be a tuple of 1 arrays, or None" in objection(
            dreamer, observation, (memory, count), wrong
        )
    assert "'noise' must be a numpy array float32 [12], not float64 [12]" in objection(
        dreamer, observation, (memory, count), (np.zeros(A),)
    )


def test_a_policy_for_another_robot_is_refused(go2):
    for name, joints, sentence in (
        ("go1", None, "the policy is for the robot 'go2', this is 'go1'"),
        ("go2", LEGS[:-1], "the robot lacks the joints 'RR_calf'"),
        (None, [*LEGS, "tail"], "the policy does not know the joints 'tail'"),
        (
            None,
            [*LEGS[1:], "FL_hip_joint"],
            "lacks the joints 'FL_hip' and the policy does not know the joints 'FL_hip_",
        ),
        ("go2", LEGS + LEGS[:1], "two joints of the same name"),
        ("go2", [], "and 4 more"),
    ):
        with pytest.raises(ContractError, match=sentence) as caught:
            load_policy(go2, name, joints)
        assert str(caught.value).startswith(str(go2))
    assert load_policy(go2, "go2", LEGS[::-1]).contract.joint_names == tuple(LEGS)


def altered(policies, change, model=None):
    """A policy whose golden examples, inputs and outputs as dictionaries of lists, were altered and signed anew."""
    contract = policies.example_contract()
    model = policies.perceptron(contract) if model is None else model
    contract = policies.complete(contract, model)
    inputs, outputs = (
        {name: [list(row) for row in rows] for name, rows in part.items()}
        for part in (contract.golden.inputs, contract.golden.outputs)
    )
    change(inputs, outputs)
    golden = dataclasses.replace(
        contract.golden, inputs=inputs, outputs=outputs, sha256=contracts.golden_sha256(inputs, outputs)
    )
    text = contracts.dumps(dataclasses.replace(contract, golden=golden))
    return ExportedPolicy(parse_model(policies.with_text(model, text)))


def put(kind, name, row, column, value):
    def change(inputs, outputs):
        {"in": inputs, "out": outputs}[kind][name][row][column] = value

    return change


def add(kind, name, value):
    def change(inputs, outputs):
        {"in": inputs, "out": outputs}[kind][name] = value

    return change


EXAMPLES = {
    "none": (lambda inputs, outputs: None, None, None),
    "within": (lambda i, o: put("out", "target", 1, 2, o["target"][1][2] + 5e-6)(i, o), None, None),
    "beyond": (
        lambda i, o: put("out", "target", 1, 2, o["target"][1][2] + 3e-5)(i, o),
        PolicyError,
        "'target' of example 1 is off by 3.*e-05, more than the 1e-05 allowed",
    ),
    "other input": (put("in", "observation", 2, 0, 50.0), PolicyError, "'action' of example 2 is off"),
    "too large": (put("in", "observation", 0, 0, 1e39), ContractError, "'observation' does not fit into float32"),
    "too large answer": (put("out", "action", 0, 0, -1e39), ContractError, "'action' does not fit into float32"),
    "short": (lambda i, o: o["action"][0].pop(), ContractError, "'action' is not of shape"),
    "more": (add("out", "free", [[0.0]] * 3), ContractError, "has the outputs 'action', 'free', 'target' in the place"),
    "less": (lambda i, o: o.pop("target"), ContractError, "has the outputs 'action' in the place"),
    "unknown input": (add("in", "key", [[0.0]] * 3), ContractError, "has the inputs 'key', 'observation' in the place"),
}


@pytest.mark.parametrize("change, error, sentence", EXAMPLES.values(), ids=EXAMPLES.keys())
def test_a_policy_must_answer_its_examples(policies, change, error, sentence):
    with pytest.raises(error, match=sentence) if error else contextlib.nullcontext():
        altered(policies, change)


def rewired(policies, *nodes, constants=()):
    """The perceptron, whose `action` is now called `old`, with nodes that compute `action` anew."""
    model = policies.perceptron(policies.example_contract())
    for node in model.graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                names[i] = "old" if name == "action" else name
    model.graph.node.extend(helper.make_node(*node[:3], **dict(node[3:])) for node in nodes)
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in constants)
    return model


def test_nan_never_passes_for_an_answer(policies):
    model = rewired(
        policies,
        ("Sub", ["old", "old"], ["zero"]),
        ("Div", ["zero", "zero"], ["action"]),
    )
    with pytest.raises(PolicyError, match="'action' of example 0 is off by nan"):
        ExportedPolicy(parse_model(signed(policies, model)))


def signed(policies, model):
    """A file with examples of zeros, which need not be right."""
    contract = policies.complete(policies.example_contract(), policies.perceptron(policies.example_contract()))
    contract = dataclasses.replace(contract, graph_sha256=policies.graph_hash(model))
    return policies.with_text(model, contracts.dumps(contract))


def test_an_output_larger_than_declared_does_not_overrun(policies):
    model = rewired(
        policies,
        ("Concat", ["old", "old"], ["double"], ("axis", 1)),
        ("Reshape", ["double", "rows"], ["action"]),  # [2 B, A], which [B, A] does not contradict before it runs
    )
    with pytest.raises(PolicyError, match=r"onnxruntime failed: .*shape"):
        ExportedPolicy(parse_model(signed(policies, model)))


def test_a_graph_that_onnxruntime_does_not_understand_is_refused(policies):
    wrong = rewired(policies, ("MatMul", ["old", "old"], ["action"]))
    with pytest.raises(PolicyError, match=r"onnxruntime refuses the policy: |onnxruntime failed: "):
        ExportedPolicy(parse_model(signed(policies, wrong)))


@pytest.mark.parametrize("size", [10**10, 2**62])
def test_a_small_graph_cannot_take_all_memory(policies, size):
    model = rewired(
        policies,
        ("ConstantOfShape", ["size"], ["large"]),
        ("ReduceSum", ["large"], ["sum"]),
        ("Add", ["old", "sum"], ["action"]),
        constants=[("size", np.array([size]))],
    )
    before = resource.getrlimit(resource.RLIMIT_AS)
    with pytest.raises(PolicyError, match="onnxruntime"):
        ExportedPolicy(parse_model(signed(policies, model)))
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def slow(policies, size, layers, control_dt=0.02):
    """A small file that multiplies large matrices, and whose answers are right all the same."""
    model = rewired(
        policies,
        ("ConstantOfShape", ["tall"], ["first"]),
        ("ConstantOfShape", ["square"], ["weight"]),
        ("MatMul", ["old", "first"], ["layer_0"]),
        *(("MatMul", [f"layer_{i}", "weight"], [f"layer_{i + 1}"]) for i in range(layers)),
        ("ReduceSum", [f"layer_{layers}", "last"], ["nothing"], ("keepdims", 1)),
        ("Add", ["old", "nothing"], ["action"]),
        constants=[("tall", np.array([A, size])), ("square", np.array([size, size])), ("last", np.array([1]))],
    )
    contract = policies.example_contract()
    timing = dataclasses.replace(contract.timing, control_dt=control_dt, max_observation_age=0.04)
    plain = policies.complete(dataclasses.replace(contract, timing=timing), policies.perceptron(contract))
    text = contracts.dumps(dataclasses.replace(plain, graph_sha256=policies.graph_hash(model)))
    return policies.with_text(model, text)


def test_a_policy_that_cannot_keep_its_own_clock_is_refused(policies):
    with pytest.raises(
        PolicyError, match=r"a step takes .* ms of computing here and its actions last 0\.5 ms, so it can"
    ):
        ExportedPolicy(parse_model(slow(policies, 2000, 1, control_dt=5e-4)))
    ExportedPolicy(parse_model(slow(policies, 50, 1)))


@pytest.mark.parametrize("layers", [60, 1000], ids=["while it runs", "while it is made"])
def test_a_small_graph_cannot_take_all_time(policies, monkeypatch, layers):
    """Neither where it runs nor where its session is made, nor by what depends on no input."""
    monkeypatch.setattr(module, "LOADING_SECONDS", 0.05 if layers == 60 else 0.1)
    data = slow(policies, 2000 if layers == 60 else 2, layers)
    start = time.thread_time()
    with pytest.raises(PolicyError, match=r"loading was given up after 0\.0?[15] s of computing"):
        ExportedPolicy(parse_model(data))
    assert time.thread_time() - start < 5


def test_a_file_is_never_taken_for_the_format_of_onnxruntime(policies):
    """Bytes 4 to 8 decide on that, and an ONNX file may hold anything there."""
    model = policies.perceptron(policies.example_contract())
    model.ClearField("producer_name")
    rest = signed(policies, model)
    data = bytes([2 << 3 | 2, 100]) + b"xxORTM".ljust(100, b"x") + rest
    assert data[4:8] == b"ORTM" and onnx.load_from_string(data).producer_name.startswith("xxORTM")
    ExportedPolicy(parse_model(data))
    with pytest.raises(Exception, match="ORT"):
        onnxruntime.InferenceSession(data, providers=module.CPU)


def test_a_reset_that_float32_cannot_hold_is_refused(policies, tmp_path):
    contract = policies.example_contract(state=(State("memory", "next_memory", (8,), 1e39),))
    policies.write_policy(tmp_path / "a.onnx", contract)
    with pytest.raises(ContractError, match=r"a\.onnx: the contract has a state or noise that float32 cannot hold"):
        load_policy(tmp_path / "a.onnx")


def test_the_session_is_small_and_never_sees_the_path(go2, monkeypatch):
    made = []

    class Session(onnxruntime.InferenceSession):
        def __init__(self, model, options, providers):
            made.append((model, options, providers))
            super().__init__(model, options, providers=providers)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    load_policy(go2)
    ((model, options, providers),) = made
    assert model == go2.read_bytes() and providers == ["CPUExecutionProvider"]
    assert options.intra_op_num_threads == options.inter_op_num_threads == 1
    assert options.execution_mode == onnxruntime.ExecutionMode.ORT_SEQUENTIAL


def test_an_error_while_it_runs_has_a_cause(go2, monkeypatch):
    policy = load_policy(go2)

    class Broken:
        def run_with_iobinding(self, binding):
            raise RuntimeError("out\nof memory")

        def run(self, names, feed):
            raise RuntimeError("")

    policy._session = Broken()
    with pytest.raises(PolicyError, match="onnxruntime failed: out of memory") as caught:
        policy.step(observations(1)[0], ())
    assert isinstance(caught.value.__cause__, RuntimeError)
    with pytest.raises(PolicyError, match="onnxruntime failed: RuntimeError"):
        policy.step(observations(1), ())
