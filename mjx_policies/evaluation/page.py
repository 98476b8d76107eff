"""Pieces of a web page that is one file: nothing is fetched, no script runs, and all text is escaped by construction.

`tag` escapes every child and attribute that is not `Html` already, and `Html` comes only from here.
"""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Iterable, Sequence

import numpy as np

from mjx_policies.evaluation.statistics import Estimate

COLOURS = ("#2b6cb0", "#dd6b20", "#2f855a", "#805ad5")  # of series; the first two also for achieved and not

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:"
STYLE = """
:root { color-scheme: light dark; --ink: #1a202c; --soft: #64748b; --line: #e2e8f0; --paper: #ffffff; --card: #f8fafc;
  --good: #2b6cb0; --bad: #dd6b20; }
@media (prefers-color-scheme: dark) { :root { --ink: #e2e8f0; --soft: #94a3b8; --line: #334155; --paper: #0f172a;
  --card: #1e293b; --good: #63a4e8; --bad: #f0924c; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem 1rem 4rem; max-width: 62rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 .2rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem; }
p { margin: .3rem 0; overflow-wrap: anywhere; }
.soft { color: var(--soft); font-size: .875rem; }
.cards { display: grid; gap: .8rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 15rem), 1fr)); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: .8rem 1rem;
  min-width: 0; }
.big { font-size: 2.6rem; font-weight: 650; line-height: 1.1; font-variant-numeric: tabular-nums; }
.verdict { border-left: 4px solid var(--good); padding: .1rem 0 .1rem .9rem; margin: .8rem 0; }
.plot { max-width: 30rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .35rem .6rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
th { color: var(--soft); font-weight: 500; }
.track { position: relative; height: 1.1rem; min-width: 8rem; background: var(--line); border-radius: .25rem; }
.track div { position: absolute; top: 0; bottom: 0; border-radius: .25rem; }
.track .fill { left: 0; background: var(--good); opacity: .35; }
.track .range { background: var(--good); opacity: .75; top: 35%; bottom: 35%; min-width: 2px; }
.track .point { width: 3px; margin-left: -1.5px; background: var(--ink); }
.strip { display: flex; flex-wrap: wrap; gap: 2px; }
.strip span { width: 12px; height: 18px; border-radius: 2px; background: var(--line); overflow: hidden;
  display: flex; align-items: flex-end; }
.strip i { display: block; width: 100%; background: var(--bad); }
.strip .yes { background: var(--good); }
.plots { display: grid; gap: .8rem; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); }
svg { width: 100%; height: auto; display: block; }
svg text { fill: var(--soft); font: 10px system-ui, sans-serif; }
svg .axis { stroke: var(--line); }
.videos { display: grid; gap: .8rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); }
video { width: 100%; border-radius: .4rem; background: #000; display: block; }
.cell { display: inline-block; min-width: 4.5rem; padding: .15rem .4rem; border-radius: .3rem; text-align: center; }
"""


class Html(str):
    """Text that is already markup."""


def tag(name: str, *children: str, **attributes: str) -> Html:
    """Builds an element. A trailing underscore is dropped from an attribute's name, as in `class_`."""
    written = "".join(f' {key.rstrip("_").replace("_", "-")}="{html.escape(x)}"' for key, x in attributes.items())
    inside = "".join(child if isinstance(child, Html) else html.escape(child) for child in children)
    return Html(f"<{name}{written}>{inside}</{name}>")


def page(title: str, *sections: str) -> str:
    """Builds the whole file."""
    head = (
        Html('<meta charset="utf-8">'),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'),
        Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        tag("title", title),
        tag("style", Html(STYLE)),
    )
    return "<!doctype html>\n" + tag("html", tag("head", *head), tag("body", *sections), lang="en") + "\n"


def section(title: str, *children: str) -> Html:
    """A headed part of the page."""
    return tag("section", tag("h2", title), *children)


def soft(text: str) -> Html:
    """Builds a remark."""
    return tag("p", text, class_="soft")


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Html:
    """An HTML table, which scrolls sideways where the window is narrow."""
    head = tag("tr", *(tag("th", cell) for cell in header))
    body = [tag("tr", *(tag("td", cell) for cell in row)) for row in rows]
    return tag("div", tag("table", tag("thead", head), tag("tbody", *body)), class_="scroll")


def rate_bar(rate: Estimate) -> Html:
    """A rate between 0 and 1 and its interval as a bar; an empty one where it is unknown."""
    if not rate.count:
        return tag("div", class_="track", role="img", aria_label=percent(rate))
    low, high = (min(1.0, max(0.0, x)) for x in (rate.low, rate.high))
    return tag(
        "div",
        tag("div", class_="fill", style=f"width:{rate.value:.2%}"),
        tag("div", class_="range", style=f"left:{low:.2%};width:{high - low:.2%}"),
        tag("div", class_="point", style=f"left:{rate.value:.2%}"),
        class_="track",
        role="img",
        aria_label=percent(rate),
    )


