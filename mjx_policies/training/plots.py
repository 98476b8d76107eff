"""Learning curves as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from mjx_policies.files import replacing
from mjx_policies.training.metrics import read_metrics

BLUE, PALE, ORANGE, GREY, INK = "#2b6cb0", "#a9c5e3", "#dd6b20", "#6b7280", "#111827"
NOT_DRAWN = ("step", "seconds", "steps_per_second")


def plot_curves(
    csv: Path,
    png: Path,
    metrics: Sequence[str] = (),
    title: str = "",
    columns: int = 3,
    last: Mapping[str, float] | None = None,
    last_step: float | None = None,
    steps: str = "environment steps",
) -> None:
    """Draws metrics against steps, and the first of them against wall-clock time as well.

    A value logged often is drawn pale with its running mean on top. Evaluations are points, in the panel of what
    training saw of the same (`eval/reward` in that of `env/reward`) if there is one; a band is their interval, where
    the table has `eval/reward/low` and `eval/reward/high`. The global state of matplotlib is left alone.

    Args:
      csv: a table of `MetricsCsv`.
      png: the picture, replaced in one step.
      metrics: names of columns in the order of the panels; by default those of evaluations, then all others. Names that
        the table lacks are left out.
      title: above the panels.
      columns: panels per row.
      last: the evaluation that the run ends with, by the names of the table's columns.
      last_step: of the checkpoint that it evaluated; by default that of the last row.
      steps: what is counted.

    Raises:
      UserError: the table cannot be read.
    """
    table = read_metrics(csv)
    every = sorted((name for name in table if name not in NOT_DRAWN), key=lambda name: not name.startswith("eval/"))
    names = [name for name in metrics or every if name in table and np.isfinite(table[name]).any()]
    panels = [(name, "step") for name in names]
    if names and "seconds" in table:
        panels.insert(1, (names[0], "seconds"))
    last_row = len(next(iter(table.values()))) - 1
    if last_step is not None:
        last_row = max(int(np.searchsorted(table["step"], last_step, side="right")) - 1, 0)
    columns = max(1, min(columns, len(panels)))
    rows = max(1, -(-len(panels) // columns))
    figure = new_figure(4.2 * columns, 2.9 * rows + 0.3)
    for index, (name, x) in enumerate(panels):
        axes = figure.add_subplot(rows, columns, index + 1)
        evaluation = f"eval/{name.removeprefix('eval/').removeprefix('env/')}"
        if name != evaluation:
            _draw_curve(axes, table[x], table[name])
        evaluated = table.get(evaluation, np.full(len(table[x]), np.nan))
        after = (last or {}).get(evaluation, np.nan)
        _draw_points(axes, table[x], evaluated, "evaluation")
        if f"{evaluation}/low" in table:
            low, high = table[f"{evaluation}/low"], table[f"{evaluation}/high"]
            axes.fill_between(table[x], low, high, color=ORANGE, alpha=0.15, linewidth=0)
        _draw_points(axes, table[x][[last_row]], np.array([after]), "final evaluation", "D", INK)
        _style_curves(axes, name, steps if x == "step" else "wall clock [s]")
        axes.locator_params(axis="x", integer=x == "step")
    save(figure, png, title)


def plot_bands(
    csv: Path,
    png: Path,
    groups: Mapping[str, Sequence[int]],
    metrics: Sequence[str] = (),
    title: str = "",
    columns: int = 3,
    steps: str = "environment steps",
) -> None:
    """Draws the metrics of a sweep against steps: for each group the mean of the middle half of its runs, and its span.

    Args:
      csv: the table `sweep.csv` of the host loop, with a row for each run.
      png: the picture, replaced in one step.
      groups: name -> numbers of its runs, in the order of the legend.
      metrics: names of columns in the order of the panels; by default all. Names that the table lacks are left out.
      title: above the panels.
      columns: panels per row.
      steps: what is counted.

    Raises:
      UserError: the table cannot be read.
    """
    table = read_metrics(csv)
    number = table.get("number", np.zeros(0))
    every = [name for name in table if name not in (*NOT_DRAWN, "number")]
    names = [name for name in metrics or every if name in table and np.isfinite(table[name]).any()]
    columns = max(1, min(columns, len(names)))
    rows = max(1, -(-len(names) // columns))
    figure = new_figure(4.2 * columns, 2.9 * rows + 0.3)
    colors = [BLUE] if len(groups) == 1 else matplotlib.colormaps["viridis"](np.linspace(0, 0.92, len(groups)))
    for index, name in enumerate(names):
        axes = figure.add_subplot(rows, columns, index + 1)
        for (label, runs), color in zip(groups.items(), colors, strict=True):
            _draw_band(axes, table["step"], number, table[name], runs, label, color)
        _style_curves(axes, name, steps)
    if names and len(groups) > 1:
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside right upper", fontsize=7, frameon=False)
    save(figure, png, title)


def new_figure(width: float, height: float) -> Figure:
    """A white figure, inches; the global state of matplotlib is left alone."""
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def style(axes: Axes, title: str, x_label: str = "", y_label: str = "") -> None:
    """Styles a panel: a pale grid without a frame, the title on the left."""
    axes.set_title(title, fontsize=10, loc="left", color=INK)
    axes.set_xlabel(x_label, fontsize=8, color=GREY)
    axes.set_ylabel(y_label, fontsize=8, color=GREY)
    axes.grid(color="#e5e7eb", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", labelsize=8, colors=GREY, length=0)
    for side in axes.spines.values():
        side.set_visible(False)


def save(figure: Figure, png: Path, title: str = "") -> None:
    """Writes a figure with a title above its panels; the file is replaced in one step."""
    if title:
        figure.suptitle(title, fontsize=12, x=0.01, ha="left")
    with replacing(png) as temporary:
        figure.savefig(temporary, format="png")


def middle_half(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # [R, N] -> [N], [N], [N]
    """The mean of the middle half of what R runs show, the least and the most of it; NaN counts as no run."""
    ordered = np.sort(values, axis=0)  # NaN is last
    count = np.isfinite(ordered).sum(axis=0)
    place = np.arange(len(ordered))[:, None]
    kept = (place >= count // 4) & (place < count - count // 4)
    with np.errstate(invalid="ignore"):
        mean = np.where(kept, ordered, 0.0).sum(axis=0) / kept.sum(axis=0)
    return mean, np.where(kept, ordered, np.inf).min(axis=0), np.where(kept, ordered, -np.inf).max(axis=0)


def running_mean(values: np.ndarray, width: int) -> np.ndarray:  # [N] -> [N]
    """The mean of up to `width` values around each one; shorter at the ends, so nothing is made up."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    begin, end = np.maximum(index - width // 2, 0), np.minimum(index + width // 2 + 1, len(values))
    return (sums[end] - sums[begin]) / (end - begin)


