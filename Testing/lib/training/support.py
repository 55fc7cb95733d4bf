"""What tests of training share: a network of a few thousand weights, and clips of bright squares."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from MedSAM2Lib.network.config import NetworkConfig, TrunkConfig

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


def squares(
    rng: np.random.Generator, batch_size: int, image_size: int, length: int, *, step: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    squares = np.zeros((batch_size, length + 2, image_size, image_size), dtype=bool)
    for clip in squares:
        top, left = rng.integers(4, image_size // 2, size=2)
        clip[:, top : top + 10, left : left + 10] = True
    return np.where(squares, 0.8, 0.2).astype(np.float32), squares[:, 1:-1]
