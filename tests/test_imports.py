"""Imports: dependencies point one way, and what runs on a robot needs numpy and onnxruntime alone."""

import ast
import collections
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {
    "mjx_policies": "mjx_policies",
    "envs": "mjx_policies.envs",
    "randomization": "mjx_policies.randomization",
    "agents": "mjx_policies.agents",
    "experiments": "mjx_policies.experiments",
}
MAY_IMPORT = {
    "mjx_policies": {"mjx_policies"},
    "envs": {"mjx_policies", "envs", "randomization"},
    "randomization": {"mjx_policies", "envs", "randomization"},
    "agents": {"mjx_policies", "envs", "randomization", "agents"},
    "experiments": set(FOLDERS),
}
DEPLOY = ROOT / "mjx_policies" / "deploy"
SDKS = {"unitree_sdk2py", "franky"}  # of robots, imported by the adapter of each where it connects


def imports(path):
    """Every module that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def folder_of(module):
    """The folder of the repository that a module lies in; None if it is not ours."""
    found = [name for name, package in FOLDERS.items() if module == package or module.startswith(f"{package}.")]
    return max(found, key=lambda name: len(FOLDERS[name]), default=None)


@pytest.mark.parametrize("folder", FOLDERS)
def test_dependencies_point_one_way(folder):
    wrong = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        for module in imports(path):
            other = folder_of(module)
            if other is not None and other not in MAY_IMPORT[folder]:
                wrong.append(f"{path.relative_to(ROOT)} imports {module}")
            assert module.split(".")[0] not in (*FOLDERS, "tests") or module.startswith("mjx_policies"), (path, module)
    assert not wrong, "\n".join(wrong)


def test_what_runs_on_a_robot_needs_numpy_and_onnxruntime_alone():
    """Only the simulated robots, in a folder of their own, need MuJoCo as well."""
    for path in sorted(DEPLOY.rglob("*.py")):
        simulated = "simulation" in path.relative_to(DEPLOY).parts
        allowed = {"numpy", "onnxruntime"} | ({"mujoco"} if simulated else SDKS)
        for module in imports(path):
            ours = module.startswith(("mjx_policies.deploy", "mjx_policies.spec", "mjx_policies.text"))
            assert ours or module.split(".")[0] in sys.stdlib_module_names | allowed, (path, module)
            assert simulated or not module.startswith("mjx_policies.deploy.simulation"), (path, module)


def test_the_walk_finds_imports_wherever_they_stand(tmp_path):
    path = tmp_path / "module.py"
    path.write_text("import a.b\ndef f():\n    from c import d\n    if d:\n        import e\n")
    assert set(imports(path)) == {"a.b", "c", "c.d", "e"}
    assert folder_of("mjx_policies.agents.ppo") == "agents" and folder_of("mjx_policies.heads") == "mjx_policies"
    assert folder_of("jax") is None


def test_the_controller_loads_without_jax():
    """In a process of its own, where importing JAX, MuJoCo or anything that needs them fails."""
    program = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"jax", "jaxlib", "flax", "optax", "mujoco", "distrax", "chex", "brax"}:
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Blocked())
import mjx_policies.deploy.controller, mjx_policies.deploy.loop, mjx_policies.deploy.operator
import mjx_policies.deploy.policy
import mjx_policies.deploy.robots.go2, mjx_policies.deploy.robots.franka
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_no_class_name_stands_for_two_nouns():
    found = collections.defaultdict(list)
    for path in sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                found[node.name].append(str(path.relative_to(ROOT)))
    assert {name: paths for name, paths in found.items() if len(paths) > 1} == {}
