"""What training minimises: SAM 2's four losses with its weights (Ravi et al., arXiv 2408.00714, appendix; MedSAM2 keeps them)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from MedSAM2Lib.network.sam2 import MaskPrediction

__all__ = ["slice_loss"]

FOCAL_WEIGHT, DICE_WEIGHT, IOU_WEIGHT, OBJECT_WEIGHT = 20.0, 1.0, 1.0, 1.0
FOCAL_ALPHA, FOCAL_GAMMA = 0.25, 2.0  # Lin et al., arXiv 1708.02002


def slice_loss(prediction: MaskPrediction, target: Tensor) -> Tensor:
    """Loss of one slice of every clip, a scalar.

    target  (B, S, S) bool. Of several candidate masks only the best one learns its shape; all learn their IoU.
    """
    logits = F.interpolate(prediction.candidate_logits.float(), size=target.shape[-2:], mode="bilinear", align_corners=False)
    wanted = target[:, None].float().expand_as(logits)  # (B, M, S, S)
    present = target.flatten(1).any(-1).float()  # (B,)

    shape_loss = FOCAL_WEIGHT * _focal(logits, wanted) + DICE_WEIGHT * _dice(logits, wanted)  # (B, M)
    best = shape_loss.argmin(-1, keepdim=True)
    iou_loss = (prediction.candidate_iou.float() - _iou(logits, wanted)).abs().mean(-1)
    # An absent object has no shape to learn; only the object score speaks of it.
    mask_loss = (shape_loss.gather(1, best)[:, 0] + IOU_WEIGHT * iou_loss) * present
    object_loss = F.binary_cross_entropy_with_logits(prediction.object_score.float(), present)
    return mask_loss.mean() + OBJECT_WEIGHT * object_loss


def _focal(logits: Tensor, target: Tensor) -> Tensor:
    """(B, M, S, S) twice to (B, M)."""
    cross_entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    probability = logits.sigmoid()
    missed = probability + target - 2 * probability * target  # 1 - probability of the true class
    alpha = FOCAL_ALPHA * target + (1 - FOCAL_ALPHA) * (1 - target)
    return (alpha * missed**FOCAL_GAMMA * cross_entropy).flatten(2).mean(-1)


def _dice(logits: Tensor, target: Tensor) -> Tensor:
    probability, target = logits.sigmoid().flatten(2), target.flatten(2)
    return 1 - (2 * (probability * target).sum(-1) + 1) / (probability.sum(-1) + target.sum(-1) + 1)


@torch.no_grad()
def _iou(logits: Tensor, target: Tensor) -> Tensor:
    mask, target = (logits > 0).flatten(2), target.flatten(2) > 0
    union = (mask | target).sum(-1)
    return (mask & target).sum(-1) / union.clamp(min=1)
