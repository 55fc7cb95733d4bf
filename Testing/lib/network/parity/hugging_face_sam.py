"""The SAM model of `transformers`, built from our configuration and given our weights under its own names."""

from __future__ import annotations

import re

from torch import Tensor, nn
from transformers import SamConfig, SamModel, SamVisionConfig
from transformers.models.sam.configuration_sam import SamMaskDecoderConfig, SamPromptEncoderConfig

from MedSAM2Lib.network.config import SAMConfig
from MedSAM2Lib.network.sam import SAM

__all__ = ["renamed_sam", "transformers_sam", "without_weights"]


def without_weights(config: SAMConfig) -> SamModel:
    """Hugging Face's model with our sizes, in evaluation mode."""
    vision = SamVisionConfig(
        hidden_size=config.embed_dim,
        output_channels=config.hidden_dim,
        num_hidden_layers=config.depth,
        num_attention_heads=config.num_heads,
        image_size=config.image_size,
        patch_size=config.patch_size,
        window_size=config.window,
        global_attn_indexes=list(config.global_attention_blocks),
        num_pos_feats=config.hidden_dim // 2,
        mlp_dim=4 * config.embed_dim,
    )
    prompts = SamPromptEncoderConfig(hidden_size=config.hidden_dim, image_size=config.image_size, patch_size=config.patch_size)
    decoder = SamMaskDecoderConfig(
        hidden_size=config.hidden_dim, mlp_dim=config.feedforward_dim, iou_head_hidden_dim=config.hidden_dim
    )
    return SamModel(SamConfig(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder)).eval()


def transformers_sam(network: SAM) -> SamModel:
    """The same with our weights, and with SAM's epsilon where transformers has another."""
    model = without_weights(network.config)
    for module in model.mask_decoder.transformer.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-5
    model.load_state_dict(renamed_sam(network.state_dict()), strict=True)
    return model


_RENAMING = (
    (r"^image_encoder\.", "vision_encoder."),
    (r"patch_embed\.proj", "patch_embed.projection"),
    (r"^(vision_encoder)\.blocks\.", r"\1.layers."),
    (r"neck\.0\.", "neck.conv1."),
    (r"neck\.1\.", "neck.layer_norm1."),
    (r"neck\.2\.", "neck.conv2."),
    (r"neck\.3\.", "neck.layer_norm2."),
    (r"prompt_encoder\.pe_layer\.positional_encoding_gaussian_matrix", "shared_image_embedding.positional_embedding"),
    (r"\.point_embeddings\.", ".point_embed."),
    (r"mask_downscaling\.0\.", "mask_embed.conv1."),
    (r"mask_downscaling\.1\.", "mask_embed.layer_norm1."),
    (r"mask_downscaling\.3\.", "mask_embed.conv2."),
    (r"mask_downscaling\.4\.", "mask_embed.layer_norm2."),
    (r"mask_downscaling\.6\.", "mask_embed.conv3."),
    (r"output_upscaling\.0\.", "upscale_conv1."),
    (r"output_upscaling\.1\.", "upscale_layer_norm."),
    (r"output_upscaling\.3\.", "upscale_conv2."),
    (r"\.norm_final_attn\.", ".layer_norm_final_attn."),
    (r"\.norm(\d)\.", r".layer_norm\1."),
    (r"(_mlps\.\d|_head)\.layers\.0\.", r"\1.proj_in."),
    (r"(_mlps\.\d|_head)\.layers\.1\.", r"\1.layers.0."),
    (r"(_mlps\.\d|_head)\.layers\.2\.", r"\1.proj_out."),
)


def renamed_sam(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights under transformers' names; nothing but names changes, and that one of them is there twice."""
    renamed = {}
    for name, tensor in weights.items():
        for pattern, replacement in _RENAMING:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    renamed["prompt_encoder.shared_embedding.positional_embedding"] = renamed["shared_image_embedding.positional_embedding"]
    return renamed
