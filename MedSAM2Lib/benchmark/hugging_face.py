"""The SAM 2 video model of `transformers` (5.23), built from our configuration and given our weights under its own names."""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import Sam2HieraDetConfig, Sam2VideoConfig, Sam2VideoModel, Sam2VisionConfig
from transformers.models.sam2_video.configuration_sam2_video import Sam2VideoMaskDecoderConfig, Sam2VideoPromptEncoderConfig
from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

from MedSAM2Lib.benchmark.plan import Plan
from MedSAM2Lib.benchmark.reference import Reference
from MedSAM2Lib.network.config import TrunkConfig
from MedSAM2Lib.network.prompt_encoder import PointLabel
from MedSAM2Lib.network.sam2 import SAM2
from MedSAM2Lib.prompts import Box

__all__ = ["TransformersReference", "answer_points", "open_session", "transformers_model"]


class TransformersReference(Reference):
    """Several objects are segmented in one session, which encodes a slice once for all of them. Masks come in a quarter of
    the slice's size and are enlarged as its processor does it."""

    shares_features = True

    def __init__(self, network: SAM2, frames: Tensor, plan: Plan) -> None:
        super().__init__(network, frames, plan)
        self._model = transformers_model(network)

    def _encode(self, frame: Tensor) -> object:
        return self._model.get_image_features(frame)

    def _open(self) -> Sam2VideoInferenceSession:
        return open_session(self._frames)

    def _draw_box(self, session: Sam2VideoInferenceSession, number: int, box: Box) -> object:
        corners = torch.tensor([[[box.x0, box.y0], [box.x1, box.y1]]])
        labels = torch.tensor([[PointLabel.BOX_TOP_LEFT, PointLabel.BOX_BOTTOM_RIGHT]])
        return self._enlarged(answer_points(self._model, session, 0, number, corners, labels))

    def _click(self, session: Sam2VideoInferenceSession, index: int, x: float, y: float) -> object:
        point, label = torch.tensor([[[x, y]]]), torch.tensor([[PointLabel.POSITIVE]])
        return self._enlarged(answer_points(self._model, session, index, 0, point, label))

    def _propagate(self, session: Sam2VideoInferenceSession, last: int) -> Iterator[tuple[int, Tensor]]:
        for frame in self._model.propagate_in_video_iterator(session, 0, last):
            yield frame.frame_idx, self._enlarged(frame.pred_masks)

    def _enlarged(self, logits: Tensor) -> Tensor:
        return F.interpolate(logits, size=(self._size, self._size), mode="bilinear", align_corners=False)


def open_session(frames: Tensor) -> Sam2VideoInferenceSession:
    """(T, 3, S, S) normalised frames, where they are, as its processor would have made them of pictures."""
    size, device = frames.shape[-1], frames.device
    return Sam2VideoInferenceSession(frames, size, size, device, device, device, dtype=frames.dtype)


def answer_points(
    model: Sam2VideoModel, session: Sam2VideoInferenceSession, index: int, number: int, coordinates: Tensor, labels: Tensor
) -> Tensor:
    """(objects, 1, S / 4, S / 4) logits of slice `index`, after clicks and box corners (1, N, 2) with labels (1, N) were
    given for the object `number`."""
    inputs = {"point_coords": coordinates[:, None], "point_labels": labels[:, None]}
    session.add_point_inputs(session.obj_id_to_idx(number), index, inputs)
    session.obj_with_new_inputs = [number]
    logits: Tensor = model(session, frame_idx=index).pred_masks
    return logits


def transformers_model(network: SAM2) -> Sam2VideoModel:
    """Hugging Face's model with our sizes and weights, in evaluation mode."""
    config = network.config
    side = config.feature_size
    trunk = config.trunk
    assert isinstance(trunk, TrunkConfig), "of SAM 2's image encoders it knows the Hiera"
    doubling = [2**stage for stage in range(len(trunk.stages))]
    dims = [trunk.embed_dim * factor for factor in doubling]
    backbone = Sam2HieraDetConfig(
        hidden_size=trunk.embed_dim,
        num_attention_heads=trunk.num_heads,
        image_size=[config.image_size, config.image_size],
        window_positional_embedding_background_size=list(trunk.background_size),
        blocks_per_stage=list(trunk.stages),
        embed_dim_per_stage=dims,
        num_attention_heads_per_stage=[trunk.num_heads * factor for factor in doubling],
        window_size_per_stage=list(trunk.windows),
        global_attention_blocks=list(trunk.global_attention_blocks),
    )
    vision = Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=dims[::-1],
        backbone_feature_sizes=[[4 * side, 4 * side], [2 * side, 2 * side], [side, side]],
        fpn_hidden_size=config.hidden_dim,
    )
    decoder = Sam2VideoMaskDecoderConfig(
        hidden_size=config.hidden_dim, mlp_dim=config.feedforward_dim, iou_head_hidden_dim=config.hidden_dim
    )
    model = Sam2VideoModel(
        Sam2VideoConfig(
            vision_config=vision,
            prompt_encoder_config=Sam2VideoPromptEncoderConfig(hidden_size=config.hidden_dim, image_size=config.image_size),
            mask_decoder_config=decoder,
            num_maskmem=config.memory_slots,
            image_size=config.image_size,
            max_object_pointers_in_encoder=config.max_object_pointers,
            enable_occlusion_spatial_embedding=config.absent_object_embedding,
            enable_temporal_pos_encoding_for_object_pointers=config.pointer_positions,
            memory_attention_hidden_size=config.hidden_dim,
            memory_attention_num_layers=config.memory_layers,
            memory_attention_feed_forward_hidden_size=config.feedforward_dim,
            memory_attention_rope_feat_sizes=[side, side],
            memory_encoder_hidden_size=config.hidden_dim,
            memory_encoder_output_channels=config.memory_dim,
            mask_downsampler_embed_dim=config.hidden_dim,
            memory_fuser_embed_dim=config.hidden_dim,
            memory_fuser_intermediate_dim=4 * config.hidden_dim,
        )
    )
    model.load_state_dict(_renamed(network.state_dict()))
    placed: Sam2VideoModel = model.eval().to(network.device)  # type: ignore[no-untyped-call]
    return placed


