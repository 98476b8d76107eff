"""Figures of sets of demonstrations that were made to have them."""

import json

import numpy as np
import pytest

from mjx_policies.data import quality
from mjx_policies.data.episodes import Episode
from mjx_policies.data.quality import Tally
from mjx_policies.data.survey import moving_columns, survey, to_json, to_markdown
from mjx_policies.data.survey_picture import draw_survey
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
    found = survey([walk(n, t, "left" if n < 3 else "right", rest=range(5, 9)) for n, t in enumerate(lengths)], TABLE)
    np.testing.assert_allclose(found.seconds["left"], [2, 3, 4])
    np.testing.assert_allclose(found.seconds["right"], [5])
    np.testing.assert_allclose(found.paths["right"][0][:2], [[0.1, 0.3], [0.2, 0.3]])  # m, unscaled
    np.testing.assert_allclose(found.quality.idle, [4 / (t - 1) for t in lengths])  # though the speed flickers
    assert found.quality.longest_idle == pytest.approx(0.4)
    np.testing.assert_allclose(found.norms, np.ones(140))


def test_what_is_wrong_is_named():
    episodes = [walk(n, 60 + n) for n in range(30)] + [walk(40, 60, jump=31), walk(7, 67)]
    episodes[3] = walk(3, 60, action=5.0)
    text = to_markdown(survey(episodes, TABLE), "walks")
    assert "- jumps: 1 (episode 30, step 31: coordinate 0 moves by" in text
    assert "- duplicates: 1 (episode 31, step 0: repeats episode 7)" in text
    every = [walk(n, 500) for n in range(5)] + [walk(9, 10, action=5.0)]
    found = to_json(survey(every, TABLE))
    assert found["outliers"]["count"] == 10 and found["outliers"]["first"][0]["episode"] == 5


def test_what_all_but_stands_still_does_not_jump():
    """A place that trembles by a millionth of where it is, and once by a thousandth."""
    episodes = [walk(n, 60) for n in range(30)]
    for n, episode in enumerate(episodes):
        rng = np.random.default_rng(n)
        episode.observation["state"][:, 3] = 2 * (1 + 1e-6 * rng.normal(size=60))
    episodes[4].observation["state"][30:, 3] *= 1.001
    assert not survey(episodes, TABLE).quality.jumps
    episodes[4].observation["state"][30:, 3] *= 1.5
    assert len(survey(episodes, TABLE).quality.jumps) == 1


def test_what_does_not_fit_in_memory_is_counted_all_the_same(monkeypatch):
    episodes = [walk(n, 20 + n) for n in range(9)] + [walk(9, 60, jump=31)]
    whole = survey(episodes, TABLE)
    monkeypatch.setattr(quality, "MAX_NUMBERS", 4 * (20 + 21 + 22))
    part = survey(episodes, TABLE)
    assert (part.quality.judged, part.quality.episodes, part.quality.steps) == (3, 10, whole.quality.steps)
    assert part.quality.seconds == whole.quality.seconds and part.quality.strategies == whole.quality.strategies
    assert len(whole.quality.jumps) == 1 and not part.quality.jumps and len(part.quality.idle) == 3
    assert "Of the first 3 episodes" in to_markdown(part, "walks") and to_json(part)["judged"] == 3
    assert "Of the first" not in to_markdown(whole, "walks")


def test_attempts_are_told_with_their_intervals():
    tally = Tally()
    for outcome in ["success"] * 9 + ["lost"]:
        tally.add("left", outcome)
    tally.add("right", "success")
    surveyed = survey([walk(n, 20 + n) for n in range(4)], TABLE)
    text = to_markdown(surveyed, "walks", tally, {"simulating": 65.0})
    # Wilson's interval for 9 of 10, from its formula with z = 1.96: (0.59585, 0.98212).
    assert "| left | 10 | 0.900 [0.596, 0.982] | 1 |" in text and "| right | 1 | 1.000 [0.207, 1.000] | 0 |" in text
    assert "| all | 11 |" in text and "simulating 1m 05s" in text
    figures = json.loads(json.dumps(to_json(surveyed, tally, {"simulating": 65.0}), allow_nan=False))
    assert figures["outcomes"] == {"left": {"success": 9, "lost": 1}, "right": {"success": 1}}
    assert figures["success"]["left"]["low"] == pytest.approx(0.59585, abs=1e-4)
    assert figures["durations"]["left"] == pytest.approx(
        {"count": 4, "mean": 2.15, "std": np.std([2, 2.1, 2.2, 2.3]), "least": 2, "q05": 2.015, "median": 2.15}
        | {"q95": 2.285, "most": 2.3}
    )


def test_only_what_says_where_things_are_is_judged():
    assert moving_columns(TABLE) == [2, 3]


def test_a_set_of_one_and_a_set_of_none(tmp_path):
    alone = survey([walk(0, 1, "")], TABLE)
    assert "| unknown | 0.10 | 0.10 |" in to_markdown(alone, "one step")
    draw_survey(tmp_path / "a.png", alone, "one step")
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(UserError, match="no episodes"):
        survey([], TABLE)


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
    draw_survey(tmp_path / "a.png", survey(episodes, table), "title", tally)
    assert (tmp_path / "a.png").stat().st_size > 10_000
