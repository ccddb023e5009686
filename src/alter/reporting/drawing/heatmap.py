"""Heatmaps: depth of one colour, from blank to full, with numbers where they fit; so they are legible in grey and on paper."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path

from alter.reporting.blocks import MOST_NUMBERS, Heatmap
from alter.reporting.drawing.canvas import HEAT, INK, ON_HEAT, axes_of
from alter.reporting.words import NONE, number

WIDE_CELL, CELL, HEIGHT = 38.0, 15.0, 23.0
SMALL = 130.0
"""Pixels of a small map with many columns; one with few has cells of `CELL` pixels."""
LEAST_CELL = 5.0
STEPS = 25
"""Shades; cells of one shade are one path, which keeps large maps small."""
TURN = 0.62
"""Depth above which text on a cell takes the colour that is legible on the full one."""
GAP = 0.03


def draw_heatmap(chart: Heatmap) -> Figure:
    """Draw a matrix, rows from top to bottom."""
    has_numbers = not chart.is_small and len(chart.columns) <= MOST_NUMBERS
    small = min(CELL, max(LEAST_CELL, SMALL / max(1, len(chart.columns))))
    width = WIDE_CELL if has_numbers else small if chart.is_small else CELL
    height = HEIGHT if has_numbers else width
    figure, axes = axes_of(width * max(1, len(chart.columns)), height * max(1, len(chart.rows)))
    axes.set_xlim(0, len(chart.columns))
    axes.set_ylim(len(chart.rows), 0)
    depths = [[_depth(value, chart.limits) for value in row] for row in chart.values]
    _fill(axes, depths)
    frame = Rectangle((0, 0), len(chart.columns), len(chart.rows), fill=False, edgecolor=INK, linewidth=0.8, clip_on=False)
    axes.add_patch(frame)
    axes.spines[:].set_visible(False)
    if has_numbers:
        _write(axes, chart, depths)
    if chart.is_small:
        axes.set_xticks([])
        axes.set_yticks([])
    else:
        _name(axes, chart, is_wide=has_numbers)
    return figure


def _depth(value: float | None, limits: tuple[float, float]) -> float:
    """Return how deep a cell's colour is, 0 to 1, in `STEPS` shades."""
    if value is None or value != value:
        return 0.0
    low, high = limits
    share = (value - low) / (high - low) if high > low else 0.0
    return round(min(1.0, max(0.0, share)) * STEPS) / STEPS


def _fill(axes: Axes, depths: Sequence[Sequence[float]]) -> None:
    by_depth: dict[float, list[Path]] = {}
    for row, line in enumerate(depths):
        for column, depth in enumerate(line):
            if depth:
                corners = (column + GAP, row + GAP, column + 1 - GAP, row + 1 - GAP)
                by_depth.setdefault(depth, []).append(_box(*corners))
    for depth, boxes in sorted(by_depth.items()):
        path = Path.make_compound_path(*boxes)
        axes.add_patch(PathPatch(path, facecolor=HEAT, alpha=depth, linewidth=0))


def _box(left: float, top: float, right: float, bottom: float) -> Path:
    points = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
    return Path(points, [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY])


def _write(axes: Axes, chart: Heatmap, depths: Sequence[Sequence[float]]) -> None:
    texts = chart.texts or [[_shown(value) for value in row] for row in chart.values]
    for row, line in enumerate(texts):
        for column, text in enumerate(line):
            color = ON_HEAT if depths[row][column] > TURN else INK
            axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", color=color, fontsize=10.5)


def _shown(value: float | None) -> str:
    """Return a cell's number; zeros are left blank, as the colour is."""
    text = number(value, 2)
    return "" if text in ("0.00", NONE) else text


def _name(axes: Axes, chart: Heatmap, *, is_wide: bool) -> None:
    longest = max((len(name) for name in chart.columns), default=0)
    rotation = 0 if is_wide and longest <= 5 else 50
    axes.set_xticks([position + 0.5 for position in range(len(chart.columns))], list(chart.columns))
    axes.set_yticks([position + 0.5 for position in range(len(chart.rows))], list(chart.rows))
    axes.tick_params(length=0, pad=4)
    axes.tick_params(axis="x", top=True, labeltop=True, bottom=False, labelbottom=False)
    for label in axes.get_xticklabels():
        label.set(rotation=rotation, ha="left" if rotation else "center", rotation_mode="anchor")
    axes.set_xlabel(chart.column_label)
    axes.set_ylabel(chart.row_label)
