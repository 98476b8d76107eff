"""Laws of actors: observations and actions in their own units. Axes: D observation, H horizon, A action."""

import dataclasses

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx_policies.actor import Scales, Units, actor, begin, identity_scales, recall, scaled
from mjx_policies.heads.deterministic import deterministic_head
from mjx_policies.heads.flow import flow_head
from mjx_policies.heads.gaussian import gaussian_head
from mjx_policies.heads.inpainting import Prefix
from mjx_policies.memory import gru
from mjx_policies.networks.denoiser import MLPDenoiser
from mjx_policies.networks.flat import Flat
from mjx_policies.networks.mlp import MLP
from mjx_policies.normalize import Scale

D, H, A = 3, 4, 2
OBS = {"state": jnp.asarray([5.0, -2.0, 0.5]), "privileged": jnp.asarray([1.0]), "pixels": jnp.zeros((2, 2), jnp.uint8)}
SCALES = Scales(
    {"state": Scale(jnp.asarray([4.0, -1.0, 0.0]), jnp.asarray([2.0, 0.5, 1.0]))},
    Scale(jnp.asarray([[10.0, -3.0]] * H), jnp.arange(1.0, 1 + H * A).reshape(H, A)),
)
CHUNK = jnp.linspace(-0.9, 0.8, H * A).reshape(H, A)
KEY = jax.random.key(0)


def base(obs):
    """The reference of actions."""
    return obs["state"][:A] * 100.0


def head(**options):
    return gaussian_head(MLP((16, H * A)), (H, A), **options)


def units(**options):
    return Units(SCALES, **options)


def both(made):
    """An actor and its parameters."""
    return made, made.init(KEY, OBS)


def test_the_head_sees_scaled_numbers_and_the_robot_its_own_units():
    whole, params = both(actor(Flat(), head(), units=units(reference=base)))
    seen = {"state": (OBS["state"] - SCALES.observation["state"].offset) / SCALES.observation["state"].size}
    embedding = Flat().apply({}, seen)
    inner = params["head"]
    action = head().mode(inner, embedding)
    expected = action * SCALES.action.size + SCALES.action.offset + base(OBS)
    np.testing.assert_allclose(whole.mode(params, OBS), expected, rtol=1e-5)

    sampled, trace = whole.sample(params, KEY, OBS)
    drawn, inner_trace = head().sample(inner, KEY, embedding)
    np.testing.assert_allclose(trace, inner_trace, rtol=1e-6)
    np.testing.assert_allclose(sampled, drawn * SCALES.action.size + SCALES.action.offset + base(OBS), rtol=1e-5)
    for name, decision in (("log_prob", trace[0]), ("action_log_prob", trace)):
        found, inside = getattr(whole, name), getattr(head(), name)
        np.testing.assert_allclose(found(params, OBS, decision), inside(inner, embedding, decision), rtol=1e-5)
    noise = whole.noise.draw(KEY)
    drawn = head().sample_from_noise(inner, embedding, noise) * SCALES.action.size + SCALES.action.offset + base(OBS)
    np.testing.assert_allclose(whole.sample_from_noise(params, OBS, noise), drawn, rtol=1e-5)
    assert whole.decisions == 1 and whole.inpaint is None and whole.memory is None

    loss = whole.loss(params, KEY, OBS, CHUNK * SCALES.action.size + SCALES.action.offset + base(OBS))
    np.testing.assert_allclose(loss, head().loss(inner, KEY, embedding, CHUNK), rtol=1e-4)


@pytest.mark.parametrize("limit", [0.5, 1.0])
def test_actions_stay_within_their_limit_of_the_reference(limit):
    wild = deterministic_head(MLP((H * A,), output_scale=30.0), (H, A))
    whole, params = both(actor(Flat(), wild, units=units(limit=limit, reference=base)))
    action = (whole.mode(params, OBS) - base(OBS) - SCALES.action.offset) / SCALES.action.size
    np.testing.assert_allclose(jnp.abs(action).max(), limit, rtol=1e-4)
    seen = scaled(SCALES, {"state": OBS["state"]}, np.inf)
    expected = jnp.clip(wild.mode(params["head"], Flat().apply({}, seen)), -limit, limit)
    np.testing.assert_allclose(action, expected, atol=1e-4)


