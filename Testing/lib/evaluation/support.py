"""What the tests of the evaluation share: two small labelled cases, a bright ball and a brighter bar in a dark block, and
one slice of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK

from MedSAM2Lib.network.config import NetworkConfig, TrunkConfig

SPACING = (1.0, 1.5, 2.0)  # i, j, k mm
SHAPE = (8, 24, 32)  # k, j, i
SMALL = NetworkConfig(
    trunk=TrunkConfig(16, 1, (1, 2, 2, 1), (4,), (8, 4, 4, 2), (4, 4)),
    image_size=64,
    hidden_dim=64,
    memory_dim=32,
    memory_layers=1,
    feedforward_dim=64,
)

WriteManifest = Callable[..., Path]


def labels() -> npt.NDArray[np.uint8]:
    """(k, j, i): 1 a ball on slices 1..6, 2 a bar on slices 3..4."""
    k, j, i = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    label = np.zeros(SHAPE, dtype=np.uint8)
    label[((k - 3.5) / 3) ** 2 + ((j - 12) / 6) ** 2 + ((i - 10) / 7) ** 2 <= 1] = 1
    label[3:5, 4:20, 24:28] = 2
    return label


def write_image(path: Path, array: npt.NDArray[Any], origin: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> None:
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing(SPACING)
    image.SetOrigin(origin)
    SimpleITK.WriteImage(image, str(path))


def entry(**changes: Any) -> dict[str, Any]:
    """The volume's entry in a manifest. A change to None leaves the key out."""
    content = {
        "id": "volume",
        "image": "image.nrrd",
        "label": "label.nrrd",
        "modality": "CT angiography",
        "anatomy": "block",
        "display_window": [-100, 200],
        "labels": {"1": "ball", "2": "bar"},
        "structures": [
            {"name": "ball", "label_values": [1], "prompt": {"slice_k": 4, "box_ijk": {"i": [3, 17], "j": [6, 18]}}},
            {"name": "bar", "label_values": [2]},
        ],
        "origin": [{"repo": "someone/somewhere", "path": "a"}],
        **changes,
    }
    return {key: value for key, value in content.items() if value is not None}


def slice_entry() -> dict[str, Any]:
    return entry(id="slice", image="slice.nrrd", label="slice_label.nrrd", structures=None)
