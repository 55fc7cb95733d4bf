"""EfficientTAM's own parts give what others' implementations give: its encoder is SAM's without relative positions, its mask
decoder SAM 2's without finer features. All else is SAM 2.0, and compared as such."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from MedSAM2Lib.benchmark.subject import random_network
from MedSAM2Lib.network.config import NetworkConfig, ViTConfig
from MedSAM2Lib.network.efficient import EfficientSAM2
from MedSAM2Lib.network.sam2 import SAM2
from Testing.lib.network.parity.comparison import assert_agree
from Testing.lib.network.parity.drivers import points
from Testing.lib.network.parity.weights import random_slices

TRUNK = ViTConfig(embed_dim=32, depth=3, num_heads=2, window=3, global_attention_blocks=(1,))


def config(image_size: int = 128) -> NetworkConfig:
    """Windows of 3 tokens do not fill a grid of 8: the padding takes part, as it does with 14 of 32 at 512 pixels."""
    return NetworkConfig(
        TRUNK,
        image_size=image_size,
        hidden_dim=128,
        memory_layers=1,
        feedforward_dim=96,
        pointer_positions=False,
        absent_object_embedding=False,
    )


@pytest.fixture(autouse=True)
def _no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


def transformers_encoder(network: SAM2) -> Any:
    """SAM's encoder of `transformers` with our sizes and weights."""
    transformers = pytest.importorskip("transformers", reason="transformers is a reference that only the tests need")
    model = transformers.SamVisionModel(
        transformers.SamVisionConfig(
            hidden_size=TRUNK.embed_dim,
            output_channels=network.config.hidden_dim,
            num_hidden_layers=TRUNK.depth,
            num_attention_heads=TRUNK.num_heads,
            image_size=network.config.image_size,
            patch_size=TRUNK.patch_size,
            window_size=TRUNK.window,
            global_attn_indexes=list(TRUNK.global_attention_blocks),
            num_pos_feats=network.config.hidden_dim // 2,
            mlp_dim=4 * TRUNK.embed_dim,
            use_rel_pos=False,
        )
    ).eval()
    model.load_state_dict(renamed(network), strict=True)
    return model


def renamed(network: SAM2) -> dict[str, Tensor]:
    renaming = (
        (r"^image_encoder\.trunk\.blocks\.", "vision_encoder.layers."),
        (r"^image_encoder\.trunk\.", "vision_encoder."),
        (r"patch_embed\.proj", "patch_embed.projection"),
        (r"mlp\.layers\.0", "mlp.lin1"),
        (r"mlp\.layers\.1", "mlp.lin2"),
        (r"layers\.(\d+)\.norm(\d)", r"layers.\1.layer_norm\2"),
        (r"^image_encoder\.neck\.convs\.0\.", "vision_encoder.neck."),
        (r"conv_1x1", "conv1"),
        (r"norm_0", "layer_norm1"),
        (r"conv_3x3", "conv2"),
        (r"norm_1", "layer_norm2"),
    )
    weights = {}
    for name, tensor in network.state_dict().items():
        if name.startswith("image_encoder."):
            for pattern, replacement in renaming:
                name = re.sub(pattern, replacement, name)
            weights[name] = tensor
    # Learned on 14 x 14 tokens behind a class token; transformers wants the size of the image.
    learned = weights["vision_encoder.pos_embed"][:, 1:].reshape(1, 14, 14, -1).movedim(-1, 1)
    side = network.config.feature_size
    weights["vision_encoder.pos_embed"] = F.interpolate(learned, (side, side), mode="bicubic").movedim(1, -1)
    return weights


@pytest.mark.parametrize("image_size", [128, 224], ids=["resized positions", "positions as learned"])
def test_the_encoder_gives_transformers_features(image_size: int) -> None:
    network = random_network(config(image_size))
    slices = random_slices(2, network.config)
    assert_agree(network.encode_image(slices).stride16, transformers_encoder(network)(slices).last_hidden_state)


def test_normalisations_have_sams_epsilons() -> None:
    network = random_network(config())
    assert {module.eps for module in network.image_encoder.modules() if hasattr(module, "eps")} == {1e-6}


@pytest.mark.parametrize("prompt", [points((40, 50, 1)), points((30, 40, 2), (90, 100, 3))], ids=["click", "box"])
def test_masks_are_metas_without_finer_features(prompt: Any) -> None:
    pytest.importorskip("sam2", reason="Meta's package sam2 1.1.0 is a reference that is installed apart")
    from MedSAM2Lib.benchmark.meta import meta_mask_decoder

    network = random_network(config())
    features = network.encode_image(random_slices(1, network.config))
    conditioned = network.without_memory(features.stride16)
    answer = network.predict(conditioned, features, prompt)

    reference = meta_mask_decoder(network)
    encoded = network.sam_prompt_encoder(*prompt, None)
    logits, iou, _, score = reference(
        conditioned,
        network.sam_prompt_encoder.grid_encoding()[None],
        encoded.sparse,
        encoded.dense,
        multimask_output=prompt.labels.shape[1] == 1,
        repeat_image=False,
    )
    assert_agree(answer.candidate_logits, logits)
    assert_agree(answer.candidate_iou, iou)
    assert_agree(answer.object_score, score[:, 0])
    assert 0.02 < (answer.logits > 0).float().mean() < 0.98


def test_only_stride_16_is_made() -> None:
    network = random_network(config())
    assert isinstance(network, EfficientSAM2)
    features = network.encode_image(random_slices(2, network.config))
    assert features.stride16.shape == (2, 128, 8, 8)
    assert [level.numel() for level in (features.stride8, features.stride4, features.pixels)] == [0, 0, 0]
