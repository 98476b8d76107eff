import dataclasses
import doctest

import jax
import numpy as np
import pytest

from mjx_policies.agents.bc import BCHyper
from mjx_policies.agents.ppo import PPOHyper
from mjx_policies.experiments.runs import grid
from mjx_policies.experiments.runs.bc import BCRun
from mjx_policies.experiments.runs.grid import beginning, grid_points, members
from mjx_policies.experiments.runs.ppo import PPORun

RATES, DISCOUNTS = "hyper.learning_rate=1e-3,3e-3", "hyper.discount=0.9,0.97, 0.99"


def ppo(**changes):
    return PPORun(backend="cpu", num_envs=16, **changes)


def test_examples_of_the_docstrings():
    assert doctest.testmod(grid).failed == 0


def test_entries_multiply_and_each_point_has_all_seeds():
    runs = members(ppo(seed=4, seeds=2, grid=(RATES, DISCOUNTS)))
    assert [run.number for run in runs] == list(range(12))
    assert [run.config.seed for run in runs] == [4, 5] * 6
    rates, discounts = ([getattr(run.config.hyper, name) for run in runs] for name in ("learning_rate", "discount"))
    assert rates == [1e-3] * 6 + [3e-3] * 6 and discounts == [0.9, 0.9, 0.97, 0.97, 0.99, 0.99] * 2
    assert runs[7].name == "run 7 (learning_rate 0.003, discount 0.9, seed 5)"
    assert all((run.config.seeds, run.config.grid, run.config.num_envs) == (1, (), 16) for run in runs)


def test_a_run_without_a_grid_is_its_own_only_member():
    alone = ppo(seed=3)
    assert members(alone) == [(0, alone, {})] and grid_points((), alone) == [{}]
    key, hyper = beginning(alone)
    assert (jax.random.key_data(key) == jax.random.key_data(jax.random.key(3))).all() and hyper == alone.hyper


def test_a_sweep_begins_with_the_key_and_the_numbers_of_each_run():
    keys, hyper = beginning(ppo(seed=2**32 - 2, seeds=2, grid=(RATES,)))
    expected = [jax.random.key_data(jax.random.key(seed)) for seed in (2**32 - 2, 2**32 - 1)]
    np.testing.assert_array_equal(jax.random.key_data(keys), expected * 2)
    np.testing.assert_allclose(hyper.learning_rate, [1e-3, 1e-3, 3e-3, 3e-3])
    assert hyper.discount.shape == (4,) and (hyper.discount == np.float32(0.97)).all()


@dataclasses.dataclass(frozen=True)
class Nested:
    optimizer: PPOHyper = dataclasses.field(default_factory=PPOHyper)
    layers: tuple[int, ...] = (8,)
    flag: bool = True


@dataclasses.dataclass(frozen=True)
class NestedRun:
    seed: int = 0
    seeds: int = 1
    grid: tuple[str, ...] = ()
    hyper: Nested = dataclasses.field(default_factory=Nested)


def test_names_reach_into_what_hyperparameters_are_made_of():
    runs = members(NestedRun(grid=("hyper.optimizer.clip=0.1,0.3",)))
    assert [run.config.hyper.optimizer.clip for run in runs] == [0.1, 0.3]
    assert runs[0].config.hyper.layers == (8,)
    with pytest.raises(ValueError, match=r"and there is no such number; there are hyper\.optimizer\.learning_rate, "):
        members(NestedRun(grid=("hyper.flag=0,1",)))


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ("hyper.learning_rate", "grid is 'hyper.learning_rate': write a name and its values, such as hyper.learning_"),
        ("hyper.gamma=0.9", "and there is no such number; there are hyper.learning_rate, hyper.desired_kl, "),
        ("learning_rate=1", "and there is no such number; there are hyper.learning_rate, "),
        ("hyper=1", "and there is no such number; there are hyper.learning_rate, "),
        ("num-envs=16,32", "which is the same in all runs of a program, as are all sizes; there are hyper.learn"),
        ("sizes.num_epochs=1,2", "which is the same in all runs of a program, as are all sizes"),
        ("seed=1,2", "how many seeds there are is said by --seeds"),
        ("hyper.discount=0.9,1.5", "and hyper.discount is 1.5, it must lie between 0 and 1"),
        ("hyper.discount=0.9,high", "'high' is no number"),
        ("hyper.discount=0.9,", "'' is no number"),
        ("hyper.discount=nan", "'nan' is no number"),
        ("hyper.discount=0.9,0.90", "which names a value twice"),
    ],
)
def test_what_cannot_be_is_one_sentence(entry, sentence):
    with pytest.raises(ValueError) as refused:
        ppo(grid=(entry,))
    assert sentence in str(refused.value) and str(refused.value).startswith("grid is ")


def test_what_does_not_suit_the_rest_of_the_configuration_is_refused():
    with pytest.raises(ValueError, match=r"grid is told hyper.learning_rate twice"):
        ppo(grid=(RATES, RATES))
    with pytest.raises(ValueError, match=r"grid is wrong at symmetry 0.5: symmetry is 'network' and hyper"):
        members(ppo(grid=("hyper.symmetry=0,0.5",)))
    with pytest.raises(ValueError, match=r"hyper.total_steps follows from the rest of the configuration"):
        members(BCRun(grid=("hyper.total_steps=10,20",), hyper=BCHyper()))
    with pytest.raises(ValueError, match="with 9 seeds it must end below"):
        ppo(seed=2**32 - 8, seeds=9)
