"""Samplers with U-Nets and transformers as ONNX graphs: the file equals JAX. Axes: D observation, A action."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest

from mjx_policies.compiler import compiler_options
from mjx_policies.deploy import contract
from mjx_policies.export import export_policy
from mjx_policies.heads.denoising import Denoiser
from mjx_policies.heads.diffusion import diffusion_head
from mjx_policies.heads.flow import flow_head
from mjx_policies.networks.denoiser import TransformerDenoiser
from mjx_policies.networks.temporal_unet import TemporalUNet

path = Path(__file__).parents[1] / "export" / "test_onnx_file.py"
spec = importlib.util.spec_from_file_location("shared_toy", path)
toy = importlib.util.module_from_spec(spec)
spec.loader.exec_module(toy)

SHAPE = (4, toy.A)
HEADS = {
    "unet": lambda: flow_head(TemporalUNet((4, 4), 3, 2, 8), SHAPE, num_steps=2),
    "transformer": lambda: diffusion_head(Denoiser(TransformerDenoiser(8, 2, 1, 8), SHAPE, num_steps=2, eta=1.0)),
}


@pytest.mark.parametrize("name", HEADS)
def test_the_graph_equals_jax(name):
    head = HEADS[name]()
    params = jax.jit(head.init, compiler_options=compiler_options(runs_once=True))(jax.random.key(0), jnp.zeros(toy.D))

    def act(observation, noise):
        return head.sample_from_noise(params, jnp.tanh(observation), noise)[0]

    noise = (contract.NoiseInput("noise", head.noise.shape, "normal", 0.0),)
    exported = export_policy(act, toy.TABLE, toy.DESCRIBED, toy.OBSERVATIONS, noise=noise)
    session = onnxruntime.InferenceSession(exported.data, providers=["CPUExecutionProvider"])
    numbers = np.random.default_rng(0).normal(size=(5, *head.noise.shape)).astype(np.float32)
    (action,) = session.run(["action"], {"observation": toy.OBSERVATIONS[:5], "noise": numbers})
    expected = jax.jit(jax.vmap(act))(toy.OBSERVATIONS[:5], numbers)
    np.testing.assert_allclose(action, expected, atol=1e-5)
    assert np.ptp(action, axis=0).min() > 1e-3
