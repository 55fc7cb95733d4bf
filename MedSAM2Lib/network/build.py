"""A network from its sizes, with weights drawn for training."""

from __future__ import annotations

import torch
from torch import nn

from MedSAM2Lib.network.config import NetworkConfig
from MedSAM2Lib.network.sam2 import SAM2

__all__ = ["build_network", "initialise"]

_TRUNCATED_NORMAL_STD = 0.02


def build_network(config: NetworkConfig) -> SAM2:
    """A network in evaluation mode whose weights are still to be loaded or trained."""
    return SAM2(config).eval()


def initialise(network: SAM2) -> SAM2:
    """Draws starting weights from torch's global generator; returns the same network.

    Linear layers keep torch's default; what `SAM2` creates as zeros (embeddings added to features or tokens) gets a
    small truncated normal, as in Hiera and SAM 2.
    """
    zeros_that_add = [
        network.maskmem_tpos_enc,
        network.no_mem_embed,
        network.no_mem_pos_enc,
        network.no_obj_ptr,
        network.image_encoder.trunk.pos_embed,
        network.image_encoder.trunk.pos_embed_window,
    ]
    if network.config.absent_object_embedding:
        zeros_that_add.append(network.no_obj_embed_spatial)
    with torch.no_grad():
        for parameter in zeros_that_add:
            nn.init.trunc_normal_(parameter, std=_TRUNCATED_NORMAL_STD)
    return network
