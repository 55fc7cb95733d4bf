"""A network from its sizes, with weights drawn for training."""

from __future__ import annotations

import torch
from torch import nn

from MedSAM2Lib.network.config import NetworkConfig, TrunkConfig, ViTConfig
from MedSAM2Lib.network.convolutional import ConvolutionalSAM2
from MedSAM2Lib.network.efficient import EfficientSAM2
from MedSAM2Lib.network.sam2 import SAM2

__all__ = ["build_network", "initialise"]

_TRUNCATED_NORMAL_STD = 0.02
# Made as zeros, and added to features or tokens.
_EMBEDDINGS = (
    "maskmem_tpos_enc",
    "no_mem_embed",
    "no_mem_pos_enc",
    "no_obj_ptr",
    "no_obj_embed_spatial",
    "image_encoder.trunk.pos_embed",
    "image_encoder.trunk.pos_embed_window",
)


def build_network(config: NetworkConfig) -> SAM2:
    """A network in evaluation mode whose weights are still to be loaded or trained."""
    kinds = {TrunkConfig: SAM2, ViTConfig: EfficientSAM2, type(None): ConvolutionalSAM2}
    return kinds[type(config.trunk)](config).eval()


def initialise(network: SAM2) -> SAM2:
    """Draws starting weights from torch's global generator; returns the same network.

    Layers keep torch's default; embeddings get a small truncated normal, as in Hiera and SAM 2.
    """
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name in _EMBEDDINGS:
                nn.init.trunc_normal_(parameter, std=_TRUNCATED_NORMAL_STD)
    return network
