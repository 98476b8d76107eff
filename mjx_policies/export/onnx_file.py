"""One ONNX file that holds a policy and its contract.

The graph takes the observation as the contract's table says it and returns the action, which the policy may want to see
again, and the target, which the robot is sent: normaliser, network, scale and limits lie inside.
Opset 17 and IR 8 run on every onnxruntime from 1.12 on, so on JetPack 5 and later.
Axes: B batch, D observation, A action, G golden examples.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from mjx_policies.deploy import contract
from mjx_policies.deploy.policy import ExportedPolicy, PolicyError
from mjx_policies.deploy.validation import parse_model
from mjx_policies.errors import disk_is_full
from mjx_policies.export.parity import spread
from mjx_policies.export.tidy import tidy
from mjx_policies.export.unroll import unrolled
from mjx_policies.spec import ActionTable
from mjx_policies.training.packages import require
from mjx_policies.types import actuator_targets

if TYPE_CHECKING:
    import onnx

PACKAGES = ("jax2onnx", "onnx", "onnxruntime")  # imported where they are used: not every installation has them
OPSET, IR_VERSION = 17, 8
TOLERANCE = 1e-5
EXAMPLES = 16  # golden

Act = Callable[..., Any]
"""`(observation [D], *state, *noise) -> action [A]`, or `(action, *next_state)` where there is state; one example."""


@dataclasses.dataclass(frozen=True)
class Exported:
    """An exported policy: the file's bytes and the contract inside them."""

    data: bytes
    contract: contract.Contract


def export_policy(
    act: Act,
    table: ActionTable,
    described: dict[str, Any],
    observations: np.ndarray,  # [N, D]
    state: Sequence[contract.State] = (),
    noise: Sequence[contract.NoiseInput] = (),
) -> Exported:
    """Turns a policy into an ONNX file.

    Args:
      act: the policy. Loops inside must have a fixed number of steps, Python's or `lax.scan`: they are written out.
      table: action -> target.
      described: see `describe`.
      observations: some that it meets, of which the golden examples are taken.
      state, noise: further inputs of `act`, in this order.

    Raises:
      ValueError: the policy cannot be exported; the message says why.
    """
    require_packages()
    import onnxruntime

    size = observations.shape[1]
    inputs = {"observation": (size,), **{s.input: s.shape for s in state}, **{n.input: n.shape for n in noise}}
    outputs = ("action", "target", *(s.output for s in state))

    # Traced before jax2onnx puts its own primitives in the place of layers, some of which cannot be batched.
    traced = jax.make_jaxpr(act)(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in inputs.values()))
    run_one = unrolled(traced)

    def graph(*batch):  # each [B, ...]
        found = jax.vmap(run_one)(*batch)
        action, *carried = found
        return (action, actuator_targets(table, action), *carried)

    model = _convert(graph, inputs, outputs)
    examples = _golden_inputs(inputs, state, noise, observations)
    expected = jax.device_get(jax.jit(graph)(*examples.values()))
    with _refusing():
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        results = dict(zip(outputs, session.run(list(outputs), examples), strict=True))
    largest = [float(np.abs(x).max()) for x in expected]
    tolerance = TOLERANCE * min(100.0, max(1.0, *largest))  # beyond, `allowance` has it grow
    for (name, found), wanted, reach in zip(results.items(), expected, largest, strict=True):
        error, allowed = float(np.abs(found - wanted).max()), contract.allowance(tolerance, reach)
        if not error <= allowed:
            raise ValueError(f"the exported {name} is off by {error:g}, more than {allowed:g}: do not deploy it")
    golden_inputs, golden_outputs = _rows(examples), _rows(results)
    text = contract.dumps(
        contract.Contract(
            schema_version=contract.SCHEMA_VERSION,
            **described,
            state=tuple(state),
            noise=tuple(noise),
            golden=contract.Golden(
                inputs=golden_inputs,
                outputs=golden_outputs,
                sha256=contract.golden_sha256(golden_inputs, golden_outputs),
                tolerance=tolerance,
            ),
            graph_sha256=hashlib.sha256(model.graph.SerializeToString(deterministic=True)).hexdigest(),
        )
    )
    entry = model.metadata_props.add()
    entry.key, entry.value = contract.METADATA_KEY, text
    data = model.SerializeToString(deterministic=True)
    try:
        ExportedPolicy(parse_model(data))  # what a robot will do with it
    except (contract.ContractError, PolicyError) as error:
        raise ValueError(f"this policy cannot be exported, a robot would refuse the file: {error}") from error
    return Exported(data, contract.loads(text))


