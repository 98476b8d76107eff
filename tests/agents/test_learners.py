"""Laws of all learners. A new learner is a new entry of `LEARNERS`."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx_policies.actor import Units, actor
from mjx_policies.agents.base import Learner, Runner
from mjx_policies.agents.bc import BCHyper, bc
from mjx_policies.agents.critic import CLIP, critic
from mjx_policies.agents.on_policy import on_policy
from mjx_policies.agents.ppo import ppo
from mjx_policies.agents.ppo_config import PPOConfig, PPOHyper
from mjx_policies.chunking import receding_horizon
from mjx_policies.data.windows import Window
from mjx_policies.envs.vectorize import VectorEnv
from mjx_policies.heads.deterministic import deterministic_head
from mjx_policies.heads.gaussian import gaussian_head
from mjx_policies.networks.flat import Flat
from mjx_policies.networks.mlp import MLP
from mjx_policies.training.trees import describe, from_host, strong, to_host

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
      run: `(learner, environments, the module of the probes) -> runner`.
      iterations: enough to solve a probe.
      value: `(learner state, obs) -> []`, its estimate, or None.
      example: an observation of the environment -> an example for `init`.
    """

    learner: Learner
    hyper: NamedTuple
    run: Callable[..., Runner]
    iterations: int
    value: Callable | None = None
    example: Callable = lambda obs: obs


def make_ppo() -> Member:
    head = gaussian_head(MLP((8, 1), output_scale=0.01), 1, init_std=0.5)
    value_net = critic(MLP((8, 1)))
    learner = ppo(actor(Flat(), head, units=Units(clip=CLIP)), value_net, PPOConfig(num_epochs=2, num_minibatches=2))

    def value(state, obs):
        return value_net.value(state.params["critic"], obs)

    def run(learner: Learner, envs: VectorEnv, probes) -> Runner:
        return on_policy(learner, envs, rollout_length=8)

    hyper = PPOHyper(learning_rate=0.01, desired_kl=0.0, discount=0.8)
    return Member(learner, hyper, run, iterations=150, value=value)


def make_bc() -> Member:
    network = actor(Flat(), deterministic_head(MLP((8, 1)), (1, 1)))

    def policy(params):
        return receding_horizon(lambda key, seen: network.mode(params, seen), (1, 1), n_action_steps=1, keys=("state",))

    hyper = BCHyper(learning_rate=0.03, warmup_steps=10.0, total_steps=200.0, max_ema=0.9)
    return Member(
        bc(network, policy),
        hyper,
        imitation,
        iterations=200,
        example=lambda obs: jax.tree.map(lambda x: x[None], obs),
    )


class Imitation(NamedTuple):
    """The state of a runner."""

    learner: NamedTuple
    key: jax.Array


def imitation(learner: Learner, envs: VectorEnv, probes) -> Runner:
    """Learns from demonstrations of what is best, as many as there are environments in every step."""

    def batch(key):
        obs, action = jax.vmap(probes.demonstration, (None, 0))(envs.env.which, jax.random.split(key, envs.num_envs))
        one = jnp.ones((envs.num_envs, 1), bool)
        return Window(jax.tree.map(lambda x: x[:, None], obs), action[:, None], one, one, jnp.zeros(envs.num_envs, int))

    def init(key, hyper):
        key_learner, key_example, key_next = jax.random.split(key, 3)
        example = jax.tree.map(lambda x: x[0], batch(key_example).observation)
        return jax.tree.map(strong, Imitation(learner.init(key_learner, example, hyper), key_next))

    def step(state):
        key_batch, key_update, key_next = jax.random.split(state.key, 3)
        after, info = learner.update(state.learner, key_update, batch(key_batch))
        return jax.tree.map(strong, Imitation(after, key_next)), info

    return Runner(init, step, 0)


LEARNERS = {"ppo": make_ppo, "bc": make_bc}
SOLVES = {"ppo": PROBES, "bc": ("action", "observed action", "asymmetric critic")}


@pytest.fixture(scope="module", params=LEARNERS)
def member(request):
    return LEARNERS[request.param]()


@pytest.fixture(scope="module")
def train(member, probes):
    """`(key, index of the probe) -> learner state` after enough iterations."""

    @jit
    def train(key, which):
        runner = member.run(member.learner, probes.vectorized(which, NUM_ENVS), probes)
        state = runner.init(key, member.hyper)
        return jax.lax.scan(lambda state, _: (runner.step(state)[0], None), state, length=member.iterations)[0].learner

    return train


