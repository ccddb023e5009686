"""A figure's way to SVG that stands inside a page.

matplotlib gets colours that no one would choose; they are replaced by the page's variables, so one drawing is legible on light and
dark. Ids are made unique in the page, and nothing in the text depends on the time or the machine: the same numbers give the same bytes.
"""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

INK = "#0a0b00"
"""Text and axes: `currentColor`."""
HEAT = "#0a0b10"
"""The full colour of a heatmap."""
ON_HEAT = "#0a0b11"
"""Text on a heatmap's full colour."""
QUIET = "#0a0b12"
"""What stands back."""
SERIES = tuple(f"#0a0b2{number}" for number in range(8))
"""Lines and points: `--series-0` and so on."""
VARIABLES = {
    INK[1:]: "currentColor",
    HEAT[1:]: "var(--heat)",
    ON_HEAT[1:]: "var(--on-heat)",
    QUIET[1:]: "var(--quiet)",
    **{color[1:]: f"var(--series-{number})" for number, color in enumerate(SERIES)},
}
DASHES: tuple[tuple[float, tuple[float, ...]], ...] = (
    (0, ()),
    (0, (5, 2)),
    (0, (1.5, 1.5)),
    (0, (7, 2, 1.5, 2)),
    (0, (3, 3)),
    (0, (9, 3)),
    (0, (7, 2, 1.5, 2, 1.5, 2)),
    (0, (1.5, 4)),
)
MARKERS = ("o", "s", "^", "D", "v", "X", "P", "*")
WIDE, LEAST = 520, 0.8
"""A figure wider than so many pixels keeps this share of its width on narrow screens."""
PIXELS = 72
"""Pixels an inch: matplotlib's points are the page's pixels then."""
STYLE: dict[RcKeyType, Any] = {
    "axes.edgecolor": INK,
    "axes.formatter.useoffset": False,
    "axes.labelcolor": INK,
    "axes.labelsize": 11,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.unicode_minus": False,
    "figure.dpi": PIXELS,
    "font.family": ["DejaVu Sans"],
    "font.size": 11,
    "grid.alpha": 0.18,
    "grid.color": INK,
    "grid.linewidth": 0.8,
    "legend.fontsize": 10.5,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "alter",
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": INK,
    "xtick.labelsize": 10,
    "ytick.color": INK,
    "ytick.labelsize": 10,
}


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Draw in the page's style, whatever the user's matplotlibrc says."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        # Labels may be in any script: the page's fonts draw them, matplotlib only measures.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
        yield


def axes_of(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure whose axes are this many pixels; labels lie around them, and the drawing is cut to what there is."""
    figure = Figure(figsize=(width / PIXELS, height / PIXELS))
    return figure, figure.add_axes((0, 0, 1, 1))


def to_svg(figure: Figure, *, key: str, alt: str) -> str:
    """Return a figure as an `<svg>` element.

    Args:
        figure: drawn under `style`.
        key: makes its ids unique in the page; letters, digits and `-`.
        alt: what it shows, in words.
    """
    stream = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(stream, format="svg", transparent=True, bbox_inches="tight", pad_inches=4 / PIXELS, metadata=nothing)
    return _inline(stream.getvalue(), key=key, alt=alt)


def _inline(text: str, *, key: str, alt: str) -> str:
    """Return matplotlib's document as an element of a page: no prologue, styles, comments or addresses, and the page's colours."""
    found = re.search(r"<svg[^>]*viewBox=\"0 0 ([\d.]+) ([\d.]+)\"[^>]*>(.*)</svg>", text, flags=re.DOTALL)
    assert found is not None
    width, height = float(found[1]), float(found[2])
    body = re.sub(r"<(metadata|style)\b.*?</\1>|<defs>\s*</defs>|<!--.*?-->", "", found[3], flags=re.DOTALL)
    body = re.sub(r"<defs>\s*</defs>", "", body).replace("xlink:href", "href")
    body = re.sub(r"\b(fill|stroke): #([0-9a-f]{6})", lambda hit: f"{hit[1]}: {VARIABLES.get(hit[2], f'#{hit[2]}')}", body)
    body = re.sub(r" (d|x|y|x1|x2|y1|y2|width|height|points|transform)=\"([^\"]*)\"", _rounded, body)
    # The letters are the page's, whatever matplotlib measured with; older versions of it write all of a font in one property.
    body = re.sub(r"font-family: [^;\"]*;? ?", "", re.sub(r"font: (?:(\d+) )?([\d.]+px)[^;\"]*", _font, body))
    body = re.sub(r"\n\s*", "\n", _unique(body, key))
    label = escape(alt)
    # A wide figure is not made smaller than it can be read: it scrolls.
    least = f"; min-width: {LEAST * width:.0f}px" if width > WIDE else ""
    size = f'style="width: {width:.0f}px{least}" viewBox="0 0 {width:.1f} {height:.1f}"'
    return f'<svg class="plot" {size} role="img" aria-label="{label}"><title>{label}</title>{body.strip()}</svg>'


def _font(hit: re.Match[str]) -> str:
    return f"font-weight: {hit[1]}; font-size: {hit[2]}" if hit[1] else f"font-size: {hit[2]}"


def _rounded(hit: re.Match[str]) -> str:
    numbers = re.sub(r"-?\d+\.\d{3,}(e-?\d+)?", lambda number: f"{float(number[0]):.2f}".rstrip("0").rstrip("."), hit[2])
    return f' {hit[1]}="{" ".join(numbers.split())}"'


def _unique(body: str, key: str) -> str:
    """Keep the ids that something refers to, with `key` before them."""
    used = set(re.findall(r"url\(#([^)]+)\)|href=\"#([^\"]+)\"", body))
    names = {name for pair in used for name in pair if name}
    body = re.sub(r" id=\"([^\"]*)\"", lambda hit: f' id="{key}-{hit[1]}"' if hit[1] in names else "", body)
    return re.sub(r"(url\(#|href=\"#)", rf"\1{key}-", body)
