"""The page as a browser takes it apart, and its figures against the results they come from."""

import base64
import dataclasses
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from mjx_policies.evaluation.comparison import compare_pairs
from mjx_policies.evaluation.latency import latency_of
from mjx_policies.evaluation.outcomes import Outcomes
from mjx_policies.evaluation.page import Html, curves, histograms, number, page, rate_bar, tag
from mjx_policies.evaluation.report_html import EvaluationReport, Video, comparisons, render
from mjx_policies.evaluation.results import EvaluationResults
from mjx_policies.evaluation.statistics import Estimate, mean, proportion

EPISODES = 40
NASTY = "<script>alert(1)</script>\"&' onload=x"


class Parsed(HTMLParser):
    """Elements and text, and whether every element is closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.text = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, name, attributes):
        self.elements.append((name, dict(attributes)))
        if name != "meta":
            self.open.append(name)

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, data):
        self.text.append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


def results_of(successes, stages=True, seed=0):
    """The first `successes` of `EPISODES` episodes succeed; the rest reach one stage of two and every other fails."""
    rng = np.random.default_rng(seed)
    achieved = np.arange(EPISODES) < successes
    failed = ~achieved & (np.arange(EPISODES) % 2 == 0)
    outcomes = Outcomes(
        goal="success",
        achieved=achieved,
        failed=failed,
        stages={"reached": np.ones(EPISODES, bool), "placed": achieved} if stages else {},
        seconds=np.where(failed, 2.0, 5.0),
        seconds_to_success=np.where(achieved, 3.0, np.nan),
        reward=rng.normal(achieved.astype(float), 0.1),
        cut_off=np.zeros(EPISODES, bool),
    )
    figures = {
        "success": proportion(successes, EPISODES),
        "completion": mean(outcomes.completion),
        "seconds_to_failure": mean(outcomes.seconds_to_failure),
    }
    actions = [np.clip(rng.normal(size=(50, 2)), -1, 1) for _ in range(3)]
    return EvaluationResults(outcomes, figures, actions, {})


@pytest.fixture
def report():
    return EvaluationReport(
        title=f"Task {NASTY}",
        summary=NASTY,
        policies={f"ours {NASTY}": {"nominal": results_of(36), f"odd {NASTY}": results_of(30)}},
        condition="nominal",
        explained={"nominal": f"as its model says {NASTY}"},
        episode_seconds=5.0,
        action_names=("x", f"grip {NASTY}"),
        control_dt=0.05,
        action_limits=(np.array([-1.0, -2.0]), np.array([1.0, 2.0])),
        demonstrated=[np.full((10, 2), 0.5)],
        latency={f"ours {NASTY}": latency_of([0.01, 0.02, 0.06], 0.05)},
        videos=[Video(b"video", f"episode 3 {NASTY}")],
        about={"seed": NASTY},
    )


def test_nothing_is_fetched_and_nothing_runs(report):
    parsed = Parsed(render(report))
    names = {name for name, _ in parsed.elements}
    assert not names & {"script", "iframe", "object", "embed", "link", "base", "form", "a", "img"}
    attributes = [item for _, found in parsed.elements for item in found.items()]
    assert not [key for key, _ in attributes if key.startswith("on") or key in ("href", "srcset", "action")]
    assert all(value.startswith("data:video/mp4;base64,") for key, value in attributes if key == "src")
    assert "default-src 'none'" in next(value for key, value in attributes if key == "content")
    styles = " ".join([*parsed.text, *(value for key, value in attributes if key == "style")])
    assert not re.search(r"url\(|@import|https?:", styles)


def test_text_arrives_as_it_was_given(report):
    words = Parsed(render(report)).words
    for text in (f"Task {NASTY}", f"odd {NASTY}", f"grip {NASTY}", f"episode 3 {NASTY}", f"as its model says {NASTY}"):
        assert " ".join(text.split()) in words


def test_the_headline_is_the_rate_with_its_interval(report):
    words = Parsed(render(report)).words
    assert "success, nominal 90.0 % 95 % interval 76.9 to 96.0, 40 episodes" in words  # Wilson of 36/40
    assert "75.0 % [59.8, 85.8]" in words  # the other condition
    assert "placed 90.0 %" in words and "reached 100.0 % [91.2, 100.0] 40" in words
    assert "20 ms" in words and "33.3%" in words, "latency"
    assert "Comparison" not in words


def test_every_episode_has_a_mark_that_tells_it(report):
    parsed = Parsed(render(report))
    marks = [found["title"] for name, found in parsed.elements if name == "span" and "title" in found]
    assert len(marks) == EPISODES
    assert marks[0] == "episode 0: success after 3.0 s"
    assert marks[36] == "episode 36: failed after 2.0 s, 50% complete"
    assert marks[37] == "episode 37: out of time after 5.0 s, 50% complete"
    heights = [found["style"] for name, found in parsed.elements if name == "i"]
    assert heights[0] == "height:100%" and heights[36] == "height:50%"


def test_a_video_is_inside(report):
    sources = [found["src"] for name, found in Parsed(render(report)).elements if name == "video"]
    assert [base64.b64decode(source.split(",")[1]) for source in sources] == [b"video"]


def test_policies_are_compared_with_the_first(report):
    policies = {
        "A": {"nominal": results_of(36)},
        "B": {"nominal": results_of(20, seed=1)},
        "C": {"nominal": results_of(35)},
    }
    report = dataclasses.replace(report, policies=policies, latency={}, videos=(), demonstrated=())
    found = comparisons(report)
    assert [(first, other) for first, other, _ in found] == [("A", "B"), ("A", "C")]
    assert found[0][2].p_value == compare_pairs(np.arange(40) < 36, np.arange(40) < 20).p_value
    assert found[0][2].p_adjusted == 2 * found[0][2].p_value, "the smaller of two"
    words = Parsed(render(report)).words
    assert found[0][2].verdict("A", "B") in words and "A succeeds more often than B" in words
    assert "do not tell A and C apart" in words and "more episodes of each" in words
    assert "(Holm's correction for 2 comparisons: " in words and "p, Holm over 2" in words
    assert "B, nominal 40 [" in words and "better" not in words
    assert "Latency" not in words and "Videos" not in words and "distance to demonstrations" not in words


def test_a_task_without_stages_or_success_has_a_page(report):
    outcomes = dataclasses.replace(
        results_of(36, stages=False).outcomes, goal="survival", seconds_to_success=np.full(EPISODES, np.nan)
    )
    figures = {"falls": proportion(4, 40), "return": mean([1.0, 2.0])}
    walker = EvaluationResults(outcomes, figures, [np.zeros((2, 2))], {})
    words = Parsed(render(dataclasses.replace(report, policies={"A": {"nominal": walker}}))).words
    assert "Survival by condition" in words and "How far it gets" not in words and "succeeded by a time" not in words


def test_robots_that_left_the_terrain_are_reported_apart(report):
    """A page on a task with commands: 36 track them, 3 of these leave before their time, 2 of the others fall."""
    results = results_of(36, stages=False)
    cut_off = np.arange(EPISODES) < 3
    outcomes = dataclasses.replace(
        results.outcomes, goal="tracking", achieved=results.outcomes.achieved & ~cut_off, cut_off=cut_off
    )
    figures = {"tracking": outcomes.rate, "falls": outcomes.rate_of(outcomes.failed), "return": mean([1.0, 2.0])}
    walker = dataclasses.replace(results, outcomes=outcomes, figures=figures)
    left = dataclasses.replace(outcomes, achieved=outcomes.achieved & False, cut_off=np.ones(EPISODES, bool))
    gone = dataclasses.replace(walker, outcomes=left, figures={"tracking": left.rate, "return": mean([])})
    report = dataclasses.replace(
        report,
        policies={"A": {"nominal": walker, "gone": gone}},
        goal="tracking of an episode: no fall and x at least 0.8",
    )
    parsed = Parsed(render(report))
    expected = proportion(33, 37)
    assert f"tracking, nominal {100 * expected.value:.1f} % 95 % interval" in parsed.words
    assert "37 episodes 3 more episodes were cut off before their time and count neither way" in parsed.words
    assert "Tracking of an episode: no fall and x at least 0.8." in parsed.words
    titles = [found["title"] for name, found in parsed.elements if name == "span" and "title" in found]
    assert titles[0] == "episode 0: cut off after 5.0 s, 0% complete"
    assert "condition tracking falls return" in parsed.words and "gone – – –" in parsed.words
    nobody = dataclasses.replace(report, policies={"A": {"nominal": gone}, "B": {"nominal": walker}})
    assert "unknown" in Parsed(render(nobody)).words and "there is nothing to compare" in Parsed(render(nobody)).words


def test_what_is_not_markup_is_escaped():
    assert tag("p", "<b>", Html("<i></i>"), class_='a"b') == '<p class="a&quot;b">&lt;b&gt;<i></i></p>'
    assert Parsed(page("<t>", "x < y")).words.startswith("<t>")


def test_bars_and_lines_lie_where_the_numbers_are():
    bar = Parsed(rate_bar(Estimate(0.25, -0.1, 0.5, 8)))
    assert [found["style"] for _, found in bar.elements if "style" in found] == [
        "width:25.00%",
        "left:0.00%;width:50.00%",
        "left:25.00%",
    ]
    drawn = dict(Parsed(curves([(np.array([0.0, 10.0]), np.array([0.0, 1.0]))], "s")).elements)
    start, end = (tuple(map(float, point.split(","))) for point in drawn["polyline"]["points"].split())
    assert start[0] < end[0] <= 320 and start[1] > end[1] >= 0
    outline = dict(Parsed(histograms(np.array([-1.0, 0.0, 1.0]), [np.array([0.25, 0.75])])).elements)["polygon"]
    heights = [float(point.split(",")[1]) for point in outline["points"].split()]
    ground = heights[0]
    assert (ground - heights[1]) / (ground - heights[3]) == pytest.approx(1 / 3, abs=0.01)


def test_numbers_without_an_interval_or_a_value():
    assert (
        number(mean([])) == "–" and number(mean([4.0])) == "4" and number(Estimate(1.23456, 1, 2, 3)) == "1.23 [1, 2]"
    )
