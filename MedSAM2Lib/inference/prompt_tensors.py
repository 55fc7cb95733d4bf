"""A box and clicks, as a person gave them, to what the network's prompt encoder reads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from MedSAM2Lib.frames import View
from MedSAM2Lib.network.prompt_encoder import PointLabel
from MedSAM2Lib.network.sam2 import SAM2, PointTensors
from MedSAM2Lib.prompts import Box, Points

__all__ = ["point_tensors"]


def point_tensors(network: SAM2, view: View, box: Box | None, clicks: Sequence[Points]) -> PointTensors:
    """A slice's box and clicks (pixels of the slice) in pixels of the network's image, batch 1; box corners come first."""
    side, device = network.config.image_size, network.device
    coordinates, labels = [], []
    if box is not None:
        coordinates.append(view.box_to_frame((box.x0, box.y0, box.x1, box.y1), side))
        labels += [PointLabel.BOX_TOP_LEFT, PointLabel.BOX_BOTTOM_RIGHT]
    for points in clicks:
        coordinates.append(view.to_frame(points.xs, points.ys, side))
        labels += [PointLabel.POSITIVE if positive else PointLabel.NEGATIVE for positive in points.labels]
    placed = torch.from_numpy(np.concatenate(coordinates))[None].to(device)
    return PointTensors(placed, torch.tensor([labels], dtype=torch.int32, device=device))