def _style_curves(axes: Axes, title: str, x_label: str) -> None:
    style(axes, title, x_label)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.margins(x=0.02)


def _draw_curve(axes: Axes, x: np.ndarray, y: np.ndarray) -> None:
    finite = np.isfinite(x) & np.isfinite(y)
    x, y = x[finite], y[finite]
    if len(y) < 50:
        axes.plot(x, y, color=BLUE, linewidth=1.4)
    else:
        axes.plot(x, y, color=PALE, linewidth=0.8)
        axes.plot(x, running_mean(y, len(y) // 25), color=BLUE, linewidth=1.6)


def _draw_band(
    axes: Axes,
    step: np.ndarray,
    number: np.ndarray,
    values: np.ndarray,
    runs: Sequence[int],
    label: str,
    color: Any,
) -> None:
    of = [number == run for run in runs]
    x, y = step[of[0]], np.stack([values[mask] for mask in of])
    y[~np.isfinite(y)] = np.nan
    finite = np.isfinite(y).any(axis=0)
    x, width = x[finite], max(1, finite.sum() // 25) if finite.sum() >= 50 else 1
    mean, least, most = (running_mean(curve, width) for curve in middle_half(y[:, finite]))
    axes.fill_between(x, least, most, color=color, alpha=0.15, linewidth=0)
    axes.plot(x, mean, color=color, linewidth=1.4, label=label, marker="o" if len(x) < 10 else "", markersize=3)


def _draw_points(axes: Axes, x: np.ndarray, y: np.ndarray, label: str, marker: str = "o", color: str = ORANGE) -> None:
    finite = np.isfinite(x) & np.isfinite(y)
    if finite.any():
        width = 1.4 if finite.sum() > 1 else 0  # or the legend has a line that the panel lacks
        axes.plot(x[finite], y[finite], color=color, linewidth=width, marker=marker, markersize=3, label=label)
        axes.legend(fontsize=7, frameon=False, loc="best")
