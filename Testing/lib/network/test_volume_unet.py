"""The network that drafts an object in a cube of the volume."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from MedSAM2Lib.network.volume_unet import VolumeUNet

SIDE = 16


@pytest.fixture(scope="module")
def a_network() -> VolumeUNet:
    torch.manual_seed(0)
    return VolumeUNet().eval().requires_grad_(False)


def cubes(count: int = 2) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Grey noise, a square on the middle plane, and of the others on a second plane that it is not there."""
    generator = torch.Generator().manual_seed(1)
    grey = torch.rand(count, SIDE, SIDE, SIDE, generator=generator)
    known, told = torch.zeros(count, SIDE, dtype=torch.bool), torch.zeros(count, SIDE, SIDE, SIDE)
    known[:, SIDE // 2] = True
    known[1:, 2] = True
    told[:, SIDE // 2, 4:10, 5:12] = 1
    return grey, known, told, torch.full((count,), 1.5)


def test_every_cell_gets_a_logit(a_network: VolumeUNet) -> None:
    logits = a_network(*cubes())
    assert logits.shape == (2, SIDE, SIDE, SIDE)
    assert logits.isfinite().all()


def test_a_cube_does_not_depend_on_the_others_of_its_batch(a_network: VolumeUNet) -> None:
    together = a_network(*cubes())
    for number in range(2):
        alone = a_network(*(part[number : number + 1] for part in cubes()))
        torch.testing.assert_close(alone[0], together[number], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("part", range(4), ids=["grey", "known", "told", "depth"])
def test_it_heeds_everything_that_it_is_given(a_network: VolumeUNet, part: int) -> None:
    given = list(cubes(1))
    before = a_network(*given)
    if part == 1:
        given[1] = given[1].clone()
        given[1][:, 3] = True
    else:
        given[part] = given[part] * 0.7
    assert not torch.equal(a_network(*given), before)


def test_what_was_said_to_be_nowhere_is_no_error(a_network: VolumeUNet) -> None:
    grey, known, told, depth = cubes(1)
    assert a_network(grey, known, torch.zeros_like(told), depth).isfinite().all()


def test_neighbouring_cells_share_no_place() -> None:
    """Cells that enter as channels of one leave at their own places again."""
    from MedSAM2Lib.network.volume_unet import _cells_to_channels, _channels_to_cells

    cells = torch.arange(4**3, dtype=torch.float32).view(1, 1, 4, 4, 4)
    assert torch.equal(_channels_to_cells(_cells_to_channels(cells)), cells[:, 0])
