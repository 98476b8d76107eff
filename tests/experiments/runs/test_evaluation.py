"""Policies on the point robot and the pendulum, whose answers are known. Axes: T steps, A actions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx_policies.chunking import receding_horizon
from mjx_policies.envs.registry import load
from mjx_policies.experiments.runs.evaluation import _choose_example, make_evaluator, record_video, time_policy
from mjx_policies.policy import Policy
from mjx_policies.randomization.conditions import conditions
from mjx_policies.spec import table_slices

pytestmark = pytest.mark.skipif(jax.default_backend() != "cpu", reason="the C engine is called by JAX on the CPU only")
EPISODES, BATCH = 10, 4


@pytest.fixture(scope="module")
def point():
    return load("Obstacle2D", "cpu", BATCH)


def around(task):
    """Drives past the obstacle at a distance `params`, then to the goal; straight through it at zero."""
    where = table_slices(task.spec.observation)

    def act(params):
        def action(obs):
            position, obstacle, goal = (obs["state"][where[name]] for name in ("position", "obstacle", "goal"))
            waypoint = obstacle + jnp.stack([0.1, params])
            aim = jnp.where(position[0] < obstacle[0], waypoint, goal)
            return jnp.clip(3.0 * (aim - position), -1.0, 1.0)

        return action

    return act


@pytest.fixture(scope="module")
def evaluated(point):
    """Around the obstacle and through it, and how often the program was traced."""
    traces = []

    def act(params):
        traces.append(params)
        return around(point)(params)

    run = make_evaluator(point, act, conditions(point), BATCH)
    reports = []
    good = run(jnp.asarray(0.6), EPISODES, ("nominal", "noise"), lambda *seen: reports.append(seen))
    bad = run(jnp.asarray(0.0), EPISODES, ("nominal",))
    return good, bad, len(traces), reports


def test_a_policy_that_knows_the_way_succeeds_and_one_that_does_not_fails(evaluated):
    good, bad, _, _ = evaluated
    assert set(good) == {"nominal", "noise"}
    assert good["nominal"].outcomes.achieved.all() and not bad["nominal"].outcomes.achieved.any()
    assert good["nominal"].figures["success"].value == 1.0 and bad["nominal"].figures["failures"].value == 1.0
    assert (good["nominal"].outcomes.seconds_to_success > 1.5).all(), (
        "two metres at a metre a second, and to stay there"
    )
    assert (bad["nominal"].outcomes.seconds < 1.5).all() and not bad["nominal"].outcomes.stages["passed"].any()


def test_every_episode_counts_once(evaluated):
    good, bad, _, reports = evaluated
    for results in (good["nominal"], good["noise"], bad["nominal"]):
        assert results.outcomes.achieved.shape == (EPISODES,) and results.figures["success"].count == EPISODES
    assert reports == [(name, done) for name in ("nominal", "noise") for done in (0, 4, 8, 10)]


def test_conditions_batches_and_parameters_are_one_program(evaluated):
    assert evaluated[2] == 1


def test_actions_are_those_of_the_episodes_and_end_with_them(evaluated):
    good, bad, _, _ = evaluated
    lengths = np.round(bad["nominal"].outcomes.seconds[:BATCH] / 0.1).astype(int)
    assert [len(actions) for actions in bad["nominal"].actions] == lengths.tolist()
    assert all(actions.shape == (40, 2) and np.abs(actions).max() <= 1.0 for actions in good["nominal"].actions)
    assert all((actions[0] == [1.0, 1.0]).all() for actions in good["nominal"].actions)


def test_an_example_is_one_episode(evaluated):
    good, bad, _, _ = evaluated
    assert set(good["nominal"].examples) == {True} and set(bad["nominal"].examples) == {False}
    example = good["nominal"].examples[True]
    assert example.number == 0 and example.seconds == pytest.approx(4.0) and example.mocap_pos.shape == (39, 2, 3)
    steps = np.linalg.norm(np.diff(example.qpos, axis=0), axis=1)
    assert steps.max() < 0.2, "a jump to the next episode"
    assert example.qpos[-1, 0] > 0.8, "it ends at the goal"


def test_conditions_differ_in_their_randomization_alone(evaluated):
    """The same episode begins in the same place, and noise then makes it another one."""
    nominal, noise = (evaluated[0][name].examples[True] for name in ("nominal", "noise"))
    assert nominal.number == noise.number
    np.testing.assert_array_equal(nominal.qpos[0], noise.qpos[0])
    np.testing.assert_array_equal(nominal.mocap_pos, noise.mocap_pos)
    assert np.abs(nominal.qpos - noise.qpos).max() > 1e-4


def test_an_episode_that_diverged_is_an_example_only_where_there_is_no_other(point):
    """A robot whose obstacle is on its left gets an action that is no number."""
    where = table_slices(point.spec.observation)["obstacle"]

    def act(limit):
        return lambda obs: jnp.where(obs["state"][where][1] > limit, jnp.nan, 0.0) * jnp.ones(2)

    run = make_evaluator(point, act, conditions(point), BATCH)
    some, every = (run(jnp.asarray(limit), EPISODES, ("nominal",))["nominal"] for limit in (0.0, -9.0))
    assert 0 < some.figures["failures"].value < 1 and every.figures["failures"].value == 1
    assert set(some.examples) == set(every.examples) == {False}
    assert some.examples[False].seconds == pytest.approx(point.spec.episode_seconds), "it stood still to the end"
    assert np.isfinite(every.examples[False].qpos).all()


def test_repeated_episodes_begin_alike_and_differ_in_what_the_policy_draws(point):
    drawing = Policy(lambda key, obs: (), lambda none, key, obs, clock: (jax.random.uniform(key, (2,)), none))
    run = make_evaluator(point, lambda params: drawing, conditions(point), 4, repeats=2, recorded=6)
    results = run((), 6, ("nominal",))["nominal"]
    assert len(results.recorded) == 6 and results.final["side"].shape == (6,)
    assert np.unique(np.stack([each.mocap_pos[0] for each in results.recorded]), axis=0).shape[0] == 3
    for episode, other in zip(results.recorded[::2], results.recorded[1::2], strict=True):
        np.testing.assert_array_equal(episode.mocap_pos[0], other.mocap_pos[0])
        assert np.abs(episode.qpos[0] - other.qpos[0]).max() > 1e-3


def test_policies_meet_the_same_robots(point):
    """The first observation of an episode does not depend on who acts in it."""

    def with_memory(params):
        def act(first, key, obs, clock):
            return params + 0.01 * first, first

        return Policy(lambda key, obs: obs["state"][:2] + obs["state"][4:6], act)

    run = make_evaluator(point, with_memory, conditions(point), BATCH)
    one, other = (run(jnp.asarray([x, 0.0]), BATCH, ("randomized",))["randomized"] for x in (0.1, -0.3))
    positions = [np.stack([actions[0] for actions in results.actions]) for results in (one, other)]
    np.testing.assert_allclose(positions[0] - [0.1, 0], positions[1] - [-0.3, 0], atol=1e-6)
    assert np.unique(positions[0], axis=0).shape[0] == BATCH


def test_a_video_shows_the_obstacle_where_it_is(point, evaluated):
    mp4 = record_video("Obstacle2D", evaluated[0]["nominal"].examples[True], point.spec.control_dt, "success")
    assert mp4[4:8] == b"ftyp" and len(mp4) > 2000


def test_a_decision_takes_time(point):
    chunks = receding_horizon(lambda key, seen: jnp.zeros((3, 2)), (3, 2), n_action_steps=3)
    for policy in (around(point)(jnp.asarray(0.6)), chunks):
        found = time_policy(point, policy, calls=20)
        assert found.count == 20 and 0 < found.median <= found.worst


def test_of_robots_that_follow_commands_who_goes_farthest_is_the_example():
    """The first falls and positions anew elsewhere, the third hardly moves, the fourth is not asked for."""
    qpos = np.zeros((20, 4, 7), np.float32)
    qpos[:, :, 0] = np.arange(20)[:, None] * np.array([0.1, 0.3, 0.01, 9.0])
    qpos[9:, 0] = 50.0
    length, rows = np.array([10, 20, 20, 20]), np.array([0, 1, 2])
    assert _choose_example({"qpos": qpos, "command": np.zeros((20, 4, 3))}, rows, length) == 1
    assert _choose_example({"qpos": qpos}, rows, length) == 0
