"""Memory maps looked at in a quarter of their tokens."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from MedSAM2Lib.network.attention import RotaryAttention

GRID, POINTERS = 16, 3  # tokens of a map, and of pointers


def attention(*, pooled: bool, seed: int = 0) -> RotaryAttention:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return RotaryAttention(32, key_value_dim=8, pooled=pooled).requires_grad_(False)


def memories(maps: int) -> tuple[Tensor, Tensor]:
    """Queries, and keys that are values too."""
    generator = torch.Generator().manual_seed(maps)
    count = maps * GRID + POINTERS
    return torch.randn(2, GRID, 32, generator=generator), torch.randn(2, count, 8, generator=generator)


def looked(*, pooled: bool, maps: int) -> Tensor:
    query, memory = memories(maps)
    seen: Tensor = attention(pooled=pooled)(query, memory, memory, unrotated_keys=POINTERS)
    return seen


def test_a_token_of_a_pooled_map_counts_as_the_four_that_it_stands_for() -> None:
    """Who looks everywhere alike sees the same mean of maps and pointers."""
    query, memory = memories(maps=3)
    seen = []
    for pooled in (False, True):
        everywhere = attention(pooled=pooled)
        everywhere.q_proj.weight.zero_()
        everywhere.q_proj.bias.zero_()
        seen.append(everywhere(query, memory, memory, unrotated_keys=POINTERS))
    torch.testing.assert_close(seen[1], seen[0])


def test_a_map_that_is_the_only_one_is_looked_at_in_full() -> None:
    assert torch.equal(looked(pooled=True, maps=1), looked(pooled=False, maps=1))


def test_several_maps_are_seen_less_sharply() -> None:
    blurred, exact = looked(pooled=True, maps=3), looked(pooled=False, maps=3)
    assert 0 < (blurred - exact).abs().max() < exact.abs().max()


@pytest.mark.parametrize("pooled", [False, True])
def test_training_sees_what_inference_sees(pooled: bool) -> None:
    query, memory = memories(maps=2)
    with torch.no_grad():
        inference = attention(pooled=pooled)(query, memory, memory, unrotated_keys=POINTERS)
    training = attention(pooled=pooled).requires_grad_(True)(query, memory, memory, unrotated_keys=POINTERS)
    torch.testing.assert_close(training, inference)


def test_training_goes_on_after_inference() -> None:
    query, memory = memories(maps=2)
    trained = attention(pooled=True).requires_grad_(True)
    with torch.inference_mode():
        trained(query, memory, memory, unrotated_keys=POINTERS)
    trained(query, memory, memory, unrotated_keys=POINTERS).sum().backward()
    assert trained.k_proj.weight.grad is not None
