from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox
from tests.reporting.browser import measure_in_frames, needs_chromium

from alter.comparison import Family
from alter.reporting.blocks import Block, Cell, Heatmap, Lines, Note, Point, Report, Scatter, Section, Series, Table, Tree
from alter.reporting.drawing.canvas import DASHES, MARKERS, SERIES, style
from alter.reporting.drawing.draw import svg_of
from alter.reporting.drawing.lines import draw_lines
from alter.reporting.drawing.places import Box, Mark, Name, crosses, place, side_by_side
from alter.reporting.drawing.scatter import LARGE, LEADER, SMALL, draw_scatter, styles_of
from alter.reporting.page import to_html

CLUSTER = [
    (1.11, 74.3), (1.11, 75.4), (1.1, 75.2), (1.49, 74.4), (1.49, 75.6), (1.48, 75.8), (1.53, 75.8), (1.5, 75.7), (22.7, 75.6),
    (136, 76.8),
]  # fmt: skip
ARMS: list[tuple[str, Family, float, float, float | None]] = [
    ("single-full", "per-task", 159.006, 58.42, 3.2), ("single-lora", "per-task", 1.304, 57.97, None),
    ("multi-full", "one-model", 22.727, 59.81, 1.78), ("shared-lora", "one-model", 1.673, 57.03, 3.53),
    ("stage1", "stage2", 1.304, 59.78, 1.39), ("stage1-longer", "stage2", 1.304, 58.93, 1.43),
    ("stage2-alone", "stage2", 1.304, 59.78, 1.39), ("one-go", "stage2", 1.673, 59.16, None),
    ("alter", "alter", 32.623, 59.57, None), ("alter-lite", "alter", 1.673, 59.75, 1.34),
    ("gate-task", "gate", 1.673, 58.7, None), ("gate-linear-sequence", "gate", 1.694, 58.7, None),
    ("gate-linear-token", "gate", 1.694, 58.7, None), ("gate-outputs", "gate", 12.296, 58.7, None),
    ("gate-selector", "gate", 1.304, 58.7, None), ("gate-uniform", "gate", 1.673, 58.7, None),
    ("mutual-information", "gate", 1.694, 58.7, None), ("taps", "stage2", 1.304, 56.51, None),
    ("adamix", "stage2", 1.304, 57.7, None), ("hyperformer", "stage2", 1.657, 58.3, None),
    ("peft-lora", "peer", 1.673, 59.15, None), ("peft-poly", "peer", 1.673, 58.06, None),
    ("peft-arrow", "peer", 1.304, 56.05, None), ("peft-xlora", "peer", 1.321, 59.46, None),
    ("adapters-fusion", "peer", 19.915, 55.41, None), ("shared-first", "own", 1.673, 58.51, 0.97),
    ("shared-then-all", "own", 1.673, 58.99, 2.59),
]  # fmt: skip
"""What a large comparison has: many arms that cost the same, and long bars of deviation."""
TOLD = {"single-full", "multi-full", "shared-lora", "stage1", "alter", "alter-lite", "peft-xlora"}


def arms(*, all_named: bool = False, is_log: bool = True) -> Scatter:
    points = [
        Point(name=name, kind=kind, x=x * 1e6, y=y, sd=sd, named=all_named or name in TOLD, close=name == "alter-lite")
        for name, kind, x, y, sd in ARMS
    ]
    return Scatter(title="t", alt="a", x_label="parameters", y_label="percent", points=points, is_log=is_log)


def drawn(chart: Scatter) -> tuple[Figure, Axes]:
    with style():
        figure = draw_scatter(chart)
        FigureCanvasSVG(figure)
        figure.draw_without_rendering()
    return figure, figure.axes[0]


def labels_of(axes: Axes) -> dict[str, Bbox]:
    return {text.get_text(): text.get_window_extent() for text in axes.texts if isinstance(text, Annotation)}


def markers_of(axes: Axes) -> list[tuple[float, float]]:
    """Return where markers stand, each once, in pixels; those of the legend stand nowhere."""
    found = [axes.transData.transform(part.get_offsets()).tolist() for part in axes.collections]
    area = axes.get_window_extent()
    return list(dict.fromkeys((round(x, 3), round(y, 3)) for part in found for x, y in part if area.contains(x, y)))


