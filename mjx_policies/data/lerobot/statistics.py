"""The statistics that LeRobot keeps of every feature, by episode and together. Axes: T steps, C colours.

Quantiles over all episodes are the means of theirs, weighted by length, as LeRobot has it: an approximation. A policy
is better scaled by `statistics.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
FRAMES = 100  # of an episode that the statistics of pictures are taken from, at most
Summary = Mapping[str, np.ndarray]


def summarise(values: np.ndarray, camera: bool) -> Summary:  # [T, ...]
    """Figures of one feature in one episode: shaped like a row, or [C, 1, 1] in units of full brightness for images."""
    if camera:
        chosen = np.linspace(0, len(values) - 1, min(FRAMES, len(values))).astype(int)
        rows = np.moveaxis(values[chosen], -1, 0).reshape(values.shape[-1], -1).T / 255.0
        shape: tuple[int, ...] = (values.shape[-1], 1, 1)
    else:
        chosen, rows, shape = (
            np.arange(len(values)),
            values.reshape(len(values), -1).astype(np.float64),
            values.shape[1:],
        )
    summary = {
        "min": rows.min(0),
        "max": rows.max(0),
        "mean": rows.mean(0),
        "std": rows.std(0),
        **dict(zip(QUANTILES, np.quantile(rows, list(QUANTILES.values()), axis=0), strict=True)),
    }
    return {**{name: value.reshape(shape) for name, value in summary.items()}, "count": np.array([len(chosen)])}


def combine(summaries: Sequence[Summary]) -> Summary:
    """Figures of one feature over all episodes."""
    stacked = {name: np.stack([summary[name] for summary in summaries]) for name in summaries[0]}
    count = stacked["count"].reshape(-1, *(1,) * (stacked["mean"].ndim - 1))
    share = count / count.sum()
    mean = (share * stacked["mean"]).sum(0)
    variance = (share * (stacked["std"] ** 2 + (stacked["mean"] - mean) ** 2)).sum(0)
    return {
        "min": stacked["min"].min(0),
        "max": stacked["max"].max(0),
        "mean": mean,
        "std": np.sqrt(variance),
        **{name: (share * stacked[name]).sum(0) for name in QUANTILES},
        "count": stacked["count"].sum(0),
    }


def to_json(summaries: Mapping[str, Summary]) -> Any:
    """The content of `meta/stats.json`."""
    return {
        feature: {name: value.tolist() for name, value in summary.items()} for feature, summary in summaries.items()
    }
