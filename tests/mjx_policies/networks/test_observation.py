"""What an embedding depends on, and learning from pictures. Axes: N examples, O observations, H horizon, A action."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx_policies.actor import Scales, Units, actor
from mjx_policies.agents.bc import BCHyper, bc
from mjx_policies.compiler import compiler_options
from mjx_policies.data.windows import Window
from mjx_policies.heads.deterministic import deterministic_head
from mjx_policies.networks.mlp import MLP
from mjx_policies.networks.observation import PIXELS, ObservationEncoder
from mjx_policies.normalize import Scale
from mjx_policies.policy import acting

STEPS, SIZE = 3, 12
rng = np.random.default_rng(0)
OBSERVATION = {
    "front": rng.integers(0, 256, (STEPS, SIZE, SIZE, 3), dtype=np.uint8),
    "state": rng.normal(size=(STEPS, 4)).astype(np.float32),
    "goal": rng.normal(size=(STEPS, 2)).astype(np.float32),
    "instruction": rng.normal(size=(STEPS, 6)).astype(np.float32),
}
SMALL = {"size": 7, "features": (4, 4), "strides": (2, 1), "points": 3, "width": 8, "num_heads": 2, "depth": 1}


def encoder(history="flat", conditions=("goal", "instruction"), **options):
    net = ObservationEncoder(history=history, conditions=conditions, **(SMALL | options))
    params = jax.jit(net.init)(jax.random.key(0), OBSERVATION)
    return jax.jit(lambda observation: net.apply(params, observation))


@pytest.fixture(scope="module", params=["flat", "transformer"])
def encode(request):
    return encoder(request.param)


def test_every_number_counts_but_what_was_wanted_before(encode):
    before = encode(OBSERVATION)
    assert before.shape == (7,) and np.isfinite(before).all()
    for name, rows in OBSERVATION.items():
        for o in range(STEPS):
            changed = rows.copy()
            changed[o] = 255 - rows[o] if rows.dtype == np.uint8 else rows[o] + 1
            same = np.array_equal(encode(OBSERVATION | {name: changed}), before)
            assert same == (name in ("goal", "instruction") and o < STEPS - 1), (name, o)


def test_the_order_of_steps_counts(encode):
    assert not np.allclose(encode({name: rows[[1, 0, 2]] for name, rows in OBSERVATION.items()}), encode(OBSERVATION))


def test_pictures_may_be_scaled_beforehand(encode):
    scaled = {"front": PIXELS.apply(jnp.asarray(OBSERVATION["front"]))}
    np.testing.assert_allclose(encode(OBSERVATION | scaled), encode(OBSERVATION), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "changes", "message"),
    [
        ({"history": "lstm"}, {}, "history is 'lstm'"),
        ({"conditions": ("word",)}, {}, "no observation word, only front, goal, instruction, state"),
        ({"conditions": tuple(OBSERVATION)}, {}, "nothing says where the robot is"),
        ({"conditions": ("front",)}, {}, r"'front' .*conditions are vectors"),
        ({}, {"state": np.zeros((2, 4))}, "different numbers of steps"),
        ({}, {"state": np.zeros((STEPS, 4, 2))}, r"'state' has the shape \(3, 4, 2\)"),
    ],
)
def test_what_cannot_be_encoded(options, changes, message):
    with pytest.raises(ValueError, match=message):
        ObservationEncoder(**(SMALL | options)).init(jax.random.key(0), OBSERVATION | changes)


def windows(seed, count=64):
    """A spot in a picture; the goal says whether to go to it or away from it."""
    rng = np.random.default_rng(seed)
    place, sign = rng.uniform(2, SIZE - 3, (count, 2)), rng.choice([-1.0, 1.0], (count, 1))
    columns, rows = np.meshgrid(np.arange(SIZE), np.arange(SIZE))
    distance = (columns - place[:, 0, None, None]) ** 2 + (rows - place[:, 1, None, None]) ** 2
    pixels = (255 * np.exp(-distance / 2)).astype(np.uint8)[:, None, ..., None]  # [N, 1, H, W, C]
    action = (sign * (2 * place / (SIZE - 1) - 1)).astype(np.float32)[:, None]
    seen = {"pixels": pixels, "goal": sign[:, None].astype(np.float32)}
    return Window(seen, action, np.ones((count, 1), bool), np.ones((count, 1), bool), np.zeros(count, int))


def test_a_learner_finds_the_spot_and_heeds_the_goal():
    net = ObservationEncoder(32, conditions=("goal",), features=(8, 8), strides=(1, 1), points=8, width=32)
    one = np.float32(1)
    scales = Scales({"pixels": PIXELS, "goal": Scale(0 * one, one)}, Scale(0 * one, one))
    network = actor(net, deterministic_head(MLP((32, 2)), (1, 2)), ("pixels", "goal"), Units(scales))
    learner = bc(network, lambda params: acting(network, params))
    batches = jax.tree.map(lambda *rows: jnp.stack(rows), *[windows(seed, 32) for seed in range(20)])
    example = jax.tree.map(lambda rows: rows[0, 0], batches.observation)

    def run(key):
        state = learner.init(key, example, BCHyper(5e-3, warmup_steps=10, total_steps=200, max_ema=0.95))

        def step(state, i):
            return learner.update(state, jax.random.key(0), jax.tree.map(lambda rows: rows[i % 20], batches))

        return jax.lax.scan(step, state, jnp.arange(200))

    state, _ = jax.jit(run, compiler_options=compiler_options())(jax.random.key(0))
    test = windows(99)
    found = jax.jit(jax.vmap(network.mode, (None, 0)))(state.average, test.observation)
    error = np.sqrt(((found - test.action) ** 2).mean())
    assert error < 0.15 < 0.5 * test.action.std(), error
