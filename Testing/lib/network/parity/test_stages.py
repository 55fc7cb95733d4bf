"""Each stage of the network gives what the reference implementations give, with the same random weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from MedSAM2Lib.benchmark.subject import last_layer, random_network
from MedSAM2Lib.network.config import NetworkConfig
from MedSAM2Lib.network.mask_decoder import _stable_or_best
from MedSAM2Lib.network.sam2 import NO_OBJECT_LOGIT, SAM2, ImageFeatures, MaskPrediction, PointTensors
from Testing.lib.network.parity.comparison import assert_agree
from Testing.lib.network.parity.drivers import Meta, Transformers, points
from Testing.lib.network.parity.weights import SMALL, random_slices, shift_object_score

CLICK = points((40, 50, 1))
PROMPTS = {
    "click": CLICK,
    "background click": points((100.5, 7.25, 0)),
    "two clicks": points((40, 50, 1), (100, 20, 0)),
    "box": points((30, 40, 2), (90, 100, 3)),
    "box and click": points((30, 40, 2), (90, 100, 3), (60, 60, 1)),
}
prompts = pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)


@pytest.fixture(autouse=True)
def _no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def meta(a_network: SAM2, slices: Tensor) -> Any:
    return Meta(a_network, slices).predictor


@pytest.fixture(scope="module")
def transformers(a_network: SAM2, slices: Tensor) -> Any:
    return Transformers(a_network, slices).model


@pytest.fixture(scope="module")
def features(a_network: SAM2, slices: Tensor) -> ImageFeatures:
    with torch.no_grad():
        return a_network.encode_image(slices[:1])


@pytest.fixture
def mask_logits(a_config: NetworkConfig) -> Tensor:
    """(1, 1, S / 4, S / 4), of both signs."""
    side = a_config.image_size // 4
    return 10 * torch.randn(1, 1, side, side, generator=torch.Generator().manual_seed(1))


def test_normalisations_have_metas_epsilons(a_network: SAM2, meta: Any) -> None:
    """Too small a thing to show in the results of random weights."""
    ours = {name: module.eps for name, module in a_network.named_modules() if hasattr(module, "eps")}
    assert ours == {name: module.eps for name, module in meta.named_modules() if hasattr(module, "eps")}


# ── the image ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_encoder_gives_metas_features(a_network: SAM2, meta: Any, slices: Tensor) -> None:
    ours = a_network.encode_image(slices[:2])
    stride4, stride8, stride16 = meta.forward_image(slices[:2])["backbone_fpn"]
    assert_agree(ours.stride4, stride4)
    assert_agree(ours.stride8, stride8)
    assert_agree(ours.stride16, stride16)


def test_the_encoder_gives_transformers_features(a_network: SAM2, transformers: Any, slices: Tensor) -> None:
    ours = a_network.encode_image(slices[:2])
    theirs = transformers.get_image_features(slices[:2], return_dict=True).fpn_hidden_states
    for own, other in zip((ours.stride4, ours.stride8, ours.stride16), theirs, strict=True):
        assert_agree(own.flatten(2).permute(2, 0, 1), other)


def test_the_encoder_notices_that_its_weights_have_changed() -> None:
    network, other = random_network(SMALL, seed=0), random_network(SMALL, seed=1)
    images = random_slices(1, SMALL)
    network.encode_image(images)
    network.load_state_dict(other.state_dict())
    assert torch.equal(network.encode_image(images).stride16, other.encode_image(images).stride16)


# ── prompts ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@prompts
def test_prompts_become_metas_tokens(a_network: SAM2, meta: Any, prompt: PointTensors) -> None:
    sparse, dense = a_network.sam_prompt_encoder(*prompt, None)
    their_sparse, their_dense = meta.sam_prompt_encoder(points=tuple(prompt), boxes=None, masks=None)
    assert_agree(sparse, their_sparse)
    assert_agree(dense, their_dense)


@prompts
def test_prompts_become_transformers_tokens(a_network: SAM2, transformers: Any, prompt: PointTensors) -> None:
    sparse, dense = a_network.sam_prompt_encoder(*prompt, None)
    their_sparse, their_dense = transformers.prompt_encoder(prompt.coordinates[:, None], prompt.labels[:, None], None, None)
    assert_agree(sparse, their_sparse[:, 0])
    assert_agree(dense, their_dense)


def test_a_mask_prompt_becomes_the_references_map(a_network: SAM2, meta: Any, transformers: Any, mask_logits: Tensor) -> None:
    dense = a_network.sam_prompt_encoder(*CLICK, mask_logits)[1]
    assert_agree(dense, meta.sam_prompt_encoder(points=tuple(CLICK), boxes=None, masks=mask_logits)[1])
    assert_agree(dense, transformers.prompt_encoder.mask_embed(mask_logits))


def test_grid_positions_are_those_of_the_references(a_network: SAM2, meta: Any, transformers: Any) -> None:
    ours = a_network.sam_prompt_encoder.grid_encoding()[None]
    assert_agree(ours, meta.sam_prompt_encoder.get_dense_pe())
    assert_agree(ours, transformers.get_image_wide_positional_embeddings())


# ── masks ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def assert_gives_metas_answer(
    network: SAM2, meta: Any, features: ImageFeatures, prompt: PointTensors | None, mask: Tensor | None = None
) -> MaskPrediction:
    conditioned = network.without_memory(features.stride16)
    ours = network.predict(conditioned, features, prompt, mask)
    _, _, iou, logits, _, pointer, score = meta._forward_sam_heads(
        conditioned,
        None if prompt is None else {"point_coords": prompt.coordinates, "point_labels": prompt.labels},
        mask,
        [features.stride4, features.stride8],
        multimask_output=prompt is None or prompt.labels.shape[1] == 1,
    )
    assert_agree(ours.logits, logits)
    assert_agree(ours.candidate_iou, iou)
    assert_agree(ours.iou, iou.amax(-1))
    assert_agree(ours.object_score, score[:, 0])
    assert_agree(ours.pointer, pointer)
    return ours


@prompts
def test_prompts_give_metas_masks(a_network: SAM2, meta: Any, features: ImageFeatures, prompt: PointTensors) -> None:
    answer = assert_gives_metas_answer(a_network, meta, features, prompt)
    assert 0.02 < (answer.logits > 0).float().mean() < 0.98


def test_no_prompt_at_all_gives_metas_mask(a_network: SAM2, meta: Any, features: ImageFeatures) -> None:
    assert_gives_metas_answer(a_network, meta, features, None)


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_a_mask_prompt_of_any_size_gives_metas_mask(
    a_network: SAM2, meta: Any, features: ImageFeatures, mask_logits: Tensor, scale: int
) -> None:
    given = F.interpolate(mask_logits, scale_factor=scale, mode="bilinear", align_corners=False)
    assert_gives_metas_answer(a_network, meta, features, CLICK, given)


def test_a_batch_of_objects_gives_metas_masks(a_network: SAM2, meta: Any, slices: Tensor) -> None:
    features = a_network.encode_image(slices[:3])
    batch = PointTensors(torch.tensor([[[10.0, 20.0]], [[64.0, 64.0]], [[99.0, 5.0]]]), torch.tensor([[1], [0], [1]]))
    assert_gives_metas_answer(a_network, meta, features, batch)


@prompts
def test_prompts_give_transformers_masks(
    a_network: SAM2, transformers: Any, features: ImageFeatures, prompt: PointTensors
) -> None:
    conditioned = a_network.without_memory(features.stride16)
    ours = a_network.predict(conditioned, features, prompt)
    theirs = transformers._single_frame_forward(
        input_points=prompt.coordinates[:, None],
        input_labels=prompt.labels[:, None],
        image_embeddings=[features.stride4, features.stride8, conditioned],
        multimask_output=prompt.labels.shape[1] == 1,
    )
    assert_agree(ours.logits, theirs.pred_masks)
    assert_agree(ours.candidate_iou, theirs.iou_scores[:, 0])
    assert_agree(ours.object_score, theirs.object_score_logits[:, 0, 0])
    assert_agree(ours.pointer, theirs.object_pointer[:, 0])


@pytest.mark.parametrize(("spread", "stable"), [(0.01, False), (100.0, True)])
def test_an_unstable_single_mask_gives_way_to_the_best_candidate(spread: float, stable: bool) -> None:
    network = random_network(SMALL)
    last = last_layer(network.sam_mask_decoder.output_hypernetworks_mlps[0])
    for parameter in last.parameters():
        parameter.mul_(spread)
    features = network.encode_image(random_slices(1, SMALL))
    box = PROMPTS["box"]
    answer = assert_gives_metas_answer(network, Meta(network, random_slices(1, SMALL)).predictor, features, box)
    assert (answer.logits.abs().max() > 100) == stable


def test_the_same_masks_count_as_stable(meta: Any) -> None:
    """Of uniform logits, those that reach beyond about +-5 are stable enough."""
    generator = torch.Generator().manual_seed(3)
    reach = torch.linspace(3, 8, 64).view(-1, 1, 1, 1)
    logits = reach * (2 * torch.rand(64, 4, 64, 64, generator=generator) - 1)
    iou = torch.rand(64, 4, generator=generator)
    chosen, chosen_iou = _stable_or_best(logits, iou)
    their_chosen, their_iou = meta.sam_mask_decoder._dynamic_multimask_via_stability(logits, iou)
    assert torch.equal(chosen, their_chosen)
    assert torch.equal(chosen_iou, their_iou)


def test_an_absent_object_has_metas_empty_answer(a_config: NetworkConfig, slices: Tensor) -> None:
    network = random_network(a_config)
    shift_object_score(network, -20)
    answer = assert_gives_metas_answer(network, Meta(network, slices).predictor, network.encode_image(slices[:1]), CLICK)
    assert (answer.logits == NO_OBJECT_LOGIT).all()
    assert torch.equal(answer.pointer, network.no_obj_ptr)


@pytest.mark.parametrize("value", [1, 0], ids=["rectangle", "empty"])
def test_a_persons_mask_is_adopted_as_meta_does(a_network: SAM2, meta: Any, features: ImageFeatures, value: int) -> None:
    mask = torch.zeros(1, 1, a_network.config.image_size, a_network.config.image_size)
    mask[..., 30:79, 41:103] = value  # edges that are not on the S / 4 grid
    ours = a_network.adopt_mask(features, mask)
    _, _, iou, logits, _, pointer, score = meta._use_mask_as_output(features.stride16, [features.stride4, features.stride8], mask)
    assert_agree(ours.logits, logits)
    assert_agree(ours.iou, iou[:, 0])
    assert_agree(ours.pointer, pointer)
    assert_agree(ours.object_score, score[:, 0])


# ── memory ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("prompted", [True, False], ids=["prompted", "tracked"])
@pytest.mark.parametrize("score", [3.0, -3.0], ids=["present", "absent"])
def test_a_memory_map_is_metas(
    a_network: SAM2, meta: Any, features: ImageFeatures, mask_logits: Tensor, prompted: bool, score: float
) -> None:
    side = a_network.config.image_size
    ours = a_network.encode_memory(features.stride16, mask_logits, torch.tensor([score]), prompted)
    full = F.interpolate(mask_logits, size=(side, side), mode="bilinear", align_corners=False)
    flat = features.stride16.flatten(2).permute(2, 0, 1)
    theirs, _ = meta._encode_new_memory([flat], [features.stride16.shape[-2:]], full, torch.tensor([[score]]), prompted)
    assert_agree(ours, theirs)


@pytest.mark.parametrize("pointer_tokens", [0, 6])
def test_a_slice_looks_at_memories_as_in_the_references(
    a_network: SAM2, meta: Any, transformers: Any, features: ImageFeatures, pointer_tokens: int
) -> None:
    generator = torch.Generator().manual_seed(2)
    size = (1, 3 * a_network.config.feature_size**2 + pointer_tokens, a_network.config.memory_dim)
    memory, position = torch.randn(size, generator=generator), torch.randn(size, generator=generator)
    ours = a_network.with_memory(features.stride16, memory, position, pointer_tokens).flatten(2).permute(2, 0, 1)

    own_position = meta.image_encoder.neck.position_encoding(features.stride16)
    # The references put tokens before the batch.
    flat, own_position = (level.flatten(2).permute(2, 0, 1) for level in (features.stride16, own_position))
    memory, position = memory.transpose(0, 1), position.transpose(0, 1)
    assert_agree(ours, meta.memory_attention(flat, memory, own_position, position, pointer_tokens))
    assert_agree(ours, transformers.memory_attention(flat, memory, own_position, position, pointer_tokens)[:, 0].transpose(0, 1))
