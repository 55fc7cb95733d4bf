"""SAM 2's memory around convolutions: what the U-Net gets to see, and what it answers."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch

from MedSAM2Lib.benchmark.subject import random_network
from MedSAM2Lib.network.build import build_network
from MedSAM2Lib.network.config import NETWORKS, NetworkConfig
from MedSAM2Lib.network.convolutional import ConvolutionalSAM2
from MedSAM2Lib.network.precision import set_precision
from MedSAM2Lib.network.prompt_encoder import PointLabel
from MedSAM2Lib.network.prompted_unet import PromptedUNet
from MedSAM2Lib.network.sam2 import NO_OBJECT_LOGIT, ImageFeatures, MaskPrediction, PointTensors, SliceDepth
from Testing.lib.network.parity.weights import SMALL as TRANSFORMER

SIDE = 64
SMALL = NetworkConfig(trunk=None, image_size=SIDE, hidden_dim=32, memory_dim=16, memory_layers=1, feedforward_dim=32)
NETWORK = random_network(SMALL)
MASK = torch.full((1, 1, SIDE, SIDE), -5.0)
MASK[..., 20:40, 20:40] = 5.0


def seen() -> ImageFeatures:
    return NETWORK.encode_image(torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)))


def answer(points: PointTensors | None = None, mask: torch.Tensor | None = None) -> MaskPrediction:
    features = seen()
    return NETWORK.predict(NETWORK.without_memory(features.stride16), features, points, mask)


def points(*labelled: tuple[int, int, PointLabel]) -> PointTensors:
    return PointTensors(
        torch.tensor([[(float(x), float(y)) for x, y, _ in labelled]]), torch.tensor([[label for *_, label in labelled]])
    )


BOX = points((20, 20, PointLabel.BOX_TOP_LEFT), (40, 40, PointLabel.BOX_BOTTOM_RIGHT))


def test_masks_are_answered_at_full_resolution() -> None:
    assert SMALL.logits_size == SIDE
    assert NETWORKS["medsam2"].logits_size == 128
    assert answer(BOX).logits.shape == (1, 1, SIDE, SIDE)
    assert NETWORK.adopt_mask(seen(), (MASK > 0).float()).logits.shape == (1, 1, SIDE, SIDE)


def test_a_persons_mask_is_the_answer_to_the_pixel() -> None:
    adopted = NETWORK.adopt_mask(seen(), (MASK > 0).float())
    assert torch.equal(adopted.logits > 0, MASK > 0)


def test_every_kind_of_prompt_is_seen() -> None:
    kinds = [
        answer(BOX),
        answer(points((30, 30, PointLabel.POSITIVE))),
        answer(points((30, 30, PointLabel.NEGATIVE))),
        answer(mask=MASK),
        answer(),
    ]
    for number, one in enumerate(kinds):
        assert not any(torch.equal(one.logits, other.logits) for other in kinds[:number])


def with_click(label: PointLabel) -> PointTensors:
    """The box and a click in it."""
    return PointTensors(*(torch.cat(parts, dim=1) for parts in zip(BOX, points((30, 30, label)), strict=True)))


def test_a_click_that_is_none_says_nothing() -> None:
    assert torch.equal(answer(with_click(PointLabel.PADDING)).logits, answer(BOX).logits)


def test_a_click_on_what_was_not_found_begins_anew() -> None:
    nothing = torch.full((1, 1, SIDE, SIDE), -1024.0)
    on, beside = (points((30, 30, label)) for label in (PointLabel.POSITIVE, PointLabel.NEGATIVE))
    assert torch.equal(answer(on, nothing).logits, answer(on).logits)
    assert not torch.equal(answer(beside, nothing).logits, answer(beside).logits)


def test_a_box_stays_in_sight_when_a_click_corrects_its_mask() -> None:
    boxed = with_click(PointLabel.POSITIVE)
    moved = boxed._replace(coordinates=boxed.coordinates + torch.tensor([[[8.0], [8.0], [0.0]]]))
    assert not torch.equal(answer(boxed, MASK).logits, answer(moved, MASK).logits)


def test_a_mask_of_another_size_means_the_same() -> None:
    flat = torch.full((1, 1, SIDE, SIDE), 5.0)
    assert torch.equal(answer(mask=flat).logits, answer(mask=flat[..., ::4, ::4]).logits)


def test_whether_the_object_is_there_is_asked_of_the_mask_that_was_answered() -> None:
    absent = copy.deepcopy(NETWORK)
    assert isinstance(absent.sam_mask_decoder, PromptedUNet)
    absent.sam_mask_decoder.mask_head.bias.sub_(100)
    features = seen()
    told = absent.predict(absent.without_memory(features.stride16), features, mask=MASK)
    assert not torch.equal(told.object_score, answer(mask=MASK).object_score)


def test_who_draws_a_box_is_believed() -> None:
    doubting = copy.deepcopy(NETWORK)
    for decoder in (doubting.sam_mask_decoder, doubting.prompted_mask_decoder):
        assert isinstance(decoder, PromptedUNet)
        decoder.object_head.bias.sub_(100)
    features = seen()
    conditioned = doubting.without_memory(features.stride16)
    assert float(doubting.predict(conditioned, features, BOX).object_score) > 0
    assert float(doubting.predict(conditioned, features, points((30, 30, PointLabel.POSITIVE))).object_score) > 0
    assert float(doubting.predict(conditioned, features, points((30, 30, PointLabel.NEGATIVE))).object_score) < 0
    assert float(doubting.predict(conditioned, features).object_score) < 0


def test_prompts_have_a_decoder_of_their_own() -> None:
    other = copy.deepcopy(NETWORK)
    other.prompted_mask_decoder.mask_head.bias.sub_(1)
    features = seen()
    conditioned = other.without_memory(features.stride16)
    assert torch.allclose(other.predict(conditioned, features, BOX).logits, answer(BOX).logits - 1, atol=1e-5)
    assert torch.equal(other.predict(conditioned, features, mask=MASK).logits, answer(mask=MASK).logits)


def test_memories_change_the_answer() -> None:
    features = seen()
    memory = NETWORK.encode_memory(features.stride16, MASK, torch.ones(1), prompted=True).flatten(2).transpose(1, 2)
    conditioned = NETWORK.with_memory(features.stride16, memory, NETWORK.map_position(0)[None], 0)
    assert not torch.equal(NETWORK.predict(conditioned, features).logits, answer().logits)


def a_depth(distance: float, step: float, radius: float, ahead: float = 0.0, ahead_shows: bool = False) -> SliceDepth:
    return SliceDepth(*(torch.tensor([figure]) for figure in (distance, step, radius, ahead)), torch.tensor([ahead_shows]))


def test_how_deep_a_slice_lies_changes_the_answer_unless_it_is_not_known() -> None:
    features = seen()
    conditioned = NETWORK.without_memory(features.stride16)
    deep, deeper, unknown = (NETWORK.at_depth(conditioned, a_depth(*figures)) for figures in ((4, 2, 9), (30, 2, 9), (4, 2, 0)))
    assert torch.equal(unknown, conditioned)
    assert not torch.equal(deep, deeper)
    assert not torch.equal(NETWORK.predict(deep, features).logits, NETWORK.predict(deeper, features).logits)


def test_what_a_person_said_further_on_changes_the_answer() -> None:
    conditioned = NETWORK.without_memory(seen().stride16)
    nothing, absent, shown = (NETWORK.at_depth(conditioned, a_depth(4, 2, 9, *ahead)) for ahead in ((0.0,), (6.0,), (6.0, True)))
    assert not torch.equal(nothing, absent)
    assert not torch.equal(absent, shown)
    assert torch.equal(nothing, NETWORK.at_depth(conditioned, a_depth(4, 2, 9, 0.0, True)))


def test_depth_means_the_same_at_every_size() -> None:
    conditioned = NETWORK.without_memory(seen().stride16)
    larger = copy.deepcopy(NETWORK)
    larger.config = replace(SMALL, image_size=2 * SIDE)
    twice, once = larger.at_depth(conditioned, a_depth(8, 4, 18, 12)), NETWORK.at_depth(conditioned, a_depth(4, 2, 9, 6))
    torch.testing.assert_close(twice, once)


def test_what_looks_like_the_object_is_pointed_out() -> None:
    features = seen()
    known = NETWORK.recognised(features, NETWORK.grey_profile(features, MASK))
    assert known.pixels.shape[1] == 4
    assert torch.equal(known.pixels[:, :3], features.pixels)
    conditioned = NETWORK.without_memory(features.stride16)
    assert not torch.equal(NETWORK.predict(conditioned, known).logits, answer().logits)


def test_of_an_object_that_is_absent_no_looks_are_remembered() -> None:
    assert not NETWORK.grey_profile(seen(), torch.full_like(MASK, NO_OBJECT_LOGIT)).any()


def test_in_bfloat16_it_says_about_the_same() -> None:
    exact = answer(BOX)
    fast = set_precision(copy.deepcopy(NETWORK), "bfloat16")
    features = fast.encode_image(torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)))
    rough = fast.predict(fast.without_memory(features.stride16), features, BOX)
    assert rough.logits.dtype == torch.float32
    assert not torch.equal(rough.logits, exact.logits)
    assert dice(rough.logits > 0, exact.logits > 0) > 0.97


def dice(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def test_all_that_one_clip_uses_learns() -> None:
    network = random_network(SMALL).requires_grad_(True)
    features = network.encode_image(torch.randn(1, 3, SIDE, SIDE))
    told = network.predict(network.without_memory(features.stride16), features, BOX)
    followed = network.predict(network.without_memory(features.stride16), features, mask=MASK)
    for one in (told, followed):
        (one.candidate_logits.square().mean() + one.iou.sum() + one.object_score.sum()).backward(retain_graph=True)
    for part in (network.image_encoder, network.sam_mask_decoder, network.prompted_mask_decoder):
        assert all(parameter.grad is not None for parameter in part.parameters())


def test_levels_that_are_not_read_take_no_memory() -> None:
    features = seen()
    assert features.stride4.untyped_storage().nbytes() == features.stride8.untyped_storage().nbytes() == 0
    transformer = random_network(TRANSFORMER)
    images = torch.randn(2, 3, TRANSFORMER.image_size, TRANSFORMER.image_size)
    assert transformer.encode_image(images).pixels.untyped_storage().nbytes() == 0


def test_nano_is_such_a_network() -> None:
    assert isinstance(build_network(NETWORKS["nano"]), ConvolutionalSAM2)
    assert not isinstance(build_network(NETWORKS["medsam2"]), ConvolutionalSAM2)
