"""Where things stand in a chart, in pixels: points of one cost side by side, and each name at a spot where it covers nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

Line = tuple[float, float, float, float]
"""A straight line, from (x, y) to (x, y)."""

ASIDE = tuple(sign * 2.0 * number for number in range(21) for sign in (1, -1))
"""Pixels by which a point may be moved aside, the least first."""
ON_MARKER, ON_BAR = 40.0, 18.0
"""Pixels that it is moved to hide no other marker, and to hide no bar of deviation."""
AWAY = (2, 5, 9, 14, 20, 28, 38, 50, 64, 80, 98, 118, 142, 168, 200)
"""Pixels between a point's marker and its name, near ones first."""
NEAREST = 0.9
"""The least share of a distance in `AWAY` that a name is away."""
DIRECTIONS = 24
UPRIGHT = 0.35
"""Of a direction: what counts as neither left nor right, neither up nor down."""
FAR = 14.0
"""Pixels from a point beyond which its name gets a line to it."""
BESIDE = 4.0
"""A name nearer than this to another point could be taken for that one's."""
ROUNDS = 3
"""How often all names are placed: those of the first round did not know where later ones would stand."""
COVERED, CROSSED, HIDDEN_BAR, UNSURE = 60.0, 400.0, 15.0, 6.0
"""What speaks against a spot, in pixels of distance: by pixel covered or outside, by line crossed, by pixel of a bar of deviation or of
the surroundings of another point covered."""

THROUGH = 5
"""Crossings that a line through another point's marker counts as: it would seem to be that one's."""


class Box(NamedTuple):
    """A rectangle."""

    left: float
    bottom: float
    right: float
    top: float

    def padded(self, by: float) -> Box:
        """Return one that is larger on all sides."""
        return Box(self.left - by, self.bottom - by, self.right + by, self.top + by)

    def covered(self, other: Box) -> float:
        """Return how much of it another one covers."""
        across = min(self.right, other.right) - max(self.left, other.left)
        up = min(self.top, other.top) - max(self.bottom, other.bottom)
        return across * up if across > 0 and up > 0 else 0.0

    def nearest(self, x: float, y: float) -> tuple[float, float]:
        """Return its point that is nearest to (x, y)."""
        return min(max(x, self.left), self.right), min(max(y, self.bottom), self.top)


@dataclass(frozen=True)
class Mark:
    """A point as it is drawn.

    Attributes:
        x, y: its middle.
        half: half the width of its marker.
        low, high: the ends of its bar of deviation; the same where it has none.
        half_bar: half the width of the bar's ends.
    """

    x: float
    y: float
    half: float
    low: float
    high: float
    half_bar: float = 2.5

    @property
    def marker(self) -> Box:
        """What its marker covers."""
        return Box(self.x - self.half, self.y - self.half, self.x + self.half, self.y + self.half)

    @property
    def bar(self) -> Box:
        """What its bar covers; nothing where it has none."""
        half = self.half_bar if self.high > self.low else 0.0
        return Box(self.x - half, self.low, self.x + half, self.high)

    def moved(self, by: float) -> Mark:
        """Return it further to the right."""
        return Mark(self.x + by, self.y, self.half, self.low, self.high, self.half_bar)

    def hides(self, other: Mark) -> float:
        """Return what its place beside another one costs: markers on each other, or a bar on a bar or a marker."""
        if self.marker.padded(0.5).covered(other.marker) > 0:
            return ON_MARKER
        bars = ((self.bar, other.bar), (self.bar, other.marker), (self.marker, other.bar))
        return ON_BAR if any(one.padded(0.5).covered(two) > 0 for one, two in bars) else 0.0


@dataclass(frozen=True)
class Name:
    """A name to be placed: the index of its mark, and its size."""

    mark: int
    width: float
    height: float


@dataclass(frozen=True)
class Spot:
    """Where a name may stand.

    Attributes:
        box: what it covers.
        align: the edge that stays where it is when a reader's letters are narrower than those measured.
        leader: the line from its point to it, where it stands far away.
    """

    box: Box
    align: Literal["left", "center", "right"]
    leader: Line | None

    @property
    def anchor(self) -> float:
        """Where that edge is."""
        return {"left": self.box.left, "center": (self.box.left + self.box.right) / 2, "right": self.box.right}[self.align]


def side_by_side(marks: Sequence[Mark], order: Sequence[int]) -> list[Mark]:
    """Return marks with those moved aside that would hide one another; marks earlier in `order` stay where they are."""
    placed: dict[int, Mark] = {}
    for index in order:
        others = list(placed.values())
        by = min(ASIDE, key=lambda by: abs(by) + sum(marks[index].moved(by).hides(other) for other in others))
        placed[index] = marks[index].moved(by)
    return [placed[index] for index in range(len(marks))]


