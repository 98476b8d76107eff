"""Kills a writer again and again: python killed_writer.py lerobot FOLDER ROUNDS. Prints what went wrong, or nothing.

Each round forks a process that adds episodes to one dataset and notes the number of each that `add` has returned for.
It is killed at a random moment; whatever it noted must be there, whole. The next round goes on from there.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np

from mjx_policies.data import formats
from mjx_policies.data.episodes import Episode
from mjx_policies.data.lerobot import writer as lerobot_writer

lerobot_writer.MERGE_EVERY = 4  # so that many kills meet a merge


def make(number):
    rng = np.random.default_rng(number)
    steps = int(rng.integers(1, 40))
    return Episode(
        {"state": rng.normal(size=(steps, 4)).astype(np.float32)},
        rng.normal(size=(steps, 2)),
        rng.normal(size=steps),
        False,
        True,
        f"task {number % 3}",
        20,
        seed=number,
    )


def write(path, name, noted):
    """In the child, until it is killed."""
    module = formats.FORMATS[name]
    started = (path / ".lock").exists() or path.with_name(f"{path.name}.parts").exists()
    writer = module.Writer(path, append=started)
    os.write(noted, b"s")
    while True:
        writer.add(make(len(writer)))
        os.write(noted, b"e")


def check(path, name, least):
    """Number of episodes, all of them as they were added."""
    module = formats.FORMATS[name]
    if not module.recognise(path):
        return 0 if least == 0 else sys.exit(f"{least} episodes are gone")
    if name == "robomimic" and least == 0 and not list(path.with_name(f"{path.name}.parts").glob("demo_*")):
        return 0
    dataset = module.read(path)
    if len(dataset) < least:
        sys.exit(f"{least} episodes were added, {len(dataset)} are there")
    for number, found in enumerate(dataset):
        expected = make(number)
        same = np.array_equal(found.action, expected.action) and np.array_equal(found.reward, expected.reward)
        same = same and np.array_equal(found.observation["state"], expected.observation["state"])
        if not (same and found.seed == number and found.task == expected.task):
            sys.exit(f"episode {number} of {len(dataset)} is not what was added")
    return len(dataset)


def main(name, folder, rounds):
    path = Path(folder) / ("data.hdf5" if name == "robomimic" else "data")
    random.seed(0)
    count = 0
    for _ in range(rounds):
        reading, noted = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            try:
                write(path, name, noted)
            finally:
                os._exit(1)
        os.close(noted)
        if os.read(reading, 1) != b"s":
            sys.exit("the writer could not go on")
        added = b""
        for _ in range(random.randint(1, 6)):  # episodes, so that it gets on however slow the machine is
            added += os.read(reading, 1)
        time.sleep(random.uniform(0, 0.02))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        while part := os.read(reading, 65536):
            added += part
        os.close(reading)
        count = check(path, name, count + added.count(b"e"))
    writer = formats.FORMATS[name].Writer(path, append=True)
    writer.add(make(count))
    writer.close()
    if check(path, name, count + 1) != count + 1:
        sys.exit("there is more than was added")
    print(count + 1, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
