"""What the tests of the session share: small networks, a phantom with known truth, and a look at all that a session knows."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from MedSAM2Lib.benchmark.subject import random_network
from MedSAM2Lib.checkpoints.loading import LoadedModel
from MedSAM2Lib.frames import PIXEL_MEAN, PIXEL_STD
from MedSAM2Lib.geometry import Geometry
from MedSAM2Lib.inference.session import Session, SessionOptions
from MedSAM2Lib.metrics import dice
from MedSAM2Lib.network.config import NetworkConfig
from MedSAM2Lib.network.sam2 import NO_OBJECT_LOGIT, SAM2, ImageFeatures, MaskPrediction, PointTensors
from MedSAM2Lib.prompts import Box
from MedSAM2Lib.volume import Volume
from Testing.lib.network.parity.weights import SMALL

__all__ = ["PLAIN", "SeesBright", "box_around", "dice", "ellipsoid", "known", "loaded", "opened", "signed", "volume_of"]

Mask = npt.NDArray[np.bool_]

SHAPE = (24, 48, 48)  # (k, j, i)
_TINY = replace(SMALL, image_size=64)
# Nothing but the network's answers; most tests want no more.
PLAIN = SessionOptions(keep_largest=False, fill_hole_cells=0, stop_after=0, agreement=0)


class SeesBright(SAM2):
    """Whatever it is asked, its answer is what is bright. Memories and pointers are those of its random weights."""

    def encode_image(self, images: Tensor) -> ImageFeatures:
        grey = F.avg_pool2d(images[:, :1], 4) * PIXEL_STD[0] + PIXEL_MEAN[0]  # 0..1, (B, 1, S / 4, S / 4)
        features = super().encode_image(images)
        return features._replace(stride4=torch.cat((40 * (grey - 0.5), features.stride4[:, 1:]), dim=1))

    def predict(
        self,
        conditioned: Tensor,
        features: ImageFeatures,
        points: PointTensors | None = None,
        mask: Tensor | None = None,
        doubt: float = 0.0,
    ) -> MaskPrediction:
        logits = features.stride4[:, :1]
        score = torch.where((logits > 0).flatten(1).any(1), 6.0, -6.0) - doubt
        logits = torch.where((score > 0).view(-1, 1, 1, 1), logits, NO_OBJECT_LOGIT)
        return super().predict(conditioned, features, points, mask, doubt)._replace(logits=logits, object_score=score)


def loaded(kind: type[SAM2], config: NetworkConfig = _TINY) -> LoadedModel:
    """A model with seeded random weights; SAM2 answers nonsense, SeesBright what is bright."""
    network = kind(config).eval().requires_grad_(False)
    network.load_state_dict(random_network(config).state_dict())
    return LoadedModel(network, "random", Path("random.pt"), "", zoom=None)


def ellipsoid(shape: tuple[int, int, int] = SHAPE) -> Mask:
    """(k, j, i) bool, in the middle: a third of the grid long along each axis from its centre."""
    radii = [0.33 * size for size in shape]
    k, j, i = np.ogrid[: shape[0], : shape[1], : shape[2]]
    distances = [((x - (size - 1) / 2) / r) ** 2 for x, size, r in zip((k, j, i), shape, radii, strict=True)]
    inside: Mask = distances[0] + distances[1] + distances[2] <= 1
    return inside


def volume_of(inside: Mask, geometry: Geometry | None = None) -> Volume:
    """Bright where the mask is, dark elsewhere, a little noise; at home in the window 0:255."""
    noise = np.random.default_rng(0).normal(0, 5, inside.shape)
    array = np.round(np.where(inside, 220, 30) + noise).astype(np.int16)
    return Volume(array, geometry or Geometry(inside.shape))  # type: ignore[arg-type]


def opened(model: LoadedModel, volume: Volume, options: SessionOptions = PLAIN, axis: str = "k") -> Session:
    session = Session(model, options)
    session.set_volume(volume, axis, "0:255")
    return session


def box_around(slice_mask: Mask, index: int, margin: int = 1) -> Box:
    rows, columns = np.flatnonzero(slice_mask.any(1)), np.flatnonzero(slice_mask.any(0))
    return Box(index, columns[0] - margin, rows[0] - margin, columns[-1] + margin, rows[-1] + margin)


def known(session: Session) -> dict[str, Any]:
    """All that a session knows of its objects, for comparison: two that are equal go on alike, bit for bit."""
    return {name: _known_of(target) for name, target in session._objects.items()}


def _known_of(target: Any) -> dict[str, Any]:
    bank = target.tracker.bank
    return {
        "view": target.view,
        "limits": target.limits,
        "spoken": target.spoken,
        "boxes": list(target.boxes.items()),
        "clicks": list(target.clicks.items()),
        "locked": target.locked,
        "due": (target.unreached, target.stale),
        "records": [(index, _record(record)) for index, record in target.records.items()],
        "conditioning": [_entry(entry) for entry in bank.conditioning.values()],
        "tracked": sorted((direction, *_entry(entry)) for entry, direction, _ in bank.tracked_entries()),
        "directions": dict(target.tracker.tracked_direction),
        "pending": [_entry(entry) for entry in target.tracker.pending.values()],
    }


def _record(record: Any) -> tuple[Any, ...]:
    return record.packed, _bytes(record.logits), record.view, record.direction, record.confidence


def _entry(entry: Any) -> tuple[Any, ...]:
    """Without its map, which follows from the rest."""
    view = entry.view
    where = (view.row, view.column, view.height, view.width)
    return entry.slice_index, _bytes(entry.pointer), _bytes(entry.object_score), where, _bytes(entry.record.logits)


def _bytes(tensor: Tensor) -> bytes:
    return tensor.float().cpu().contiguous().numpy().tobytes()


def signed(state: dict[str, Any]) -> dict[str, Any]:
    """With the checksum that belongs to it, as nobody but an attacker would write it."""
    content = {key: value for key, value in state.items() if key != "checksum"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return {**content, "checksum": hashlib.sha256(text.encode()).hexdigest()}
