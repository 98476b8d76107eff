"""Denoisers: convolutions against scipy, what each reads, shapes. Axes: E embedding, H horizon, A action."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import correlate

from mjx_policies.compiler import compiler_options
from mjx_policies.networks.denoiser import MLPDenoiser, TransformerDenoiser
from mjx_policies.networks.temporal_unet import Convolution, ConvolutionBlock, TemporalUNet

rng = np.random.default_rng(0)
X, EMBEDDING = (rng.normal(size=shape).astype(np.float32) for shape in ((8, 3), (5,)))
NETS = {
    "mlp": MLPDenoiser(16, 2, 8),
    "transformer": TransformerDenoiser(8, 2, 2, 8),
    "unet": TemporalUNet((6, 8), 3, 4, 8),
}


def quick(function, *arguments):
    return jax.jit(function, compiler_options=compiler_options(runs_once=True))(*arguments)


@pytest.fixture(scope="module", params=NETS)
def net(request):
    return NETS[request.param]


@pytest.mark.parametrize("times", [(), (2,)])
def test_the_answer_depends_on_everything(net, times):
    time = jnp.full(times, 0.3)
    params = quick(net.init, jax.random.key(0), X, time, EMBEDDING)
    jacobian_of = jax.jacrev(net.apply, argnums=(1, 2, 3))
    found = quick(net.apply, params, X, time, EMBEDDING)
    jacobians = quick(jacobian_of, params, X, time, EMBEDDING)
    assert found.shape == X.shape and np.isfinite(found).all()
    assert np.abs(found).max() < 1.0  # a first prediction near zero
    for jacobian, inputs in zip(jacobians, (X.shape, times, EMBEDDING.shape), strict=True):
        moved = np.abs(jacobian).reshape(X.size, *inputs).max(axis=0)
        assert moved.shape == inputs and (moved > 0).all()


def test_a_chunk_of_half_precision_is_computed_in_it(net):
    def half(tree):
        return jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), tree)

    def run(key):
        return net.apply(half(net.init(key, X, 0.3, EMBEDDING)), half(X), jnp.asarray(0.3), half(EMBEDDING))

    assert jax.eval_shape(run, jax.random.key(0)).dtype == jnp.bfloat16


@pytest.mark.parametrize(("kernel", "stride"), [(5, 1), (3, 2), (1, 1)])
def test_convolutions_are_scipys(kernel, stride):
    module = Convolution(2, kernel, stride)
    params = module.init(jax.random.key(0), X)
    weights = np.asarray(params["params"]["Dense_0"]["kernel"]).reshape(kernel, 3, 2)
    padded = np.pad(X, ((kernel // 2, kernel // 2), (0, 0)))
    expected = np.stack([correlate(padded, weights[:, :, c], mode="valid")[::stride, 0] for c in range(2)], axis=1)
    np.testing.assert_allclose(module.apply(params, X), expected, atol=1e-5)


def test_groups_are_normalised_over_all_steps():
    module = ConvolutionBlock(4, 3, 2)
    params = module.init(jax.random.key(0), X)
    inner = params["params"]
    h = np.asarray(Convolution(4, 3).apply({"params": inner["Convolution_0"]}, X), float).reshape(8, 2, 2)
    normed = (h - h.mean(axis=(0, 2), keepdims=True)) / np.sqrt(h.var(axis=(0, 2), keepdims=True) + 1e-6)
    normed = normed.reshape(8, 4)
    np.testing.assert_allclose(module.apply(params, X), normed / (1 + np.exp(-normed)), atol=1e-4)


def test_what_cannot_be_halved_is_told():
    with pytest.raises(ValueError, match=r"H a multiple of 4, not \(6, 3\)"):
        TemporalUNet((4, 4, 4)).init(jax.random.key(0), X[:6], 0.3, EMBEDDING)
    with pytest.raises(ValueError, match=r"not \(3,\)"):
        TemporalUNet((4, 4)).init(jax.random.key(0), X[0], 0.3, EMBEDDING)
