import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx_policies.compiler import compiler_options
from mjx_policies.heads.registry import BUILD, HEADS, fit, make_head

SHAPE = (4, 2)
EMBEDDING = jnp.asarray([0.5, -0.3, 1.0])


def chunks(count=64):
    """[N, H, A], straight lines."""
    rng = np.random.default_rng(0)
    start, end = rng.uniform(-1, 1, (2, count, 1, SHAPE[1]))
    return np.asarray(start + (end - start) * np.linspace(0, 1, SHAPE[0])[None, :, None], np.float32)


@pytest.mark.parametrize("name", HEADS)
def test_every_name_is_a_head_for_chunks(name):
    head = make_head(name, *SHAPE, 32, fit(name, chunks()))
    options = compiler_options(runs_once=True)
    params = jax.jit(head.init, compiler_options=options)(jax.random.key(0), EMBEDDING)
    action, _ = jax.jit(head.sample, compiler_options=options)(params, jax.random.key(1), EMBEDDING)
    assert action.shape == SHAPE and np.isfinite(action).all()
    loss = jax.jit(head.loss, compiler_options=options)
    assert np.isfinite(loss(params, jax.random.key(2), EMBEDDING, jnp.asarray(chunks()[0]), jnp.ones(SHAPE[0])))


def test_the_names_are_those_that_can_be_built():
    assert set(HEADS) == set(BUILD)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("lstm", 4, 2), "there is no head 'lstm'; choose of mse, "),
        (("mse", 0, 2), "horizon is 0"),
        (("vq", 4, 2), r"needs what fit\('vq', actions\) returns, not NoneType"),
        (("mse", 4, 2, 32, fit("fast", chunks())), "not FastTokenizer"),
        (("fast", 8, 2, 32, fit("fast", chunks())), r"was fitted to chunks \(4, 2\), these are \(8, 2\)"),
    ],
)
def test_what_cannot_be_built_is_told(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        make_head(*arguments)
