import threading
import time

import jax
import numpy as np
import pytest

from mjx_policies.data.feed import Feed
from mjx_policies.data.shuffle import Shuffled
from mjx_policies.data.store import build
from mjx_policies.data.windows import WindowConfig, Windows


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("feed")]


@pytest.mark.parametrize("workers", [1, 3])
def test_batches_come_in_order(workers):
    def make(number):
        time.sleep(0.003 * (number % 3))  # later ones are often ready first
        return number

    with Feed(make, put=lambda batch: batch, threads=workers) as feed:
        assert [next(feed) for _ in range(30)] == list(range(30))
        assert feed.position == 30
    with Feed(make, put=lambda batch: batch, first=30) as feed:  # goes on as if nothing had happened
        assert next(feed) == 30


def test_batches_are_made_ahead_and_not_without_end():
    made = []
    with Feed(made.append, put=lambda batch: batch, threads=2, ahead=5) as feed:
        assert not made  # nothing before the first is asked for
        next(feed)
        deadline = time.monotonic() + 60
        while len(made) < 6 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        assert sorted(made) == list(range(6))


def test_an_error_reaches_the_caller_in_its_place():
    def make(number):
        if number == 3:
            raise OSError("the disk went away")
        return number

    feed = Feed(make, put=lambda batch: batch)
    assert [next(feed) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="the disk went away"):
        next(feed)
    assert not threads()
    with pytest.raises(RuntimeError, match="was closed"):
        next(feed)


def test_closing_leaves_no_thread_behind():
    feed = Feed(lambda number: number, put=lambda batch: batch, threads=4)
    next(feed)
    assert threads()
    feed.close()
    feed.close()
    assert not threads()


def test_from_disk_to_a_device(make_episode, tmp_path):
    store = build(tmp_path / "store", [make_episode(9, n) for n in range(5)])
    windows = Windows(store, WindowConfig(2, 4))
    sampler = Shuffled(len(windows), seed=1)
    expected = [windows.take(sampler(batch, 16)) for batch in range(8)]
    with Feed(lambda batch: windows.take(sampler(batch, 16))) as feed:
        for want, got in zip(expected, feed, strict=False):
            assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(got))
            np.testing.assert_array_equal(got.observation["state"], want.observation["state"])
            np.testing.assert_array_equal(got.action, want.action)
            np.testing.assert_array_equal(got.action_mask, want.action_mask)


@pytest.mark.parametrize("name", ["threads", "ahead"])
def test_numbers_too_small_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} is 0"):
        Feed(lambda number: number, **{name: 0})
