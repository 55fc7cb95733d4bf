"""In which order the slices around the prompted ones are segmented, and how far what is said on one of them matters."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import pairwise, zip_longest

__all__ = ["Step", "outward", "surroundings"]

Step = tuple[int, int]  # slice index, direction (+1 or -1)

_NOTHING, _ABSENT, _SHOWS = 0, 1, 2  # what a pass can start from: rather from a slice that shows the object


def outward(
    prompted: Collection[int], first: int, last: int, *, absent: Collection[int] = (), walls: Collection[int] = ()
) -> Iterator[Step]:
    """Every slice of first..last that a pass reaches, nearest to its prompt first, both directions in turns.

    Between two prompted slices the upward pass of the lower one and the downward pass of the upper one meet halfway.
    Each direction visits its slices in order, so a slice's memories are those of slices already done.

    absent  those of the prompted slices that the object is not on: a pass from a slice that shows it goes all the way there
    walls   slices, not prompted, that no pass starts from or goes beyond

    >>> list(outward([2], 0, 4))
    [(3, 1), (1, -1), (4, 1), (0, -1)]
    """
    ranks = {**{index: _ABSENT if index in absent else _SHOWS for index in prompted}, **dict.fromkeys(walls, _NOTHING)}
    stops = sorted(ranks)
    if not stops:
        return
    upward: list[Step] = []
    downward: list[Step] = []
    for below, above in pairwise([None, *stops, None]):
        low, high = first if below is None else below + 1, last if above is None else above - 1
        rank_below, rank_above = (_NOTHING if stop is None else ranks[stop] for stop in (below, above))
        middle = high if rank_below > rank_above else low - 1  # the last slice that is reached from below
        if rank_below == rank_above and below is not None and above is not None:
            middle = (below + above) // 2
        if rank_below:
            upward += [(index, 1) for index in range(max(low, first), min(middle, last) + 1)]
        if rank_above:
            downward[:0] = [(index, -1) for index in range(min(high, last), max(middle + 1, first) - 1, -1)]
    for pair in zip_longest(upward, downward):
        yield from (step for step in pair if step is not None)


def surroundings(index: int, anchors: Collection[int], slice_count: int) -> list[int]:
    """The slices between one slice and the nearest anchors on both sides, or the ends of the volume."""
    below = max((anchor for anchor in anchors if anchor < index), default=-1)
    above = min((anchor for anchor in anchors if anchor > index), default=slice_count)
    return [other for other in range(below + 1, above) if other != index]
