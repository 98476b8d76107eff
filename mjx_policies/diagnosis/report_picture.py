"""Picture of a set of demonstrations: where the robot went, how long it took, what succeeded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from mjx_policies.diagnosis.motion import idle_portions
from mjx_policies.diagnosis.report import Report, Tally
from mjx_policies.training.plots import BLUE, GREY, INK, new_figure, save, style

COLORS = (BLUE, "#dd6b20", "#2f855a", "#b83280", "#6b46c1", "#718096")
BINS = 30


def draw_report(path: Path, report: Report, title: str) -> None:
    """Draws it into a PNG file, which is replaced in one step, with a title above the panels."""
    colors = {name: COLORS[i % len(COLORS)] for i, name in enumerate(report.seconds)}
    sizes = {path.shape[1] for paths in report.paths.values() for path in paths}
    views = [(0, 1), (0, 2)] if sizes == {3} else [(0, 1)] if sizes == {2} else []
    panels = len(views) + 3 + (report.tally is not None)
    columns = min(3, panels)
    rows = -(-panels // columns)
    figure = new_figure(4.4 * columns, 3.3 * rows + 0.5)
    axes = iter(figure.add_subplot(rows, columns, i + 1) for i in range(panels))
    for view in views:
        _draw_paths(next(axes), report, view, colors)
    _draw_durations(next(axes), report, colors)
    if report.tally is not None:
        _draw_rates(next(axes), report.tally, colors)
    _draw_norms(next(axes), report)
    _draw_idle(next(axes), report)
    save(figure, path, title)


def _draw_paths(axes: Axes, report: Report, view: tuple[int, int], colors: dict[str, str]) -> None:
    drawn = 0
    for name, paths in report.paths.items():
        for i, path in enumerate(paths):
            axes.plot(
                *path[:, view].T, color=colors[name], linewidth=0.7, alpha=0.5, label=name if i == 0 else "_nolegend_"
            )
        if paths:
            starts, ends = np.stack([path[0] for path in paths]), np.stack([path[-1] for path in paths])
            x, y = view
            axes.scatter(starts[:, x], starts[:, y], s=6, color=GREY, zorder=3)
            color = colors[name]
            axes.scatter(ends[:, x], ends[:, y], s=14, color=color, edgecolors="white", linewidths=0.5, zorder=3)
        drawn += len(paths)
    horizontal, vertical = ("xyz"[i] for i in view)
    axes.set_aspect("equal", adjustable="datalim")
    style(axes, f"{drawn} paths, from grey dots", f"{horizontal} [m]", f"{vertical} [m]")
    _legend(axes, len(report.paths))


def _draw_durations(axes: Axes, report: Report, colors: dict[str, str]) -> None:
    whole = np.concatenate(list(report.seconds.values()))
    period = float(np.diff(np.unique(whole)).min(initial=1.0))  # of control, unless there are few episodes
    width = period * np.ceil((np.ptp(whole) / period + 1) / BINS)  # or some bins would hold more lengths than others
    edges = whole.min() - period / 2 + width * np.arange(BINS + 1)
    edges = edges[: np.searchsorted(edges, whole.max()) + 1]
    axes.hist(
        list(report.seconds.values()),
        bins=list(edges),
        stacked=True,
        color=[colors[name] for name in report.seconds],
        label=list(report.seconds),
    )
    axes.axvline(float(np.median(whole)), color=INK, linewidth=1, linestyle=":")
    style(axes, f"length, median {np.median(whole):.2f} s", "s", "episodes")
    _legend(axes, len(report.seconds))


def _draw_rates(axes: Axes, tally: Tally, colors: dict[str, str]) -> None:
    rates = tally.rates()
    for place, (name, rate) in enumerate(rates.items()):
        errors = [[rate.value - rate.low], [rate.high - rate.value]]
        axes.barh(place, rate.value, color=colors.get(name, GREY), height=0.6)
        axes.errorbar(rate.value, place, xerr=errors, color=INK, linewidth=1, capsize=3)
    axes.set_yticks(range(len(rates)), [f"{name}\n{rate.value:.1%} of {rate.count:,}" for name, rate in rates.items()])
    axes.set_xlim(0, 1.02)
    axes.invert_yaxis()
    style(axes, "success of rollouts, with 95 % interval", "rate", "")


def _draw_norms(axes: Axes, report: Report) -> None:
    axes.hist(report.norms, bins=40, color=BLUE)
    axes.set_yscale("log")
    style(axes, "norm of actions", "norm", "steps")


def _draw_idle(axes: Axes, report: Report) -> None:
    portions, _ = idle_portions(report.steps)
    axes.hist(100 * portions, bins=30, color=BLUE)
    average = f", {portions.mean():.1%} on average" if len(portions) else ": no positions are known"
    style(axes, f"idle{average}", "% of an episode", "episodes")


def _legend(axes: Axes, entries: int) -> None:
    if entries > 1:  # below the axes, where it hides nothing
        axes.legend(fontsize=7, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=min(entries, 3))
