"""A tree of merges, its leaves at the left, from top to bottom."""

from __future__ import annotations

from matplotlib.figure import Figure

from alter.reporting.blocks import Tree
from alter.reporting.drawing.canvas import INK, axes_of

WIDTH, LEAF, SPREAD = 250, 23, 10
"""Pixels of the axes and of a leaf; leaves are 10 apart in scipy's coordinates."""


def draw_tree(chart: Tree) -> Figure:
    """Draw a dendrogram; distance grows to the right."""
    figure, axes = axes_of(WIDTH, LEAF * len(chart.leaves))
    for heights, places in chart.branches:
        axes.plot(heights, places, color=INK, linewidth=1.4, solid_capstyle="butt", clip_on=False)
    most = max((max(heights) for heights, _ in chart.branches), default=1.0)
    axes.set_xlim(0, most * 1.03 or 1.0)
    axes.set_ylim(SPREAD * len(chart.leaves), 0)
    axes.set_yticks([SPREAD * position + SPREAD / 2 for position in range(len(chart.leaves))], list(chart.leaves))
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(chart.label)
    return figure
