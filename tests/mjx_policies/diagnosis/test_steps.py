"""Demonstrations as one table."""

import numpy as np

from mjx_policies.data.episodes import Episode
from mjx_policies.diagnosis import steps


def episode(length, columns=5):
    return Episode(
        {"state": np.zeros((length, columns))}, np.zeros((length, 1)), np.zeros(length), False, True, "task", 10.0
    )


def test_the_table_is_cut_by_numbers_and_says_so(monkeypatch):
    """Whole episodes, and the more columns the fewer of them."""
    monkeypatch.setattr(steps, "MAX_NUMBERS", 6 * 30)
    table = steps.tabulate([episode(10) for _ in range(4)])
    assert table.cut and len(table) == 30 and len(table.fps) == 3 and table.episode[-1] == 2
    assert len(steps.tabulate([episode(10, columns=17) for _ in range(4)])) == 10
    assert not steps.tabulate([episode(10) for _ in range(3)]).cut
