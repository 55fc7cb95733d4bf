"""What training minimises: the four losses of SAM 2 (Ravi et al., arXiv 2408.00714, appendix)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from MedSAM2Lib.network.sam2 import MaskPrediction

__all__ = ["FROM_SCRATCH", "LossWeights", "slice_loss"]


@dataclass(frozen=True)
class LossWeights:
    """SAM 2's and MedSAM2's weights, for fine-tuning. Focal loss: Lin et al., arXiv 1708.02002."""

    focal: float = 20.0
    dice: float = 1.0
    iou: float = 1.0
    object: float = 1.0
    focal_alpha: float = 0.25  # share of the positive class
    focal_gamma: float = 2.0  # how little easy pixels count
    absent: float = 0.0  # of the focal loss where the object is absent, so that its mask learns to vanish


# From random weights, SAM 2's focal loss drowns small objects: after 750 steps at batch 24 most masks were empty.
# Plain cross entropy (alpha 1/2, gamma 0) with Dice, as nnU-Net trains (Isensee et al. 2021), does not.
# SAM 2 leaves an absent object to its object score alone; nano's masks then ran on far beyond the object's end.
FROM_SCRATCH = LossWeights(focal=2.0, focal_alpha=0.5, focal_gamma=0.0, object=2.0, absent=1.0)


def slice_loss(prediction: MaskPrediction, target: Tensor, weights: LossWeights) -> Tensor:
    """Loss of one slice of every clip, a scalar.

    target  (B, S, S) bool. Of several candidate masks only the best one learns its shape; all learn their IoU.
    """
    logits = F.interpolate(prediction.candidate_logits.float(), size=target.shape[-2:], mode="bilinear", align_corners=False)
    wanted = target[:, None].float().expand_as(logits)  # (B, M, S, S)
    present = target.flatten(1).any(-1).float()  # (B,)

    pixel_loss = weights.focal * _focal(logits, wanted, weights)  # (B, M)
    shape_loss = pixel_loss + weights.dice * _dice(logits, wanted)
    best = shape_loss.argmin(-1, keepdim=True)
    iou_loss = (prediction.candidate_iou.float() - _iou(logits, wanted)).abs().mean(-1)
    present_loss = shape_loss.gather(1, best)[:, 0] + weights.iou * iou_loss
    # An absent object has no overlap to score, and Dice says nothing of an empty mask.
    mask_loss = torch.where(present > 0, present_loss, weights.absent * pixel_loss.mean(-1))
    object_loss = F.binary_cross_entropy_with_logits(prediction.object_score.float(), present)
    return mask_loss.mean() + weights.object * object_loss


def _focal(logits: Tensor, target: Tensor, weights: LossWeights) -> Tensor:
    """(B, M, S, S) twice to (B, M)."""
    cross_entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    probability = logits.sigmoid()
    missed = probability + target - 2 * probability * target  # 1 - probability of the true class
    alpha = weights.focal_alpha * target + (1 - weights.focal_alpha) * (1 - target)
    return (alpha * missed**weights.focal_gamma * cross_entropy).flatten(2).mean(-1)


def _dice(logits: Tensor, target: Tensor) -> Tensor:
    probability, target = logits.sigmoid().flatten(2), target.flatten(2)
    return 1 - (2 * (probability * target).sum(-1) + 1) / (probability.sum(-1) + target.sum(-1) + 1)


@torch.no_grad()
def _iou(logits: Tensor, target: Tensor) -> Tensor:
    mask, target = (logits > 0).flatten(2), target.flatten(2) > 0
    union = (mask | target).sum(-1)
    return (mask & target).sum(-1) / union.clamp(min=1)
