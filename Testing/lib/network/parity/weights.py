"""Seeded random weights under which every part of the network matters.

Freshly initialised networks prove little: zero embeddings, layer scales of 1e-6 and masks of one sign hide errors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from MedSAM2Lib.network.build import build_network
from MedSAM2Lib.network.config import NetworkConfig, TrunkConfig
from MedSAM2Lib.network.layers import MLP, LayerNorm2d
from MedSAM2Lib.network.sam2 import SAM2

__all__ = ["SMALL", "SMALL_2_0", "last_layer", "random_network", "random_slices", "shift_object_score"]

# Windows of 6, 6 and 3 tokens do not fill grids of 16, 8 and 4: the padding takes part, as it does in tiny at 512.
# A memory map of 64 channels is what transformers hard-codes.
SMALL = NetworkConfig(
    trunk=TrunkConfig(16, 1, (1, 2, 3, 1), (4,), (8, 6, 6, 3), (7, 7)),
    image_size=128,
    hidden_dim=128,
    memory_dim=64,
    memory_layers=2,
    feedforward_dim=96,
)
SMALL_2_0 = replace(SMALL, pointer_positions=False, absent_object_embedding=False)

_OBJECT_SCORE = 6.0  # added to the object score, so that objects are present unless a test wants them absent
_LOGIT_SCALE = 4.0  # of the hypernetworks' last layers: mask logits then spread over about +-10


def random_network(config: NetworkConfig, seed: int = 0) -> SAM2:
    """A network in evaluation mode whose weights depend on the seed alone."""
    network = build_network(config)
    generator = torch.Generator().manual_seed(seed)

    def normal(tensor: Tensor, std: float, mean: float = 0.0) -> None:
        tensor.copy_(mean + std * torch.randn(tensor.shape, generator=generator))

    with torch.no_grad():
        for module in network.modules():
            _draw(module, normal)
        normal(network.sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix, 1.0)
        for mlp in network.sam_mask_decoder.output_hypernetworks_mlps:
            _balance(last_layer(mlp))
        shift_object_score(network, _OBJECT_SCORE)
    return network


def random_slices(count: int, config: NetworkConfig, seed: int = 0) -> Tensor:
    """(count, 3, S, S) noisy blobs that drift from slice to slice."""
    generator = torch.Generator().manual_seed(seed)
    side = config.image_size
    coarse = torch.randn(1, 3, count, side // 8, side // 8, generator=generator).cumsum(2) / 2
    blobs = F.interpolate(coarse, size=(count, side, side), mode="trilinear")[0].transpose(0, 1)
    return blobs + 0.3 * torch.randn(count, 3, side, side, generator=generator)


def shift_object_score(network: SAM2, shift: float) -> None:
    """Makes objects appear (positive) or disappear (negative)."""
    with torch.no_grad():
        last_layer(network.sam_mask_decoder.pred_obj_score_head).bias.add_(shift)


def last_layer(perceptron: nn.Module) -> nn.Linear:
    assert isinstance(perceptron, MLP)
    layer = perceptron.layers[-1]
    assert isinstance(layer, nn.Linear)
    return layer


def _draw(module: nn.Module, normal: Callable[..., None]) -> None:
    if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
        weight = module.weight
        fan_in = weight.shape[0] if isinstance(module, nn.ConvTranspose2d) else weight[0].numel()
        normal(weight, fan_in**-0.5)
        if module.bias is not None:
            normal(module.bias, 0.1)
    elif isinstance(module, (nn.LayerNorm, LayerNorm2d)):
        normal(module.weight, 0.1, mean=1.0)
        normal(module.bias, 0.1)
    else:  # embeddings, and what modules hold as bare parameters
        for name, parameter in module.named_parameters(recurse=False):
            if name == "gamma":
                normal(parameter, 0.1, mean=1.0)
            else:
                normal(parameter, 0.3 if name.startswith("pos_embed") else 1.0)


def _balance(layer: nn.Linear) -> None:
    """Sums over a hypernetwork's outputs become 0: the features that they weigh come out of a GELU, hence have a positive
    mean, and masks would have one sign."""
    layer.weight.sub_(layer.weight.mean(0, keepdim=True)).mul_(_LOGIT_SCALE)
    layer.bias.sub_(layer.bias.mean())