def leaders_of(axes: Axes) -> list[tuple[float, float, float, float]]:
    lines = [line for line in axes.lines if line.get_label() == LEADER]
    return [tuple(axes.transData.transform(line.get_xydata()).ravel().tolist()) for line in lines]


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
@pytest.mark.parametrize("chart", ["few", "many", "all named"])
def test_names_of_points_cover_nothing(chart: str, is_log: bool) -> None:
    few = chart == "few"
    _, axes = drawn(scatter(CLUSTER, is_log=is_log) if few else arms(all_named=chart == "all named", is_log=is_log))
    labels, markers = labels_of(axes), markers_of(axes)
    assert len(labels) == (len(CLUSTER) if few else len(ARMS) if chart == "all named" else len(TOLD))
    for one, other in itertools.combinations(labels.values(), 2):
        assert not one.padded(-0.5).overlaps(other.padded(-0.5))
    assert len(markers) == (len(CLUSTER) if few else len(ARMS))
    inside = axes.get_window_extent().padded(0.5)
    for label in labels.values():
        # What lies inside the axes covers neither their titles nor the numbers of their ticks.
        assert inside.contains(label.x0, label.y0)
        assert inside.contains(label.x1, label.y1)
        for x, y in markers:
            assert not label.overlaps(Bbox.from_extents(x - 2.5, y - 2.5, x + 2.5, y + 2.5))


@pytest.mark.parametrize("is_log", [True, False])
def test_a_leader_goes_from_its_own_point_to_its_name_and_through_no_other(is_log: bool) -> None:
    _, axes = drawn(arms(is_log=is_log))
    labels, markers, leaders = labels_of(axes), markers_of(axes), leaders_of(axes)
    assert leaders
    for x0, y0, x1, y1 in leaders:
        own = min(markers, key=lambda place: abs(place[0] - x0) + abs(place[1] - y0))
        assert own == pytest.approx((x0, y0), abs=0.01)
        assert sum(label.padded(0.5).contains(x1, y1) for label in labels.values()) == 1
        for x, y in markers:
            assert (x, y) == own or not crosses((x0, y0, x1, y1), Box(x - 2, y - 2, x + 2, y + 2))
    told = {point.name: point for point in arms().points if point.named}
    for text in axes.texts:
        assert isinstance(text, Annotation)
        height = axes.transData.transform((1e6, told[text.get_text()].y))[1]
        assert axes.transData.transform(text.xy)[1] == pytest.approx(height)


def test_bars_of_arms_of_one_cost_stand_side_by_side() -> None:
    at = [5e6, 5e6, 5e6, 9e6]
    points = [Point(name=f"arm {number}", kind="own", x=x, y=50 + number / 10, sd=2.0) for number, x in enumerate(at)]
    chart = Scatter(title="t", alt="a", x_label="x", y_label="y", points=points, is_log=True)
    _, axes = drawn(chart)
    across = sorted(x for x, _ in markers_of(axes))
    assert min(second - first for first, second in itertools.pairwise(across)) >= 5
    assert "side by side" in axes.get_xlabel()
    # The first stays where it is, and one whose cost is its own does not move.
    kept = axes.transData.transform([(5e6, 50), (9e6, 50)])[:, 0].tolist()
    assert all(any(abs(x - one) < 0.01 for x in across) for one in kept)
    _, alone = drawn(scatter([(1, 50.0), (10, 51.0)]))
    assert alone.get_xlabel() == "x"


def test_points_are_moved_no_further_than_they_must() -> None:
    marks = [Mark(0, 0, 4, -50, 50), Mark(0, 10, 4, -40, 60), Mark(0, 200, 4, 200, 200), Mark(30, 0, 4, 0, 0)]
    moved = side_by_side(marks, [1, 0, 2, 3])
    assert moved[1:] == marks[1:]
    assert 5 <= abs(moved[0].x) <= 12


