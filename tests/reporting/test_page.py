from __future__ import annotations

import html
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from tests.reporting.browser import measure_in_frames, needs_chromium, run_chromium
from tests.reporting.by_hand import asked, hand
from tests.reporting.folders import write_arms, write_run

from alter.comparison import Comparison
from alter.reporting.page import to_html
from alter.reporting.run import gather
from alter.results import read_results

Compared = tuple[Path, Comparison]
EVIL = '<script>alert("x")</script> & $x_1$ \x00\x1b[31m \u202egnp.exe\u202c ' + "long " * 200


@pytest.fixture(scope="module")
def page(compared: Compared) -> str:
    return to_html(gather([compared[0]]))


def sections(page: str) -> dict[str, str]:
    return dict(re.findall(r'<section id="(\w+)".*?>(.*?)</section>', page, flags=re.DOTALL))


def test_every_section_of_a_comparison_is_there_with_a_sentence(page: str) -> None:
    found = sections(page)
    assert list(found) == [
        "short", "overview", "scores", "answers", "curves", "gates", "affinity", "confusions", "worst", "quality", "budget", "environment",
    ]  # fmt: skip
    for key, text in found.items():
        assert 'class="reading"' in text, key


def test_the_page_needs_nothing_else(page: str) -> None:
    assert "<script" not in page
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", re.sub(r"<title>.*?</title>", "", page))
    assert not re.search(r"<(link|img|iframe|object|embed)\b", page)
    assert "default-src 'none'" in page


def test_the_numbers_in_the_page_are_those_in_the_files(page: str, compared: Compared) -> None:
    folder, comparison = compared
    found = html.unescape(sections(page)["scores"])
    for arm in comparison.arms.values():
        for split, summary in arm.summary.items():
            assert split in found
            for spread in [*summary.tasks.values(), summary.average]:
                assert f"{spread.mean:.1f} \u00b1 {spread.sd:.1f}" in found
    results = read_results(folder / "arms" / "alter-lite" / "seed1" / "results.json")
    for stage in results.stages.values():
        assert f'<td class="number">{stage.average:.1f}</td>' in page
    for one in comparison.differences:
        assert f'<td class="number">{one.difference:+.1f}</td>' in sections(page)["answers"]


def test_the_same_files_give_the_same_bytes(page: str, compared: Compared) -> None:
    assert to_html(gather([compared[0]])) == page


def test_ids_are_unique_and_every_reference_has_one(page: str) -> None:
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    used = set(re.findall(r"url\(#([^)]+)\)", page)) | set(re.findall(r'href="#([^"]+)"', page))
    assert used <= set(ids)


def test_every_figure_says_what_it_shows_and_has_the_page_s_colours(page: str) -> None:
    figures = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert len(figures) > 8
    for figure in figures:
        root = ET.fromstring(figure)
        label = root.get("aria-label")
        assert label
        assert root.findtext("title") == label
        assert root.get("role") == "img"
        assert "#0a0b" not in figure
        assert "currentColor" in figure


def test_a_table_s_first_cells_are_headings_and_every_page_has_a_language(page: str) -> None:
    assert '<html lang="en">' in page
    assert page.count("<h1>") == 1
    assert '<th scope="row"' in page
    assert '<th scope="col"' in page


def test_text_of_rows_and_labels_is_text(tmp_path: Path) -> None:
    answers = [{"input": EVIL, "prediction": "</title><b>", "target": "<i>", "score": 0.9, "gate_weights": {"<u>": 1.0}}] * 3
    run = write_run(tmp_path / "run", {"mood": 50.0}, labels={"mood": ["<i>", "</title><b>"]}, answers={"mood": answers})
    page = to_html(gather([run]))
    assert "<script" not in page
    assert not re.search(r"<(b|i|u)>", page)
    assert page.count("</title>") == 1 + page.count("<svg")
    assert "&lt;script&gt;" in page
    assert not re.search(r"[\x00-\x08\x0b-\x1f\u202a-\u202e]", page)
    page.encode("utf-8")
    [shown] = {text for text in re.findall(r"<blockquote[^>]*>(.*?)</blockquote>", page)}
    assert html.unescape(shown).endswith("\u2026")
    assert len(html.unescape(shown)) <= 320


