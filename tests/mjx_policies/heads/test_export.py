"""The law that an exported head does what the head does, with the same random numbers, for all that conformance knows.

Axes: N examples, H horizon.
"""

import functools
import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx_policies.compiler import compiler_options
from mjx_policies.deploy import contract
from mjx_policies.deploy.policy import ExportedPolicy
from mjx_policies.deploy.validation import parse_model
from mjx_policies.export import export_policy
from mjx_policies.export.noise import noise_inputs
from mjx_policies.spec import ActionTable

_spec = importlib.util.spec_from_file_location("conformance", Path(__file__).with_name("test_conformance.py"))
conformance = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(conformance)
SHAPE, EMBEDDING = conformance.SHAPE, conformance.EMBEDDING
name, head = conformance.name, conformance.head  # fixtures

compiled = functools.partial(jax.jit, compiler_options=compiler_options(runs_once=True))

TABLE = ActionTable(("joint",), (0.1,), (0.5,), (-1.0,), (1.0,))
DESCRIBED = {
    "robot": contract.RobotModel("toy", "0" * 64, "wxyz"),
    "timing": contract.Timing(0.02, 0.005, 0.04, (0.0, 0.01)),
    "joints": (contract.Joint("joint", 0.1, 0.1, 0.5, 0.0, 0.0, -1.0, 1.0, -1.0, 1.0, 0.0, 5.0),),
    "observation": (
        contract.ContractTerm("embedding", len(EMBEDDING), "1", "", 1.0, 0.0, 1, True, "first", 0.0, 0.0, True),
    ),
    "action": contract.Action("joint_torque", 0.0, 0.0, SHAPE[0]),
    "commands": (),
    "gait": None,
    "randomization": (),
    "training": contract.Training("Toy", 0, 0, "", {}),
}
OBSERVATIONS = np.random.default_rng(0).normal(size=(24, len(EMBEDDING))).astype(np.float32)


@pytest.fixture(scope="module")
def params(head):
    """Far enough from the first ones for every part to matter."""
    params = compiled(head.init)(jax.random.key(0), EMBEDDING)
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda x: jnp.asarray(x + 0.1 * rng.standard_normal(x.shape), x.dtype), jax.device_get(params))


@pytest.mark.parametrize("function", ["sample_from_noise", "mode"])
def test_the_exported_graph_does_what_the_head_does(head, params, function):
    call = getattr(head, function)
    if call is None:
        other = head.mode if function == "sample_from_noise" else head.sample_from_noise
        assert other is not None, "nothing of it can be deployed"
        return
    noise = noise_inputs(head.noise) if function == "sample_from_noise" else ()

    def act(observation, *numbers):
        return call(params, observation, *numbers)

    exported = export_policy(act, TABLE, DESCRIBED, OBSERVATIONS, noise=noise)
    policy = ExportedPolicy(parse_model(exported.data))
    keys = jax.random.split(jax.random.key(2), len(OBSERVATIONS))
    numbers = [np.asarray(jax.vmap(head.noise.draw)(keys))] if noise else []
    run = compiled(jax.vmap(act))
    expected = np.asarray(run(OBSERVATIONS, *numbers))
    found = policy.step(OBSERVATIONS, policy.initial_state(len(OBSERVATIONS)), numbers)
    # What is chosen from several may be chosen differently where two are alike to the last bit: nowhere, of these.
    tolerance = exported.contract.golden.tolerance
    np.testing.assert_allclose(found.action, expected, atol=tolerance)
    np.testing.assert_allclose(found.target, np.clip(0.1 + 0.5 * expected, -1, 1), atol=tolerance)
    if noise:
        assert np.abs(expected - np.asarray(run(OBSERVATIONS, numbers[0][::-1]))).max() > 0.01
        still = policy.step(OBSERVATIONS, policy.initial_state(len(OBSERVATIONS)))
        quiet = np.full_like(numbers[0], noise[0].deterministic)
        np.testing.assert_allclose(still.action, run(OBSERVATIONS, quiet), atol=tolerance)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda o: o[:2, None] + jax.random.normal(jax.random.key(0), SHAPE), "cannot be exported"),
        (lambda o: jax.lax.while_loop(lambda x: x.sum() < 3, lambda x: 2 * x, jnp.exp(o))[:2, None], "refuse the file"),
        (lambda o: jax.lax.scan(lambda x, _: (x + 1, None), o, length=2000)[0][:2, None], "2000 steps is too long"),
    ],
)
def test_what_cannot_be_exported_says_so(act, message):
    with pytest.raises(ValueError, match=message):
        export_policy(act, TABLE, DESCRIBED, OBSERVATIONS)
