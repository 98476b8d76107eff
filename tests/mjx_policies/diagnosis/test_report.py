"""Figures of sets of demonstrations that were made to have them."""

import json

import numpy as np
import pytest

from mjx_policies.data.episodes import Episode
from mjx_policies.diagnosis import steps as steps_module
from mjx_policies.diagnosis.motion import idle_portions
from mjx_policies.diagnosis.report import Tally, report_demonstrations
from mjx_policies.diagnosis.report_picture import draw_report
from mjx_policies.diagnosis.steps import position_columns
from mjx_policies.errors import UserError
from mjx_policies.spec import Term

TABLE = (
    Term("speed", 2, unit="m/s"),
    Term("position", 2, unit="m", scale=2.0),
    Term("last_action", 2, unit="1", measured=False),
)


def walk(number, steps, strategy="left", rest=(), jump=None, action=1.0):
    """A straight way with a rest, perhaps with a jump; the speed flickers all the time."""
    rng = np.random.default_rng(number)
    moves = np.ones(steps)
    moves[list(rest)] = 0.0
    position = np.stack([np.cumsum(moves) / 10, np.full(steps, number / 10)], axis=1)
    if jump is not None:
        position[jump:, 0] += 30.0
    state = np.concatenate([rng.normal(size=(steps, 2)), 2 * position, rng.normal(size=(steps, 2))], axis=1)
    actions = np.full((steps, 2), action / np.sqrt(2))
    return Episode(
        {"state": state}, actions, np.zeros(steps), False, True, "walk", 10.0, seed=number, strategy=strategy
    )


def test_lengths_paths_and_rests_are_those_of_the_episodes():
    lengths = (20, 30, 40, 50)
    walks = [walk(n, t, "left" if n < 3 else "right", rest=range(5, 9)) for n, t in enumerate(lengths)]
    found = report_demonstrations(walks, TABLE)
    np.testing.assert_allclose(found.seconds["left"], [2, 3, 4])
    np.testing.assert_allclose(found.seconds["right"], [5])
    np.testing.assert_allclose(found.paths["right"][0][:2], [[0.1, 0.3], [0.2, 0.3]])  # m, unscaled
    portions, longest = idle_portions(found.steps)
    np.testing.assert_allclose(portions, [4 / (t - 1) for t in lengths])  # though the speed flickers
    assert longest == pytest.approx(0.4) and "0.40 s at a stretch" in found.diagnosis.results["data: idle"].evidence
    np.testing.assert_allclose(found.norms, np.ones(140))


def test_what_is_wrong_is_named():
    episodes = [walk(n, 60 + n) for n in range(30)] + [walk(40, 60, jump=31), walk(7, 67)]
    episodes[3] = walk(3, 60, action=5.0)
    report = report_demonstrations(episodes, TABLE)
    text, found = report.to_markdown("walks"), report.to_json()["checks"]
    assert (
        "| note | data: jumps | jumps of up to" in text
        and "% of the range, of state[2], in step 31 of episode 30 |" in text
    )
    assert found["data: jumps"]["places"] == ((30, 31),)
    assert "| x | data: repeated episodes | 1 of 32 episodes repeat an earlier one, such as 31 |" in text
    assert "episode 31 repeats episode 7" in text and found["data: repeated episodes"]["places"] == ((31, 0),)
    every = [walk(n, 500) for n in range(5)] + [walk(9, 10, action=5.0)]
    found = report_demonstrations(every, TABLE).diagnosis.results["data: outlying actions"]
    assert "of 10 actions" in found.evidence and found.evidence.endswith("and 7 more") and found.places[0] == (5, 0)
    rests = report_demonstrations([walk(n, 60, rest=range(5, 50)) for n in range(5)], TABLE)
    assert "stands still in 76% of the steps" in rests.diagnosis.results["data: idle"].finding


