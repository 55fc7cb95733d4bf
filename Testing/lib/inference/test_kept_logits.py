"""Logits in less room, and back to the bit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from MedSAM2Lib.inference.kept_logits import KeptLogits, rounded

FEW, MANY = 32**2, 128**2  # pixels of a slice


@pytest.fixture
def some_logits() -> Tensor:
    """(1, 1, 32, 32), smooth as those of a network."""
    torch.manual_seed(0)
    return 6 * F.interpolate(torch.randn(1, 1, 8, 8), size=(32, 32), mode="bilinear") - 3


def test_packed_logits_come_back_bit_for_bit(some_logits: Tensor) -> None:
    kept = KeptLogits(some_logits, FEW)
    before, room = kept.tensor.clone(), kept.nbytes
    kept.pack()
    assert kept.nbytes < room / 2
    assert torch.equal(kept.tensor, before)
    assert kept.nbytes == room


def test_logits_of_a_grid_that_is_fine_for_its_slice_are_rounded_to_a_32nd(some_logits: Tensor) -> None:
    kept = KeptLogits(some_logits, FEW).tensor.float()
    assert torch.equal((32 * kept).round(), 32 * kept)
    torch.testing.assert_close(kept, some_logits, rtol=0, atol=1 / 64)
    assert torch.equal(rounded(some_logits, FEW), kept)
    assert torch.equal(KeptLogits(kept, FEW).tensor.float(), kept)  # as when a session is restored


def test_logits_of_a_coarse_grid_are_kept_as_they_are(some_logits: Tensor) -> None:
    kept = KeptLogits(some_logits, MANY)
    kept.pack()
    assert kept.nbytes == 2 * 32 * 32
    assert torch.equal(kept.tensor, some_logits.half())


@pytest.mark.parametrize("pixels", [FEW, MANY])
def test_the_largest_and_the_smallest_logits_come_back(pixels: int) -> None:
    extreme = torch.tensor([-1e6, -1024, 1e6, -0.001, 1023, -1024, 511.9, -1 / 32]).repeat(4 * 32).view(1, 1, 32, 32)
    kept = KeptLogits(extreme, pixels)
    before = kept.tensor.clone()
    kept.pack()
    assert kept.tensor.numpy().tobytes() == before.numpy().tobytes()
    assert before[0, 0, 0, :3].tolist() == [-1024, -1024, 1023.5]
