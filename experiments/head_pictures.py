"""Pictures of how heads compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Circle

from mjx_policies.envs.control.obstacle2d import GOAL, GOAL_RADIUS, OBSTACLE_RADIUS, ROBOT_RADIUS
from mjx_policies.evaluation.mode_coverage import SIDE
from mjx_policies.evaluation.results import EvaluationResults
from mjx_policies.evaluation.statistics import Estimate
from mjx_policies.training.plots import BLUE, GREY, ORANGE, new_figure, save, style

LEFT, RIGHT, FAILED, GREEN, DEMONSTRATED = BLUE, ORANGE, "#b91c1c", "#2f855a", "#9ca3af"
COLORS = (BLUE, ORANGE, GREEN, "#805ad5", "#b83280", "#4b5563")
PATHS = 80  # drawn in a panel
COLUMNS = 4


def draw_paths(
    png: Path,
    evaluations: Mapping[str, Sequence[EvaluationResults]],
    obstacle: int,
    demonstrated: Sequence[np.ndarray],
    title: str,
) -> None:
    """One panel for each head with paths of all its policies, seen from the obstacle of Obstacle2D.

    Args:
      png: the file, replaced in one step.
      evaluations: by head, of each policy, with all episodes recorded.
      obstacle: number of its mocap body.
      demonstrated: [T, 2] m of each demonstration, seen from the obstacle.
      title: above the panels.
    """
    columns = min(COLUMNS, len(evaluations))
    rows = -(-len(evaluations) // columns)
    figure = new_figure(max(3.5 * columns, 7.0), 2.5 * rows + 0.9)  # no narrower than the legend
    for number, (name, of_policies) in enumerate(evaluations.items()):
        axes = figure.add_subplot(rows, columns, number + 1)
        success = np.concatenate([each.outcomes.achieved for each in of_policies])
        style(axes, f"{name}: {success.mean():.0%} arrive")
        for path in demonstrated:
            axes.plot(*path.T, color=DEMONSTRATED, linewidth=0.6, alpha=0.35)
        axes.add_patch(Circle((0.0, 0.0), OBSTACLE_RADIUS, facecolor="#e5e7eb", edgecolor=GREY, linewidth=0.8))
        # Paths are of the robot's centre, which collides here.
        axes.add_patch(Circle((0.0, 0.0), OBSTACLE_RADIUS + ROBOT_RADIUS, fill=False, edgecolor=GREY, linestyle=":"))
        axes.add_patch(Circle(GOAL, GOAL_RADIUS, facecolor="#c6f6d5", edgecolor=GREEN, linewidth=0.8))
        side = np.concatenate([each.final[SIDE] for each in of_policies])
        episodes = [episode for each in of_policies for episode in each.recorded]
        for row in np.unique(np.linspace(0, len(episodes) - 1, PATHS).astype(int)):
            path = episodes[row].qpos - episodes[row].mocap_pos[:, obstacle, :2]
            color = FAILED if np.isnan(side[row]) else LEFT if side[row] > 0 else RIGHT
            axes.plot(*path.T, color=color, linewidth=0.9, alpha=0.7)
            if not success[row]:
                axes.plot(*path[-1], marker="x", color=FAILED, markersize=4, markeredgewidth=1.0, zorder=3)
        axes.set(xlim=(-1.2, 1.25), ylim=(-0.85, 0.85), aspect="equal")
        axes.set(xticks=[-1, 0, 1], yticks=[-0.5, 0, 0.5])
        if number % columns == 0:
            axes.set_ylabel("m", fontsize=8, color=GREY)
    styles: dict[str, dict[str, Any]] = {
        "left": {"color": LEFT},
        "right": {"color": RIGHT},
        "failed, ends at the cross": {"color": FAILED, "marker": "x", "linewidth": 0.8},
        "demonstrations": {"color": DEMONSTRATED, "linewidth": 0.8},
        "where the robot's centre collides": {"color": GREY, "linewidth": 1.0, "linestyle": ":"},
    }
    handles = [Line2D([], [], label=label, **each) for label, each in styles.items()]
    figure.legend(handles=handles, loc="outside lower left", ncols=len(handles), fontsize=8, frameon=False)
    save(figure, png, title)


def draw_estimates(
    png: Path, panels: Mapping[str, Mapping[str, Mapping[str, Estimate]]], x_label: str, title: str
) -> None:
    """Estimates with their intervals: joined by lines where they are drawn against numbers.

    Args:
      png: the file, replaced in one step.
      panels: {panel: {line: {x: estimate}}}, the panels from left to right; one with `%` in its name is of rates.
      x_label: below the panels.
      title: above the panels.
    """
    figure = new_figure(max(4.3 * len(panels), 8.0), 3.5)  # no narrower than the title
    for index, (name, lines) in enumerate(panels.items()):
        axes = figure.add_subplot(1, len(panels), index + 1)
        style(axes, name, x_label)
        labels = list(dict.fromkeys(x for line in lines.values() for x in line))
        for number, (line, estimates) in enumerate(lines.items()):
            color = COLORS[number % len(COLORS)]
            values = np.asarray([[each.value, each.low, each.high] for each in estimates.values()])
            values *= 100 if "%" in name else 1
            errors = np.maximum(np.stack([values[:, 0] - values[:, 1], values[:, 2] - values[:, 0]]), 0.0)
            errors[:, ~np.isfinite(errors).all(axis=0)] = np.nan  # of a single sample nothing is known
            # Side by side, or intervals would hide one another.
            places = np.asarray([labels.index(x) for x in estimates]) + 0.08 * (number - (len(lines) - 1) / 2)
            axes.errorbar(places, values[:, 0], errors, color=color, fmt="o", markersize=4, capsize=2)
            joined = [x.isdigit() for x in estimates]
            axes.plot(places[joined], values[joined, 0], color=color, linewidth=1.4, label=line)
        axes.set_xticks(range(len(labels)), labels)
        if "%" in name:
            axes.set_ylim(-3, 103)
        else:
            axes.set_ylim(bottom=0.0)
        if index == 0 and any(lines):
            axes.legend(fontsize=8, frameon=False, loc="best")
    save(figure, png, title)
