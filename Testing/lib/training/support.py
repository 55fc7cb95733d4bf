"""What tests of training share: a network of a few thousand weights, and clips of bright squares."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from MedSAM2Lib.network.config import NetworkConfig, TrunkConfig
from MedSAM2Lib.training.clip import Clip, ClipBatch, batch_of

TINY = NetworkConfig(
    trunk=TrunkConfig(16, 1, (1, 1, 1, 1), (2,), (4, 4, 2, 2), (4, 4)),
    image_size=32,
    hidden_dim=32,
    memory_dim=16,
    memory_layers=1,
    feedforward_dim=64,
    neighbour_channels=True,
)
PLAIN = replace(TINY, neighbour_channels=False)  # draws no random numbers but for prompts


def squares(rng: np.random.Generator, batch_size: int, image_size: int, length: int, *, step: int) -> ClipBatch:
    """Each clip is one square, the same on all its slices, which are two pixels apart."""
    clips = []
    for _ in range(batch_size):
        masks = np.zeros((length, image_size, image_size), dtype=bool)
        top, left = rng.integers(4, image_size // 2, size=2)
        masks[:, top : top + 10, left : left + 10] = True
        images = np.where(masks, 0.8, 0.2).astype(np.float32)[:, None].repeat(3, axis=1)
        clips.append(Clip(images, masks, 2 * np.arange(length, dtype=np.float32), 2.0, "synthetic", "square"))
    return batch_of(clips)


def same_batch(first: ClipBatch, second: ClipBatch) -> bool:
    return all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def ball(shape: tuple[int, int, int], centre: tuple[int, int, int], radius: float) -> np.ndarray:
    k, j, i = np.ogrid[: shape[0], : shape[1], : shape[2]]
    return np.asarray((k - centre[0]) ** 2 + (j - centre[1]) ** 2 + (i - centre[2]) ** 2 <= radius**2)


def entry(name: str, content: str, structures: dict[str, list[int]], **more: Any) -> dict[str, Any]:
    named = [{"name": name, "label_values": values} for name, values in structures.items()]
    common = {"source_group": "tests", "label_grade": "A", "modality": "MR", "display_window": None}
    return {"id": name, "file": f"{name}.npz", "content": content, "structures": named, **common, **more}


def write_manifest(folder: Path, entries: list[dict[str, Any]]) -> Path:
    (folder / "manifest.json").write_text(json.dumps({"volumes": entries}))
    return folder