def test_a_chunk_to_continue_has_the_units_of_actions():
    """A head that returns what it was given."""
    same = head()._replace(inpaint=lambda params, embedding, noise, prefix: prefix.action * prefix.weight[:, None])
    whole, params = both(actor(Flat(), same, units=units(reference=base)))
    action = 100 * CHUNK
    np.testing.assert_allclose(whole.inpaint(params, OBS, None, Prefix(action, jnp.ones(H))), action, rtol=1e-4)


def test_observations_are_kept_within_bounds():
    whole, params = both(actor(Flat(), head(), units=Units(clip=3.0)))
    far, edge = ({"state": jnp.asarray([x, -x, 1.0])} for x in (1e9, 3.0))
    np.testing.assert_allclose(whole.mode(params, far), whole.mode(params, edge), rtol=1e-6)


def test_no_gradient_reaches_the_scales():
    whole, params = both(actor(Flat(), head(), units=units(reference=base)))
    _, trace = whole.sample(params, KEY, OBS)
    functions = (
        lambda params: whole.loss(params, KEY, OBS, CHUNK),
        lambda params: whole.log_prob(params, OBS, trace[0]).sum(),
        lambda params: whole.action_log_prob(params, OBS, trace),
        lambda params: whole.mode(params, OBS).sum(),
        lambda params: whole.sample(params, KEY, OBS)[0].sum(),
        lambda params: whole.sample_from_noise(params, OBS, jnp.ones((H, A))).sum(),
    )
    for function in functions:
        grads = jax.grad(function)(params)
        chex.assert_trees_all_equal(grads["scales"], jax.tree.map(jnp.zeros_like, params["scales"]))
        assert any((x != 0).any() for x in jax.tree.leaves(grads["head"]))


def test_scales_are_parameters_which_learning_may_replace():
    whole, params = both(actor(Flat(), head(), units=units()))
    plain, _ = both(actor(Flat(), head()))
    chex.assert_trees_all_equal(params["scales"], SCALES)
    chex.assert_trees_all_equal(plain.init(KEY, OBS)["scales"], identity_scales(OBS, ("state",)))
    np.testing.assert_allclose(plain.mode(params, OBS), whole.mode(params, OBS), rtol=1e-6)
    moved = params | {"scales": dataclasses.replace(SCALES, action=Scale(jnp.zeros(()), jnp.ones(())))}
    np.testing.assert_allclose(
        whole.mode(moved, OBS) * SCALES.action.size + SCALES.action.offset, whole.mode(params, OBS), rtol=1e-5
    )
    buffers = [x.unsafe_buffer_pointer() for x in jax.tree.leaves((params, whole.init(KEY, OBS), SCALES))]
    assert len(set(buffers)) == len(buffers), "parameters share memory, which a step may give away"


def test_only_the_named_entries_are_read():
    whole, params = both(actor(Flat(), head(), keys=("state",), units=units()))
    jacobian = jax.jacobian(lambda obs: whole.mode(params, obs))(
        {"state": OBS["state"], "privileged": OBS["privileged"]}
    )
    assert (jacobian["state"] != 0).any() and (jacobian["privileged"] == 0).all()
    spoilt = OBS | {"privileged": jnp.full(7, jnp.nan)}
    for obs in (spoilt, {"state": OBS["state"]}):
        np.testing.assert_array_equal(whole.sample(params, KEY, obs)[0], whole.sample(params, KEY, OBS)[0])
    two, params = both(actor(Flat(), head(), keys=("state", "privileged")))
    jacobian = jax.jacobian(lambda obs: two.mode(params, obs))({"state": OBS["state"], "privileged": OBS["privileged"]})
    assert (jacobian["privileged"] != 0).any()
    with pytest.raises(ValueError, match="the actor reads 'privileged', the observation has pixels, state"):
        two.mode(params, {"state": OBS["state"], "pixels": OBS["pixels"]})


