"""Scatter charts: the arm looked at closely marked out, names where they cover nothing, the rest in grey."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from alter.comparison import Family
from alter.reporting.blocks import Point, Scatter
from alter.reporting.drawing.canvas import INK, MARKERS, QUIET, SERIES, axes_of
from alter.reporting.drawing.places import Box, Mark, Name, place, side_by_side
from alter.reporting.words import clean, count_text

SMALL, LARGE = (440, 300), (640, 420)
"""Pixels of the axes of few points, and of more than `MANY`."""
MANY = 12
SIZE, SMALL_SIZE, RING = 42, 22, 150
"""Area of a marker with a name, without one, and of the ring around the arm that is looked at closely."""
HALF, SMALL_HALF, RING_HALF = 4.5, 3.0, 7.5
"""Half the width of each, with its edge."""
CAP = 2
PALE = 0.7
"""How much of its ink a point without a name keeps."""
MOST_SIGNS = 40
FAMILIES = tuple(family for family in get_args(Family) if family != "yardstick")
"""Kinds that have the same marker in every chart; a yardstick costs nothing and stands in none."""
LEADER = "_leader"
SIDE = "points of nearly the same cost stand side by side"


def draw_scatter(chart: Scatter) -> Figure:
    """Draw points by kind, with names."""
    figure, axes = axes_of(*(LARGE if len(chart.points) > MANY else SMALL))
    FigureCanvasSVG(figure)  # measures text
    _scale(axes, chart)
    wanted = [_mark(axes, point) for point in chart.points]
    # Those that a reader looks for stay at their cost.
    order = sorted(range(len(wanted)), key=lambda index: (not chart.points[index].close, not chart.points[index].named))
    marks = side_by_side(wanted, order)
    styles = styles_of([point.kind for point in chart.points])
    for point, mark in zip(chart.points, marks, strict=True):
        _draw(axes, point, mark, styles[point.kind])
    axes.grid(visible=True, axis="y")
    axes.set_xlabel(f"{chart.x_label}\n({SIDE})" if marks != wanted else chart.x_label)
    axes.set_ylabel(chart.y_label)
    _name(figure, axes, chart.points, marks)
    _explain(figure, axes, chart.points, styles)
    return figure


def styles_of(kinds: Sequence[str]) -> dict[str, int]:
    """Return a number for each kind, which chooses marker and colour: a family's own, another kind's the next that is free."""
    found = {kind: FAMILIES.index(kind) for kind in kinds if kind in FAMILIES}
    others = [kind for kind in dict.fromkeys(kinds) if kind not in found]
    free = [number for number in range(len(FAMILIES) + len(others)) if number not in found.values()]
    return {**found, **dict(zip(others, free, strict=False))}


def _scale(axes: Axes, chart: Scatter) -> None:
    """Fix the axes' limits, so that pixels are known before anything is drawn."""
    if chart.is_log:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(_size))
        axes.xaxis.set_minor_formatter(NullFormatter())
        if _is_narrow(chart.points):
            axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
            axes.xaxis.set_minor_locator(NullLocator())
    axes.update_datalim([(point.x, point.y + sign * (point.sd or 0.0)) for point in chart.points for sign in (-1, 1)])
    axes.margins(x=0.08, y=0.12)
    axes.autoscale_view()
    axes.set_autoscale_on(False)


def _is_narrow(points: Sequence[Point]) -> bool:
    """Whether points lie within a factor of ten, where whole powers of ten would leave an axis without numbers."""
    costs = [point.x for point in points]
    return max(costs) < 10 * min(costs)


def _size(value: float, position: int | None = None) -> str:
    return count_text(value)


def _mark(axes: Axes, point: Point) -> Mark:
    """Return where a point stands, in pixels."""
    sd = point.sd or 0.0
    places = axes.transData.transform([(point.x, point.y + shift) for shift in (0.0, -sd, sd)])
    (x, y), (_, low), (_, high) = places.tolist()
    return Mark(x, y, RING_HALF if point.close else HALF if point.named else SMALL_HALF, low, high)


