"""facebookresearch/sam2 as packaged on PyPI (`sam2` 1.1.0), built from our configuration and given our weights.

Its classes are put together here, so that neither its configuration files nor hydra are needed. Importing this module
needs the package; `benchmark.reference` tells beforehand.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import sam2.sam2_video_predictor as video_predictor
from sam2.modeling.backbones.hieradet import Hiera
from sam2.modeling.backbones.image_encoder import FpnNeck, ImageEncoder
from sam2.modeling.memory_attention import MemoryAttention, MemoryAttentionLayer
from sam2.modeling.memory_encoder import CXBlock, Fuser, MaskDownSampler, MemoryEncoder
from sam2.modeling.position_encoding import PositionEmbeddingSine
from sam2.modeling.sam.mask_decoder import MaskDecoder
from sam2.modeling.sam.transformer import RoPEAttention, TwoWayTransformer
from torch import Tensor

from MedSAM2Lib.benchmark.plan import Plan
from MedSAM2Lib.benchmark.reference import Reference
from MedSAM2Lib.network.config import NetworkConfig, TrunkConfig
from MedSAM2Lib.network.sam2 import SAM2
from MedSAM2Lib.prompts import Box

__all__ = ["MetaReference", "meta_mask_decoder", "meta_predictor", "meta_state", "quiet_meta"]


class MetaReference(Reference):
    """Several objects take one run each, as in MedSAM2's scripts."""

    def __init__(self, network: SAM2, frames: Tensor, plan: Plan) -> None:
        super().__init__(network, frames, plan)
        self._predictor = meta_predictor(network)

    def _encode(self, frame: Tensor) -> object:
        return self._predictor.forward_image(frame)

    def _open(self) -> Any:
        return meta_state(self._predictor, self._frames, self._size, self._size)

    def _draw_box(self, session: Any, number: int, box: Box) -> object:
        return self._predictor.add_new_points_or_box(session, 0, number, box=np.array([box.x0, box.y0, box.x1, box.y1]))

    def _click(self, session: Any, index: int, x: float, y: float) -> object:
        points, labels = np.array([[x, y]], dtype=np.float32), np.array([1], dtype=np.int32)
        return self._predictor.add_new_points_or_box(session, index, 0, points=points, labels=labels)

    def _propagate(self, session: Any, last: int) -> Iterator[tuple[int, Tensor]]:
        frames = self._predictor.propagate_in_video(session, 0, last)
        with quiet_meta():  # the bar begins with the first frame
            first = next(frames)
        for index, _, logits in itertools.chain([first], frames):
            yield index, logits


def meta_predictor(network: SAM2, *, keep_corrections: bool = True) -> Any:
    """Meta's video predictor with our sizes and weights, in evaluation mode. Its weights have the published names, as
    ours do.

    keep_corrections  every corrected frame becomes conditioning, as in training; Meta's default, False, loses corrections
                      on the next pass (facebookresearch/sam2 issues 719 and 731)
    """
    config = network.config
    predictor = video_predictor.SAM2VideoPredictor(
        image_encoder=_meta_image_encoder(config),
        memory_attention=_meta_memory_attention(config),
        memory_encoder=_meta_memory_encoder(config),
        num_maskmem=config.memory_slots,
        image_size=config.image_size,
        sigmoid_scale_for_mem_enc=config.mask_to_memory_scale,
        sigmoid_bias_for_mem_enc=config.mask_to_memory_bias,
        max_obj_ptrs_in_encoder=config.max_object_pointers,
        # SAM 2.0 and SAM 2.1 differ in these four
        no_obj_embed_spatial=config.absent_object_embedding,
        add_tpos_enc_to_obj_ptrs=config.pointer_positions,
        proj_tpos_enc_in_obj_ptrs=config.pointer_positions,
        use_signed_tpos_enc_to_obj_ptrs=config.pointer_positions,
        # common to every published configuration
        use_mask_input_as_output_without_sam=True,
        directly_add_no_mem_embed=True,
        use_high_res_features_in_sam=True,
        multimask_output_in_sam=True,
        multimask_output_for_tracking=True,
        multimask_min_pt_num=0,
        multimask_max_pt_num=1,
        use_multimask_token_for_obj_ptr=True,
        iou_prediction_use_sigmoid=True,
        use_obj_ptrs_in_encoder=True,
        only_obj_ptrs_in_the_past_for_eval=True,
        pred_obj_scores=True,
        pred_obj_scores_mlp=True,
        fixed_no_obj_ptr=True,
        use_mlp_for_obj_ptr_proj=True,
        # what Meta's build functions add, but for hole filling: it needs a CUDA extension
        binarize_mask_from_pts_for_mem_enc=True,
        fill_hole_area=0,
        add_all_frames_to_correct_as_cond=keep_corrections,
    )
    predictor.sam_mask_decoder = meta_mask_decoder(network)  # Meta's own hard-codes the widths of the published sizes
    predictor.load_state_dict(network.state_dict())
    return predictor.to(network.device).eval()


