import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mjx_policies.data.store import Store
from mjx_policies.data.windows import WindowConfig, Windows

LENGTHS = st.lists(st.integers(1, 12), min_size=1, max_size=6)


def numbered(lengths, tasks=None):
    """A store whose every row says which episode and step it is."""
    lengths = np.array(lengths)
    episode = np.repeat(np.arange(len(lengths)), lengths)
    step = np.concatenate([np.arange(length) for length in lengths])
    rows = np.stack([episode, step], axis=1).astype(np.float32)
    task = np.zeros(len(lengths), int) if tasks is None else np.array(tasks)
    return Store({"state": rows, "action": rows + 1000}, lengths, task, ("a", "b"), 20)


@st.composite
def configs(draw):
    observations, horizon = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    return WindowConfig(
        observations,
        horizon,
        first=draw(st.integers(1 - observations, 0)),
        copies_before=draw(st.none() | st.integers(0, observations - 1)),
        copies_after=draw(st.none() | st.integers(0, horizon - 1)),
    )


def windows_of(lengths, config):
    """A slow loop over every step: where a window is allowed, and what it holds."""
    for episode, length in enumerate(lengths):
        for step in range(length):
            seen = [step - config.observations + 1 + i for i in range(config.observations)]
            done = [step + config.first + i for i in range(config.horizon)]
            before, after = sum(t < 0 for t in seen), sum(t >= length for t in done)
            if before <= config.before and after <= config.after:
                yield episode, seen, done


@given(lengths=LENGTHS, config=configs())
def test_windows_are_those_of_a_slow_loop(lengths, config):
    expected = list(windows_of(lengths, config))
    if not expected:
        with pytest.raises(ValueError, match="no episode is long enough"):
            Windows(numbered(lengths), config)
        return
    windows = Windows(numbered(lengths), config)
    assert len(windows) == len(expected)
    found = windows.take(np.arange(len(windows)))
    for n, (episode, seen, done) in enumerate(expected):
        last = lengths[episode] - 1
        assert (found.observation["state"][n, :, 0] == episode).all()  # never another episode
        assert (found.action[n, :, 0] == 1000 + episode).all()
        assert found.observation["state"][n, :, 1].tolist() == [max(t, 0) for t in seen]
        assert (found.action[n, :, 1] - 1000).tolist() == [min(max(t, 0), last) for t in done]
        assert found.observation_mask[n].tolist() == [t >= 0 for t in seen]
        assert found.action_mask[n].tolist() == [0 <= t <= last for t in done]


@given(lengths=LENGTHS, observations=st.integers(1, 4), horizon=st.integers(1, 6))
def test_every_step_has_a_window_unless_copies_are_limited(lengths, observations, horizon):
    windows = Windows(numbered(lengths), WindowConfig(observations, horizon))
    assert len(windows) == sum(lengths)
    episode, step = windows.place(np.arange(len(windows)))
    assert list(zip(episode, step, strict=True)) == [(e, t) for e, length in enumerate(lengths) for t in range(length)]
    found = windows.take(np.arange(len(windows)))
    assert (found.observation["state"][:, -1, 1] == step).all()  # the newest is last
    assert (found.action[:, 0, 1] - 1000 == step).all()  # the first action is the one chosen on it
    assert found.observation_mask[:, -1].all() and found.action_mask[:, 0].all()


def test_the_paddings_of_diffusion_policy():
    """Horizon 16, 2 observations, 8 executed: plans begin at the older one, 1 copy before and 7 after."""
    config = WindowConfig(observations=2, horizon=16, first=-1, copies_after=7)
    windows = Windows(numbered([30]), config)
    first, last = windows.take(np.array([0, len(windows) - 1])).action_mask
    assert first.tolist() == [False] + [True] * 15
    assert last.tolist() == [True] * 9 + [False] * 7
    assert len(windows) == 30 - 16 + 1 + 1 + 7  # create_indices of its code: T - 16 + 1 + 1 + 7


def test_numbers_beyond_the_last_are_refused():
    windows = Windows(numbered([3, 4]), WindowConfig())
    for index in (-1, 7):
        with pytest.raises(IndexError, match="numbered from 0 to 6"):
            windows.take(np.array([index]))
    assert windows.take(np.array([], int)).action.shape == (0, 16, 2)


@pytest.mark.parametrize(
    ("field", "value"),
    [("observations", 0), ("horizon", 0), ("first", 1), ("first", -2), ("copies_before", 2), ("copies_after", 16)],
)
def test_shapes_that_mean_nothing_are_refused(field, value):
    with pytest.raises(ValueError, match=f"{field} is {value}"):
        dataclasses.replace(WindowConfig(), **{field: value})
