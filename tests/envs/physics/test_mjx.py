import subprocess
import sys

import jax
import jax.numpy as jnp
import mujoco


def test_its_import_prints_nothing():
    command = [sys.executable, "-c", "import mjx_policies.envs.physics.mjx"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == ""


def test_a_step_is_compiled_once():
    """And not for the first state of a run, and again for those that steps return, which are bound to no device."""
    from mjx_policies.envs.physics.mjx import MjxPhysics

    model = mujoco.MjModel.from_xml_string(
        '<mujoco><worldbody><body><joint/><geom size=".1" mass="1"/></body></worldbody></mujoco>'
    )
    physics = MjxPhysics(model, substeps=1)
    leaves = jax.tree.leaves((physics._model, physics._data))
    assert leaves and not any(leaf.committed for leaf in leaves)
    step, state = jax.jit(physics.step), physics._data  # what `init` takes its arrays from, where it is not compiled
    for _ in range(2):
        state = step(state, jnp.zeros((1, 0)), {})
    assert step._cache_size() == 1
