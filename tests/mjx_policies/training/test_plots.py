import contextlib
import errno
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mjx_policies.errors import UserError
from mjx_policies.training.metrics import MetricsCsv
from mjx_policies.training.plots import middle_half, plot_bands, plot_curves, running_mean


@pytest.fixture
def csv(tmp_path):
    table = MetricsCsv(tmp_path / "metrics.csv")
    for i in range(120):
        row = {
            "step": 100 * i,
            "seconds": 0.5 * i,
            "steps_per_second": 200.0,
            "loss": np.exp(-i / 30),
            "return": np.nan,
        }
        table.write({**row, "eval/reward": 1 - np.exp(-i / 30)} if i % 20 == 0 else row)
    table.close()
    return tmp_path / "metrics.csv"


def test_a_picture_is_drawn_without_touching_matplotlib(csv):
    backend, pyplot = dict(matplotlib.rcParams), "matplotlib.pyplot" in sys.modules
    png = csv.with_name("curves.png")
    plot_curves(csv, png, title="toy")
    assert png.read_bytes().startswith(b"\x89PNG") and len(png.read_bytes()) > 10_000
    assert dict(matplotlib.rcParams) == backend and ("matplotlib.pyplot" in sys.modules) == pyplot
    assert sorted(path.name for path in csv.parent.iterdir()) == ["curves.png", "metrics.csv"]


def test_chosen_metrics_and_an_empty_table_are_drawn_too(csv, tmp_path):
    plot_curves(csv, tmp_path / "a.png", metrics=("loss", "unknown"))
    (tmp_path / "empty.csv").write_text("step\n")
    plot_curves(tmp_path / "empty.csv", tmp_path / "b.png")
    assert (tmp_path / "a.png").exists() and (tmp_path / "b.png").exists()
    with pytest.raises(UserError, match="cannot read"):
        plot_curves(tmp_path / "missing.csv", tmp_path / "c.png")


def test_evaluations_are_points_on_the_curve_of_what_they_measure(tmp_path, monkeypatch):
    table = MetricsCsv(tmp_path / "metrics.csv")
    for i in range(1, 5):
        row = {"step": 100 * i, "seconds": float(i), "env/reward": 0.1 * i, "loss": 1 / i}
        table.write(row | ({"eval/reward": 0.15} if i == 2 else {}))
    table.close()
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: figures.append(figure) or path.write_bytes(b"png"))
    names = ("env/reward", "loss")
    plot_curves(tmp_path / "metrics.csv", tmp_path / "a.png", names, last={"eval/reward": 0.35})
    reward, by_time, loss = ([line.get_xydata().tolist() for line in axes.lines] for axes in figures[0].axes)
    assert reward[1:] == [[[200, 0.15]], [[400, 0.35]]] and by_time[1:] == [[[2, 0.15]], [[4, 0.35]]]
    assert len(reward[0]) == 4 and len(loss) == 1
    assert [line.get_linewidth() > 0 for line in figures[0].axes[0].lines] == [True, False, False], "a lone marker"
    plot_curves(tmp_path / "metrics.csv", tmp_path / "a.png", names, last={"eval/reward": 0.35}, last_step=200)
    assert [axes.lines[2].get_xydata().tolist() for axes in figures[1].axes[:2]] == [[[200, 0.35]], [[2, 0.35]]]


def test_an_interval_is_a_band_around_its_evaluation(tmp_path, monkeypatch):
    with contextlib.closing(MetricsCsv(tmp_path / "metrics.csv")) as table:
        for step, value in enumerate((0.2, 0.6)):
            ends = {"eval/success/low": value - 0.1, "eval/success/high": value + 0.1}
            table.write({"step": step, "eval/success": value, **ends})
    bands = []
    monkeypatch.setattr(Axes, "fill_between", lambda axes, x, low, high, **_: bands.append((list(low), list(high))))
    plot_curves(tmp_path / "metrics.csv", tmp_path / "a.png", ["eval/success"], steps="rounds")
    assert np.allclose(bands, [([0.1, 0.5], [0.3, 0.7])])


def test_a_disk_that_is_full_is_told_with_the_name_of_the_picture(csv, monkeypatch):
    def full(figure, path, **options):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")  # as matplotlib does: which file, it does not say

    monkeypatch.setattr(Figure, "savefig", full)
    with pytest.raises(OSError, match="No space") as caught:
        plot_curves(csv, csv.with_name("curves.png"))
    assert caught.value.filename == str(csv.with_name("curves.png"))
    assert [path.name for path in csv.parent.iterdir()] == ["metrics.csv"]


def test_the_running_mean_is_a_mean_and_shortens_at_the_ends():
    values = np.array([1.0, 2.0, 3.0, 4.0, 10.0])
    assert running_mean(values, 3).tolist() == pytest.approx([1.5, 2.0, 3.0, 17 / 3, 7.0])
    assert running_mean(values, 1).tolist() == values.tolist()


def test_the_band_is_the_middle_half_of_the_runs():
    values = np.array([[1.0, 5.0, np.nan], [2.0, np.nan, np.nan], [3.0, 7.0, np.nan], [100.0, 6.0, np.nan]])
    mean, least, most = middle_half(values[:, :2])
    assert mean.tolist() == [2.5, 6.0] and least.tolist() == [2.0, 5.0] and most.tolist() == [3.0, 7.0]


def test_a_sweep_has_a_band_for_each_group(tmp_path, monkeypatch):
    table = MetricsCsv(tmp_path / "sweep.csv")
    for step in range(1, 4):
        for number in range(4):
            value = np.nan if number == 3 and step > 1 else number + step
            table.write({"step": step, "number": number, "env/reward": value, "loss": 1.0})
    table.close()
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: figures.append(figure) or path.write_bytes(b"png"))
    plot_bands(tmp_path / "sweep.csv", tmp_path / "a.png", {"first": (0, 1), "second": (2, 3)}, ("env/reward", "no"))
    (axes,) = figures[0].axes
    curves = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert curves == {"first": [[1, 1.5], [2, 2.5], [3, 3.5]], "second": [[1, 3.5], [2, 4], [3, 5]]}
    assert len(axes.collections) == 2
