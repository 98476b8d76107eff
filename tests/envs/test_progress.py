"""Stages that stay reached and a success that has to last, against a plain loop. Axes: T time, K stages."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mjx_policies.envs.progress import HOLD_SECONDS, advance, begin, metric_names, progress_metrics

STAGES = ("reached", "grasped", "placed")


@jax.jit
def run(reached):  # [T, K] -> [T], [T, K]
    def step(progress, row):
        progress = advance(progress, dict(zip(STAGES, row, strict=True)), 0.1)
        return progress, (progress.success, progress.stages)

    return jax.lax.scan(step, begin(STAGES), reached)[1]


def run_slowly(reached):
    held, stages, success, out = 0, np.zeros(3, bool), False, []
    for row in reached:
        held = held + 1 if row[-1] else 0
        success |= held * 0.1 >= HOLD_SECONDS - 1e-9
        stages[:2] |= row[:2]
        stages[2] = success
        for later in range(3):
            if stages[later]:
                stages[: later + 1] = True
        out.append(stages.copy())
    return np.stack(out)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(st.booleans(), st.booleans(), st.sampled_from([True, True, True, False])), min_size=20, max_size=20
    )
)
def test_progress_is_that_of_a_plain_loop(rows):
    rows = np.asarray(rows)
    success, stages = run(jnp.asarray(rows))
    np.testing.assert_array_equal(stages, run_slowly(rows))
    np.testing.assert_array_equal(success, stages[:, -1])


@pytest.mark.parametrize(("control_dt", "periods"), [(0.05, 10), (0.1, 5), (0.02, 25), (0.3, 2)])
def test_success_takes_half_a_second_without_a_break(control_dt, periods):
    now, never = jnp.asarray(True), jnp.asarray(False)
    progress = begin(STAGES)
    for _ in range(periods - 1):
        progress = advance(progress, dict(zip(STAGES, (never, never, now), strict=True)), control_dt)
    broken = advance(progress, dict(zip(STAGES, (never, never, never), strict=True)), control_dt)
    assert not broken.success and broken.held == 0
    lasting = advance(progress, dict(zip(STAGES, (never, never, now), strict=True)), control_dt)
    assert lasting.success and lasting.stages.all()
    after = advance(lasting, dict(zip(STAGES, (never, never, never), strict=True)), control_dt)
    assert after.success  # latched


def test_metrics_say_what_was_reached():
    yes, no = jnp.asarray(True), jnp.asarray(False)
    progress = advance(begin(STAGES), {"reached": no, "grasped": yes, "placed": no}, 0.1)
    metrics = {name: float(value) for name, value in progress_metrics(progress, STAGES).items()}
    assert metrics == {"success": 0.0, "stage/reached": 1.0, "stage/grasped": 1.0, "stage/placed": 0.0}
    assert tuple(metrics) == metric_names(STAGES)
