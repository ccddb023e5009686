from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

import pytest
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.text import Annotation

from alter.reporting.blocks import Heatmap, Lines, Point, Scatter, Series, Tree
from alter.reporting.drawing.canvas import style
from alter.reporting.drawing.draw import svg_of
from alter.reporting.drawing.scatter import draw_scatter

CLUSTER = [
    (1.11, 74.3), (1.11, 75.4), (1.1, 75.2), (1.49, 74.4), (1.49, 75.6), (1.48, 75.8), (1.53, 75.8), (1.5, 75.7), (22.7, 75.6),
    (136, 76.8),
]  # fmt: skip


def scatter(places: Sequence[tuple[float, float]], *, is_log: bool = True) -> Scatter:
    points = [
        Point(name=f"an-arm-{number}", kind=f"kind {number % 3}", x=x * 1e6, y=y, sd=0.2) for number, (x, y) in enumerate(places)
    ]
    return Scatter(title="t", alt="a", x_label="x", y_label="y", points=points, is_log=is_log)


def heatmap(rows: int, columns: int, *, is_small: bool = False) -> Heatmap:
    values: list[list[float | None]] = [[(row + column) / (rows + columns) for column in range(columns)] for row in range(rows)]
    values[0][0] = None
    names = [f"name {number}" for number in range(max(rows, columns))]
    return Heatmap(title="t", alt="a", rows=names[:rows], columns=names[:columns], values=values, is_small=is_small)


def texts(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


@pytest.mark.parametrize("is_log", [True, False])
def test_names_of_points_do_not_cover_each_other(is_log: bool) -> None:
    with style():
        figure = draw_scatter(scatter(CLUSTER, is_log=is_log))
        FigureCanvasSVG(figure)
        figure.draw_without_rendering()
        boxes = [text.get_window_extent() for text in figure.axes[0].texts if isinstance(text, Annotation)]
    assert len(boxes) == len(CLUSTER)
    for one, other in itertools.combinations(boxes, 2):
        assert not one.padded(-1).overlaps(other.padded(-1))


def test_parameters_on_an_axis_are_in_units() -> None:
    assert {"1 M", "10 M", "100 M"} <= set(texts(svg_of(scatter(CLUSTER), key="k")))
    narrow = texts(svg_of(scatter([(2, 50.0), (5, 60.0)]), key="k"))
    assert any(text.endswith(" M") for text in narrow)


def test_cells_have_numbers_where_they_fit() -> None:
    assert "0.50" in texts(svg_of(heatmap(4, 4), key="k"))
    wide = texts(svg_of(heatmap(4, 30), key="k"))
    assert "name 29" in wide
    assert "0.50" not in wide
    assert texts(svg_of(heatmap(4, 4, is_small=True), key="k")) == []


def test_a_large_map_is_a_small_file() -> None:
    assert len(svg_of(heatmap(40, 42, is_small=True), key="k")) < 150_000


@pytest.mark.parametrize(
    "figure",
    [
        Lines(title="t", alt="a", x_label="x", y_label="y", series=[Series(name="one", x=[1], y=[35.0])]),
        Tree(title="t", alt="a", leaves=["a", "b"], branches=[([0, 0, 0, 0], [5, 5, 15, 15])], label="distance"),
        scatter([(1, 50.0)]),
        heatmap(1, 1),
    ],
)
def test_one_number_is_enough_for_a_figure(figure: Lines | Tree | Scatter | Heatmap) -> None:
    assert svg_of(figure, key="k").startswith('<svg class="plot"')


def test_numbers_that_are_nearly_the_same_keep_their_digits() -> None:
    lines = Lines(title="t", alt="a", x_label="x", y_label="y", series=[Series(name="one", x=[1, 2], y=[35.4501, 35.4502])])
    assert any(text.startswith("35.45") for text in texts(svg_of(lines, key="k")))