# Published name to transformers' name; every rule is applied, in this order.
_RENAMING = (
    (r"^sam_prompt_encoder\.pe_layer\.positional_encoding_gaussian_matrix", "shared_image_embedding.positional_embedding"),
    (r"^image_encoder\.trunk\.", "vision_encoder.backbone."),
    (r"^image_encoder\.neck\.convs\.(\d)\.conv", r"vision_encoder.neck.convs.\1"),
    (r"patch_embed\.proj\.", "patch_embed.projection."),
    (r"^sam_(prompt_encoder|mask_decoder)", r"\1"),
    # bare parameters
    (r"^no_mem_embed$", "no_memory_embedding"),
    (r"^no_mem_pos_enc$", "no_memory_positional_encoding"),
    (r"^no_obj_ptr$", "no_object_pointer"),
    (r"^no_obj_embed_spatial$", "occlusion_spatial_embedding_parameter"),
    (r"^maskmem_tpos_enc$", "memory_temporal_positional_encoding"),
    (r"^obj_ptr_tpos_proj", "temporal_positional_encoding_projection_layer"),
    (r"^obj_ptr_proj", "object_pointer_proj"),
    # prompt encoder: conv, norm, activation, twice, then conv
    (r"mask_downscaling\.0\.", "mask_embed.conv1."),
    (r"mask_downscaling\.1\.", "mask_embed.layer_norm1."),
    (r"mask_downscaling\.3\.", "mask_embed.conv2."),
    (r"mask_downscaling\.4\.", "mask_embed.layer_norm2."),
    (r"mask_downscaling\.6\.", "mask_embed.conv3."),
    # mask decoder
    (r"output_upscaling\.0\.", "upscale_conv1."),
    (r"output_upscaling\.1\.", "upscale_layer_norm."),
    (r"output_upscaling\.3\.", "upscale_conv2."),
    # memory encoder: conv, norm, activation, four times, then conv
    (r"mask_downsampler\.encoder\.12\.", "mask_downsampler.final_conv."),
    *((rf"mask_downsampler\.encoder\.{3 * n}\.", f"mask_downsampler.layers.{n}.conv.") for n in range(4)),
    *((rf"mask_downsampler\.encoder\.{3 * n + 1}\.", f"mask_downsampler.layers.{n}.layer_norm.") for n in range(4)),
    (r"memory_encoder\.pix_feat_proj", "memory_encoder.feature_projection"),
    (r"memory_encoder\.out_proj", "memory_encoder.projection"),
    (r"memory_encoder\.fuser", "memory_encoder.memory_fuser"),
    (r"\.dwconv\.", ".depthwise_conv."),
    (r"\.pwconv(\d)\.", r".pointwise_conv\1."),
    (r"\.gamma$", ".scale"),
    # everywhere
    (r"attn(\w*)\.out_proj\.", r"attn\1.o_proj."),
    (r"\.norm_final_attn\.", ".layer_norm_final_attn."),
    (r"\.norm(\d?)\.", r".layer_norm\1."),
    # perceptrons: transformers names the first and the last layer and numbers those between
    (r"\.(mlp|mlps\.\d)\.layers\.0\.", r".\1.proj_in."),
    (r"(_mlps\.\d|_head|_pointer_proj)\.layers\.0\.", r"\1.proj_in."),
    (r"(_mlps\.\d|_head|_pointer_proj)\.layers\.1\.", r"\1.layers.0."),
    (r"(_mlps\.\d|_head|_pointer_proj)\.layers\.2\.", r"\1.proj_out."),
    (r"\.mlp\.layers\.1\.", ".mlp.proj_out."),
)


def _renamed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights under transformers' names; nothing but names changes, and that four point embeddings are one table there."""
    renamed = {}
    for name, tensor in weights.items():
        for pattern, replacement in _RENAMING:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    points = [renamed.pop(f"prompt_encoder.point_embeddings.{label}.weight") for label in range(4)]
    renamed["prompt_encoder.point_embed.weight"] = torch.cat(points)
    renamed["prompt_encoder.shared_embedding.positional_embedding"] = renamed["shared_image_embedding.positional_embedding"]
    return renamed
