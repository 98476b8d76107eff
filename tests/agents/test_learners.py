"""Laws of all learners. A new learner is a new entry of `LEARNERS`."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx_policies.agents.base import Learner, Runner
from mjx_policies.agents.on_policy import on_policy
from mjx_policies.agents.ppo import PPOConfig, PPOHyper, ppo
from mjx_policies.envs.vectorize import VectorEnv
from mjx_policies.heads.gaussian import gaussian_head
from mjx_policies.networks.mlp import MLP
from mjx_policies.normalize import normalize
from mjx_policies.training.trees import describe

NUM_ENVS = 8
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # programs that run a few times
PROBES = (
    "value",
    "observed value",
    "discounting",
    "termination",
    "truncation",
    "final observation",
    "action",
    "observed action",
    "asymmetric critic",
)


class Member(NamedTuple):
    """A learner, and what the laws need to know of it.

    Attributes:
      learner: for the shapes of the probes.
      hyper: numbers with which it solves the probes.
      run: environments -> runner.
      value: `(learner state, obs) -> []`, its estimate.
      iterations: enough to solve a probe.
    """

    learner: Learner
    hyper: NamedTuple
    run: Callable[[VectorEnv], Runner]
    value: Callable
    iterations: int


def make_ppo() -> Member:
    head = gaussian_head(MLP((8, 1), output_scale=0.01), 1, init_std=0.5)
    critic = MLP((8, 1))
    learner = ppo(head, critic, PPOConfig(num_epochs=2, num_minibatches=2))

    def value(state, obs):
        inputs = normalize(state.normalizer, obs)
        return critic.apply(state.params["critic"], jnp.concatenate([inputs["state"], inputs["privileged"]]))[0]

    hyper = PPOHyper(learning_rate=0.01, desired_kl=0.0, discount=0.8)
    return Member(learner, hyper, lambda envs: on_policy(learner, envs, rollout_length=8), value, iterations=150)


LEARNERS = {"ppo": make_ppo}


@pytest.fixture(scope="module", params=LEARNERS)
def member(request):
    return LEARNERS[request.param]()


@pytest.fixture(scope="module")
def train(member, probes):
    """`(key, index of the probe) -> learner state` after enough iterations."""

    @jit
    def train(key, which):
        runner = member.run(probes.vectorized(which, NUM_ENVS))
        state = runner.init(key, member.hyper)
        return jax.lax.scan(lambda state, _: (runner.step(state)[0], None), state, length=member.iterations)[0].learner

    return train


@pytest.mark.parametrize("name", PROBES)
def test_it_solves(member, probes, train, name):
    assert tuple(probes.PROBES) == PROBES
    state = train(jax.random.key(0), PROBES.index(name))
    value = jit(lambda obs: member.value(state, obs))
    probes.check(probes.PROBES[name], value, lambda obs: member.learner.mode(state, obs))


class Runs(NamedTuple):
    """Short training runs: `train(key, hyper) -> (runner state, info)`, one at a time and all at once."""

    runner: Runner
    train: Callable
    batch: tuple  # leaves are [key, hyper, ...]
    keys: jax.Array  # [2]
    hyper: NamedTuple  # [2]


@pytest.fixture(scope="module")
def runs(member, probes):
    runner = member.run(probes.vectorized("asymmetric critic", NUM_ENVS))

    def train(key, hyper):
        return jax.lax.scan(lambda state, _: runner.step(state), runner.init(key, hyper), length=3)

    halved = jax.tree.map(lambda x: x / 2, member.hyper)
    hyper = jax.tree.map(lambda *x: jnp.asarray(x, jnp.float32), member.hyper, halved)
    keys = jax.random.split(jax.random.key(1), 2)
    batch = jit(jax.vmap(jax.vmap(train, in_axes=(None, 0)), in_axes=(0, None)))(keys, hyper)
    return Runs(runner, jit(train), batch, keys, hyper)


def row(tree, i):
    return jax.tree.map(lambda x: x[i], tree)


def assert_close(a, b):
    """Equal but for the order of float32 sums, which a few updates of size 0.01 pass on."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for (path, x), (_, y) in zip(jax.tree.leaves_with_path(a), jax.tree.leaves_with_path(b), strict=True):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4, err_msg=jax.tree_util.keystr(path))


def test_a_batch_of_seeds_equals_a_loop(runs):
    for i, key in enumerate(runs.keys):
        assert_close(row(runs.batch, (i, 0)), runs.train(key, row(runs.hyper, 0)))


def test_a_batch_of_hyperparameters_equals_a_loop(runs):
    for i in range(2):
        assert_close(row(runs.batch, (0, i)), runs.train(runs.keys[0], row(runs.hyper, i)))
    with pytest.raises(AssertionError):
        assert_close(row(runs.batch, (0, 0))[0].learner, row(runs.batch, (0, 1))[0].learner)


def test_the_key_decides_every_bit(runs):
    a, again = (runs.train(runs.keys[0], row(runs.hyper, 0)) for _ in range(2))
    chex.assert_trees_all_equal(a[0].learner, again[0].learner)
    other, _ = runs.train(runs.keys[1], row(runs.hyper, 0))
    with pytest.raises(AssertionError):
        chex.assert_trees_all_close(a[0].learner, other.learner)


def test_it_is_traced_once_keeps_the_kind_of_every_leaf_and_uses_a_key_once(member, runs):
    step = jit(chex.assert_max_traces(runs.runner.step, n=1))
    with jax.debug_key_reuse(True):
        state = jit(runs.runner.init)(runs.keys[0], member.hyper)  # Python numbers, as a user has them
        before = describe(state)
        for _ in range(3):
            state, info = step(state)
            assert describe(state) == before
    assert all(value.shape == () and jnp.isfinite(value) for value in info.values())


def test_one_example_is_never_broadcast(member, runs, probes):
    """What acts on the robot takes one observation: a rank that grows silently there is a mistake."""
    obs = probes.observation(0.5, 1.0)
    with jax.numpy_rank_promotion("raise"):
        state = jax.eval_shape(member.learner.init, runs.keys[0], obs, member.hyper)
        action, _ = jax.eval_shape(member.learner.act, state, runs.keys[1], obs)
        mode = jax.eval_shape(member.learner.mode, state, obs)
    assert action.shape == mode.shape == (1,) and action.dtype == mode.dtype == jnp.float32


def test_compiled_equals_eager(member, probes):
    """Every function of the learner, on a rollout of two steps."""
    learner = member.learner
    collect = learner._replace(update=lambda state, key, rollout: (rollout, {}))
    runner = on_policy(collect, probes.vectorized("observed action", 4), rollout_length=2)
    key = jax.random.key(2)
    state = jit(lambda key: runner.init(key, member.hyper))(key)
    rollout = jit(runner.step)(state)[0].learner
    obs = jax.tree.map(lambda x: x[0, 0], rollout.obs)
    calls = (
        (learner.act, (state.learner, key, obs)),
        (learner.mode, (state.learner, obs)),
        (learner.update, (state.learner, key, rollout)),
    )
    for function, arguments in calls:
        compiled = jit(function)(*arguments)
        assert_close(compiled, function(*arguments))
