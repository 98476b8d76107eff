"""Pictures of how heads compare. The global state of matplotlib is left alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle

from mjx_policies.envs.control.obstacle2d import GOAL, GOAL_RADIUS, OBSTACLE_RADIUS, ROBOT_RADIUS
from mjx_policies.evaluation.statistics import Estimate
from mjx_policies.experiments.head_contest import Tried
from mjx_policies.training.files import replacing

LEFT, RIGHT, FAILED, GREY, INK = "#2b6cb0", "#dd6b20", "#b91c1c", "#6b7280", "#111827"
COLORS = (LEFT, RIGHT, "#2f855a", "#805ad5", "#b83280", "#4b5563")
DEMONSTRATIONS, PATHS = 60, 80  # drawn in a panel
COLUMNS = 4


def draw_paths(png: Path, tried: Mapping[str, Tried], demonstrated: Sequence[np.ndarray], title: str) -> None:
    """One panel for each head, all seen from the obstacle.

    Args:
      png: the file, replaced in one step.
      tried: by head; each with paths.
      demonstrated: [T, 2] m of each demonstration.
      title: above the panels.
    """
    columns = min(COLUMNS, len(tried))
    rows = -(-len(tried) // columns)
    figure = _figure(max(3.5 * columns, 7.0), 2.5 * rows + 0.9)  # no narrower than the legend
    for number, (name, found) in enumerate(tried.items()):
        axes = figure.add_subplot(rows, columns, number + 1)
        for path in demonstrated[:DEMONSTRATIONS]:
            axes.plot(*path.T, color="#9ca3af", linewidth=0.6, alpha=0.35)
        axes.add_patch(Circle((0.0, 0.0), OBSTACLE_RADIUS, facecolor="#e5e7eb", edgecolor=GREY, linewidth=0.8))
        # Paths are of the robot's centre, which collides here.
        axes.add_patch(Circle((0.0, 0.0), OBSTACLE_RADIUS + ROBOT_RADIUS, fill=False, edgecolor=GREY, linestyle=":"))
        axes.add_patch(Circle(GOAL, GOAL_RADIUS, facecolor="#c6f6d5", edgecolor="#2f855a", linewidth=0.8))
        _draw_some(axes, found)
        axes.set(xlim=(-1.2, 1.25), ylim=(-0.85, 0.85), aspect="equal")
        axes.set_xticks([-1, 0, 1])
        axes.set_yticks([-0.5, 0, 0.5])
        _style(axes, f"{name}: {found.success.mean():.0%} arrive")
        if number % columns == 0:
            axes.set_ylabel("m", fontsize=8, color=GREY)
    known = (
        ("left", {"color": LEFT}),
        ("right", {"color": RIGHT}),
        ("failed, ends at the cross", {"color": FAILED, "marker": "x", "linewidth": 0.8}),
        ("demonstrations", {"color": "#9ca3af", "linewidth": 0.8}),
        ("where the robot's centre collides", {"color": GREY, "linewidth": 1.0, "linestyle": ":"}),
    )
    handles = [Line2D([], [], label=label, **look) for label, look in known]
    figure.legend(handles=handles, loc="outside lower left", ncols=len(handles), fontsize=8, frameon=False)
    _save(figure, png, title)


def draw_lines(
    png: Path,
    panels: Mapping[str, Mapping[str, Mapping[int, Estimate]]],
    x_label: str,
    title: str,
    marks: Mapping[str, Mapping[str, Estimate]] | None = None,
    portions: Sequence[str] | None = None,
) -> None:
    """Figures against a whole number, one panel for each figure and one line for each head, with intervals.

    Args:
      png: the file, replaced in one step.
      panels: {panel: {line: {x: estimate}}}.
      x_label: below the panels.
      title: above the panels.
      marks: {panel: {line: estimate}} beyond the last number, for what has none: temporal ensembling.
      portions: panels whose numbers lie from 0 to 1; all by default. The others begin at 0.
    """
    figure = _figure(max(4.3 * len(panels), 7.0), 3.5)  # no narrower than the title
    lines = list(dict.fromkeys(line for panel in panels.values() for line in panel))
    for index, (name, panel) in enumerate(panels.items()):
        axes = figure.add_subplot(1, len(panels), index + 1)
        ticks = sorted({x for of in panel.values() for x in of})
        for line, of in panel.items():
            color = COLORS[lines.index(line) % len(COLORS)]
            # Apart by a little, or intervals would hide one another.
            shift = 0.08 * (lines.index(line) - (len(lines) - 1) / 2)
            places = np.asarray([ticks.index(x) for x in of]) + shift
            _draw_intervals(axes, places, list(of.values()), color, line)
            if marks and line in marks.get(name, {}):
                _draw_intervals(axes, np.asarray([len(ticks) + shift]), [marks[name][line]], color)
        labels = [f"{x}" for x in ticks] + (["ensemble"] if marks and name in marks else [])
        axes.set_xticks(range(len(labels)), labels)
        if portions is None or name in portions:
            axes.set_ylim(-0.03, 1.03)
        else:
            axes.set_ylim(bottom=0.0)
        _style(axes, name)
        axes.set_xlabel(x_label, fontsize=8, color=GREY)
        if index == 0:
            axes.legend(fontsize=8, frameon=False, loc="best")
    _save(figure, png, title)


def draw_bars(png: Path, success: Mapping[str, Estimate], title: str) -> None:
    """Success of each head with its interval, for tasks whose paths say little from above."""
    figure = _figure(5.5, 0.32 * len(success) + 1.2)
    axes = figure.add_subplot(1, 1, 1)
    places = np.arange(len(success))[::-1]
    axes.barh(places, [each.value for each in success.values()], color="#a9c5e3", height=0.6)
    for place, each in zip(places, success.values(), strict=True):
        axes.plot([each.low, each.high], [place, place], color=INK, linewidth=1.4)
    axes.set_yticks(places, list(success))
    axes.set_xlim(0, 1.02)
    _style(axes, "success, with 95 % intervals")
    _save(figure, png, title)


def _draw_some(axes: Axes, tried: Tried) -> None:
    """Paths of all seeds alike."""
    assert tried.path is not None
    episodes = tried.path.reshape(-1, *tried.path.shape[3:])
    success, side = tried.success.ravel(), tried.side.ravel()
    for row in np.unique(np.linspace(0, len(episodes) - 1, PATHS).astype(int)):
        path = episodes[row][np.isfinite(episodes[row, :, 0])]
        if not len(path):
            continue
        color = FAILED if np.isnan(side[row]) else LEFT if side[row] > 0 else RIGHT
        axes.plot(*path.T, color=color, linewidth=0.9, alpha=0.7)
        if not success[row]:
            axes.plot(*path[-1], marker="x", color=FAILED, markersize=4, markeredgewidth=1.0, zorder=3)


def _draw_intervals(axes: Axes, x: np.ndarray, estimates: Sequence[Estimate], color: str, label: str = "") -> None:
    values = np.asarray([[each.value, each.low, each.high] for each in estimates])
    errors = np.maximum(np.stack([values[:, 0] - values[:, 1], values[:, 2] - values[:, 0]]), 0.0)
    errors[:, ~np.isfinite(errors).all(axis=0)] = np.nan  # of a single seed nothing is known
    look = {"label": label} if label else {"linestyle": "none"}
    axes.errorbar(x, values[:, 0], errors, color=color, linewidth=1.4, marker="o", markersize=4, capsize=2, **look)


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _style(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=9, loc="left", color=INK)
    axes.grid(color="#e5e7eb", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, colors=GREY, length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _save(figure: Figure, png: Path, title: str) -> None:
    figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    with replacing(png) as temporary:
        figure.savefig(temporary, format="png")