def test_pictures_are_seen_as_they_are():
    class Seen(nn.Module):
        @nn.compact
        def __call__(self, obs):
            assert obs["pixels"].dtype == jnp.uint8
            return obs["pixels"].ravel().astype(jnp.float32) / 255

    whole, params = both(actor(Seen(), head(), keys=("pixels",), units=Units(clip=1.0)))
    assert params["scales"].observation == {}
    assert np.isfinite(whole.mode(params, OBS)).all()


def test_half_precision_is_that_of_the_arithmetic_alone():
    class Encoder(nn.Module):
        @nn.compact
        def __call__(self, obs):
            kinds.append(obs["state"].dtype)
            return nn.Dense(8)(obs["state"])

    kinds = []
    half, params = both(actor(Encoder(), head(), units=units(), dtype="bfloat16"))
    whole = actor(Encoder(), head(), units=units())
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    kinds.clear()
    value, grads = jax.value_and_grad(half.loss)(params, KEY, OBS, CHUNK)
    assert set(kinds) == {jnp.dtype("bfloat16")} and value.dtype == jnp.float32
    assert {x.dtype for x in jax.tree.leaves(grads)} == {jnp.dtype("float32")}
    exact = whole.loss(params, KEY, OBS, CHUNK)
    assert value != exact
    np.testing.assert_allclose(value, exact, rtol=0.05)
    np.testing.assert_array_equal(half.mode(params, OBS), whole.mode(params, OBS))  # what acts is float32


def test_a_head_with_samples_alone_makes_an_actor_with_samples_alone():
    flow = flow_head(MLPDenoiser(8, 1, 4), (H, A), 2, step_std=0.1)
    whole, params = both(actor(Flat(), flow, units=units()))
    assert whole.mode is None and whole.distribution is None and whole.action_log_prob is None
    assert whole.decisions == 2 and whole.noise == flow.noise and whole.inpaint is not None
    _, trace = whole.sample(params, KEY, OBS)
    assert jax.vmap(whole.log_prob, (None, None, 0))(params, OBS, trace).shape == (2, H, A)


def test_a_memory_is_one_more_entry():
    whole, params = both(actor(Flat(), head(), units=units(), memory=gru(5)))
    memory = begin(whole, params, KEY, OBS)
    recalled, after = recall(whole, params, memory, KEY, OBS, 0)
    assert set(recalled) == {*OBS, "memory"} and recalled["memory"].shape == after.shape == (5,)
    assert (after != memory).any()
    with pytest.raises(ValueError, match="the actor reads 'memory'"):
        whole.mode(params, OBS)

    def second(params):
        """The action of the second step."""
        recalled, after = recall(whole, params, begin(whole, params, KEY, OBS), KEY, OBS, 0)
        recalled, _ = recall(whole, params, after, KEY, OBS, 1)
        return whole.mode(params, recalled).sum()

    grads = jax.grad(second)(params)
    assert set(grads) == {"scales", "encoder", "head", "memory"}
    assert all((x != 0).any() for x in jax.tree.leaves(grads["memory"]))
    # It reads scaled observations.
    scaled_obs = {"state": SCALES.observation["state"].apply(OBS["state"])}
    expected, _ = gru(5).step(params["memory"], memory, None, scaled_obs, None)
    np.testing.assert_allclose(recalled["memory"], expected, rtol=1e-5)


def test_an_actor_without_a_memory_begins_with_none():
    whole, params = both(actor(Flat(), head()))
    assert begin(whole, params, KEY, OBS) == ()
    obs, memory = recall(whole, params, (), KEY, OBS, 0)
    assert obs is OBS and memory == ()
