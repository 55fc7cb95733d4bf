"""Drafts: which cubes are looked at, what they are shown, and where an answer is to be found in them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from MedSAM2Lib.frames import logits_to_slice
from MedSAM2Lib.inference.drafts import Drafts, Known, draft_share
from MedSAM2Lib.metrics import dice
from MedSAM2Lib.network.volume_unet import CUBE_SIDE, VolumeUNet
from MedSAM2Lib.packed_mask import PackedMask

Mask = npt.NDArray[np.bool_]

SHAPE = (40, 48, 56)


class SeesBright(VolumeUNet):
    """Drafts what is bright, and notes what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[tuple[Tensor, Tensor, float]] = []  # planes that were known, what was told of them, depth

    def forward(self, grey: Tensor, known: Tensor, told: Tensor, depth: Tensor) -> Tensor:
        planes = known[0].nonzero()[:, 0]
        self.shown.append((planes, told[0][planes], float(depth)))
        return 20 * (grey - 0.5)


def ball(radius: float = 10, middle: tuple[float, float, float] = (20, 24, 28)) -> Mask:
    k, j, i = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    inside: Mask = (k - middle[0]) ** 2 + (j - middle[1]) ** 2 + (i - middle[2]) ** 2 <= radius**2
    return inside


def cord() -> Mask:
    """Through all slices, and across them."""
    inside = np.zeros(SHAPE, dtype=bool)
    for k in range(SHAPE[0]):
        inside[k, 8 + k // 2 : 16 + k // 2, 12 + k // 2 : 20 + k // 2] = True
    return inside


def drafts_of(inside: Mask, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> tuple[Drafts, SeesBright]:
    network = SeesBright()
    grey = np.where(inside, 255, 0).astype(np.uint8)
    return Drafts(network, grey.__getitem__, len(grey), SHAPE[1:], spacing), network


def known(inside: Mask, *slices: int) -> Known:
    return {index: PackedMask.of(inside[index]) for index in slices}


def drafted(drafts: Drafts, said: Known) -> Mask:
    """What is drafted of all slices."""
    found = np.zeros(SHAPE, dtype=bool)
    for index in range(SHAPE[0]):
        one = drafts.at(index, said)
        if one is not None:
            found[index] = (logits_to_slice(one.logits, one.view, *SHAPE[1:]) > 0).numpy()
    return found


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 1.0, 1.0), (0.4, 1.0, 1.0)], ids=["cubic", "thick", "thin"])
def test_an_object_is_drafted_where_it_is(spacing: tuple[float, float, float]) -> None:
    drafts, _ = drafts_of(ball(), spacing)
    assert dice(drafted(drafts, known(ball(), 20)), ball()) > 0.95


def test_a_cord_is_followed_from_cube_to_cube() -> None:
    drafts, network = drafts_of(cord(), (0.5, 1.0, 1.0))
    assert dice(drafted(drafts, known(cord(), 20)), cord()) > 0.9
    assert len(network.shown) > 2


def test_beyond_the_end_of_an_object_no_cube_is_looked_at() -> None:
    drafts, network = drafts_of(ball(6), (0.4, 1.0, 1.0))
    said = known(ball(6), 20)
    assert drafts.at(0, said) is None or not drafted(drafts, said)[0].any()
    assert len(network.shown) <= 3  # its own, and one in either direction at most


def test_a_cube_is_looked_at_once() -> None:
    drafts, network = drafts_of(ball())
    said = known(ball(), 20)
    first = drafts.at(22, said)
    again = drafts.at(22, dict(said))
    assert first is not None
    assert again is not None
    assert torch.equal(first.logits, again.logits)
    drafts.at(18, said)
    assert len(network.shown) == 1


def test_what_is_known_is_shown_on_its_planes() -> None:
    drafts, network = drafts_of(ball(), (3.0, 1.0, 1.0))  # slices so thick that each has a plane of its own
    said = {**known(ball(), 20, 24), 29: PackedMask.of(np.zeros(SHAPE[1:], dtype=bool))}
    drafts.at(21, said)
    (planes, told, depth), *_ = network.shown
    assert (planes - CUBE_SIDE // 2).tolist() == [0, 4, 9]
    assert told[0].sum() > told[1].sum() > told[2].sum() == 0
    assert depth > 1


def test_a_slice_asks_the_nearest_known_one_that_shows_the_object() -> None:
    drafts, network = drafts_of(ball())
    drafts.at(25, {**known(ball(), 14, 26), 24: PackedMask.of(np.zeros(SHAPE[1:], dtype=bool))})
    (planes, told, _), *_ = network.shown
    middle = planes.tolist().index(CUBE_SIDE // 2)
    assert told[middle].sum() > 0
    assert len(network.shown) == 1


@pytest.mark.parametrize("said", [{}, {3: PackedMask.of(np.zeros(SHAPE[1:], dtype=bool))}], ids=["nothing", "absent"])
def test_without_a_mask_nothing_is_drafted(said: Known) -> None:
    drafts, network = drafts_of(ball())
    assert drafts.at(5, said) is None
    assert not network.shown


def test_at_the_volumes_ends_cubes_go_on_in_black() -> None:
    inside = ball(8, (2, 24, 28))
    drafts, _ = drafts_of(inside)
    assert dice(drafted(drafts, known(inside, 0)), inside) > 0.9


def logits(area: int) -> torch.Tensor:
    """A mask of that many pixels."""
    return 2.0 * (torch.arange(100) < area).float().view(1, 1, 10, 10) - 1


def test_of_a_hint_some_is_a_draft() -> None:
    share = draft_share(logits(40), logits(50), [50, 50], doubt=1.0)
    assert 0 < share < 1
    assert draft_share(logits(40), logits(50), [50, 50], doubt=-1.0) == share


def test_a_draft_that_fades_is_not_heeded_where_the_object_has_kept_its_cross_section() -> None:
    assert draft_share(logits(10), logits(50), [50, 49], doubt=-0.5) == 0
    assert draft_share(logits(10), logits(50), [50, 49], doubt=0.5) > 0
    assert draft_share(logits(0), logits(50), [], doubt=-0.5) == 0


def test_a_draft_that_fades_has_the_word_where_the_mask_has_grown() -> None:
    assert draft_share(logits(10), logits(90), [50, 45, 60, 90], doubt=-0.5) == 1
