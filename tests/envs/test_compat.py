import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx_policies.envs.base import select
from mjx_policies.envs.compat import from_brax, to_brax, to_gymnasium
from mjx_policies.envs.registry import load
from mjx_policies.envs.vectorize import vectorize
from mjx_policies.randomization import ActionDelay, Randomization, SensorNoise
from mjx_policies.randomization.dynamics import mass

pytestmark = pytest.mark.filterwarnings("ignore:JAXopt is no longer maintained:DeprecationWarning")  # Brax imports it


@pytest.fixture(scope="module", autouse=True)
def quick_to_compile():
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="module")
def pendulum():
    return load("Pendulum", "cpu", num_envs=1)


@pytest.fixture
def replicated(monkeypatch):
    """A function that Brax's trainers still call and JAX no longer has, for one device."""

    def device_put_replicated(tree, devices):
        assert len(devices) == 1
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], tree)

    monkeypatch.setattr(jax, "device_put_replicated", device_put_replicated, raising=False)


def fast(**kwargs):
    from brax.envs.fast import Fast

    return Fast(**kwargs)


def test_a_task_steps_alike_behind_the_protocol_of_brax(pendulum):
    foreign = to_brax(pendulum, observation="state")
    state = jax.jit(foreign.reset)(jax.random.PRNGKey(3))
    assert (foreign.observation_size, foreign.action_size, foreign.backend, foreign.dt) == (3, 1, "cpu", 0.02)
    inner = state.pipeline_state
    for action in ([0.7], [-0.2]):
        inner, timestep = pendulum.step(inner, jnp.asarray(action))
        state = jax.jit(foreign.step)(state, jnp.asarray(action))
        np.testing.assert_allclose(state.obs, timestep.obs["state"], rtol=1e-6)
        np.testing.assert_allclose(state.reward, timestep.reward, rtol=1e-6)
        assert state.done == 0 and set(state.metrics) == {"upright"}


def test_a_critic_in_brax_sees_all_that_ours_does():
    foreign = to_brax(load("Go2JoystickFlat", "cpu", num_envs=1))
    task = load("Go2JoystickFlat", "cpu", num_envs=1)
    state, privileged = (sum(term.size for term in table) for table in (task.spec.observation, task.spec.privileged))
    sizes = {"state": (state,), "privileged_state": (state + privileged,)}
    assert foreign.observation_size == sizes


def test_a_brax_state_that_is_not_finite_ends_without_a_reward(pendulum):
    foreign = to_brax(pendulum)
    state = foreign.reset(jax.random.PRNGKey(0))
    broken = state.pipeline_state.replace(data=state.pipeline_state.data.replace(qvel=jnp.asarray([jnp.nan])))
    ended = foreign.step(state.replace(pipeline_state=broken), jnp.zeros(1))
    assert ended.done == 1 and ended.reward == 0
    np.testing.assert_array_equal(ended.obs["state"], state.obs["state"])


def test_the_wrappers_of_brax_batch_a_task_and_put_back_its_first_state(pendulum):
    from brax.envs.wrappers.training import wrap

    env = SensorNoise(ActionDelay(pendulum, 0.0, 0.01))
    dynamics = Randomization({"mass": mass(0.5, 1.5)}, pendulum.physics.model)
    wrapped = wrap(to_brax(env, dynamics), episode_length=3)
    state = jax.jit(wrapped.reset)(jax.random.split(jax.random.PRNGKey(0), 4))
    first = state
    step = jax.jit(wrapped.step)
    for steps in (1, 2, 3):
        state = step(state, jnp.ones((4, 1)))
        np.testing.assert_array_equal(state.info["truncation"], np.full(4, float(steps == 3)))
    np.testing.assert_array_equal(state.obs["state"], first.obs["state"])
    assert len(np.unique(state.pipeline_state.inner.inner.dynamics["body_mass"][:, 1])) == 4
    np.testing.assert_allclose(state.info["episode_metrics"]["length"], 3.0)
    assert step(state, jnp.ones((4, 1))).info["steps"][0] == 1


def test_brax_puts_back_states_of_mjx_too():
    from brax.envs.wrappers.training import wrap

    wrapped = wrap(to_brax(load("Pendulum", "mjx", num_envs=2)), episode_length=1)
    first = jax.jit(wrapped.reset)(jax.random.split(jax.random.PRNGKey(0), 2))
    state = jax.jit(wrapped.step)(first, jnp.ones((2, 1)))
    np.testing.assert_array_equal(state.pipeline_state.data.qpos, first.pipeline_state.data.qpos)


def test_the_ppo_of_brax_trains_on_a_task(replicated):
    from brax.training.agents.ppo import train as ppo

    rows = []
    _, params, _ = ppo.train(
        environment=to_brax(load("Pendulum", "cpu", num_envs=8)),
        num_timesteps=64,
        num_envs=8,
        batch_size=4,
        num_minibatches=2,
        unroll_length=4,
        episode_length=200,
        num_eval_envs=1,
        run_evals=False,
        normalize_observations=True,
        progress_fn=lambda steps, metrics: rows.append((steps, metrics)),
    )
    assert rows[-1][0] == 64 and np.isfinite(rows[-1][1]["training/total_loss"])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params[1]))


