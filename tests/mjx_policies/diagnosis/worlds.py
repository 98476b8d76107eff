"""Healthy demonstrations of robots that differ, and faults to plant in them. Axes: T steps, D observations, A actions.

Each world is a slow NumPy loop with its own dynamics and its own way to act, so that what is healthy is not one model.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mjx_policies.data.episodes import Episode


def make(observation, action, name="state") -> Episode:
    observation = np.asarray(observation)
    return Episode(
        observation={name: observation if observation.dtype == np.uint8 else observation.astype(np.float32)},
        action=np.asarray(action, np.float32),
        reward=np.zeros(len(action), np.float32),
        terminated=False,
        success=True,
        task="test",
        fps=20.0,
    )


def wander(rng, steps, size, kept=0.8):
    """Noise of unit variance that is correlated in time."""
    noise = rng.normal(size=(steps, size))
    for t in range(1, steps):
        noise[t] = kept * noise[t - 1] + np.sqrt(1 - kept**2) * noise[t]
    return noise


def reacher(rng, delay=0, latency=0, white=False) -> Episode:
    """Velocity commands to a point that goes to a goal; the robot may act late, and the person see late."""
    steps = int(rng.integers(50, 70))
    position, goal = rng.uniform(-1, 1, 3), rng.uniform(-1, 1, 3)
    tremor = rng.normal(size=(steps, 3)) if white else wander(rng, steps, 3)
    seen, sent, rows, actions = [position] * (latency + 1), [np.zeros(3)] * delay, [], []
    for t in range(steps):
        seen.append(position)
        error = goal - seen[-1 - latency]
        action = np.clip(3 * error + 0.15 * tremor[t], -1, 1)
        rows.append([*position + 0.002 * rng.normal(size=3), *goal])
        actions.append(action)
        sent.append(action)
        position = position + 0.05 * sent[-1 - delay] + 0.001 * rng.normal(size=3)
    return make(rows, actions)


def pendulum(rng) -> Episode:
    """Torque that pumps energy into a pendulum and catches it upright."""
    angle, speed, rows, actions = rng.uniform(-np.pi, np.pi), rng.uniform(-1, 1), [], []
    tremor = wander(rng, 100, 1, 0.5)[:, 0]
    for t in range(100):
        wrapped = (angle + np.pi) % (2 * np.pi) - np.pi
        energy = 0.5 * speed**2 + 10 * (np.cos(angle) - 1)
        wanted = -8 * wrapped - 2 * speed if abs(wrapped) < 0.5 else -0.4 * energy * speed
        action = np.clip(wanted / 5 + 0.1 * tremor[t], -1, 1)
        rows.append([np.cos(angle), np.sin(angle), 0.2 * speed])
        actions.append([action])
        for _ in range(4):
            speed += 0.0125 * (10 * np.sin(angle) + 5 * action)
            angle += 0.0125 * speed
    return make(rows, actions)


def arm(rng) -> Episode:
    """Joint targets of an arm whose servos lag, with a gripper that closes at the end, and the last action in sight."""
    steps, joints = int(rng.integers(60, 80)), 4
    q, speed, goal = rng.normal(size=joints), np.zeros(joints), rng.normal(size=joints)
    start, pace, tremor = q.copy(), rng.uniform(0.8, 1.4), wander(rng, steps, joints, 0.7)
    last, rows, actions = np.r_[q, 1.0], [], []
    for t in range(steps):
        part = np.clip(pace * t / 45, 0, 1)
        target = start + (goal - start) * part**3 * (10 - 15 * part + 6 * part**2) + 0.02 * tremor[t]
        action = np.r_[target, -1.0 if part >= 1 else 1.0]
        rows.append(np.r_[q + 0.001 * rng.normal(size=joints), speed, goal, last])
        actions.append(action)
        for _ in range(10):
            speed = speed + 0.005 * (200 * (target - q) - 25 * speed)
            q = q + 0.005 * speed
        last = action
    return make(rows, actions)


def walker(rng) -> Episode:
    """A gait with a clock and a command: a linear feedback, small shoves and a process that is all noise."""
    steps, rows, actions = 80, [], []
    system = np.array([[0.9, 0.2, 0, 0], [-0.2, 0.9, 0.1, 0], [0, 0, 0.95, 0.1], [0, 0.1, -0.1, 0.9]])
    entry = np.array([[0.2, 0], [0, 0.3], [0.1, 0.1], [0.3, 0]])
    gain = np.array([[0.8, 0.2, 0.1, 0.5], [0.1, 0.9, 0.3, 0.1]])
    x, phase, command = rng.normal(size=4), rng.uniform(0, 2 * np.pi), rng.uniform(-1, 1, 2)
    for t in range(steps):
        clock = np.array([np.cos(phase + 0.5 * t), np.sin(phase + 0.5 * t)])
        action = -gain @ x + 0.5 * clock + 0.3 * command + 0.1 * rng.normal(size=2)
        rows.append(np.r_[x, clock, command])
        actions.append(action)
        x = system @ x + entry @ action + 0.1 * rng.normal(size=4)
    return make(rows, actions)


def explorer(rng) -> Episode:
    """White noise for actions: nothing to imitate, but a healthy record of what actions do."""
    x, speed, rows, actions = rng.normal(size=2), np.zeros(2), [], []
    for _ in range(60):
        action = rng.uniform(-1, 1, 2)
        rows.append(np.r_[x, speed])
        actions.append(action)
        speed = 0.8 * speed + 0.5 * action
        x = x + 0.1 * speed
    return make(rows, actions)


def history(rng) -> Episode:
    """A reacher that also observes where it was a step ago."""
    episode = reacher(rng)
    now = episode.observation["state"]
    return make(np.c_[np.r_[now[:1], now[:-1]][:, :3], now], episode.action)


def camera(rng) -> Episode:
    """A reacher in two dimensions that is seen by a camera alone."""
    steps, (row, column) = 50, np.mgrid[:24, :24] / 23.0
    position, goal, tremor = rng.uniform(0.1, 0.9, 2), rng.uniform(0.1, 0.9, 2), wander(rng, steps, 2)
    frames, actions = [], []
    for t in range(steps):
        action = np.clip(6 * (goal - position) + 0.3 * tremor[t], -1, 1)
        frame = np.zeros((24, 24, 3))
        for channel, (place, width) in enumerate(((position, 0.12), (goal, 0.12))):
            frame[..., channel] = np.exp(-((row - place[0]) ** 2 + (column - place[1]) ** 2) / (2 * width**2))
        frames.append((255 * frame).astype(np.uint8))
        actions.append(action)
        position = position + 0.04 * action
    return make(np.stack(frames), actions, name="pixels")


WORLDS: dict[str, Callable[[np.random.Generator], Episode]] = {
    "reacher": reacher,
    "late robot": lambda rng: reacher(rng, delay=2),
    "late person": lambda rng: reacher(rng, latency=3),
    "white tremor": lambda rng: reacher(rng, white=True),
    "pendulum": pendulum,
    "arm": arm,
    "walker": walker,
    "explorer": explorer,
    "history": history,
    "camera": camera,
}


def demonstrations(world: str, seed: int, episodes: int = 40) -> list[Episode]:
    rng = np.random.default_rng([seed, *world.encode()])
    return [WORLDS[world](rng) for _ in range(episodes)]