def test_a_name_that_has_no_room_beside_its_point_gets_a_line_to_it() -> None:
    wall = [Mark(x, y, 4, y, y) for x in range(70, 131, 10) for y in range(70, 131, 10) if (x, y) != (100, 100)]
    [spot] = place([Name(0, 40, 10)], [Mark(100, 100, 4, 100, 100), *wall], Box(0, 0, 300, 300))
    assert spot.leader is not None
    assert spot.leader[:2] == (100, 100)
    [spot] = place([Name(0, 40, 10)], [Mark(100, 100, 4, 100, 100)], Box(0, 0, 300, 300))
    assert spot.leader is None


def test_a_line_to_a_name_goes_round_other_points() -> None:
    """The way up is free, but longer."""
    wall = [Mark(x, y, 4, y, y) for x in range(70, 131, 10) for y in range(70, 161, 10) if not (90 <= x <= 110 and y >= 100)]
    [spot] = place([Name(0, 40, 10)], [Mark(100, 100, 4, 100, 100), *wall], Box(0, 0, 300, 300))
    assert spot.leader is not None
    assert not any(crosses(spot.leader, mark.marker) for mark in wall)
    assert all(spot.box.covered(mark.marker) == 0 for mark in wall)


def test_the_arm_looked_at_closely_is_marked_out_and_others_stand_back() -> None:
    svg = svg_of(arms(), key="k")
    bold = re.findall(r'<text style="font-weight: 700;[^>]*>([^<]*)', svg)
    assert bold == ["alter-lite"]
    found = texts(svg)
    assert {"looked at closely", "grey: others"} <= set(found)
    assert "gate-selector" not in found
    assert "var(--quiet)" in svg
    plain = svg_of(scatter(CLUSTER), key="k")
    assert "looked at closely" not in plain
    assert "var(--quiet)" not in plain


def test_a_chart_of_many_points_is_larger() -> None:
    sizes = [tuple(round(side * 72) for side in drawn(chart)[0].get_size_inches()) for chart in (scatter(CLUSTER), arms())]
    assert sizes == [SMALL, LARGE]


def test_families_never_look_alike_and_look_the_same_in_every_chart() -> None:
    families = [family for family in get_args(Family) if family != "yardstick"]
    styles = styles_of(families)
    assert len(set(styles.values())) == len(families) <= len(MARKERS) == len(SERIES) == len(DASHES)
    assert len(set(MARKERS)) == len(set(DASHES)) == len(MARKERS)
    assert styles_of(["peer"])["peer"] == styles["peer"]
    assert len(set(styles_of([*families, "run", "other"]).values())) == len(families) + 2
    # More kinds than markers: the next ones are hollow.
    kinds = [Point(name=f"{number}", kind=f"kind {number}", x=10.0 + number, y=number) for number in range(9)]
    assert "fill: none; stroke: var(--series-0)" in svg_of(
        Scatter(title="t", alt="a", x_label="x", y_label="y", points=kinds), key="k"
    )


def test_every_colour_of_a_line_is_in_the_page_light_and_dark() -> None:
    css = page_of(Note("a"))
    for number in range(len(SERIES)):
        assert len(re.findall(rf"--series-{number}: (#[0-9a-f]{{6}});", css)) == 2


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


def test_letters_are_the_page_s() -> None:
    assert "font-family" not in svg_of(arms(), key="k")


def test_the_same_chart_is_the_same_text() -> None:
    assert svg_of(arms(), key="k") == svg_of(arms(), key="k")


def test_numbers_on_a_narrow_axis_of_parameters_do_not_cover_each_other() -> None:
    for high in (1.2, 3, 9.8):
        _, axes = drawn(scatter([(1, 50.0), (high, 60.0)]))
        boxes = [label.get_window_extent() for label in axes.get_xticklabels(which="both") if label.get_text()]
        left, right = axes.get_window_extent().intervalx
        shown = sorted((box.x0, box.x1) for box in boxes if left <= (box.x0 + box.x1) / 2 <= right)
        assert len(shown) >= 2
        assert all(first[1] < second[0] for first, second in itertools.pairwise(shown))


