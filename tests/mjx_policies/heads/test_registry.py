import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx_policies.errors import UserError
from mjx_policies.heads.registry import BUILD, COUNTS, HEADS, STEPPED, fit, make_head, read_fitted, save_fitted

SHAPE = (4, 2)
EMBEDDING = jnp.asarray([0.5, -0.3, 1.0])


def chunks(count=64):
    """[N, H, A], straight lines."""
    rng = np.random.default_rng(0)
    start, end = rng.uniform(-1, 1, (2, count, 1, SHAPE[1]))
    return np.asarray(start + (end - start) * np.linspace(0, 1, SHAPE[0])[None, :, None], np.float32)


@pytest.mark.parametrize("name", HEADS)
def test_every_name_is_a_head_for_chunks(name, tmp_path):
    """Shapes alone, as a run that is taken up again knows them; what heads learn is for the suite of their laws."""
    fitted = fit(name, chunks(), num_steps=1)
    save_fitted(fitted, tmp_path)
    again = read_fitted(name, SHAPE, tmp_path)
    shapes = []
    for each in (fitted, again):
        head = make_head(name, *SHAPE, 32, each)
        params = jax.eval_shape(head.init, jax.random.key(0), EMBEDDING)
        action, _ = jax.eval_shape(head.sample, params, jax.random.key(1), EMBEDDING)
        loss = jax.eval_shape(head.loss, params, jax.random.key(2), EMBEDDING, action, jnp.ones(SHAPE[0]))
        assert action.shape == SHAPE and loss.shape == ()
        shapes.append(params)
    assert jax.tree.structure(shapes[0]) == jax.tree.structure(shapes[1])
    assert jax.tree.leaves(shapes[0]) == jax.tree.leaves(shapes[1])


def test_a_vocabulary_comes_back_whole(tmp_path):
    fitted = fit("fast", chunks())
    save_fitted(fitted, tmp_path)
    assert read_fitted("fast", SHAPE, tmp_path) == fitted
    (tmp_path / COUNTS).write_text('{"max_tokens": 9}')
    with pytest.raises(UserError, match="must say max_tokens, from 1 to 8"):
        read_fitted("fast", SHAPE, tmp_path)


@pytest.mark.parametrize("name", STEPPED)
def test_parameters_serve_any_number_of_steps(name):
    some, many = (make_head(name, *SHAPE, 32, num_steps=steps) for steps in (1, 7))
    params = some.init(jax.random.key(0), EMBEDDING)
    # A head's first answer is zero in any number.
    whole = jax.tree.map(lambda x: 0.2 * jax.random.normal(jax.random.key(x.size), x.shape), params)
    actions = [head.sample_from_noise(whole, EMBEDDING, head.noise.draw(jax.random.key(1))) for head in (some, many)]
    assert np.isfinite(actions).all() and not np.allclose(*actions)
    with pytest.raises(ValueError, match="mse does not sample in steps; diffusion, flow, one_step do"):
        make_head("mse", *SHAPE, 32, num_steps=3)


def test_the_names_are_those_that_can_be_built():
    assert set(HEADS) == set(BUILD)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("lstm", 4, 2), "there is no head 'lstm'; choose of mse, "),
        (("mse", 0, 2), "horizon is 0"),
        (("vq", 4, 2), r"needs what fit\('vq', actions\) returns, not NoneType"),
        (("mse", 4, 2, 32, fit("fast", chunks())), "not Vocabulary"),
        (("fast", 8, 2, 32, fit("fast", chunks())), r"was fitted to chunks \(4, 2\), these are \(8, 2\)"),
    ],
)
def test_what_cannot_be_built_is_told(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        make_head(*arguments)
