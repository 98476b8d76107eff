"""Behaviour cloning put together from a configuration, on demonstrations made up by hand. Axes: T steps, W windows."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx_policies.agents.bc import BCHyper
from mjx_policies.agents.sweep import member
from mjx_policies.data.episodes import Episode
from mjx_policies.data.store import in_memory
from mjx_policies.envs.base import EnvSpec
from mjx_policies.envs.registry import load
from mjx_policies.experiments.runs import bc as bc_run
from mjx_policies.experiments.runs.bc import BCRun
from mjx_policies.experiments.runs.bc_steps import bc_job
from mjx_policies.experiments.runs.demonstrations import prepare
from mjx_policies.spec import ActionTable, Term

SPEC = EnvSpec(
    observation=(Term("position", 2, unit="m"), Term("velocity", 2, unit="m/s"), Term("last_action", 2, unit="1")),
    privileged=(),
    action=ActionTable(("x", "y"), (0.0,) * 2, (1.0,) * 2, (-1.0,) * 2, (1.0,) * 2),
    control_dt=0.1,
    episode_seconds=1.0,
)
CONFIG = BCRun(
    task="Hand",
    head="gaussian",
    hidden_size=8,
    horizon=3,
    n_action_steps=2,
    steps=8,
    batch_size=4,
    validation=0.25,
    hyper=BCHyper(learning_rate=1e-2, warmup_steps=2, observation_dropout=0.2),
)


@pytest.fixture(scope="module")
def demonstrations():
    rng = np.random.default_rng(0)
    episodes = []
    for length in rng.integers(5, 12, 8):
        state = rng.normal(size=(length, 6)).astype(np.float32)
        action = np.tanh(state[:, :2])
        episodes.append(Episode({"state": state}, action, np.zeros(length), False, True, "Hand", 10.0))
    return prepare(in_memory(episodes), CONFIG, SPEC)


@pytest.fixture(scope="module")
def network(demonstrations):
    return bc_run.make_actor(CONFIG, SPEC, demonstrations.scales)


def train(config, network, demonstrations, iterations, state=None, **options):
    """Two gradient steps each."""
    with bc_job(config, SPEC, network, demonstrations, steps_per_iteration=2, **options) as job:
        state = job.init() if state is None else state
        for _ in range(iterations):
            state, info = job.step(state)
    return state.learner, info


@pytest.fixture(scope="module")
def trained(network, demonstrations):
    return train(CONFIG, network, demonstrations, 4)


def test_episodes_held_out_teach_nothing(demonstrations):
    store, split = demonstrations.windows.store, demonstrations.split
    assert len(split.validation) == 2 and set(split.training) | set(split.validation) == set(range(8))
    of, _ = demonstrations.windows.place(demonstrations.training)
    assert set(of) == set(split.training) and len(demonstrations.training) == store.lengths[split.training].sum()
    rows = np.concatenate([np.arange(s, s + n) for s, n in zip(store.starts, store.lengths, strict=True)])
    seen = np.isin(np.repeat(np.arange(8), store.lengths), split.training)
    np.testing.assert_allclose(
        demonstrations.scales.observation["state"].offset, store.arrays["state"][rows[seen]].mean(0), atol=1e-5
    )


def test_a_run_that_goes_on_equals_one_that_was_not_stopped(network, demonstrations, trained):
    half, _ = train(CONFIG, network, demonstrations, 2)
    with bc_job(CONFIG, SPEC, network, demonstrations, steps_per_iteration=2) as job:
        state = dataclasses.replace(job.init(), learner=jax.tree.map(jnp.asarray, jax.device_get(half)))
    whole, info = train(CONFIG, network, demonstrations, 2, state)
    chex.assert_trees_all_equal((whole, info), trained)


def test_windows_from_the_host_teach_the_same(network, demonstrations, trained):
    learner, info = train(CONFIG, network, demonstrations, 4, device_bytes=0)
    chex.assert_trees_all_close((learner.params, info), (trained[0].params, trained[1]), rtol=1e-5, atol=1e-6)


def test_seeds_side_by_side_equal_runs_of_their_own(network, demonstrations, trained):
    """The first of two from seed 0 is the run of seed 0, the second that of seed 1."""
    config = dataclasses.replace(CONFIG, seeds=2)
    together, _ = train(config, network, demonstrations, 4)
    second, _ = train(dataclasses.replace(CONFIG, seed=1), network, demonstrations, 4)
    for number, alone in enumerate((trained[0], second)):
        chex.assert_trees_all_close(member(together, number).params, alone.params, rtol=1e-4, atol=1e-5)


def test_the_action_error_is_that_of_the_steps_that_are_executed(network, demonstrations, trained):
    learner, info = trained
    window = demonstrations.windows.take(demonstrations.validation)
    off, count = 0.0, 0
    for i in range(len(window.action)):
        seen = {name: jnp.asarray(rows[i]) for name, rows in window.observation.items()}
        planned = np.asarray(network.mode(learner.average, seen))
        for k in range(CONFIG.n_action_steps):
            if window.action_mask[i, k]:
                off, count = off + np.abs(planned[k] - window.action[i, k]).sum(), count + 2
    assert info["action/error"] == pytest.approx(off / count, rel=1e-4)


def test_chunks_that_a_head_fails_to_make_have_no_action_error(network, demonstrations, trained):
    window = jax.tree.map(jnp.asarray, demonstrations.windows.take(demonstrations.validation))
    fails = jnp.asarray([2, 5])
    marked = window.observation["state"][fails, -1, 0]

    def mode(params, seen):
        return jnp.where(jnp.isin(seen["state"][-1, 0], marked), jnp.nan, network.mode(params, seen))

    def error(network, window):
        return bc_run.action_error(CONFIG, network, trained[0].average, jax.random.key(0), window)

    others = jax.tree.map(lambda x: jnp.delete(x, fails, axis=0), window)
    np.testing.assert_allclose(error(network._replace(mode=mode), window), error(network, others), rtol=1e-5)
    failed = jax.tree.map(lambda x: x[fails], window)
    assert error(network._replace(mode=mode), failed) == 0


def test_a_policy_acts_on_the_terms_it_observes_and_stays_within_the_demonstrated_range(network, trained):
    policy = bc_run.make_policy(CONFIG, SPEC, network, trained[0].average)
    key = jax.random.key(0)

    @jax.jit
    def first(state):
        obs = {"state": state, "privileged": jnp.full(9, jnp.nan)}
        return policy.act(policy.init(key, obs), key, obs, jnp.asarray(0))[0]

    state = jnp.asarray([0.3, -0.2, 0.1, 0.4, 0.5, 0.6])
    np.testing.assert_array_equal(first(state), first(state.at[4:].set(9.0)))  # the last action
    assert (first(state) != first(state.at[0].set(1.0))).all()
    scale = trained[0].average["scales"].action
    assert (np.abs(first(1e4 * state) - scale.offset) <= scale.size * (1 + 1e-6)).all()


def test_a_plan_that_takes_time_is_late_and_may_continue_the_last():
    """The first chunk is executed for as long as the second takes, which real-time chunking pulls towards the first."""
    config = dataclasses.replace(CONFIG, head="flow", horizon=8, n_action_steps=4, inference_delay=2)
    network = bc_run.make_actor(config, SPEC, bc_run.blank_scales(config, SPEC))
    params = network.init(jax.random.key(0), bc_run.example(config, SPEC))
    noise = lambda x: x + 0.1 * jax.random.normal(jax.random.key(x.size), x.shape)  # noqa: E731
    params = params | {"head": jax.tree.map(noise, params["head"])}

    def run(**changes):
        policy = bc_run.make_policy(dataclasses.replace(config, **changes), SPEC, network, params)

        def step(carry, step):
            return policy.act(carry, jax.random.key(step), {"state": jnp.full(6, 0.1 * step)}, step)[::-1]

        def go():
            return jax.lax.scan(step, policy.init(jax.random.key(0), {"state": jnp.zeros(6)}), jnp.arange(8))[1]

        return np.asarray(jax.jit(go)())

    late, at_once, continued = run(), run(inference_delay=0), run(real_time=True)
    np.testing.assert_allclose(late[:4], at_once[:4], atol=1e-6)  # a robot waits for its first plan
    assert np.abs(late[4:6] - at_once[4:6]).max() > 1e-2  # still the first plan
    np.testing.assert_allclose(late[6:8], at_once[6:8], atol=1e-6)  # the second: what its age asks for
    np.testing.assert_allclose(continued[:6], late[:6], atol=1e-6)
    assert np.abs(continued[6:8] - late[6:8]).max() > 1e-3  # how it continues is told by the tests of inpainting


def test_dropout_hides_what_the_robot_does_and_nothing_else(network, demonstrations):
    hidden = dataclasses.replace(CONFIG, hyper=BCHyper(observation_dropout=1.0))
    learner = bc_run.make_learner(CONFIG, SPEC, network)
    state = learner.init(jax.random.key(0), bc_run.example(CONFIG, SPEC), hidden.hyper)
    window = demonstrations.windows.take(np.arange(4))
    update = jax.jit(learner.update)

    def loss(column):
        seen = {"state": window.observation["state"].copy()}
        seen["state"][..., column] += 1.0
        return float(update(state, jax.random.key(1), window.replace(observation=seen))[1]["loss/train"])

    assert loss(2) == loss(3) and loss(0) != loss(2)


@pytest.mark.parametrize(
    ("head", "sampled", "horizon", "decay"),
    [
        ("flow", True, 3, 3.0),
        ("energy", False, 2, 3.0),
        ("bins", True, 1, 1.0),
        ("bins", False, 3, 1.0),
        ("act", 0, 3, 3.0),
    ],
)
def test_settings_in_which_a_head_differs(head, sampled, horizon, decay):
    config = dataclasses.replace(CONFIG, sample_actions=sampled, hyper=BCHyper(weight_decay=3.0))
    found = bc_run.with_head_defaults(config, head)
    assert (found.head, found.horizon, found.n_action_steps) == (head, horizon, min(2, horizon))
    assert found.hyper.weight_decay == pytest.approx(decay)
    assert found.hyper.observation_dropout == (0.5 if head == "act" else 0.0)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"n_action_steps": 4}, "n_action_steps is 4, more than the 3 actions of a chunk"),
        ({"inference_delay": 2}, "inference_delay is 2, it must be at least 0 and below n_action_steps, 2"),
        ({"horizon": 2, "inference_delay": 1}, "n_action_steps 2 and inference_delay 1 need 3 actions, a chunk has 2"),
        ({"ensemble": 0.01, "real_time": True}, "ensemble averages a chunk of every step"),
        ({"real_time": True}, "gaussian cannot continue a chunk"),
        ({"seeds": 0}, "seeds is 0, it must be at least 1"),
        ({"validation": 1.0}, "validation is 1, it must be at least 0 and below 1"),
        ({"seed": 2**32}, "seed is 4294967296"),
        ({"exclude_terms": ("velocity", "velocity")}, "exclude_terms is velocity velocity, which names one twice"),
        ({"extra_datasets": ("a", "b", "a")}, "extra_datasets is a b a, which names one twice"),
        (
            {"exclude_terms": ("smell",)},
            "observes no 'smell' to leave out; it observes position, velocity, last_action",
        ),
    ],
)
def test_what_cannot_be_is_told(fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        bc_run.make_actor(dataclasses.replace(CONFIG, **fields), SPEC, bc_run.blank_scales(CONFIG, SPEC))


def test_joint_targets_are_relative_to_where_the_joints_are():
    """An action that is the reference holds the arm where it is, whatever the units of actions and observations."""
    task = load("FrankaReach", "cpu", 1, "joint_target")
    config = dataclasses.replace(CONFIG, task="FrankaReach", actions="joint_target")
    state, timestep = jax.jit(task.reset)(jax.random.key(0), {})
    seen = {"state": jnp.stack([jnp.zeros_like(timestep.obs["state"]), timestep.obs["state"]])}
    action = bc_run.reference(task.spec)(seen)
    after, _ = jax.jit(task.step)(state, action)
    np.testing.assert_allclose(after.target[:7], task.data(state).qpos[:7], atol=1e-5)
    assert action[7] == 0  # the gripper's is as it is
    assert (
        bc_run.reference(load("FrankaReach", "cpu", 1, "joint_delta").spec) is None and bc_run.reference(SPEC) is None
    )
    assert bc_run.blank_scales(config, task.spec).action.size.shape == (3, 8)
