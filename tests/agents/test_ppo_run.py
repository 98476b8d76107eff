"""Runs put together from a configuration, on the C engine."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx_policies.agents import ppo_run
from mjx_policies.agents.ppo import PPOConfig, PPOHyper
from mjx_policies.agents.ppo_run import Config, build, make_evaluation
from mjx_policies.envs.mirror import mirror_action, mirror_observation
from mjx_policies.envs.registry import load, scene
from mjx_policies.evaluation.episodes import Episodes
from mjx_policies.randomization.imperfections import Imperfections
from mjx_policies.training.trees import own_buffers

pytestmark = pytest.mark.skipif(jax.default_backend() != "cpu", reason="the C engine is called by JAX on the CPU only")

TINY = Config("Pendulum", "cpu", num_envs=4, rollout_length=2, policy_layers=(8,), critic_layers=(8,))
QUICKLY = {"xla_backend_optimization_level": 0}  # programs that run a few times
jit = partial(jax.jit, compiler_options=QUICKLY)


# The curriculum


def test_training_begins_with_the_first_lesson():
    """The first episodes, too, are of robots as their model says."""
    config = Config("Go2JoystickFlat", "cpu", num_envs=4)
    perfect = build(config).envs
    assert perfect.env.level == 0.0 and perfect.env.env.env.high == 0.0
    imperfect_from_the_start = build(Config("Go2JoystickFlat", "cpu", num_envs=4, mastery=0.0)).envs
    assert imperfect_from_the_start.env.level == 1.0
    assert build(TINY).envs.env.level == 1.0  # there is nothing to track


# The learner


def test_an_iteration_compiles_once_and_the_policy_commutes_with_the_reflection():
    """With the curriculum, which builds the environments anew from Python numbers in each iteration."""
    config = Config("Go2JoystickFlat", "cpu", num_envs=4, rollout_length=2, policy_layers=(8,), critic_layers=(8,))
    parts = build(config)
    state = own_buffers(jit(parts.runner.init)(jax.random.key(0), config.hyper))
    step = jax.jit(parts.runner.step, donate_argnums=0, compiler_options=QUICKLY)
    for _ in range(2):
        state, _ = step(state)
    assert step._cache_size() == 1

    spec, model = parts.envs.spec, parts.envs.model
    mirrored = mirror_observation(spec, model)(state.envs.obs)
    action, other = (parts.learner.mode(state.learner, obs) for obs in (state.envs.obs, mirrored))
    np.testing.assert_allclose(mirror_action(spec, model)(action), other, atol=1e-5)
    assert (action != other).any(axis=1).all()


# Configuration


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"symmetry": "loss"}, "symmetry is 'loss' and hyper.symmetry 0, the weight of the mirror loss: choose"),
        ({"hyper": PPOHyper(symmetry=0.5)}, "symmetry is 'network' and hyper.symmetry 0.5"),
        ({"num_envs": 0}, "num_envs is 0, it must be at least 1"),
        ({"mastery": 1.5}, "mastery is 1.5, it must be at least 0 and below 1"),
        ({"rollout_length": -2}, "rollout_length is -2, it must be at least 1"),
        ({"policy_layers": (8, 0)}, "policy_layers is .*, every width must be at least 1"),
        ({"num_envs": 6}, "num_envs 6 does not divide into 4 minibatches: choose a multiple"),
    ],
)
def test_sizes_that_cannot_be_are_refused(fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        Config(**{"num_envs": 8, "sizes": PPOConfig(num_minibatches=4), **fields})


LEGS = {"task": "Go2JoystickFlat", "mastery": 0.8}


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"task": "Nope"}, "unknown task 'Nope'; known tasks: .*Pendulum"),
        ({"backend": "abacus"}, "unknown physics backend 'abacus'; known: auto, cpu"),
        ({"init_std": 0.01}, "0 < min_std=.* <= init_std=0.01"),
        ({"imperfections": Imperfections(delay=(0.0, 0.5))}, "longer than its buffer"),
        ({"imperfections": Imperfections(delay=(0.02, 0.01))}, "must rise from zero"),
        # With a curriculum the first lesson would not show it.
        ({**LEGS, "imperfections": Imperfections(delay=(0.0, 0.5))}, "longer than its buffer"),
        ({**LEGS, "imperfections": Imperfections(dynamics=3.0)}, "term '.*': a scale must be positive"),
    ],
)
def test_what_does_not_exist_or_fit_is_refused_before_anything_is_compiled(fields, sentence):
    config = {"task": "Pendulum", "backend": "cpu", "num_envs": 4, "mastery": 0.0, **fields}
    with pytest.raises(ValueError, match=sentence):
        build(Config(**config))


# Evaluation


@pytest.fixture(scope="module")
def evaluated():
    """Two evaluations of one policy, of five robots and of the first three; and how often the program was traced."""
    learner = build(TINY).learner
    obs = {"state": jnp.zeros(3)}
    state = learner.init(jax.random.key(0), obs, TINY.hyper)
    traces = []

    def mode(state, obs):
        traces.append(obs)
        return learner.mode(state, obs)

    evaluate = make_evaluation(TINY, learner._replace(mode=mode), batch=3)
    return evaluate(state, 5), evaluate(state, 3, ["randomized"]), len(traces)


def test_every_condition_counts_every_robot_once(evaluated):
    (evaluation, episodes), (fewer, _), _ = evaluated
    assert set(evaluation) == {"nominal", "randomized"} and set(fewer) == {"randomized"}
    times = {"seconds_to_success", "seconds_to_failure"}  # of what did not happen
    assert all(figure.count == 3 for name, figure in fewer["randomized"].items() if name not in times)
    for figures in evaluation.values():
        assert set(figures) == {"success", "failures", "return", "upright", *times}
        assert all(figure.count == 5 for name, figure in figures.items() if name not in times)
        assert figures["success"].value == 0.0, "nothing has been learned, so no rod stays up"
        assert figures["failures"].value == 0.0 and 0.0 <= figures["upright"].low <= figures["upright"].high <= 1.0
    assert (episodes.length == 200).all(), "an episode of four seconds at 50 Hz"


def test_the_conditions_differ_in_their_imperfections_alone(evaluated):
    (evaluation, _), _, _ = evaluated
    nominal, randomized = (evaluation[name]["return"] for name in ("nominal", "randomized"))
    # The same starts, so that delay and noise are all that tells them apart: far less than robots among themselves.
    assert 0 < abs(nominal.value - randomized.value) < 0.1 * (nominal.high - nominal.low)


def test_all_conditions_and_batches_run_in_one_program(evaluated):
    assert evaluated[2] == 1


def test_the_recording_is_of_the_first_batch(evaluated):
    (_, episodes), (_, again), _ = evaluated
    assert episodes.recording["qpos"].shape == (200, 3, 1) and episodes.recording["obs"].shape == (200, 3, 3)
    np.testing.assert_array_equal(episodes.recording["qpos"], again.recording["qpos"])
    np.testing.assert_array_equal(episodes.reward, again.reward)


# The film


@pytest.fixture
def filmed(monkeypatch, tmp_path):
    """`(task, length, success, xy) -> [T, nq]` that are filmed, of robots whose first coordinates are those of `xy`."""

    def film(task, length, success, xy):
        made = []
        monkeypatch.setattr(ppo_run, "film", lambda model, qpos, *_, **__: made.append(qpos))
        model = scene(task)
        steps, robots = xy.shape[:2]
        rest = np.zeros((steps, robots, model.nq - 2), np.float32)
        recording = {"qpos": np.concatenate([xy, rest], axis=-1), "obs": np.zeros((steps, robots, 99))}
        recording |= {"mocap_pos": np.zeros((steps, robots, model.nmocap, 3))}
        final = {} if success is None else {"success": success} | {f"stage/{name}": success for name in STAGES}
        metrics = {"nan_resets": np.isnan(final.get("success", np.zeros(robots))).astype(float)} | final
        zeros = np.zeros(robots)
        never = zeros > 0
        episodes = Episodes(never, np.asarray(length), zeros, metrics, final, {}, never, recording)
        ppo_run.film_episode(Config(task, "cpu"), episodes, tmp_path / "film.mp4", fps=1000)
        return made[0]

    return film


STAGES = load("Obstacle2D", "cpu", 1).spec.stages


def test_the_film_shows_a_success_and_ends_with_its_episode(filmed):
    """The first robot diverged, so that its success is not a number; the second failed."""
    xy = np.broadcast_to(np.arange(3, dtype=np.float32)[None, :, None], (40, 3, 2))
    qpos = filmed("Obstacle2D", [5, 40, 12], np.array([np.nan, 0.0, 1.0]), xy)
    assert len(qpos) == 11 and (qpos[:, :2] == 2).all()


def test_the_film_shows_the_robot_that_goes_farthest_before_it_falls(filmed):
    """The first falls and starts anew elsewhere, the third hardly moves."""
    xy = np.zeros((20, 3, 2), np.float32)
    xy[:, :, 0] = np.arange(20)[:, None] * np.array([0.1, 0.3, 0.01])
    xy[9:, 0] = 50.0
    qpos = filmed("Go2JoystickFlat", [10, 20, 20], None, xy)
    assert len(qpos) == 19
    np.testing.assert_allclose(qpos[:, 0], 0.3 * np.arange(19), atol=1e-5)
