"""Collections of rollouts whose outcomes are known, against a loop over one seed after the other."""

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mjx_policies.diagnosis.report import Tally
from mjx_policies.errors import UserError
from mjx_policies.experiments.collection import collect as module
from mjx_policies.experiments.collection.collect import SEEDS, Collection, CollectionProgress, collect, outcomes
from mjx_policies.experiments.collection.rollouts import Rollouts

NAMES = ("left", "right")
ROUND = (3, 5, 2, 7, 11)  # rollouts in these places fail in one way or another, again and again


def fate(seed):
    """0 for success, 1 lost, 2 too late, 3 diverged."""
    place = seed % 13
    return 1 + ROUND.index(place) % 3 if place in ROUND else 0


def record(seeds, fate=fate):
    """Rollouts of three steps whose numbers are their seed."""
    fates = np.array([fate(seed) for seed in seeds])
    rows = np.broadcast_to((seeds % 1000).astype(np.float32), (3, len(seeds)))
    return Rollouts(
        observation={"state": np.concatenate([rows, rows[:1]])[..., None]},
        action=rows[..., None],
        label=-rows[..., None],
        reward=rows,
        qpos=np.zeros((4, len(seeds), 1)),
        mocap_pos=np.zeros((len(seeds), 0, 3)),
        length=np.full(len(seeds), 3),
        terminated=fates == 1,
        success=fates == 0,
        diverged=fates == 3,
        strategy=seeds % 2,
        begin=np.zeros(len(seeds), int),
        seed=seeds,
        fps=20.0,
        strategies=NAMES,
    )


class Memory(list):
    """A writer that fails where it is told to."""

    def __init__(self, episodes=(), room=10**9):
        super().__init__(episodes)
        self.room = room

    def add(self, episode):
        if len(self) >= self.room:
            raise OSError(28, "No space left on device")
        self.append(episode)
        return len(self) - 1


def one_by_one(wanted, seed):
    """The expected collection, rollout by rollout."""
    found, counts, number = [], {}, seed * SEEDS
    while len(found) < wanted:
        kind = ("success", "lost", "too late", "diverged")[fate(number)]
        row = counts.setdefault(NAMES[number % 2], {})
        row[kind] = row.get(kind, 0) + 1
        if kind == "success":
            found.append(number)
        number += 1
    return found, counts


def go_on(report=lambda progress, rollouts: True, record=record, **arguments):
    made = Collection(record, "task", arguments.get("seed", 0), arguments.get("batch", 8))
    before = arguments.get("progress", CollectionProgress())
    for progress, rollouts in collect(arguments["wanted"], made, arguments["writer"], before):
        if not report(progress, rollouts):
            break
    return progress


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.integers(1, 17), st.integers(0, 3))
def test_the_first_successes_are_kept_and_all_rollouts_before_them_counted(wanted, batch, seed):
    writer = Memory()
    tally = go_on(wanted=wanted, batch=batch, seed=seed, writer=writer).tally
    found, counts = one_by_one(wanted, seed)
    assert [episode.seed for episode in writer] == found
    assert tally.counts == counts and tally.successes == wanted
    assert all((episode.action == episode.seed % 1000).all() and len(episode) == 3 for episode in writer)


@settings(deadline=None, max_examples=30)
@given(st.data(), st.integers(1, 40), st.integers(1, 12))
def test_a_collection_that_was_stopped_and_killed_equals_one_that_was_not(data, wanted, batch):
    writer, progress = Memory(), CollectionProgress()
    for _ in range(12):
        stop = data.draw(st.integers(0, 3))
        writer.room = len(writer) + data.draw(st.integers(0, 25))
        seen = []

        def report(latest, rollouts, stop=stop, seen=seen):
            seen.append(latest)
            return len(seen) <= stop

        goal = min(wanted, len(writer) + data.draw(st.integers(1, 40)))  # enlarged later
        with contextlib.suppress(OSError):  # as if killed: the progress is of the batch before that of the episodes
            go_on(report, wanted=goal, batch=batch, writer=writer, progress=progress)
        progress = seen[-1] if seen else progress
        if progress.tally.successes == wanted:
            break
    else:
        writer.room = 10**9
        progress = go_on(wanted=wanted, batch=batch, writer=writer, progress=progress)
    found, counts = one_by_one(wanted, 0)
    assert [episode.seed for episode in writer] == found and progress.tally.counts == counts


def test_the_report_comes_after_the_writing():
    writer, told = Memory(), []

    def report(progress, rollouts):
        told.append((len(writer), progress.tally.successes, len(rollouts.length)))
        return True

    progress = go_on(report, wanted=12, batch=8, writer=writer)
    assert [(n, s) for n, s, _ in told] == [(n, n) for n, _, _ in told] and told[-1][0] == 12
    assert set(progress.seconds) == {"simulating", "writing"}


def test_labels_are_what_was_meant():
    writer = Memory()
    for _ in collect(3, Collection(record, "task", 0, 4, labels=True), writer, CollectionProgress()):
        pass
    assert [episode.action[0, 0] for episode in writer] == [-episode.seed for episode in writer]


def test_outcomes_have_names():
    rollouts = record(np.arange(13))
    assert [outcomes(rollouts)[i] for i in (0, 3, 5, 2)] == ["success", "lost", "too late", "diverged"]


@pytest.mark.parametrize(("every", "given_up"), [(10**9, True), (60, True), (8, False)])
def test_a_task_below_the_minimum_success_rate_is_given_up(every, given_up):
    """Upper ends of Wilson's interval: none of 128, 2 of 128 or so, 1 in 8."""
    writer = Memory()
    rare = lambda seeds: record(seeds, lambda seed: int(seed % every != 1))  # noqa: E731
    if given_up:
        with pytest.raises(UserError, match=r"solved task in [0-9]+ of [0-9]+ rollouts: 500 demonstrations"):
            go_on(record=rare, wanted=500, batch=64, writer=writer)
        assert len(writer) < 20
    else:
        assert go_on(record=rare, wanted=30, batch=64, writer=writer).tally.successes == 30


def test_a_dataset_that_lost_episodes_is_refused():
    lost = CollectionProgress(Tally({"left": {"success": 3}}))
    with pytest.raises(UserError, match="holds 0 demonstrations, 3 were written"):
        go_on(wanted=5, writer=Memory(), progress=lost)


def test_seeds_do_not_run_into_those_of_the_next_collection(monkeypatch):
    monkeypatch.setattr(module, "SEEDS", 20)
    with pytest.raises(UserError, match="20 rollouts of seed 0 are used up"):
        go_on(wanted=100, batch=8, writer=Memory())
