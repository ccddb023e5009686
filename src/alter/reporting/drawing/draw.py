"""Draw any figure of a report."""

from __future__ import annotations

from alter.reporting.blocks import Figure, Heatmap, Lines, Tree
from alter.reporting.drawing.canvas import style, to_svg
from alter.reporting.drawing.heatmap import draw_heatmap
from alter.reporting.drawing.lines import draw_lines
from alter.reporting.drawing.scatter import draw_scatter
from alter.reporting.drawing.tree import draw_tree


def svg_of(figure: Figure, *, key: str) -> str:
    """Return a figure as an `<svg>` element; `key` makes its ids unique in the page."""
    with style():
        if isinstance(figure, Lines):
            drawn = draw_lines(figure)
        elif isinstance(figure, Heatmap):
            drawn = draw_heatmap(figure)
        elif isinstance(figure, Tree):
            drawn = draw_tree(figure)
        else:
            drawn = draw_scatter(figure)
        return to_svg(drawn, key=key, alt=figure.alt)
