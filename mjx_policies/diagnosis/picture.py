"""Picture of a diagnosis: the data, losses and curves it checked, findings marked in orange. Axes: N steps.

Each column of data is a strip: its histogram from its least to its largest number, as shades of blue. Curves follow,
those of findings first, with the step at which a finding shows.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import EngFormatter

from mjx_policies.diagnosis.data import Data
from mjx_policies.diagnosis.diagnosis import Diagnosis
from mjx_policies.diagnosis.overfitting import FIRST, Trace
from mjx_policies.diagnosis.runs import Run
from mjx_policies.training.plots import BLUE, GREY, INK, ORANGE, PALE, new_figure, save, style

BINS = 64  # of a strip
STRIPS = 40  # columns that are drawn; those of findings always are
CURVES = 6
USUAL = (
    "loss/train",
    "loss",
    "loss/validation",
    "gradient/norm",
    "env/reward",
    "eval/return",
    "eval/success",
    "policy/kl",
    "policy/std",
    "value/explained",
    "learning_rate",
)
LOGARITHMIC = ("loss", "gradient/", "policy/kl", "learning_rate")


def draw_diagnosis(path: Path, diagnosis: Diagnosis, title: str = "") -> None:
    """Draws what was checked, with the curves of findings in orange.

    Args:
      path: the PNG file, replaced in one step.
      diagnosis: what was found, and in what.
      title: above the panels.
    """
    panels: list[Callable[[Axes], None]] = []
    data, trace, run = diagnosis.data, diagnosis.trace, diagnosis.run
    if data is not None and data.lags is not None:
        panels.append(lambda axes: _draw_lags(axes, diagnosis))
    if trace is not None:
        panels.append(lambda axes: _draw_loss(axes, trace))
        panels.append(lambda axes: _draw_gradients(axes, trace))
    if run is not None:
        panels += [
            functools.partial(_draw_curve, run=run, diagnosis=diagnosis, name=n) for n in chosen_curves(diagnosis)
        ]
    names = strips(diagnosis)
    columns = 3
    rows = -(-len(panels) // columns)
    heights = [0.25 * len(names) + 0.8] * bool(names) + [2.7] * rows
    figure = new_figure(4.4 * columns, max(sum(heights), 1.0) + 0.4)
    grid = figure.add_gridspec(max(len(heights), 1), columns, height_ratios=heights or None)
    if data is not None and names:
        _draw_strips(figure.add_subplot(grid[0, :]), data, names, marked_names(diagnosis))
    for index, draw in enumerate(panels):
        draw(figure.add_subplot(grid[bool(names) + index // columns, index % columns]))
    finding = diagnosis.finding
    said = f"finding in {diagnosis.cause}" if finding else "nothing found"
    save(figure, path, f"{title} - {said}" if title else said)


def marked_names(diagnosis: Diagnosis) -> set[str]:
    """Names of the columns and curves that show what is wrong."""
    return {name for result in diagnosis.findings.values() for name in result.where}


def strips(diagnosis: Diagnosis) -> list[str]:
    """Columns and actions to draw, in the order of the data."""
    if diagnosis.data is None:
        return []
    steps = diagnosis.data.steps
    names = [name for name, camera in zip(steps.columns, steps.camera, strict=True) if not camera]
    names += [f"action[{i}]" for i in range(steps.action.shape[1])]
    marked = marked_names(diagnosis)
    # The actions, which are last, come before observations that there is no room for.
    order = sorted(names, key=lambda name: (name not in marked, not name.startswith("action[")))[:STRIPS]
    return [name for name in names if name in order]


def chosen_curves(diagnosis: Diagnosis) -> list[str]:
    """Curves to draw, those of findings first."""
    run = diagnosis.run
    assert run is not None
    marked = [name for result in diagnosis.findings.values() for name in result.where]
    return [name for name in dict.fromkeys([*marked, *USUAL]) if len(run.curve(name)) > 1][:CURVES]


def column(data: Data, name: str) -> np.ndarray:  # [N]
    """The finite numbers of a column or an action."""
    steps = data.steps
    if name in steps.columns:
        values = steps.observation[:, steps.columns.index(name)]
    else:
        values = steps.action[:, int(name.removeprefix("action[").removesuffix("]"))]
    return values[np.isfinite(values)]


def histogram(values: np.ndarray, bins: int) -> np.ndarray:  # [N] -> [bins]
    """Portions from the least to the largest number; all in the middle if there is but one."""
    if not len(values):
        return np.zeros(bins)
    low, high = values.min(), values.max()
    place = (values - low) / (high - low) if high > low else np.full(len(values), 0.5)
    return np.bincount(np.minimum((place * bins).astype(int), bins - 1), minlength=bins) / len(values)


def _draw_strips(axes: Axes, data: Data, names: list[str], marked: set[str]) -> None:
    counts = np.stack([histogram(column(data, name), BINS) for name in names])
    shade = np.sqrt(counts / np.maximum(counts.max(axis=1, keepdims=True), 1e-12))
    axes.imshow(shade, aspect="auto", cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    axes.set_yticks(range(len(names)), names, fontsize=8)
    for label, name in zip(axes.get_yticklabels(), names, strict=True):
        label.set_color(ORANGE if name in marked else INK)
    for row, name in enumerate(names):
        values = column(data, name)
        ends = f"{values.min():.3g} to {values.max():.3g}" if len(values) else "no number"
        axes.text(BINS, row, ends, fontsize=7, va="center", color=ORANGE if name in marked else GREY)
        if name in marked:
            axes.add_patch(Rectangle((-0.5, row - 0.5), BINS, 1.0, fill=False, edgecolor=ORANGE, linewidth=2.0))
    axes.set_xticks([])
    numbers = int((~data.steps.camera).sum()) + data.steps.action.shape[1]
    which = "each number" if len(names) == numbers else f"{len(names)} of {numbers} numbers"
    axes.set_title(
        f"histogram of {which}, from its least to its largest ({len(data.steps):,} steps, "
        f"{int(data.steps.episode[-1]) + 1} episodes)",
        fontsize=10,
        loc="left",
        color=INK,
    )
    for side in axes.spines.values():
        side.set_visible(False)
    axes.tick_params(length=0)


def _draw_lags(axes: Axes, diagnosis: Diagnosis) -> None:
    assert diagnosis.data is not None and diagnosis.data.lags is not None
    told = diagnosis.data.lags.dynamics
    lags = sorted(told)
    wrong = "data: alignment" in diagnosis.findings
    heights = [max(told[lag], 0.0) for lag in lags]
    best = lags[int(np.argmax(heights))]
    colors = [ORANGE if wrong and lag == best else BLUE if lag == 0 else PALE for lag in lags]
    axes.bar([-lag for lag in lags], heights, color=colors)
    axes.set_xticks([-lag for lag in lags])
    style(axes, "portion of a change that an action tells", "row of the action, counted from that of the change")
    axes.set_ylim(0, None)


def _draw_loss(axes: Axes, trace: Trace) -> None:
    steps = np.arange(len(trace.loss))
    finite = np.isfinite(trace.loss)
    axes.plot(steps[finite], np.maximum(trace.loss[finite], 1e-12), color=BLUE, linewidth=1.4)
    axes.set_yscale("log")
    if len(trace.loss) > FIRST:
        _mark(axes, FIRST, f"ten steps: {trace.loss[FIRST]:.2g}", GREY)
    style(axes, "loss of overfitting one batch", "gradient steps")


def _draw_gradients(axes: Axes, trace: Trace) -> None:
    for name, norms in trace.gradient.items():
        dead = not np.any(norms[:FIRST])
        drawn = np.where(np.isfinite(norms), np.maximum(norms, 1e-12), np.nan)
        axes.plot(drawn, color=ORANGE if dead else BLUE, linewidth=2.0 if dead else 0.9, alpha=1.0 if dead else 0.6)
        if dead:
            axes.annotate(f"{name}: 0", (0, 1e-12), fontsize=7, color=ORANGE, va="bottom")
    axes.set_yscale("log")
    style(axes, "gradient norm of each array, one batch", "gradient steps")


def _draw_curve(axes: Axes, run: Run, diagnosis: Diagnosis, name: str) -> None:
    x, y = run.steps(name), run.curve(name)
    marked = [result for result in diagnosis.findings.values() if name in result.where]
    axes.plot(x, y, color=ORANGE if marked else BLUE, linewidth=1.3, marker="o" if len(y) < 30 else "", markersize=2.5)
    if name.startswith(LOGARITHMIC) and (y > 0).all() and y.max() > 20 * y.min():
        axes.set_yscale("log")
    for step in {result.step for result in marked if result.step is not None}:
        _mark(axes, step, f"step {step:,}", ORANGE)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    style(axes, name, "steps")


def _mark(axes: Axes, x: float, label: str, color: str) -> None:
    axes.axvline(x, color=color, linewidth=1.2, linestyle="--")
    place = ("data", "axes fraction")
    axes.annotate(label, (x, 0.98), (3, 0), place, "offset points", fontsize=7, va="top", color=color)