def place(names: Sequence[Name], marks: Sequence[Mark], area: Box) -> list[Spot]:
    """Return a spot for each name: inside `area`, on no marker or other name, as near to its own point as can be."""
    # From the top down, so that names of a cluster stand in the order of its points.
    order = sorted(range(len(names)), key=lambda index: (-marks[names[index].mark].y, marks[names[index].mark].x, index))
    found: dict[int, Spot] = {}
    for _ in range(ROUNDS):
        before = dict(found)
        for index in order:
            others = [spot for other, spot in sorted(found.items()) if other != index]
            found[index] = _best(names[index], _Around.of(names[index].mark, marks, others, area))
        if found == before:
            break
    return [found[index] for index in range(len(names))]


@dataclass(frozen=True)
class _Around:
    """What a name must not cover: markers but its own, bars, spots of other names, and what lies outside."""

    mark: Mark
    markers: Sequence[Box]
    near: Sequence[Box]
    bars: Sequence[Box]
    spots: Sequence[Spot]
    area: Box

    @classmethod
    def of(cls, own: int, marks: Sequence[Mark], spots: Sequence[Spot], area: Box) -> _Around:
        markers = [mark.marker.padded(1.5) for index, mark in enumerate(marks) if index != own]
        bars = [mark.bar.padded(1) for mark in marks if mark.high > mark.low]
        return cls(marks[own], markers, [box.padded(BESIDE) for box in markers], bars, spots, area)


def _best(name: Name, around: _Around) -> Spot:
    """Return the spot that least speaks against; what lies further away than that is not looked at."""
    best, least = None, math.inf
    for away in AWAY:
        if best is not None and least <= NEAREST * away:
            break
        for spot in _spots(name, around.mark, away):
            against = _against(spot, around, least)
            if against < least:
                best, least = spot, against
    assert best is not None
    return best


def _spots(name: Name, mark: Mark, away: float) -> Iterator[Spot]:
    """Yield spots around a point."""
    for number in range(DIRECTIONS):
        angle = 2 * math.pi * number / DIRECTIONS
        across, up = math.cos(angle), math.sin(angle)
        x, y = mark.x + (mark.half + away) * across, mark.y + (mark.half + away) * up
        left, align = _start(x, name.width, across)
        bottom = y - name.height / 2 if abs(up) < UPRIGHT else y if up > 0 else y - name.height
        box = Box(left, bottom, left + name.width, bottom + name.height)
        yield Spot(box, align, _leader(box, mark))


def _start(x: float, width: float, across: float) -> tuple[float, Literal["left", "center", "right"]]:
    if abs(across) < UPRIGHT:
        return x - width / 2, "center"
    return (x, "left") if across > 0 else (x - width, "right")


def _leader(box: Box, mark: Mark) -> Line | None:
    x, y = box.nearest(mark.x, mark.y)
    return (mark.x, mark.y, x, y) if math.hypot(x - mark.x, y - mark.y) > FAR else None


def _against(spot: Spot, around: _Around, least: float) -> float:
    """Return what speaks against a spot; as soon as that is more than `least`, the rest does not matter."""
    total = 0.0
    for cost in _costs(spot, around):
        total += cost
        if total >= least:
            break
    return total


def _costs(spot: Spot, around: _Around) -> Iterator[float]:
    """Yield what speaks against a spot, what is soon known first."""
    box = spot.box
    x, y = box.nearest(around.mark.x, around.mark.y)
    yield math.hypot(x - around.mark.x, y - around.mark.y) + (FAR if spot.leader else 0.0)
    yield COVERED * ((box.right - box.left) * (box.top - box.bottom) - box.covered(around.area))
    yield COVERED * sum(box.covered(one.box) for one in around.spots)
    yield COVERED * sum(box.covered(one) for one in around.markers)
    yield HIDDEN_BAR * sum(box.covered(one) for one in around.bars)
    yield UNSURE * sum(box.covered(one) for one in around.near)
    yield CROSSED * _crossings(spot, around)


def _crossings(spot: Spot, around: _Around) -> int:
    """Return how often a spot's leader runs through something, or it stands on another one's leader."""
    found = sum(1 for other in around.spots if other.leader and crosses(other.leader, spot.box.padded(1)))
    if spot.leader is None:
        return found
    leader = spot.leader
    found += sum(THROUGH for marker in around.markers if crosses(leader, marker))
    found += sum(1 for other in around.spots if crosses(leader, other.box))
    return found + sum(1 for other in around.spots if other.leader and _meet(leader, other.leader))


def crosses(line: Line, box: Box) -> bool:
    """Whether a straight line runs through a rectangle."""
    x0, y0, x1, y1 = line
    enter, leave = 0.0, 1.0
    for step, low, high in ((x1 - x0, box.left - x0, box.right - x0), (y1 - y0, box.bottom - y0, box.top - y0)):
        if step == 0:
            if low > 0 or high < 0:
                return False
            continue
        first, last = sorted((low / step, high / step))
        enter, leave = max(enter, first), min(leave, last)
    return enter <= leave


def _meet(one: Line, other: Line) -> bool:
    """Whether two lines cross."""
    return _sides(one, other) and _sides(other, one)


def _sides(line: Line, other: Line) -> bool:
    """Whether the ends of `other` lie on different sides of `line`."""
    x0, y0, x1, y1 = line
    first, last = ((x1 - x0) * (y - y0) - (y1 - y0) * (x - x0) for x, y in (other[:2], other[2:]))
    return first * last < 0
