"""Where arms lie by cost and quality: which nothing cheaper matches, which lie on one spot, which are worth a name in a chart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from alter.comparison import Spread
from alter.reporting.arms import Arm
from alter.reporting.blocks import Point
from alter.reporting.words import equated, number

MOST_NAMES = 12
"""With more points than this only some have room for a name."""
MAIN = ("single-full", "multi-full", "shared-lora", "alter", "alter-lite")
"""Arms that a reader looks for."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """An arm with one of its costs.

    Attributes:
        arm: the arm.
        cost: parameters, or time.
        average: over tasks.
        seeds: that the average is over.
    """

    arm: Arm
    cost: float
    average: Spread
    seeds: Sequence[int]


@dataclass(frozen=True, kw_only=True)
class Spot:
    """Arms that lie on one spot: one that a reader looks for is named first."""

    places: Sequence[Place]

    @property
    def first(self) -> Place:
        """The one that stands for all."""
        return self.places[0]

    @property
    def name(self) -> str:
        """Their names."""
        return equated([place.arm.name for place in self.places])


def is_as_good(one: float, other: float) -> bool:
    """Whether an average is at least another as they are printed: what reads alike is a tie."""
    return round(one, 1) >= round(other, 1)


def front(places: Sequence[Place]) -> list[Place]:
    """Return the places that no other one beats: none is at least as good for at most the cost, and better in one of both."""
    return [one for one in places if not any(_beats(other, one) for other in places)]


def _beats(one: Place, other: Place) -> bool:
    if one.cost > other.cost or not is_as_good(one.average.mean, other.average.mean):
        return False
    return one.cost < other.cost or not is_as_good(other.average.mean, one.average.mean)


def merged(places: Sequence[Place]) -> list[Spot]:
    """Return spots: arms with the same cost, average and deviation are one."""
    found: dict[tuple[float, float, str], list[Place]] = {}
    for place in places:
        found.setdefault((place.cost, place.average.mean, number(place.average.sd, 6)), []).append(place)
    return [Spot(places=sorted(same, key=_rank)) for same in found.values()]


def _rank(place: Place) -> int:
    return 0 if place.arm.is_close else 1 if place.arm.name in MAIN else 2


def points(places: Sequence[Place], *, kept: Sequence[Place]) -> list[Point]:
    """Return what is drawn: of many points those have a name that a reader looks for, which are the front, the main arms, the best peer.

    An arm is marked as the one that is looked at closely only where it is one among others.

    Args:
        places: where arms lie.
        kept: the front.
    """
    spots = merged(places)
    many = len(spots) > MOST_NAMES
    close = [spot for spot in spots if any(place.arm.is_close for place in spot.places)]
    names = {place.arm.name for place in kept} | {*MAIN, *_best_peer(places)}
    return [
        Point(
            name=spot.name,
            kind=spot.first.arm.family,
            x=spot.first.cost,
            y=spot.first.average.mean,
            sd=spot.first.average.sd if math.isfinite(spot.first.average.sd) else None,
            named=not many or spot in close or any(place.arm.name in names for place in spot.places),
            close=spot in close and len(close) < len(spots),
        )
        for spot in spots
    ]


def _best_peer(places: Sequence[Place]) -> list[str]:
    peers = [place for place in places if place.arm.family == "peer"]
    return [max(peers, key=lambda place: place.average.mean).arm.name] if peers else []
