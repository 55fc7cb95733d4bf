"""How long a person waits who opens a CT, draws one box, and wants the mask of the whole volume."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from MedSAM2Lib.benchmark.clock import now
from MedSAM2Lib.benchmark.subject import abdominal_ct
from MedSAM2Lib.checkpoints.loading import LoadedModel
from MedSAM2Lib.inference.session import Session
from MedSAM2Lib.simpleitk import import_simpleitk
from MedSAM2Lib.volume_io.itk import image_from_array
from MedSAM2Lib.volume_io.read import read_volume

__all__ = ["BoxToMask", "measure_box_to_mask"]


@dataclass(frozen=True)
class BoxToMask:
    """Seconds, one step after the other.

    shape       of the volume, (k, j, i)
    segmented   slices, the box's own among them
    reading     of the compressed file, as hospitals' archives send them
    first_mask  from the volume to the mask of the box's slice
    others      of all other slices
    assembly    of the mask of the whole volume, without stray pieces
    """

    shape: tuple[int, int, int]
    segmented: int
    reading: float
    first_mask: float
    others: float
    assembly: float

    @property
    def total(self) -> float:
        return self.reading + self.first_mask + self.others + self.assembly


def measure_box_to_mask(model: LoadedModel, size: int = 512, slices: int = 200) -> BoxToMask:
    """The liver of a synthetic CT of size x size x slices, with the options that a session has by itself."""
    device = model.network.device
    volume, box = abdominal_ct(size, slices)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ct.nii.gz"
        import_simpleitk().WriteImage(image_from_array(volume.array, volume.geometry), str(path), True)
        session = Session(model)
        times = [now(device)]
        opened = read_volume(path)
        times.append(now(device))
    session.set_volume(opened)
    session.add_prompt("liver", box)
    times.append(now(device))
    others = len(list(session.propagate()))
    times.append(now(device))
    session.mask("liver")
    times.append(now(device))
    reading, first_mask, passes, assembly = (after - before for before, after in pairwise(times))
    return BoxToMask((slices, size, size), 1 + others, reading, first_mask, passes, assembly)