def test_an_environment_of_brax_runs_vectorized():
    env = from_brax(fast(), control_dt=0.02, episode_seconds=0.1)
    assert env.spec.action.names == ("action_0",) and env.spec.observation[0].size == 2
    envs = vectorize(env, num_envs=3)
    state, _ = jax.jit(envs.init, static_argnums=1)(jax.random.key(0), False)
    step = jax.jit(envs.step)
    for _ in range(4):
        state, timestep = step(state, jnp.asarray([[1.0], [-1.0], [5.0]]))
        assert not timestep.truncated.any()
    position = 0.02**2 * np.arange(1, 5).sum()  # speed grows by 0.02 m/s in each step
    np.testing.assert_allclose(timestep.obs["state"], [[position, 0.08], [0, 0], [position, 0.08]], rtol=1e-5)
    np.testing.assert_allclose(timestep.reward, [position, 0, position], rtol=1e-5)
    state, timestep = step(state, jnp.ones((3, 1)))
    assert timestep.truncated.all() and not timestep.terminated.any()
    np.testing.assert_array_equal(timestep.obs["state"], np.zeros((3, 2)))
    assert (timestep.final_obs["state"][:, 1] > 0).all()


def test_states_of_brax_are_selected_whole():
    env = from_brax(fast(asymmetric_obs=True, obs_mode="dict_state"), control_dt=0.02)
    assert env.spec.privileged[0].size == 4
    a, _ = env.reset(jax.random.key(0), {})
    b, _ = env.step(a, jnp.ones(1))
    for mask, expected in ((True, a), (False, b)):
        chosen = select(env, jnp.asarray(mask), a, b)
        jax.tree.map(np.testing.assert_array_equal, chosen, expected)


def test_a_task_survives_the_way_to_brax_and_back(pendulum):
    env = from_brax(to_brax(pendulum))
    state, timestep = env.reset(jax.random.key(5), {})
    ours, expected = pendulum.reset(jax.random.split(jax.random.key(5))[1], {})
    np.testing.assert_array_equal(timestep.obs["state"], expected.obs["state"])
    _, timestep = env.step(state, jnp.asarray([0.5]))
    _, expected = pendulum.step(ours, jnp.asarray([0.5]))
    np.testing.assert_array_equal(timestep.obs["state"], expected.obs["state"])
    assert env.spec.control_dt == 0.02 and env.spec.episode_seconds == 20.0


def test_what_cannot_cross_is_told_in_a_sentence(pendulum):
    from brax.envs.wrappers.training import wrap

    with pytest.raises(ValueError, match="pass control_dt"):
        from_brax(fast())
    with pytest.raises(ValueError, match="wrapped for training"):
        from_brax(wrap(to_brax(pendulum)))
    with pytest.raises(ValueError, match="observes pixels/view_0, pixels/view_1; only state"):
        from_brax(fast(obs_mode="dict_pixels"), control_dt=0.02)
    env = from_brax(fast(), control_dt=0.02)
    with pytest.raises(ValueError, match="body_mass cannot be replaced"):
        env.reset(jax.random.key(0), {"body_mass": jnp.ones(2)})
    state, _ = env.reset(jax.random.key(0), {})
    with pytest.raises(ValueError, match="such as ActionDelay, cannot be put around it"):
        env.step(state, jnp.zeros(1), jnp.zeros((1, 1)))


@pytest.mark.parametrize("function, library", [(to_brax, "brax"), (to_gymnasium, "gymnasium")])
def test_a_missing_library_is_told_in_a_sentence(pendulum, monkeypatch, function, library):
    for name in [name for name in sys.modules if name == library or name.startswith(f"{library}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ValueError, match=f"needs {library}, which cannot be imported .*: pip install"):
        function(pendulum)


@pytest.mark.filterwarnings("ignore:.*A Box observation space m:UserWarning")  # no sensor has a bound that is known
def test_a_task_is_a_gymnasium_environment(pendulum):
    pytest.importorskip("gymnasium")
    from gymnasium.utils.env_checker import check_env

    class Seldom(type(pendulum)):  # with a metric that there is rarely anything to measure of
        def step(self, state, action, applied=None):
            state, timestep = super().step(state, action, applied)
            return state, timestep.replace(metrics={**timestep.metrics, "seldom": jnp.nan})

    env = to_gymnasium(Seldom(pendulum.weights, pendulum.physics, pendulum.spec))
    check_env(env, skip_render_check=True)
    start, _ = env.reset(seed=4)
    again, _ = env.reset(seed=4)
    np.testing.assert_array_equal(start, again)
    for steps in range(1, 201):
        obs, reward, terminated, truncated, info = env.step(np.asarray([0.3], np.float32))
        assert not terminated and truncated == (steps == 200)
    assert obs.dtype == np.float32 and isinstance(reward, float) and set(info) == {"upright"}