def shaded(text: str, portion: float) -> Html:
    """A cell that is the darker the higher a portion from 0 to 1."""
    return tag("span", text, class_="cell", style=f"background:rgb(43 108 176 / {0.08 + 0.6 * portion:.2f})")


def video(mp4: bytes, caption: str) -> Html:
    """A video with its file inside."""
    source = f"data:video/mp4;base64,{base64.b64encode(mp4).decode()}"
    player = Html(f'<video controls muted loop playsinline preload="metadata" src="{source}"></video>')
    return tag("div", player, tag("p", caption, class_="soft"), class_="card")


def curves(series: Sequence[tuple[np.ndarray, np.ndarray]], unit: str, top: float = 1.0) -> Html:  # each [P], [P]
    """Lines over a common axis from zero, heights from zero to `top` in percent, in the order of `COLOURS`."""
    width, height, left, bottom = 320.0, 150.0, 36.0, 18.0
    last = max(float(x[-1]) for x, _ in series)

    def spot(x: float, y: float) -> str:
        return f"{left + (width - left - 6) * x / last:.1f},{(height - bottom) - (height - bottom - 8) * y / top:.1f}"

    parts = []
    for portion in (0.0, 0.5, 1.0):
        y = (height - bottom) - (height - bottom - 8) * portion
        parts.append(tag("line", class_="axis", x1=f"{left}", x2=f"{width - 6}", y1=f"{y:.1f}", y2=f"{y:.1f}"))
        parts.append(tag("text", f"{portion * top:.0%}", x=f"{left - 4}", y=f"{y + 3:.1f}", text_anchor="end"))
    for value, anchor in ((0.0, "start"), (last, "end")):
        x = spot(value, 0).split(",")[0]
        parts.append(tag("text", f"{value:g} {unit}", x=x, y=f"{height - 5}", text_anchor=anchor))
    for colour, (xs, ys) in zip(COLOURS, series, strict=False):
        points = " ".join(spot(float(x), float(y)) for x, y in zip(xs, ys, strict=True))
        parts.append(tag("polyline", points=points, fill="none", stroke=colour, stroke_width="2"))
    return tag("svg", *parts, viewBox=f"0 0 {width:g} {height:g}", role="img")


def histograms(edges: np.ndarray, series: Sequence[np.ndarray]) -> Html:  # [bins + 1], each [bins]
    """Outlines over each other, filled faintly, in the order of `COLOURS`."""
    width, height, bottom = 220.0, 90.0, 14.0
    top = max(1e-9, max(float(np.max(portions)) for portions in series))
    xs = width * (edges - edges[0]) / (edges[-1] - edges[0])
    parts = [tag("line", class_="axis", x1="0", x2=f"{width}", y1=f"{height - bottom}", y2=f"{height - bottom}")]
    for colour, portions in zip(COLOURS, series, strict=False):
        ys = (height - bottom) - (height - bottom - 4) * portions / top
        steps = [f"{x:.1f},{y:.1f}" for i, y in enumerate(ys) for x in xs[i : i + 2]]
        outline = " ".join([f"{xs[0]:.1f},{height - bottom}", *steps, f"{xs[-1]:.1f},{height - bottom}"])
        parts.append(tag("polygon", points=outline, fill=colour, fill_opacity="0.18", stroke=colour))
    for x, value, anchor in ((0.0, edges[0], "start"), (width, edges[-1], "end")):
        parts.append(tag("text", f"{value:.3g}", x=f"{x}", y=f"{height - 3}", text_anchor=anchor))
    return tag("svg", *parts, viewBox=f"0 0 {width:g} {height:g}", role="img")


def legend(names: Sequence[str]) -> Html:
    """The legend for the colours of `curves` and `histograms`."""
    marks = [
        part
        for colour, name in zip(COLOURS, names, strict=False)
        for part in (tag("b", "■ ", style=f"color:{colour}"), f"{name}   ")
    ]
    return tag("p", *marks, class_="soft")


def percent(rate: Estimate) -> str:
    """A rate and its interval, in percent; a dash where it is unknown."""
    if not rate.count:
        return "–"
    return f"{100 * rate.value:.1f} % [{100 * rate.low:.1f}, {100 * rate.high:.1f}]"


def number(estimate: Estimate, digits: int = 3) -> str:
    """A value and its interval; a dash for what was not measured."""
    if not math.isfinite(estimate.value):
        return "–"
    if not (math.isfinite(estimate.low) and math.isfinite(estimate.high)):
        return f"{estimate.value:.{digits}g}"
    return f"{estimate.value:.{digits}g} [{estimate.low:.{digits}g}, {estimate.high:.{digits}g}]"
