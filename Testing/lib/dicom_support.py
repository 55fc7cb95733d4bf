"""DICOM series that tests write."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its own convention

ARRAY = np.random.default_rng(0).integers(-1000, 1000, (5, 8, 9)).astype(np.int16)
SPACING = (0.7, 0.8, 2.5)
ORIGIN = (-10.0, -20.0, 30.0)


def write_series(
    folder: Path,
    uid: str = "1.2.3",
    modality: str = "CT",
    description: str = "thin",
    direction: np.ndarray | None = None,
    slices: Sequence[int] = range(5),
    step: Sequence[float] = (0.0, 0.0, 2.5),
) -> Path:
    """Slices of ARRAY, stored as HU + 1024, named so that the order of names is not that of positions.

    `step` is the shift from slice to slice along the columns of `direction`, mm.
    """
    folder.mkdir(exist_ok=True)
    direction = np.eye(3) if direction is None else direction
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for k in slices:
        position = np.array(ORIGIN) + direction @ np.array(step) * k
        image = sitk.GetImageFromArray(ARRAY[k])
        image.SetSpacing(SPACING[:2])
        tags = {
            "0008|0018": f"{uid}.{k + 1}",
            "0008|0060": modality,
            "0008|103e": description,
            "0018|0050": "2.5",
            "0020|000d": "1.2.9",
            "0020|000e": uid,
            "0020|0013": str(k),
            "0020|0032": "\\".join(f"{value:.9g}" for value in position),
            "0020|0037": "\\".join(f"{value:.12g}" for value in direction[:, :2].T.ravel()),
            "0028|1052": "-1024",
            "0028|1053": "1",
        }
        for tag, value in tags.items():
            image.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{uid}-{9 - k}.dcm"))
        writer.Execute(image)
    return folder