@pytest.mark.parametrize(
    ("member", "name"), [(member, name) for member in LEARNERS for name in SOLVES[member]], indirect=["member"]
)
def test_it_solves(member, probes, train, name):
    assert tuple(probes.PROBES) == PROBES
    state = train(jax.random.key(0), PROBES.index(name))
    value = jit(lambda obs: member.value(state, obs)) if member.value else None
    probes.check(probes.PROBES[name], value, jit(lambda obs: deployed(member.learner, state, obs)))


def deployed(learner, state, obs):
    """The policy's action in the first step of an episode."""
    policy = learner.policy(state)
    return policy.act(policy.init(jax.random.key(0), obs), jax.random.key(1), obs, 0)[0]


def behaved(learner, state, key, obs):
    """The same of the one that collects: action and extras."""
    policy = learner.act(state)
    key_init, key_act = jax.random.split(key)
    return policy.act(policy.init(key_init, obs), key_act, obs, 0)[0]


class Runs(NamedTuple):
    """Short training runs: `train(key, hyper) -> (runner state, info)`, one at a time and all at once."""

    runner: Runner
    train: Callable
    batch: tuple  # leaves are [key, hyper, ...]
    keys: jax.Array  # [2]
    hyper: NamedTuple  # [2]


@pytest.fixture(scope="module")
def runs(member, probes):
    runner = member.run(member.learner, probes.vectorized("asymmetric critic", NUM_ENVS), probes)

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


def test_a_run_resumes_bit_for_bit(member, runs):
    init, step = jit(runs.runner.init), jit(runs.runner.step)
    state = init(runs.keys[0], member.hyper)
    for i in range(4):
        if i == 2:
            saved = {name: array.copy() for name, array in to_host(state).items()}
        state, _ = step(state)
    resumed = from_host(jax.eval_shape(init, runs.keys[1], member.hyper), saved)
    for _ in range(2):
        resumed, _ = step(resumed)
    for name, array in to_host(state).items():
        assert array.tobytes() == to_host(resumed)[name].tobytes(), name


def test_one_example_is_never_broadcast(member, runs, probes):
    """What acts on the robot takes one observation: a rank that grows silently there is a mistake."""
    obs = probes.observation(0.5, 1.0)
    with jax.numpy_rank_promotion("raise"):
        state = jax.eval_shape(member.learner.init, runs.keys[0], member.example(obs), member.hyper)
        action, _ = jax.eval_shape(partial(behaved, member.learner), state, runs.keys[1], obs)
        best = jax.eval_shape(partial(deployed, member.learner), state, obs)
    assert action.shape == best.shape == (1,) and action.dtype == best.dtype == jnp.float32


@pytest.fixture(scope="module")
def batch(member, probes):
    """A state, and what its `update` is given."""
    keeping = member.learner._replace(update=lambda state, key, batch: (batch, {}))
    runner = member.run(keeping, probes.vectorized("observed action", 4), probes)
    state = jit(lambda key: runner.init(key, member.hyper))(jax.random.key(2))
    return state.learner, jit(runner.step)(state)[0].learner


def test_compiled_equals_eager(member, probes, batch):
    """Every function of the learner."""
    (state, rows), learner, key, obs = batch, member.learner, jax.random.key(3), probes.observation(0.5, 1.0)
    calls = (
        (partial(behaved, learner), (state, key, obs)),
        (partial(deployed, learner), (state, obs)),
        (learner.update, (state, key, rows)),
    )
    for function, arguments in calls:
        compiled = jit(function)(*arguments)
        assert_close(compiled, function(*arguments))


def test_a_batch_that_says_nothing_and_observations_far_away_leave_it_finite(member, probes, batch):
    state, rows = batch
    nothing = jax.tree.map(jnp.zeros_like, rows)
    after, info = jit(member.learner.update)(state, jax.random.key(4), nothing)
    numbers = jax.tree.leaves((after.params, after.opt_state, info))
    assert all(np.isfinite(x).all() for x in numbers)
    for size in (1e3, -1e6):
        obs = probes.observation(size, size)
        assert np.isfinite(deployed(member.learner, after, obs)).all()
        assert np.isfinite(behaved(member.learner, after, jax.random.key(5), obs)[0]).all()
