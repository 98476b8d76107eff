import json
import math

import pytest
from rich.console import Console

from mjx_policies.errors import UserError
from mjx_policies.evaluation.report import evaluation_table, read_evaluation, write_evaluation
from mjx_policies.evaluation.statistics import Estimate, mean, proportion

FIGURES = {
    "success": proportion(9, 10),
    "stage/held": proportion(10, 10),
    "return": mean([1.0, 3.0]),
    "reward/a": mean([1.0]),
}


def printed(table):
    console = Console(width=200)
    with console.capture() as capture:
        console.print(table)
    return capture.get().splitlines()


def test_few_conditions_stand_beside_each_other():
    lines = printed(evaluation_table({"nominal": FIGURES, "noise": FIGURES}, "Task"))
    assert any("nominal [95 %]" in line and "noise [95 %]" in line for line in lines)
    assert any("stage/held" in line for line in lines) and not any("reward/" in line for line in lines)


def test_many_conditions_stand_below_each_other():
    lines = printed(evaluation_table({f"condition {i}": FIGURES for i in range(5)}, "Task"))
    assert sum("0.900 [0.596, 0.982]" in line and "condition" in line for line in lines) == 5
    assert not any("stage/held" in line for line in lines)


def test_tables_fit_80_columns():
    """The report of a velocity task with a return in the thousands; a figure that one condition lacks is a dash."""
    walks = {name: proportion(9, 256) for name in ("tracking", "falls", "cut_off", "standing_speed")}
    walks |= {"return": Estimate(-1234.5, -1300.0, -1200.0, 256), "seconds_to_success": Estimate(12.3, 11.2, 13.4, 9)}
    others = {name: estimate for name, estimate in walks.items() if name != "cut_off"}
    for evaluation in (
        {"nominal": walks, "randomized": others},
        {f"trunk_inertia{i}": walks if i else others for i in range(4)},
    ):
        console = Console(width=80)
        with console.capture() as capture:
            console.print(evaluation_table(evaluation, "Task"))
        lines = capture.get().splitlines()
        assert max(map(len, lines)) <= 80
        rows = list(walks) if len(evaluation) == 2 else list(evaluation)
        assert all(sum(name in line for line in lines) == 1 for name in rows), "one line each"
    assert any("tracking" in line and "falls" in line for line in lines), "what stands for all"


def test_the_file_holds_the_figures_and_no_infinity(tmp_path):
    path = tmp_path / "evaluation.json"
    write_evaluation(path, {"nominal": {"return": Estimate(4.0, -math.inf, math.inf, 1)}}, {"task": "Task"})
    data = json.loads(path.read_text())
    assert data["conditions"]["nominal"]["return"] == {"value": 4.0, "low": None, "high": None, "count": 1}
    assert data["task"] == "Task" and data["interval"] == 0.95


def test_the_file_is_read_back(tmp_path):
    path = tmp_path / "evaluation.json"
    write_evaluation(path, {"nominal": FIGURES, "noise": {"return": Estimate(4.0, -math.inf, math.inf, 1)}}, {})
    found = read_evaluation(path)
    assert found["nominal"]["success"] == FIGURES["success"] and set(found) == {"nominal", "noise"}
    unknown = found["noise"]["return"]
    assert unknown.value == 4.0 and math.isnan(unknown.low) and math.isnan(unknown.high)
    for data in ([], {}, {"conditions": {"nominal": 3}}, {"conditions": {"nominal": {"success": {"value": 1}}}}):
        path.write_text(json.dumps(data))
        with pytest.raises(UserError, match="another program wrote it"):
            read_evaluation(path)
