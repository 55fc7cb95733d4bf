"""In which order the slices around the prompted ones are segmented."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import zip_longest

__all__ = ["Step", "outward"]

Step = tuple[int, int]  # slice index, direction (+1 or -1)


def outward(prompted: Collection[int], first: int, last: int) -> Iterator[Step]:
    """Every slice of first..last that is not prompted, nearest to its prompt first, both directions in turns.

    Between two prompted slices the upward pass of the lower one and the downward pass of the upper one meet halfway.
    Each direction visits its slices in order, so a slice's memories are those of slices already done.

    >>> list(outward([2], 0, 4))
    [(3, 1), (1, -1), (4, 1), (0, -1)]
    """
    starts = sorted(prompted)
    upward: list[Step] = []
    downward: list[Step] = []
    for start, following in zip_longest(starts, starts[1:]):
        end = last if following is None else (start + following) // 2
        upward += [(index, 1) for index in range(max(start + 1, first), min(end, last) + 1)]
    for start, previous in zip_longest(reversed(starts), reversed(starts[:-1])):
        end = first if previous is None else (previous + start) // 2 + 1
        downward += [(index, -1) for index in range(min(start - 1, last), max(end, first) - 1, -1)]
    for pair in zip_longest(upward, downward):
        yield from (step for step in pair if step is not None)
