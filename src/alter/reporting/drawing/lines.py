"""Line charts: dashes and markers tell lines apart where colours do not."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from alter.reporting.blocks import Lines
from alter.reporting.drawing.canvas import DASHES, INK, MARKERS, SERIES, axes_of
from alter.reporting.words import clean

WIDTH, HEIGHT = 380, 220
NUM_MARKERS = 7
MOST_SIGNS = 24
HANDLE = 5.2
"""Length of a legend's lines in letters: two periods of the longest dash, which would look like no dash otherwise."""


def draw_lines(chart: Lines) -> Figure:
    """Draw a line chart with its legend below."""
    figure, axes = axes_of(WIDTH, HEIGHT)
    for number, series in enumerate(chart.series):
        every = max(1, len(series.x) // NUM_MARKERS)
        # Markers of different lines stand at different steps, so that lines that lie on each other are seen to.
        start = (number * every) // max(1, len(chart.series))
        axes.plot(
            series.x, series.y, color=SERIES[number % len(SERIES)], linestyle=DASHES[number % len(DASHES)],
            marker=MARKERS[number % len(MARKERS)], markevery=(start, every), label=clean(series.name, most=MOST_SIGNS),
        )  # fmt: skip
    for x, word in chart.marks:
        axes.axvline(x, color=INK, linewidth=0.9, linestyle=(0, (2, 2)))
        # Above the axes, where no line runs.
        axes.annotate(
            word, (x, 1), xycoords=("data", "axes fraction"), xytext=(0, 3), textcoords="offset points", ha="center", fontsize=10
        )
    axes.grid(visible=True, axis="y")
    axes.set_xlabel(chart.x_label)
    axes.set_ylabel(chart.y_label)
    # Steps are whole numbers, also where a line has one point only.
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    if len(chart.series) > 1:
        longest = max(len(clean(series.name, most=MOST_SIGNS)) for series in chart.series)
        columns = 3 if longest <= 10 else 2
        axes.legend(loc="upper center", bbox_to_anchor=(0.46, -0.2), ncols=columns, handlelength=HANDLE, columnspacing=1.2)
    return figure
