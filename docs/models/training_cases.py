"""Cases for `medsam2 evaluate` from the training data: of volumes that nano's training held out, and of like ones that it saw.

    python docs/models/training_cases.py ../shared/train -o cases
    medsam2 evaluate cases/held_out.json -o held_out_scores
    medsam2 evaluate cases/seen.json -o seen_scores

What the two differ by is what nano has learned by heart.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK

from MedSAM2Lib.geometry import Geometry
from MedSAM2Lib.training.nano import HELD_OUT
from MedSAM2Lib.training.rendering import render_labels
from MedSAM2Lib.training.volumes import ManifestEntry, TrainingVolume, label_targets, load_volume, read_manifest
from MedSAM2Lib.volume_io.itk import image_from_array

# Of each source as many as are held out.
SEEN = (
    "ct_headneck_kbp4",
    "ct_headneck_kbp146",
    "ct_headneck_kbp250",
    "ct_headneck_kbp277",
    "mr_ms_patient07_flair",
    "mr_ms_patient07_t1",
    "mr_ms_patient07_t1post",
    "mr_ms_patient07_t2",
    "mr_cord_pam50_template",
    "mr_cord_sct_fakelesion",
    "labels_head_synthseg01",
    "labels_head_synthseg02",
)
LARGEST_PIECES = 3  # of scattered structures
SMALLEST = 200  # voxels
# The whole head, what has no name, what is seen on the other side already, and sheets that nobody draws a box around.
LEFT_OUT = ("brain", "code", "right", "artificial", "cortex", "CSF")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="the training volumes")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    entries = {entry.name: entry for entry in read_manifest(args.data)}
    for name, ids in (("held_out", HELD_OUT), ("seen", SEEN)):
        cases = [write_case(entries[one], args.output) for one in ids]
        (args.output / f"{name}.json").write_text(json.dumps({"cases": cases}, indent=1), encoding="utf-8")
        print(f"wrote {args.output / name}.json: {sum(len(case['labels']) for case in cases)} structures of {len(cases)} cases")


def write_case(entry: ManifestEntry, folder: Path) -> dict[str, Any]:
    """The image (of a label map: one in a contrast of its own) and its structures, each a label; their manifest entry."""
    volume = load_volume(entry)
    assert volume.label is not None
    image = volume.image
    if image is None:
        image = (1000 * render_labels(volume.label, np.random.default_rng(0), tissues=volume.tissues)).astype(np.int16)
    label = np.zeros(volume.label.shape, np.uint8)
    names: dict[str, str] = {}
    for name, mask in structures(entry, volume):
        value = len(names) + 1
        label[mask] = value
        names[str(value)] = name
    files = {kind: f"{entry.name}_{kind}.nrrd" for kind in ("image", "label")}
    k, j, i = volume.spacing
    for kind, array in (("image", image), ("label", label)):
        SimpleITK.WriteImage(image_from_array(array, Geometry(volume.shape, (i, j, k))), str(folder / files[kind]), True)
    modality = "CT" if entry.is_ct else "MR" if entry.has_image else "rendered label map"
    return {"id": entry.name, **files, "modality": modality, "anatomy": entry.group, "labels": names}


def structures(entry: ManifestEntry, volume: TrainingVolume) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
    """What is worth a box, with its mask (k, j, i)."""
    everywhere = np.arange(volume.shape[0]), slice(0, volume.shape[1]), slice(0, volume.shape[2])
    for name, values in entry.structures:
        if set(name.split()) & set(LEFT_OUT):
            continue
        pieces = [target.cut(0, *everywhere) for target in label_targets(volume, name, values, split=True)]
        pieces.sort(key=np.count_nonzero, reverse=True)
        for number, mask in enumerate(pieces[:LARGEST_PIECES], start=1):
            if "lesion" in name or np.count_nonzero(mask) >= SMALLEST:
                yield f"{name} {number}" if len(pieces) > 1 else name, mask


if __name__ == "__main__":
    main()