def require_packages() -> None:
    """Checks that what writes ONNX files is installed.

    Raises:
      UserError: something is missing; the message says what to install.
    """
    require(PACKAGES, "exporting a policy", "export")


def _convert(graph: Callable[..., Any], inputs: dict[str, tuple[int, ...]], outputs: Sequence[str]) -> onnx.ModelProto:
    """The graph as ONNX, with everything that does not depend on an input computed beforehand."""
    import onnx

    with _quiet(), _refusing():
        import jax2onnx  # its plugins take seconds to import

        proto = jax2onnx.to_onnx(
            graph,
            [jax.ShapeDtypeStruct(("B", *shape), jnp.float32) for shape in inputs.values()],
            model_name="policy",
            opset=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
        )
    assert isinstance(proto, onnx.ModelProto)
    proto.ir_version = IR_VERSION
    with _refusing():
        model = _fold(proto)
        tidy(model)
    del model.opset_import[:]
    model.opset_import.add(domain="", version=OPSET)
    model.ir_version = IR_VERSION
    model.producer_name, model.producer_version = "mjx-policies", ""
    onnx.checker.check_model(model, full_check=True)
    return model


def _fold(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model after onnxruntime's basic optimizations, which stay within ONNX's own operators."""
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "folded.onnx")
        options.optimized_model_filepath = path
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        folded = onnx.load(path, load_external_data=False)
    foreign = sorted({node.domain for node in folded.graph.node} - {""})
    assert not foreign, f"basic optimizations left ONNX: {foreign}"
    return folded


def _golden_inputs(
    inputs: dict[str, tuple[int, ...]],
    state: Sequence[contract.State],
    noise: Sequence[contract.NoiseInput],
    observations: np.ndarray,
) -> dict[str, np.ndarray]:
    """[G, ...] of each input: observations met, their mean and extremes; states and noise from a fixed draw."""
    chosen = observations[np.linspace(0, len(observations) - 1, EXAMPLES - 2).astype(int)]
    mean, reach = spread(observations)
    extreme = mean + np.where(np.arange(len(mean)) % 2, reach, -reach)
    rng = np.random.default_rng(0)
    found = {"observation": np.concatenate([chosen, [mean, extreme]])}
    draws: dict[str, Callable[..., Any]] = {
        "normal": rng.standard_normal,
        "uniform": rng.random,
        "gumbel": lambda size: rng.gumbel(size=size),
    }
    for name, distribution in (*((s.input, "normal") for s in state), *((n.input, n.distribution) for n in noise)):
        found[name] = draws[distribution]((EXAMPLES, *inputs[name]))
    return {name: value.astype(np.float32) for name, value in found.items()}


def _rows(arrays: dict[str, np.ndarray]) -> dict[str, tuple[tuple[float, ...], ...]]:
    return {name: tuple(map(tuple, np.reshape(a, (len(a), -1)).astype(float).tolist())) for name, a in arrays.items()}


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    """Whatever jax2onnx and onnxruntime stumble over, and they raise all kinds, as one."""
    try:
        yield
    except Exception as error:
        if disk_is_full(error):
            raise
        raise ValueError(
            f"this policy cannot be exported: {type(error).__name__}: {error}. "
            "Random numbers must be inputs of the graph, and loops have a fixed number of steps"
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences the log of jax2onnx about examples whose libraries are not installed."""
    previous = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(previous)
