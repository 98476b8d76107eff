"""Inputs of a critic. Axes: D numbers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx_policies.agents.critic import CLIP, critic
from mjx_policies.networks.mlp import MLP
from mjx_policies.normalize import Scale

OBS = {"state": jnp.asarray([1.0, -2.0]), "privileged": jnp.asarray([3.0]), "other": jnp.asarray([9.0, 9.0])}
jitted = jax.jit


def make(*keys, **scales):
    built = critic(MLP((8, 1)), *([keys] if keys else []))
    params = built.init(jax.random.key(0), OBS)
    observation = params["scales"].observation | scales
    return built, params | {"scales": dataclasses.replace(params["scales"], observation=observation)}


def test_it_reads_what_it_is_told_and_what_is_privileged():
    for keys, read in (((), ("state", "privileged")), (("state",), ("state",)), (("state", "absent"), ("state",))):
        built, params = make(*keys)
        gradient = jitted(jax.grad(lambda obs, built=built, params=params: built.value(params, obs)))(OBS)
        assert {name for name, x in gradient.items() if (x != 0).any()} == set(read)
        assert set(params["scales"].observation) == set(read)


def test_it_normalises_within_bounds_and_no_gradient_reaches_its_scales():
    built, params = make("state", state=Scale(jnp.asarray([1.0, 2.0]), jnp.asarray([2.0, 4.0])))
    plain = params | {"scales": make("state")[1]["scales"]}
    seen = (OBS["state"] - jnp.asarray([1.0, 2.0])) / jnp.asarray([2.0, 4.0])
    assert built.value(params, OBS).shape == ()
    np.testing.assert_allclose(built.value(params, OBS), built.value(plain, {"state": seen}), rtol=1e-6)
    far, edge = ({"state": jnp.asarray([x, -x])} for x in (1e9, CLIP))
    np.testing.assert_allclose(built.value(plain, far), built.value(plain, edge), rtol=1e-6)
    grads = jitted(jax.grad(built.value))(params, OBS)
    assert all((x == 0).all() for x in jax.tree.leaves(grads["scales"]))
    assert any((x != 0).any() for x in jax.tree.leaves(grads["net"]))


def test_it_reads_what_sets_a_robot_apart_where_it_is_told_to():
    obs = OBS | {"extrinsics": jnp.asarray([0.5, -1.0])}
    everything = ("state", "privileged", "extrinsics")
    for built, read in ((critic(MLP((8, 1))), everything[:2]), (critic(MLP((8, 1)), everything), everything)):
        params = built.init(jax.random.key(0), obs)
        gradient = jitted(jax.grad(lambda obs, built=built, params=params: built.value(params, obs)))(obs)
        assert {name for name, x in gradient.items() if (x != 0).any()} == set(read)


def test_pictures_keep_their_range():
    obs = {"pixels": jnp.full((2, 2), 200, jnp.uint8)}
    built = critic(MLP((1,)), ("pixels",))
    params = built.init(jax.random.key(0), obs)
    assert params["scales"].observation == {}
    assert float(built.value(params, obs)) == pytest.approx(
        float(MLP((1,)).apply(params["net"], jnp.full(4, 200.0))[0]), rel=1e-5
    )
