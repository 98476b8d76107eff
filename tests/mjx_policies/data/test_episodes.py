import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mjx_policies.data.episodes import NAME, Episode
from mjx_policies.data.lerobot.layout import feature_name, observation_name


def test_an_episode_is_a_pytree_of_its_arrays(make_episode, assert_same):
    episode = make_episode()
    leaves, treedef = jax.tree.flatten(episode)
    assert len(leaves) == 4 + 1 + 1 + 4
    assert_same(jax.tree.unflatten(treedef, leaves), episode)
    shapes = jax.tree.map(np.shape, episode)  # a tree may hold anything while it is transformed
    assert shapes.action == (5, 3) and shapes.task == "task 0"
    doubled = jax.tree.map(lambda x: x[:2], episode.observation)
    assert doubled["state"].shape == (2, 4)


def test_actions_and_rewards_become_float32(make_episode):
    episode = make_episode(action=np.ones((5, 2), int), reward=np.ones(5))
    assert episode.action.dtype == episode.reward.dtype == np.float32
    assert len(episode) == 5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"action": np.zeros(5)}, r"action has the shape \[5\], it must be \[T, A\]"),
        ({"action": np.zeros((0, 3))}, "T and A at least 1"),
        ({"action": np.full((5, 3), np.nan)}, r"action holds nan at \[0, 0\]"),
        ({"action": np.array([["a"]] * 5)}, "plain numbers"),
        ({"reward": np.zeros(4)}, r"reward has the shape \[4\] for 5 actions"),
        ({"observation": {}}, "at least one"),
        ({"observation": {"state": np.zeros((4, 2))}}, r"\[4, 2\] for 5 actions"),
        ({"observation": {"state": np.zeros(5)}}, r"must be \[5, ...\]"),
        ({"observation": {"../state": np.zeros((5, 2))}}, "cannot be called so"),
        ({"observation": {"observation.state": np.zeros((5, 2))}}, "cannot be called so"),
        ({"observation": {"state": np.full((5, 2), np.inf)}}, "state.* holds inf"),
        ({"observation": {"state": np.array([[object()]] * 5)}}, "plain numbers"),
        ({"final_observation": {"other": np.zeros(4)}}, "they must agree"),
        ({"fps": 0}, "fps is 0"),
        ({"fps": float("nan")}, "fps is nan"),
        ({"task": None}, "must be text"),
    ],
)
def test_what_does_not_fit_is_one_sentence(make_episode, change, words):
    with pytest.raises(ValueError, match=words) as caught:
        make_episode(**({"final_observation": None} | change))
    assert "\n" not in str(caught.value)


def test_a_final_observation_is_like_a_row(make_episode):
    final = make_episode().final_observation
    with pytest.raises(ValueError, match=r"final_observation\['state'\] is float64 \[4\]"):
        make_episode(final_observation=final | {"state": np.zeros(4)})


@given(st.from_regex(NAME, fullmatch=True))
def test_names_survive_the_way_to_lerobot_and_back(name):
    assert observation_name(feature_name(name)) == name
    assert feature_name(name).startswith("observation.") and "/" not in feature_name(name)


def test_keeps_what_is_not_an_array():
    episode = Episode({"state": np.zeros((1, 1))}, np.zeros((1, 1)), np.zeros(1), True, None, "reach", 20.0)
    assert (episode.success, episode.seed, episode.strategy, episode.final_observation) == (None, None, "", None)
