"""Episodes of numbers that nobody would mistake for others."""

import importlib.util
from pathlib import Path

import jax
import numpy as np
import pytest

from mjx_policies.data.episodes import Episode


def _make(steps=5, number=0, pictures=False, final=True, fps=20, **changes):
    rng = np.random.default_rng((number, steps))
    observation = {
        "state": rng.normal(size=(steps, 4)).astype(np.float32),
        "phase": rng.normal(size=(steps, 1)),
        "grid": rng.integers(-9, 9, (steps, 2, 3)),
        "contact": rng.random((steps, 2)) > 0.5,
    }
    if pictures:
        observation["pixels"] = rng.integers(0, 256, (steps, 6, 8, 3), dtype=np.uint8)
        observation["observation.images.wrist"] = rng.integers(0, 256, (steps, 4, 4, 1), dtype=np.uint8)
    values = {
        "observation": observation,
        "action": rng.normal(size=(steps, 3)),
        "reward": rng.normal(size=steps),
        "terminated": bool(number % 2),
        "success": (None, True, False)[number % 3],
        "task": f"task {number % 2}",
        "fps": fps,
        "final_observation": {name: values[0] for name, values in observation.items()} if final else None,
        "seed": (None, number)[number % 2],
        "strategy": ("", "left")[number % 2],
    }
    return Episode(**(values | changes))


def _assert_same(a, b):
    """Equal bit for bit, types included."""
    assert a.observation.keys() == b.observation.keys()
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x, y, strict=True), _arrays(a), _arrays(b))
    for name in ("terminated", "success", "task", "fps", "seed", "strategy"):
        assert getattr(a, name) == getattr(b, name), name


def _arrays(episode):
    return [episode.observation, episode.action, episode.reward, episode.final_observation]


@pytest.fixture(scope="session")
def make_episode():
    """`(steps, number, pictures, final, **changes) -> Episode`, the same for the same arguments."""
    return _make


@pytest.fixture(scope="session")
def assert_same():
    """Raises unless two episodes are equal bit for bit."""
    return _assert_same


@pytest.fixture(scope="session")
def official_lerobot():
    """The module `official_lerobot.py`."""
    path = Path(__file__).with_name("official_lerobot.py")
    spec = importlib.util.spec_from_file_location("official_lerobot", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