@pytest.mark.parametrize("steps", [[45], [1], [1, 2], [30, 60, 90]])
def test_steps_are_whole_numbers(steps: Sequence[int]) -> None:
    lines = Lines(title="t", alt="a", x_label="steps", y_label="", series=[Series(name="one", x=steps, y=[2.0] * len(steps))])
    with style():
        figure = draw_lines(lines)
        FigureCanvasSVG(figure)
        figure.draw_without_rendering()
        ticks = figure.axes[0].get_xticks().tolist()
    assert ticks
    assert all(tick == round(tick) for tick in ticks)


def test_a_legend_shows_two_periods_of_every_dash() -> None:
    series = [Series(name=f"task {number}", x=[1, 2], y=[number, number]) for number in range(len(DASHES))]
    with style():
        figure = draw_lines(Lines(title="t", alt="a", x_label="x", y_label="y", series=series))
        FigureCanvasSVG(figure)
        figure.draw_without_rendering()
        legend = figure.axes[0].get_legend()
        assert legend is not None
        handles = legend.get_lines()
        lengths = [float(line.get_window_extent().width) for line in handles]
        width = float(handles[0].get_linewidth())
    assert len(lengths) == len(DASHES)
    for length, (_, dashes) in zip(lengths, DASHES, strict=True):
        assert length >= 2 * width * sum(dashes)


def page_of(*blocks: Block) -> str:
    return to_html(Report(title="t", sections=[Section(key="s", title="s", reading=["a", "b"], blocks=blocks)]))


def test_a_number_stays_with_its_unit_and_its_deviation() -> None:
    page = page_of(
        Note("alter-lite has 59.7 \u00b1 1.3, 1.67 M parameters, 3 min 4 s (95.3 MB). Of 3 models 2 s & 5 more min <b>")
    )
    said = "alter-lite has 59.7~\u00b1~1.3, 1.67~M parameters, 3~min~4~s (95.3~MB). Of 3 models 2~s &amp; 5 more min &lt;b&gt;"
    assert said.replace("~", "\u00a0") in page


def score_table() -> Table:
    tasks = ["emotion", "hate", "irony", "offensive", "sentiment", "stance", "emoji"]
    scores = [Cell(f"{60 + number}.{number} \u00b1 {7 + number}.3", is_best=number % 3 == 0) for number in range(len(tasks))]
    rows = [[Cell(name), Cell("0, 1, 2"), Cell("59.8 \u00b1 1.8"), Cell("-46.4 \u00b1 6.1"), *scores] for name, *_ in ARMS]
    return Table(caption="c", columns=["arm", "seeds", "average", "delta_m", *tasks], rows=rows, num_text=2)


@needs_chromium
def test_a_table_of_seven_tasks_fits_a_window_and_keeps_its_first_column_in_a_narrow_one(tmp_path: Path) -> None:
    script = (
        "(() => { const box = d.querySelector('.scroll'); box.scrollLeft = 200;"
        "const left = [...d.querySelectorAll('tr > :first-child')].map(one => one.getBoundingClientRect().left);"
        "return [box.clientWidth, box.scrollWidth, Math.min(...left), Math.max(...left)] })()"
    )
    wide, narrow = measure_in_frames(page_of(score_table()), script, tmp_path, widths=(1216, 600))
    assert wide[1] <= wide[0]
    shown, scrolled, least, most = narrow
    assert shown < scrolled
    assert least == most > 0


def test_on_paper_numbers_do_not_break_and_captions_stay_with_what_they_name() -> None:
    _, paper = page_of(score_table()).split("@media print")
    rules = dict(re.findall(r"^ *([^{}\n]+) \{ ([^}]*) \}", paper, flags=re.MULTILINE))
    assert all("td.number" not in names for names, rule in rules.items() if "white-space" in rule)
    kept = next(names for names, rule in rules.items() if "break-after: avoid" in rule)
    assert {".reading", "figcaption", "p.caption:has(+ .scroll)"} <= set(kept.split(", "))
    assert rules[".figures + .caption"] == "break-before: avoid;"
