"""Each stage of MedSAM's network gives what transformers' SAM gives, with the same random weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from MedSAM2Lib.network.config import SAMConfig
from MedSAM2Lib.network.sam import SAM
from MedSAM2Lib.network.sam2 import PointTensors
from Testing.lib.network.parity.comparison import assert_agree
from Testing.lib.network.parity.drivers import points
from Testing.lib.network.parity.hugging_face_sam import renamed_sam, transformers_sam, without_weights
from Testing.lib.network.parity.random_sam import random_sam

# Windows of 3 tokens do not fill the grid of 8: the padding takes part, as it does in ViT-B at 1024 pixels.
SMALL = SAMConfig(32, 4, 2, 3, (1, 3), image_size=128, hidden_dim=32, feedforward_dim=48)

BOX = points((30, 40, 2), (90.5, 100, 3))
PROMPTS = {
    "box": BOX,
    "click": points((40, 50, 1)),
    "two clicks": points((40, 50, 1), (100.5, 20, 0)),
}


@pytest.fixture(autouse=True)
def _no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def network() -> SAM:
    return random_sam(SMALL)


@pytest.fixture(scope="module")
def reference(network: SAM) -> Any:
    return transformers_sam(network)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(1))


def test_names_and_shapes_are_those_of_sams_vit_b() -> None:
    with torch.device("meta"):
        ours, theirs = SAM(SAMConfig()).state_dict(), without_weights(SAMConfig()).state_dict()
    assert {name: tensor.shape for name, tensor in renamed_sam(ours).items()} == {
        name: tensor.shape for name, tensor in theirs.items()
    }
    assert len(ours) == 314
    assert sum(tensor.numel() for tensor in ours.values()) == 93_735_472 + 256  # SAM's "93.7 million", and its one buffer


def test_normalisations_have_sams_epsilons(network: SAM) -> None:
    """Not transformers': it takes 1e-6 in the two-way transformer as well, where SAM's own code has torch's default."""
    epsilons = {name: module.eps for name, module in network.named_modules() if hasattr(module, "eps")}
    assert epsilons == {name: 1e-5 if name.startswith("mask_decoder.transformer.") else 1e-6 for name in epsilons}


def test_the_encoder_gives_the_references_features(network: SAM, reference: Any, images: Tensor) -> None:
    assert_agree(network.encode_image(images), reference.vision_encoder(images).last_hidden_state)


def test_attention_in_parts_is_attention_at_once(network: SAM, images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = network.encode_image(images)
    monkeypatch.setattr("MedSAM2Lib.network.vit._BIAS_ELEMENTS", 3000)  # two rows of the global blocks, and less than one
    assert_agree(network.encode_image(images), at_once)


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
def test_prompts_become_the_references_tokens(network: SAM, reference: Any, prompt: PointTensors) -> None:
    ours = network.prompt_encoder(*prompt, None)
    their_sparse, their_dense = reference.prompt_encoder(**asked(prompt), input_masks=None)
    assert_agree(ours.sparse, their_sparse[:, 0])
    assert_agree(ours.dense, their_dense)
    assert_agree(network.prompt_encoder.grid_encoding()[None], reference.get_image_wide_positional_embeddings())


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
def test_prompts_give_the_references_masks(network: SAM, reference: Any, images: Tensor, prompt: PointTensors) -> None:
    assert_gives_the_references_mask(network, reference, images[:1], prompt)


def asked(prompt: PointTensors) -> dict[str, Tensor | None]:
    """A prompt as transformers takes it: a box is no pair of points."""
    is_box = bool((prompt.labels >= 2).any())
    return {
        "input_points": None if is_box else prompt.coordinates[:, None],
        "input_labels": None if is_box else prompt.labels[:, None],
        "input_boxes": prompt.coordinates.flatten(1)[:, None] if is_box else None,
    }


def assert_gives_the_references_mask(network: SAM, reference: Any, image: Tensor, prompt: PointTensors) -> None:
    features = network.encode_image(image)
    logits, iou = network.predict(features, prompt)
    given = {name: tensor for name, tensor in asked(prompt).items() if tensor is not None}
    theirs = reference(image_embeddings=features, **given, multimask_output=False)
    assert_agree(logits, theirs.pred_masks[:, 0])
    assert_agree(iou, theirs.iou_scores[:, 0, 0])
    assert 0.02 < (logits > 0).float().mean() < 0.98


@pytest.mark.slow
def test_the_full_size_network_gives_the_references_mask() -> None:
    network = random_sam(SAMConfig())
    image = torch.rand(1, 3, 1024, 1024, generator=torch.Generator().manual_seed(1))
    reference = transformers_sam(network)
    assert_agree(network.encode_image(image), reference.vision_encoder(image).last_hidden_state)
    assert_gives_the_references_mask(network, reference, image, points((300, 400, 2), (700, 800, 3)))
