"""MedSAM's network with seeded random weights under which every part of it matters."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from MedSAM2Lib.network.config import SAMConfig
from MedSAM2Lib.network.layers import LayerNorm2d
from MedSAM2Lib.network.sam import SAM

__all__ = ["random_sam"]


def random_sam(config: SAMConfig, seed: int = 0) -> SAM:
    """In evaluation mode. Layers keep the size of what goes through them: saturated attention would magnify rounding."""
    network = SAM(config).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)

    def draw(tensor: Tensor, std: float, mean: float = 0.0) -> None:
        tensor.copy_(mean + std * torch.randn(tensor.shape, generator=generator))

    for module in network.modules():
        for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            if isinstance(module, (nn.LayerNorm, LayerNorm2d)):
                draw(tensor, 0.1, mean=float(name == "weight"))
            elif name == "bias":
                draw(tensor, 0.1)
            elif isinstance(module, nn.ConvTranspose2d):
                draw(tensor, tensor.shape[0] ** -0.5)
            elif isinstance(module, (nn.Linear, nn.Conv2d)):
                draw(tensor, tensor[0].numel() ** -0.5)
            else:  # embeddings and positions
                draw(tensor, 0.3 if "pos_" in name else 1.0)
    return network