def test_what_all_but_stands_still_does_not_jump():
    """A place that trembles by a millionth of where it is, and once by a thousandth."""
    episodes = [walk(n, 60) for n in range(30)]
    for n, episode in enumerate(episodes):
        rng = np.random.default_rng(n)
        episode.observation["state"][:, 3] = 2 * (1 + 1e-6 * rng.normal(size=60))
    episodes[4].observation["state"][30:, 3] *= 1.001
    assert not report_demonstrations(episodes, TABLE).diagnosis.results["data: jumps"].places
    episodes[4].observation["state"][30:, 3] *= 1.5
    assert report_demonstrations(episodes, TABLE).diagnosis.results["data: jumps"].places == ((4, 30),)


def test_what_does_not_fit_in_memory_is_counted_all_the_same(monkeypatch):
    episodes = [walk(n, 20 + n) for n in range(9)] + [walk(9, 60, jump=31)]
    whole = report_demonstrations(iter(episodes), TABLE)
    monkeypatch.setattr(steps_module, "MAX_NUMBERS", 8 * (20 + 21 + 22))
    part = report_demonstrations(iter(episodes), TABLE)
    assert part.durations() == whole.durations() and part.durations()["all"]["count"] == len(part.paths["left"]) == 10
    assert len(part.norms) == len(whole.norms) == sum(map(len, episodes))
    assert whole.diagnosis.results["data: jumps"].places and not part.diagnosis.results["data: jumps"].places
    assert "Of the first 3 episodes" in part.to_markdown("walks") and part.to_json()["checked"] == 3
    assert "Of the first" not in whole.to_markdown("walks")


def test_rollouts_are_told_with_their_intervals():
    tally = Tally()
    for outcome in ["success"] * 9 + ["lost"]:
        tally.add("left", outcome)
    tally.add("right", "success")
    report = report_demonstrations([walk(n, 20 + n) for n in range(4)], TABLE, tally, {"simulating": 65.0})
    text = report.to_markdown("walks")
    # Wilson's interval for 9 of 10, from its formula with z = 1.96: (0.59585, 0.98212).
    assert "| left | 10 | 0.900 [0.596, 0.982] | 1 |" in text and "| right | 1 | 1.000 [0.207, 1.000] | 0 |" in text
    assert "| all | 11 |" in text and "Wall-clock time: simulating 1m 05s" in text
    assert "4 episodes, 86 steps, 9s of simulated time." in text
    figures = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert figures["outcomes"] == {"left": {"success": 9, "lost": 1}, "right": {"success": 1}}
    assert figures["success"]["left"]["low"] == pytest.approx(0.59585, abs=1e-4)
    assert figures["durations"]["left"] == pytest.approx(
        {"count": 4, "mean": 2.15, "std": np.std([2, 2.1, 2.2, 2.3]), "least": 2, "q05": 2.015, "median": 2.15}
        | {"q95": 2.285, "most": 2.3}
    )


def test_only_what_says_where_things_are_is_a_position():
    assert position_columns(TABLE) == ["state[2]", "state[3]"]


def test_a_set_of_one_and_a_set_of_none(tmp_path):
    alone = report_demonstrations([walk(0, 1, "")], TABLE)
    assert "| unknown | 1 | 0.10 | 0.00 | 0.10 |" in alone.to_markdown("one step")
    draw_report(tmp_path / "a.png", alone, "one step")
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(UserError, match="no episodes"):
        report_demonstrations([], TABLE)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_pictures_of_any_position(tmp_path, size):
    """Without a plane to draw in, the other panels are drawn."""
    table = (Term("tcp_position", size, unit="m"),)
    rng = np.random.default_rng(0)
    episodes = [
        Episode({"state": rng.normal(size=(9, size))}, rng.normal(size=(9, 1)), np.zeros(9), False, True, "a", 10.0)
        for _ in range(3)
    ]
    tally = Tally({"": {"success": 3, "too late": 2}})
    draw_report(tmp_path / "a.png", report_demonstrations(episodes, table, tally), "title")
    assert (tmp_path / "a.png").stat().st_size > 10_000
