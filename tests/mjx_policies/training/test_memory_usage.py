import doctest

import jax
import pytest

from mjx_policies.errors import UserError
from mjx_policies.training import memory_usage


def test_what_does_not_fit_is_one_sentence(monkeypatch):
    monkeypatch.setattr(memory_usage, "available", lambda: 4_000)
    shapes = lambda count: {"x": jax.ShapeDtypeStruct((count, 10), "float32")}  # noqa: E731
    memory_usage.check_room(shapes(100), "--num-envs 100", "choose fewer robots")
    with pytest.raises(
        UserError, match=r"--num-envs 101 needs 0\.0 GB and more, there are 0\.0 GB: choose fewer robots"
    ):
        memory_usage.check_room(shapes(101), "--num-envs 101", "choose fewer robots")


def test_the_memory_of_this_computer_is_known():
    assert memory_usage.available() > 2**26


def test_examples_of_the_docstrings():
    assert doctest.testmod(memory_usage).failed == 0


def test_runs_side_by_side_need_as_many_copies(monkeypatch):
    monkeypatch.setattr(memory_usage, "available", lambda: 3_000_000_000)
    shapes = {"x": jax.ShapeDtypeStruct((250_000_000,), "float32")}
    assert memory_usage.check_room(shapes, "a sweep", "choose fewer seeds", copies=3) == "at least 3.00 GB of 3.0 GB"
    with pytest.raises(UserError, match=r"a sweep needs 4\.0 GB and more, there are 3\.0 GB: choose fewer seeds"):
        memory_usage.check_room(shapes, "a sweep", "choose fewer seeds", copies=4)
