"""The curriculum that makes robots less perfect."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx_policies.agents.widening import STRIDE, widening
from mjx_policies.envs.registry import load
from mjx_policies.randomization.imperfections import Imperfections, imperfect

pytestmark = pytest.mark.skipif(jax.default_backend() != "cpu", reason="the C engine is called by JAX on the CPU only")
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # programs that run a few times


def test_robots_become_less_perfect_with_mastery():
    go2 = load("Go2JoystickFlat", "cpu", 1)
    curriculum = widening(go2, Imperfections(), mastery=0.8)
    draw = jit(lambda dynamics: dynamics(jax.random.key(1)))

    class Holder:
        """What a curriculum replaces, without the robots."""

        def __init__(self, env, dynamics):
            self.env, self.dynamics = env, dynamics

        def replace(self, **fields):
            return Holder(**fields)

    def widths(holder):
        env = holder.env
        ranges = [float(jnp.max(jnp.asarray(x))) for x in (env.level, env.env.velocity, env.env.env.high)]
        return ranges, draw(holder.dynamics)

    lesson, holder = curriculum.init(Holder(*imperfect(go2, Imperfections())))
    nominal = widths(holder)[1]
    assert float(lesson) == 0.0 and widths(holder)[0] == [0.0, 0.0, 0.0]
    lesson, same = curriculum.update(lesson, holder, {"env/track_linear": jnp.asarray(0.79)})
    assert float(lesson) == 0.0 and widths(same)[0] == [0.0, 0.0, 0.0]
    lesson, grown = curriculum.update(lesson, holder, {"env/track_linear": jnp.asarray(0.81)})
    np.testing.assert_allclose(float(lesson), STRIDE)
    np.testing.assert_allclose(widths(grown)[0], STRIDE * np.array([1.0, 0.3, 0.02]), rtol=1e-5)
    lesson, grown = curriculum.update(lesson, grown, {"env/track_linear": jnp.asarray(jnp.nan)})
    np.testing.assert_allclose(float(lesson), STRIDE)
    _, full = curriculum.update(jnp.asarray(1.0), grown, {"env/track_linear": jnp.asarray(0.9)})
    np.testing.assert_allclose(widths(full)[0], [1.0, 0.3, 0.02], rtol=1e-6)

    whole = draw(imperfect(go2, Imperfections())[1])
    assert set(whole) == set(nominal)
    assert any((whole[name] != nominal[name]).any() for name in whole)
    for name, value in widths(full)[1].items():
        np.testing.assert_allclose(value, whole[name], rtol=1e-6)
