from types import SimpleNamespace

import pytest

from mjx_policies.data.dataset import MAX_TOLD, readable
from mjx_policies.errors import UserError


class Damaged:
    """Episodes of which only the named ones can be read."""

    fps = 10.0

    def __init__(self, count, intact):
        self.count, self.intact = count, intact

    def __len__(self):
        return self.count

    def __getitem__(self, number):
        if number not in self.intact:
            raise UserError("the file is damaged.")
        return SimpleNamespace(number=number)


def test_a_damaged_file_is_told_in_few_sentences():
    said, skipped = [], []
    found = [episode.number for episode in readable(Damaged(200, {3, 150}), said.append, skip=skipped.append)]
    assert found == [3, 150] and len(skipped) == 198 and not {3, 150} & set(skipped)
    assert said[:4] == [f"skipped episode {number}: the file is damaged." for number in (0, 1, 2, 4)]
    assert len(said) == MAX_TOLD + 1 and said[-1] == "skipped 193 more of 200 episodes, which cannot be read either"


def test_each_of_a_few_is_told_and_none_at_all_is_an_error():
    said = []
    assert len(list(readable(Damaged(6, {5}), said.append))) == 1 and len(said) == 5 == MAX_TOLD
    with pytest.raises(UserError, match="none of 6 episodes can be read; the first: the file is damaged"):
        list(readable(Damaged(6, ()), lambda sentence: None))