def test_labels_of_any_script_are_drawn_without_a_warning(tmp_path: Path) -> None:
    labels = [
        "\u4e2d\u6587",
        "\u0639\u0631\u0628\u064a",
        "$\\frac{",
        "\U0001f602",
        "two\nlines",
        "a very long label that goes on and on",
    ]
    answers = [{"input": "a", "prediction": label, "target": label, "score": 0.9} for label in labels]
    page = to_html(gather([write_run(tmp_path / "run", {"mood": 50.0}, labels={"mood": labels}, answers={"mood": answers})]))
    for text in ("\u4e2d\u6587", "\u0639\u0631\u0628\u064a", "$\\frac{", "\U0001f602", "two lines"):
        assert re.search(rf"<text[^>]*>{re.escape(text)}</text>", page)


def test_a_user_s_matplotlibrc_changes_nothing(page: str, compared: Compared, monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib as mpl

    with mpl.rc_context({"font.size": 30, "svg.fonttype": "path", "axes.facecolor": "red"}):
        assert to_html(gather([compared[0]])) == page


def test_a_page_on_several_comparisons_links_to_each_in_every_section(tmp_path: Path) -> None:
    folders = []
    for number in (1, 2):
        arms = {"multi-full": hand("one-model", {0: 60.0}), "alter-lite": hand("alter", {0: 61.0})}
        folders.append(write_arms(tmp_path / f"folder{number}", arms, [asked("multi-full", [1.0])] if number == 2 else []))
    page = to_html(gather(folders))
    navs = re.findall(r"<nav .*?</nav>", page, flags=re.DOTALL)
    assert len(navs) == 3
    ids = re.findall(r' id="([^"]*)"', page)
    assert len(ids) == len(set(ids)), "folders whose recipes have one name stay apart"
    for number in (1, 2):
        links = dict(re.findall(r'<a href="#([^"]*)">([^<]*)</a>', navs[number]))
        assert {f"short-{number}", f"scores-{number}"} <= set(links)
        assert set(links) <= set(ids)
        assert links[f"scores-{number}"] == "Scores"
    assert 'href="#answers-2"' in navs[2]
    names = re.findall(r'<nav aria-label="([^"]*)">', page)[1:]
    assert [name.endswith(f"folder{number})") for number, name in enumerate(names, start=1)] == [True, True]
    assert len(re.findall("<nav ", to_html(gather(folders[:1])))) == 1


@needs_chromium
def test_a_browser_shows_the_page_without_a_scroll_bar_below(page: str, tmp_path: Path) -> None:
    """The page itself never scrolls sideways: what is too wide scrolls in its own box."""
    widths = (400, 1280)
    found = measure_in_frames(page, "[d.documentElement.scrollWidth, d.body.innerText.length]", tmp_path, widths=widths)
    for width, (scroll_width, length) in zip(widths, found, strict=True):
        assert scroll_width <= width
        assert length > 3000


@needs_chromium
@pytest.mark.parametrize("width", [500, 1280])
def test_a_browser_shows_the_page_light_or_dark_as_the_reader_has_it(page: str, tmp_path: Path, width: int) -> None:
    """Pictures at two widths (a window is at least 500 wide): the ground is bright or dark, and text stands out from it in grey."""
    (tmp_path / "report.html").write_text(page, encoding="utf-8")
    bright = {}
    for scheme, number in (("dark", 0), ("light", 1)):
        picture = tmp_path / f"{scheme}.png"
        run_chromium(
            tmp_path, tmp_path / "report.html", "--hide-scrollbars", f"--blink-settings=preferredColorScheme={number}",
            f"--window-size={width},1600", f"--screenshot={picture}",
        )  # fmt: skip
        grey = plt.imread(picture)[..., :3].mean(-1)
        assert grey.shape[1] == width
        bright[scheme] = float(np.median(grey))
        away = np.abs(grey - bright[scheme])
        assert (away > 0.5).mean() > 0.005, f"{scheme}: text stands out from its ground"
    assert bright["light"] > 0.9
    assert bright["dark"] < 0.25
