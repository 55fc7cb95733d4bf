from __future__ import annotations

import pytest
import torch
from torch import Tensor

from MedSAM2Lib.network.layers import attend


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_it_is_a_mean_of_values_weighted_by_similarity() -> None:
    q, k = torch.tensor([[100.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    v = torch.tensor([[1.0, 2.0, 3.0], [50.0, 50.0, 50.0], [3.0, 4.0, 5.0]])
    torch.testing.assert_close(attend(q[None], k[None], v[None]), torch.tensor([[[2.0, 3.0, 4.0]]]))


@pytest.mark.parametrize("masked", [False, True])
def test_bfloat16_gives_what_float32_gives(masked: bool) -> None:
    q, k, v = random(2, 4, 64, 16, seed=0), random(2, 4, 80, 16, seed=1), random(2, 4, 80, 24, seed=2)
    mask = torch.zeros(1, 1, 1, 80)
    mask[..., -1] = 4.0  # added to the scores of the last key, as tokens of padding are counted
    exact = attend(q, k, v, mask if masked else None)
    rough = attend(q.bfloat16(), k.bfloat16(), v.bfloat16(), mask.bfloat16() if masked else None)
    assert rough.dtype == torch.bfloat16
    assert rough.shape == exact.shape == (2, 4, 64, 24)
    torch.testing.assert_close(rough.float(), exact, atol=0.02, rtol=0.02)  # bfloat16 has eight bits of precision


def test_in_bfloat16_it_can_be_trained() -> None:
    """Gradients are those of float32 as well, within what the format can tell."""
    gradients = []
    for dtype in (torch.float32, torch.bfloat16):
        q, k, v = (random(1, 2, 20, 16, seed=seed).requires_grad_() for seed in range(3))
        attend(q.to(dtype), k.to(dtype), v.to(dtype)).float().square().sum().backward()
        gradients.append((q.grad, k.grad, v.grad))
    for exact, rough in zip(*gradients, strict=True):
        assert exact is not None
        assert rough is not None
        torch.testing.assert_close(rough, exact, atol=0.03, rtol=0.03)
