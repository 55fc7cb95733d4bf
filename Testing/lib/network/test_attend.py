from __future__ import annotations

import pytest
import torch
from torch import Tensor

from MedSAM2Lib.network.attention import Attention
from MedSAM2Lib.network.layers import MANY_TOKENS, OfWeights, attend
from MedSAM2Lib.network.linear import uses_onednn


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


@pytest.mark.parametrize("few", [1, 9, 15, 16])
def test_many_queries_see_the_same_of_few_keys_as_in_training(few: int) -> None:
    """With heads times keys below the width of queries, 128, keys are projected all the way; gradients need the plain path."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        attention = Attention(256, 8, internal_dim=128)
    query, key, value = random(2, MANY_TOKENS, 256, seed=1), random(2, few, 256, seed=2), random(2, few, 256, seed=3)
    plain = attention(query, key, value)
    assert plain.requires_grad
    with torch.inference_mode():
        torch.testing.assert_close(attention(query, key, value), plain, atol=2e-6, rtol=1e-5)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="a build of torch without oneDNN")
def test_of_few_keys_queries_are_not_projected(monkeypatch: pytest.MonkeyPatch) -> None:
    attention = Attention(64, 8, internal_dim=32)
    query, few, many = random(1, MANY_TOKENS, 64, seed=1), random(1, 3, 64, seed=2), random(1, 4, 64, seed=3)
    projected: list[int] = []
    attention.q_proj.register_forward_hook(lambda _, given, out: projected.append(len(given[0][0])))
    with torch.inference_mode():
        assert uses_onednn(query)
        attention(query, few, few)
        assert projected == []
        attention(query, many, many)
    assert projected == [MANY_TOKENS]


def test_what_weights_give_is_kept_until_they_change() -> None:
    weight, kept, computed = torch.nn.Parameter(torch.ones(2)), OfWeights(), []

    def compute(height: int, width: int) -> Tensor:
        computed.append((height, width))
        return weight.sum() * torch.ones(height, width)

    with torch.no_grad():
        assert kept(compute, [weight], 2, 3) is kept(compute, [weight], 2, 3)
        assert kept(compute, [weight], 3, 2).shape == (3, 2)
        weight.mul_(2)
        assert kept(compute, [weight], 3, 2)[0, 0] == 4
    assert computed == [(2, 3), (3, 2), (3, 2)]
    assert kept(compute, [weight], 3, 2).requires_grad  # a gradient goes to the weights, so nothing is kept
