"""Faults to plant in healthy demonstrations: each takes a list of episodes and a generator, returns a broken one."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np

replace = dataclasses.replace


def on_state(change):
    """A fault of the observation `state` alone."""

    def plant(episodes, rng):
        return [
            replace(e, observation=e.observation | {"state": change(e, e.observation["state"].copy())})
            for e in episodes
        ]

    return plant


def shuffle_rows(episodes, rng):
    action = np.concatenate([e.action for e in episodes])[rng.permutation(sum(map(len, episodes)))]
    ends = np.cumsum([len(e) for e in episodes])[:-1]
    return [replace(e, action=part) for e, part in zip(episodes, np.split(action, ends), strict=True)]


def shuffle_within(episodes, rng):
    return [replace(e, action=e.action[rng.permutation(len(e))]) for e in episodes]


def shuffle_episodes(episodes, rng):
    others = episodes[1:] + episodes[:1]
    return [replace(e, action=np.resize(o.action, e.action.shape)) for e, o in zip(episodes, others, strict=True)]


def late(episodes, rng):
    """The action of a step is logged with the next one."""
    return [replace(e, action=np.concatenate([e.action[:1], e.action[:-1]])) for e in episodes]


def early(episodes, rng):
    return [replace(e, action=np.concatenate([e.action[1:], e.action[-1:]])) for e in episodes]


def unnormalise(episodes, rng):
    def change(e, state):
        state[:, 1] *= 1000
        return state

    return on_state(change)(episodes, rng)


def unnormalise_action(episodes, rng):
    return [replace(e, action=e.action * np.r_[255.0, np.ones(e.action.shape[1] - 1)]) for e in episodes]


def saturate(episodes, rng):
    spread = np.concatenate([e.action for e in episodes]).std(axis=0)
    return [replace(e, action=np.clip(8 * e.action / spread, -1, 1)) for e in episodes]


def saturate_one(episodes, rng):
    spread = np.concatenate([e.action for e in episodes])[:, 0].std()
    return [
        replace(e, action=np.c_[np.clip(e.action[:, :1], -0.2 * spread, 0.2 * spread), e.action[:, 1:]])
        for e in episodes
    ]


def duplicate(episodes, rng):
    return episodes + [episodes[i] for i in rng.choice(len(episodes), len(episodes) // 5, replace=False)]


def duplicate_cut(episodes, rng):
    """Repeats that begin later and end earlier."""

    def cut(e):
        part = slice(5, -5)
        return replace(
            e, observation={k: v[part] for k, v in e.observation.items()}, action=e.action[part], reward=e.reward[part]
        )

    return episodes + [cut(e) for e in episodes[::6]]


def leak_action(episodes, rng):
    return on_state(lambda e, state: np.c_[state, e.action[:, 0]])(episodes, rng)


def leak_actions(episodes, rng):
    return on_state(lambda e, state: np.c_[state, e.action])(episodes, rng)


def leak_next_action(episodes, rng):
    return on_state(lambda e, state: np.c_[state, np.r_[e.action[1:, 0], e.action[-1:, 0]]])(episodes, rng)


def leak_next_state(episodes, rng):
    return on_state(lambda e, state: np.c_[state, np.r_[state[1:, 0], state[-1:, 0]]])(episodes, rng)


def freeze(episodes, rng):
    def change(e, state):
        state[:, 0] = 0.731
        return state

    return on_state(change)(episodes, rng)


def freeze_all(episodes, rng):
    return on_state(lambda e, state: np.zeros_like(state))(episodes, rng)


def spoil(episodes, rng):
    """A few actions are NaN."""
    return spoiled(episodes, rng, lambda e: e.action)


def spoil_observations(episodes, rng):
    """A few observations are NaN."""
    return spoiled(episodes, rng, lambda e: e.observation["state"])


def spoiled(episodes, rng, array):
    broken = list(episodes)
    for i in rng.choice(len(episodes), 2, replace=False):
        broken[i] = jax.tree.map(np.copy, episodes[i])
        values = array(broken[i])  # changed past the checks of the class, as if a file had held them
        values[rng.integers(len(values)), 0] = np.nan
    return broken


EASY = ("reacher", "white tremor", "late person", "pendulum", "arm", "walker", "explorer")
FAULTS = {
    # fault: (check that must name it, worlds in which what it does can be told from something healthy)
    shuffle_rows: ("data: shuffled actions", (*EASY, "late robot", "history")),
    shuffle_within: ("data: shuffled actions", (*EASY, "late robot", "history")),
    shuffle_episodes: ("data: shuffled actions", (*EASY, "late robot", "history")),
    late: ("data: alignment", EASY),
    early: ("data: alignment", ("arm", "walker")),
    unnormalise: ("data: scale of columns", (*EASY, "late robot", "history")),
    unnormalise_action: ("data: scale of columns", ("reacher", "arm", "walker")),
    saturate: ("data: saturated actions", (*EASY, "late robot", "history")),
    saturate_one: ("data: saturated actions", ("reacher", "arm", "walker")),
    duplicate: ("data: repeated episodes", (*EASY, "camera")),
    duplicate_cut: ("data: repeated episodes", (*EASY, "camera")),
    leak_action: ("data: leaked future", (*EASY, "late robot", "history")),
    leak_actions: ("data: leaked future", ("walker", "arm")),
    leak_next_action: ("data: leaked future", (*EASY, "late robot", "history")),
    leak_next_state: ("data: leaked future", ("reacher", "white tremor", "late person", "arm", "walker", "explorer")),
    freeze: ("data: constant columns", (*EASY, "late robot", "history")),
    freeze_all: ("data: constant columns", EASY),
    spoil: ("data: finite", (*EASY, "camera")),
    spoil_observations: ("data: finite", EASY),
}
