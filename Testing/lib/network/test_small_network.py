"""What a small network does otherwise than SAM 2: one mask instead of candidates, mask prompts at full resolution."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from MedSAM2Lib.network.build import build_network
from MedSAM2Lib.network.config import NETWORKS, NetworkConfig, TrunkConfig
from MedSAM2Lib.network.prompt_encoder import PointLabel
from MedSAM2Lib.network.sam2 import SAM2, ImageFeatures, PointTensors

SMALL = NetworkConfig(
    TrunkConfig(8, 1, (1, 1, 1, 1), (2,), (4, 4, 4, 4), (4, 4)), image_size=64, hidden_dim=32, memory_dim=16, memory_layers=1,
    feedforward_dim=32, fine_mask_prompt=True, single_mask=True,
)  # fmt: skip
HERE = torch.tensor([[[20.0, 20.0], [40.0, 40.0]]])
BOX = PointTensors(HERE, torch.tensor([[PointLabel.BOX_TOP_LEFT, PointLabel.BOX_BOTTOM_RIGHT]]))
CLICKS = PointTensors(HERE, torch.tensor([[PointLabel.POSITIVE, PointLabel.POSITIVE]]))
MASK = torch.full((1, 1, 16, 16), 5.0)


def a_network(config: NetworkConfig = SMALL) -> SAM2:
    torch.manual_seed(0)
    return build_network(config).requires_grad_(False)


def seen(network: SAM2) -> ImageFeatures:
    return network.encode_image(torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize(
    ("points", "mask", "candidates"),
    [(BOX, None, 1), (CLICKS, None, 3), (CLICKS, MASK, 1), (None, MASK, 1)],
    ids=["box", "clicks alone", "clicks that correct", "tracking"],
)
def test_only_clicks_alone_are_ambiguous(points: PointTensors | None, mask: torch.Tensor | None, candidates: int) -> None:
    network = a_network()
    features = seen(network)
    answer = network.predict(network.without_memory(features.stride16), features, points, mask)
    assert answer.candidate_logits.shape[1] == candidates


def test_sam2_tracks_with_three_candidates() -> None:
    network = a_network(replace(SMALL, single_mask=False))
    features = seen(network)
    assert network.predict(network.without_memory(features.stride16), features).candidate_logits.shape[1] == 3


def test_a_fine_mask_changes_nothing_until_it_is_trained() -> None:
    network = a_network()
    plain = a_network(replace(SMALL, fine_mask_prompt=False))
    plain.load_state_dict(network.state_dict(), strict=False)
    answers = [n.predict(n.without_memory(seen(n).stride16), seen(n), mask=MASK).logits for n in (network, plain)]
    assert torch.equal(*answers)


def test_a_trained_fine_mask_is_seen_at_full_resolution() -> None:
    network = a_network()
    fine = network.sam_prompt_encoder.fine_mask
    assert fine is not None
    torch.nn.init.ones_(fine.to_stride4.weight)
    changed = MASK.clone()
    changed[..., 3, 12] = -5.0
    stride8, stride4 = fine(MASK)
    other8, other4 = fine(changed)
    where = (stride4 != other4).any(1)[0].nonzero()
    assert where.min(0).values.tolist() == [1, 10]  # two convolutions of 3 x 3 reach two cells
    assert where.max(0).values.tolist() == [5, 14]
    assert torch.equal(stride8, other8)  # its weights are still zero


def test_nano_is_such_a_network() -> None:
    assert NETWORKS["nano"].single_mask
    assert NETWORKS["nano"].fine_mask_prompt
    assert not NETWORKS["medsam2"].single_mask
