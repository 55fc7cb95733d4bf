"""An answer that is the mean over mirror images."""

from __future__ import annotations

import torch
from torch import Tensor

from MedSAM2Lib.network.mask_decoder import DecodedMasks
from MedSAM2Lib.network.mirroring import mean_of_mirrors
from MedSAM2Lib.network.prompt_encoder import PointLabel

SIDE = 8
BOX = torch.tensor([[[1.0, 2.0], [4.0, 6.0]]])
CORNERS = torch.tensor([[PointLabel.BOX_TOP_LEFT, PointLabel.BOX_BOTTOM_RIGHT]])


def decoded(logits: Tensor) -> DecodedMasks:
    one = logits.flatten(1)[:, :1]
    return DecodedMasks(logits=logits, iou=one, tokens=one[:, None], object_score=one)


def box_shown(image: Tensor, conditioned: Tensor, points: Tensor, labels: Tensor, mask: Tensor | None) -> DecodedMasks:
    """1 in the box of each slice."""
    pixel = torch.arange(SIDE)
    (x0, y0), (x1, y1) = (points[:, corner].unbind(1) for corner in (0, 1))
    across = (pixel >= x0[:, None]) & (pixel <= x1[:, None])
    down = (pixel >= y0[:, None]) & (pixel <= y1[:, None])
    return decoded((down[:, :, None] & across[:, None, :]).float()[:, None])


def test_the_box_is_where_it_is_in_every_mirror_image() -> None:
    image = torch.zeros(1, 3, SIDE, SIDE)
    answered = mean_of_mirrors(box_shown, image, image, BOX, CORNERS, None)
    assert torch.equal(answered.logits, box_shown(image, image, BOX, CORNERS, None).logits)


def test_a_click_moves_with_the_slice() -> None:
    def click_shown(image: Tensor, conditioned: Tensor, points: Tensor, labels: Tensor, mask: Tensor | None) -> DecodedMasks:
        shown = torch.zeros(len(points), 1, SIDE, SIDE)
        for row, (x, y) in enumerate(points[:, -1].long().tolist()):
            shown[row, 0, y, x] = 1
        return decoded(shown)

    image = torch.zeros(1, 3, SIDE, SIDE)
    for points, labels in (
        (torch.tensor([[[1.0, 6.0]]]), torch.tensor([[PointLabel.POSITIVE]])),
        (torch.cat((BOX, torch.tensor([[[1.0, 6.0]]])), 1), torch.cat((CORNERS, torch.tensor([[PointLabel.NEGATIVE]])), 1)),
    ):
        assert mean_of_mirrors(click_shown, image, image, points, labels, None).logits[0, 0, 6, 1] == 1


def test_what_differs_between_mirror_images_is_averaged() -> None:
    def ramp(image: Tensor, conditioned: Tensor, points: Tensor, labels: Tensor, mask: Tensor | None) -> DecodedMasks:
        assert mask is not None
        return decoded(image[:, :1] + mask + torch.arange(float(SIDE)))

    image, mask = torch.rand(2, 3, SIDE, SIDE), torch.rand(2, 1, SIDE, SIDE)
    boxes, corners = BOX.repeat(2, 1, 1), CORNERS.repeat(2, 1)
    answered = mean_of_mirrors(ramp, image, image, boxes, corners, mask)
    assert torch.allclose(answered.logits, image[:, :1] + mask + (SIDE - 1) / 2)
    assert torch.equal(answered.iou, ramp(image, image, boxes, corners, mask).iou)