def meta_state(predictor: Any, frames: Tensor, rows: int, columns: int) -> Any:
    """What Meta's predictor keeps of a video, from (T, 3, S, S) normalised frames instead of a folder of pictures.

    rows, columns  size that prompts are given in and masks are returned in
    """

    def frames_given(**_: object) -> tuple[Tensor, int, int]:
        return frames, rows, columns

    with _replaced(video_predictor, "load_video_frames", frames_given):
        return predictor.init_state("")


@contextmanager
def quiet_meta() -> Iterator[None]:
    """For the length of the block Meta's predictor draws no progress bar."""
    with _replaced(video_predictor, "tqdm", lambda frames, **_: frames):
        yield


@contextmanager
def _replaced(module: Any, name: str, value: object) -> Iterator[None]:
    kept = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, kept)


def _meta_image_encoder(config: NetworkConfig) -> Any:
    own = config.trunk
    assert isinstance(own, TrunkConfig), "Meta's package knows neither plain transformers nor convolutions"
    trunk = Hiera(
        embed_dim=own.embed_dim,
        num_heads=own.num_heads,
        stages=own.stages,
        window_spec=own.windows,
        global_att_blocks=own.global_attention_blocks,
        window_pos_embed_bkg_spatial_size=own.background_size,
    )
    neck = FpnNeck(
        PositionEmbeddingSine(config.hidden_dim),
        d_model=config.hidden_dim,
        backbone_channel_list=trunk.channel_list,
        fpn_top_down_levels=[2, 3],
        fpn_interp_model="nearest",
    )
    return ImageEncoder(trunk, neck, scalp=1)


def _meta_memory_attention(config: NetworkConfig) -> Any:
    def rotary(**options: object) -> Any:
        size = (config.feature_size, config.feature_size)
        return RoPEAttention(embedding_dim=config.hidden_dim, num_heads=1, dropout=0.1, feat_sizes=size, **options)

    layer = MemoryAttentionLayer(
        activation="relu",
        self_attention=rotary(),
        cross_attention=rotary(rope_k_repeat=True, kv_in_dim=config.memory_dim),
        d_model=config.hidden_dim,
        dim_feedforward=config.feedforward_dim,
        dropout=0.1,
        pos_enc_at_attn=False,
        pos_enc_at_cross_attn_keys=True,
        pos_enc_at_cross_attn_queries=False,
    )
    return MemoryAttention(config.hidden_dim, pos_enc_at_input=True, layer=layer, num_layers=config.memory_layers)


def _meta_memory_encoder(config: NetworkConfig) -> Any:
    return MemoryEncoder(
        out_dim=config.memory_dim,
        mask_downsampler=MaskDownSampler(config.hidden_dim, kernel_size=3, stride=2, padding=1),
        fuser=Fuser(CXBlock(config.hidden_dim), num_layers=2),
        position_encoding=PositionEmbeddingSine(config.memory_dim),
        in_dim=config.hidden_dim,
    )


def meta_mask_decoder(network: SAM2) -> Any:
    """Meta's mask decoder with our sizes and weights, in evaluation mode."""
    config, own = network.config, network.sam_mask_decoder
    decoder = MaskDecoder(
        transformer_dim=config.hidden_dim,
        transformer=TwoWayTransformer(depth=2, embedding_dim=config.hidden_dim, num_heads=8, mlp_dim=config.feedforward_dim),
        iou_head_hidden_dim=config.hidden_dim,
        use_high_res_features=own.picks_up_detail,
        iou_prediction_use_sigmoid=True,
        pred_obj_scores=True,
        pred_obj_scores_mlp=True,
        use_multimask_token_for_obj_ptr=True,
        dynamic_multimask_via_stability=True,
        dynamic_multimask_stability_delta=0.05,
        dynamic_multimask_stability_thresh=0.98,
    )
    decoder.load_state_dict(own.state_dict())
    return decoder.eval()
