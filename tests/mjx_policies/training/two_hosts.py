"""One of two processes that train together: `two_hosts.py RANK PORT RUN_DIR STEPS SIGNAL_AT [--resume]`."""

import signal
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from mjx_policies.training.loop import Job, Schedule, train
from mjx_policies.training.run_folder import RunFolder
from mjx_policies.training.script import clean_errors


@clean_errors()
def main() -> None:
    rank, port, run_dir, steps, signal_at, *resume = sys.argv[1:]
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"localhost:{port}", 2, int(rank))
    mesh = jax.make_mesh((2,), ("env",), axis_types=(AxisType.Auto,))
    split, same = NamedSharding(mesh, PartitionSpec("env")), NamedSharding(mesh, PartitionSpec())

    def init():
        def build():
            return {"x": jnp.arange(8.0), "key": jax.random.key(0), "keys": jax.random.split(jax.random.key(1), 8)}

        return jax.jit(build, out_shardings={"x": split, "key": same, "keys": split})()

    def step(state):
        state = {"x": state["x"] + 1, "key": jax.random.split(state["key"])[0], "keys": state["keys"]}
        return state, {"mean": state["x"].mean()}

    def report(row):
        if rank == "1" and row["step"] == int(signal_at):  # only one of the two hears of it
            signal.raise_signal(signal.SIGTERM)

    schedule = Schedule(total_steps=int(steps), checkpoint_seconds=0.0, tensorboard=False)
    with (RunFolder.open if resume else RunFolder.create)(run_dir, schedule) as run:
        outcome = train(Job(init, step, 1), run, schedule, report=report)
    assert outcome.state["x"].sharding == split
    here = np.concatenate([np.asarray(shard.data) for shard in outcome.state["x"].addressable_shards])
    print(outcome.status, outcome.step, here.tolist())


if __name__ == "__main__":
    main()
