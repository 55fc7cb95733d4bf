"""Products by oneDNN, as inference on a CPU takes them, are those of torch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from MedSAM2Lib.network import layers
from MedSAM2Lib.network.layers import attend, in_parts
from MedSAM2Lib.network.linear import Activation, Linear, linear
from MedSAM2Lib.network.mask_decoder import _doubled
from MedSAM2Lib.network.positions import axial_phases, rotate_pairs


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("then", "plainly"), [("none", lambda x: x), ("relu", F.relu), ("gelu", F.gelu)])
@pytest.mark.parametrize("shape", [(2, 24), (2, 40, 24), (1, 8, 8, 24)], ids=["little work", "tokens", "a grid"])
@torch.no_grad()
def test_a_product_is_torchs(shape: tuple[int, ...], then: Activation, plainly: object) -> None:
    x, weight, bias = random(*shape), random(16, 24, seed=1), random(16, seed=2)
    assert callable(plainly)
    torch.testing.assert_close(linear(x, weight, bias, then), plainly(F.linear(x, weight, bias)))


@torch.no_grad()
def test_tensors_in_strides_give_the_same() -> None:
    x, weight = random(64, 80).T, random(64, 16, seed=1).T  # (80, 64) and (16, 64), neither contiguous
    torch.testing.assert_close(linear(x, weight), x @ weight.T)


def test_a_layer_learns_as_torchs_does() -> None:
    layer = Linear(8, 4)
    plain = torch.nn.Linear(8, 4)
    plain.load_state_dict(layer.state_dict())
    for each in (layer, plain):
        each(random(40, 8)).square().sum().backward()
    torch.testing.assert_close(layer.weight.grad, plain.weight.grad)


@pytest.mark.parametrize("keys", [511, 512], ids=["fused", "by products"])
@torch.no_grad()
def test_attention_to_many_keys_is_that_to_few(keys: int) -> None:
    q, k, v = random(2, 3, 600, 16), random(2, 3, keys, 16, seed=1), random(2, 3, keys, 8, seed=2)
    expected = (q @ k.transpose(-1, -2) / 4).softmax(-1) @ v
    torch.testing.assert_close(attend(q, k, v), expected, atol=1e-5, rtol=1e-5)


def test_pairs_turn_by_their_phases() -> None:
    phases = axial_phases(8, 4)
    cosine, sine = phases.unbind(-1)
    x = random(2, 16, 8)
    even, odd = x[..., 0::2], x[..., 1::2]
    turned = rotate_pairs(x, phases)
    torch.testing.assert_close(turned[..., 0::2], even * cosine - odd * sine)
    torch.testing.assert_close(turned[..., 1::2], even * sine + odd * cosine)


@torch.no_grad()
def test_a_doubling_is_a_transposed_convolution() -> None:
    deconvolution = torch.nn.ConvTranspose2d(6, 4, kernel_size=2, stride=2)
    x = random(2, 6, 5, 7)
    torch.testing.assert_close(_doubled(x, deconvolution), deconvolution(x))


@torch.no_grad()
def test_parts_make_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "_LARGEST_RESULT", 4 * 24 * 5)  # bytes of five rows
    sizes: list[int] = []

    def layer(x: Tensor) -> Tensor:
        sizes.append(len(x))
        return 2 * x

    x = random(12, 8)
    assert torch.equal(in_parts(layer, x, channels=24), 2 * x)
    assert sizes == [4, 4, 4]
