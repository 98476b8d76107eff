import subprocess
import sys

import jax
import mujoco


def test_its_import_prints_nothing():
    command = [sys.executable, "-c", "import mjx_policies.envs.physics.mjx"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == ""


def test_what_it_starts_from_is_bound_to_no_device():
    """A step would be compiled twice otherwise: for the first state of a run, and for those that steps return."""
    from mjx_policies.envs.physics.mjx import MjxPhysics

    model = mujoco.MjModel.from_xml_string(
        '<mujoco><worldbody><body><joint/><geom size=".1" mass="1"/></body></worldbody></mujoco>'
    )
    physics = MjxPhysics(model, substeps=1)
    leaves = jax.tree.leaves((physics._model, physics._data))
    assert leaves and not any(leaf.committed for leaf in leaves)
