import ast
import sys
from pathlib import Path

import pytest

from mjx_policies.errors import UserError
from mjx_policies.training.packages import load, require

ROOT = Path(__file__).parents[3]
OPTIONAL = {"av", "brax", "gymnasium", "h5py", "jax2onnx", "minari", "onnx", "onnxruntime", "pyarrow", "viser", "warp"}


def imported_at_once(tree):
    """Names of packages that importing a module imports: not in functions, nor where only a type checker reads."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


def test_what_an_extra_installs_is_imported_only_where_it_is_used():
    """So `--help` and everything else that needs none of it works without."""
    files = [
        file for part in ("mjx_policies", "envs", "agents", "randomization") for file in (ROOT / part).rglob("*.py")
    ]
    files += (ROOT / "experiments").glob("*.py")
    found = {
        (file.name, name)
        for file in files
        for name in imported_at_once(ast.parse(file.read_text()))
        if name in OPTIONAL
    }
    assert found == set()


def test_a_missing_package_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)  # what an import then says is that there is none
    sentence = (
        r"writing needs onnx, which is missing: pip install 'mjx-policies\[export\]', in a clone '\.\[export\]'\."
    )
    with pytest.raises(UserError, match=sentence):
        load("onnx", "writing", "export")
    with pytest.raises(UserError, match=sentence):
        require(("numpy", "onnx"), "writing", "export")
    require(("numpy", "json"), "writing", "export")
    assert load("json.decoder", "reading", "data") is sys.modules["json.decoder"]


def test_without_onnxruntime_a_policy_is_refused_in_one_sentence(monkeypatch, tmp_path):
    from mjx_policies.deploy import policy

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(policy.PolicyError, match=r"needs onnxruntime, which is missing: pip install .*\[deploy\]"):
        policy._check_runtime()
