"""Scatter charts with a name at each point, put where it covers neither another name nor a point."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from matplotlib.transforms import Bbox

from alter.reporting.blocks import Point, Scatter
from alter.reporting.drawing.canvas import INK, MARKERS, SERIES, axes_of
from alter.reporting.words import clean, count_text

WIDTH, HEIGHT = 440, 300
SIZE = 36
MARK = 4.5
"""Half a marker's width in pixels."""
BAR = 1.5
"""Half the width of a bar of deviation."""
FAR = 10
"""Pixels from a point beyond which its name gets a line to it."""
MOST_SIGNS = 26


def draw_scatter(chart: Scatter) -> Figure:
    """Draw points by kind, with names."""
    figure, axes = axes_of(WIDTH, HEIGHT)
    kinds = list(dict.fromkeys(point.kind for point in chart.points))
    for point in chart.points:
        style = kinds.index(point.kind)
        if point.sd:
            axes.errorbar(point.x, point.y, yerr=point.sd, color=SERIES[style % 6], linewidth=1, capsize=2)
        axes.scatter(
            [point.x],
            [point.y],
            s=SIZE,
            marker=MARKERS[style % 6],
            color=SERIES[style % 6],
            edgecolors=INK,
            linewidths=0.5,
            zorder=3,
        )
    if chart.is_log:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(_size))
        axes.xaxis.set_minor_formatter(FuncFormatter(_size if _is_narrow(chart.points) else _nothing))
    axes.margins(x=0.08, y=0.12)
    axes.grid(visible=True, axis="y")
    axes.set_xlabel(chart.x_label)
    axes.set_ylabel(chart.y_label)
    _name(figure, axes, chart.points)
    if len(kinds) > 1:
        handles = [
            axes.scatter([], [], s=SIZE, marker=MARKERS[number % 6], color=SERIES[number % 6], edgecolors=INK, linewidths=0.5)
            for number in range(len(kinds))
        ]
        axes.legend(handles, kinds, loc="upper center", bbox_to_anchor=(0.46, -0.15), ncols=min(4, len(kinds)), handletextpad=0.3)
    return figure


def _is_narrow(points: Sequence[Point]) -> bool:
    """Whether points lie within a factor of ten, where whole powers of ten would leave an axis without numbers."""
    costs = [point.x for point in points]
    return max(costs) < 10 * min(costs)


def _size(value: float, position: int | None = None) -> str:
    return count_text(value)


def _nothing(value: float, position: int | None = None) -> str:
    return ""


def _name(figure: Figure, axes: Axes, points: Sequence[Point]) -> None:
    """Place each name at the nearest spot that is free; where none is, at the one that covers least."""
    FigureCanvasSVG(figure)  # measures text
    figure.draw_without_rendering()
    at = [tuple(axes.transData.transform((point.x, point.y))) for point in points]
    marks = [Bbox.from_bounds(x - MARK, y - MARK, 2 * MARK, 2 * MARK) for x, y in at]
    taken = [*marks, *(_bar(axes, point) for point in points if point.sd)]
    area = axes.get_window_extent()
    # From the top down, so that names of a cluster stand in the order of its points.
    for position in sorted(range(len(points)), key=lambda index: -at[index][1]):
        x, y = at[position]
        text = axes.annotate(
            clean(points[position].name, most=MOST_SIGNS), (points[position].x, points[position].y), xytext=(0, 0),
            textcoords="offset pixels", fontsize=10, va="bottom", ha="left",
        )  # fmt: skip
        size = text.get_window_extent()
        others = [box for box in taken if box is not marks[position]]
        box = min(_spots(x, y, size.width, size.height), key=lambda spot: _cost(spot, others, area, x, y))
        text.xyann = (box.x0 - x, box.y0 - y)
        taken.append(box)
        _join(axes, box, points[position], x, y)


def _bar(axes: Axes, point: Point) -> Bbox:
    """Return what a point's bar of deviation covers."""
    sd = point.sd or 0.0
    (x, low), (_, high) = axes.transData.transform([(point.x, point.y - sd), (point.x, point.y + sd)])
    return Bbox.from_extents(x - BAR, low, x + BAR, high)


def _spots(x: float, y: float, width: float, height: float) -> Iterator[Bbox]:
    """Yield places around a point, near ones first."""
    for far in (6, 12, 20, 30, 42, 56):
        for left, bottom in (
            (x + far, y - height / 2), (x - far - width, y - height / 2), (x - width / 2, y + far), (x - width / 2, y - far - height),
            (x + far * 0.9, y + far * 0.9), (x + far * 0.9, y - far * 0.9 - height),
            (x - far * 0.9 - width, y + far * 0.9), (x - far * 0.9 - width, y - far * 0.9 - height),
        ):  # fmt: skip
            yield Bbox.from_bounds(left, bottom, width, height)


def _cost(spot: Bbox, taken: Sequence[Bbox], area: Bbox, x: float, y: float) -> float:
    """Return what speaks against a place: covered area first, then what lies outside, then the distance."""
    covered = sum(_overlap(spot, box) for box in taken)
    outside = spot.width * spot.height - _overlap(spot, area)
    return 50 * covered + 10 * outside + _distance(spot, x, y)


def _overlap(one: Bbox, other: Bbox) -> float:
    found = Bbox.intersection(one, other)
    return 0.0 if found is None else float(found.width * found.height)


def _distance(spot: Bbox, x: float, y: float) -> float:
    across = max(spot.x0 - x, 0, x - spot.x1)
    down = max(spot.y0 - y, 0, y - spot.y1)
    return float((across**2 + down**2) ** 0.5)


def _join(axes: Axes, box: Bbox, point: Point, x: float, y: float) -> None:
    if _distance(box, x, y) <= FAR:
        return
    end = (min(max(x, box.x0), box.x1), min(max(y, box.y0), box.y1))
    to_x, to_y = axes.transData.inverted().transform(end)
    axes.plot([point.x, to_x], [point.y, to_y], color=INK, linewidth=0.6, alpha=0.6, scalex=False, scaley=False)