def _draw(axes: Axes, point: Point, mark: Mark, style: int) -> None:
    """Draw a point where its mark stands."""
    (x, _) = axes.transData.inverted().transform((mark.x, mark.y))
    is_told = point.named or point.close
    if point.sd:
        axes.errorbar(
            x, point.y, yerr=point.sd, color=SERIES[style % len(SERIES)] if is_told else QUIET, alpha=None if is_told else PALE,
            linewidth=1.2 if is_told else 0.8, capsize=CAP, zorder=2,
        )  # fmt: skip
    _dot(axes, [x], [point.y], style, is_told=is_told)
    if point.close:
        _ring(axes, [x], [point.y])


def _dot(axes: Axes, x: Sequence[float], y: Sequence[float], style: int, *, is_told: bool = True) -> PathCollection:
    """Draw markers; kinds beyond the markers that there are have hollow ones."""
    marker = MARKERS[style % len(MARKERS)]
    if not is_told:
        return axes.scatter(x, y, s=SMALL_SIZE, marker=marker, color=QUIET, alpha=PALE, linewidths=0, zorder=3)
    color = SERIES[style % len(SERIES)]
    ink: dict[str, Any] = {"facecolors": color, "edgecolors": INK, "linewidths": 0.5}
    if style >= len(MARKERS):
        ink = {"facecolors": "none", "edgecolors": color, "linewidths": 1.4}
    return axes.scatter(x, y, s=SIZE, marker=marker, zorder=4, **ink)


def _ring(axes: Axes, x: Sequence[float], y: Sequence[float]) -> PathCollection:
    return axes.scatter(x, y, s=RING, marker="o", facecolors="none", edgecolors=INK, linewidths=1.3, zorder=5)


def _name(figure: Figure, axes: Axes, points: Sequence[Point], marks: Sequence[Mark]) -> None:
    """Write the names of points that have one, each with a line to its point where it stands far away."""
    told = [index for index, point in enumerate(points) if point.named or point.close]
    back = axes.transData.inverted().transform
    texts = [
        axes.annotate(
            clean(points[index].name, most=MOST_SIGNS), tuple(back((marks[index].x, marks[index].y))), xytext=(0, 0),
            textcoords="offset pixels", fontsize=10, fontweight="bold" if points[index].close else "normal", va="bottom",
        )
        for index in told
    ]  # fmt: skip
    figure.draw_without_rendering()
    sizes = [text.get_window_extent() for text in texts]
    names = [Name(index, size.width, size.height) for index, size in zip(told, sizes, strict=True)]
    left, bottom, right, top = axes.get_window_extent().extents
    for text, name, spot in zip(texts, names, place(names, marks, Box(left + 3, bottom + 2, right, top)), strict=True):
        text.set_horizontalalignment(spot.align)
        text.xyann = (spot.anchor - marks[name.mark].x, spot.box.bottom - marks[name.mark].y)
        if spot.leader is not None:
            (x0, y0), (x1, y1) = back([spot.leader[:2], spot.leader[2:]]).tolist()
            axes.plot([x0, x1], [y0, y1], color=INK, linewidth=0.6, alpha=0.7, zorder=1.5, label=LEADER)


def _explain(figure: Figure, axes: Axes, points: Sequence[Point], styles: Mapping[str, int]) -> None:
    """Put a legend below the axis' title: markers by kind, the ring, and what is grey."""
    told = {point.kind for point in points if point.named or point.close}
    handles = {
        kind: _dot(axes, [], [], style, is_told=kind in told) for kind, style in sorted(styles.items(), key=lambda item: item[1])
    }
    if len(handles) == 1:
        handles = {}
    if any(point.close for point in points):
        handles["looked at closely"] = _ring(axes, [], [])
    if not all(point.named or point.close for point in points):
        handles["grey: others"] = axes.scatter([], [], s=SMALL_SIZE, marker="o", color=QUIET, alpha=PALE, linewidths=0)
    if not handles:
        return
    figure.draw_without_rendering()
    area, title = axes.get_window_extent(), axes.xaxis.label.get_window_extent()
    below = (title.y0 - 4 - area.y0) / area.height
    axes.legend(
        list(handles.values()), list(handles), loc="upper center", bbox_to_anchor=(0.48, below), borderaxespad=0,
        ncols=min(4, len(handles)), handletextpad=0.3, columnspacing=1.2,
    )  # fmt: skip
