from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from MedSAM2Lib.errors import VolumeError
from MedSAM2Lib.geometry import Geometry
from MedSAM2Lib.volume_io.read_segments import read_segments
from MedSAM2Lib.volume_io.segments import Segment
from MedSAM2Lib.volume_io.write import write_segmentation

SHAPE = (4, 5, 6)
OBLIQUE = Geometry(
    SHAPE,
    (0.7, 1.5, 2.5),
    (-123.5, 7.25, 99.0),
    (math.cos(0.3), 0.0, -math.sin(0.3), math.sin(0.3), 0.0, math.cos(0.3), 0.0, -1.0, 0.0),
)
LIVER, TUMOUR, NOTHING = (np.zeros(SHAPE, dtype=bool) for _ in range(3))
LIVER[:2, 1:3, 1:4] = True
TUMOUR[1, 2:4, 2] = True  # overlaps the liver


def test_what_was_written_is_read_overlapping_empty_and_oblique(tmp_path: Path) -> None:
    path = tmp_path / "s.seg.nrrd"
    segments = [Segment("liver", LIVER), Segment("läsion \\ 1", TUMOUR), Segment("nothing", NOTHING)]
    write_segmentation(path, segments, OBLIQUE)
    found = read_segments(path)
    assert list(found.masks) == ["liver", "läsion \\ 1", "nothing"]
    for segment in segments:
        np.testing.assert_array_equal(found.masks[segment.name], segment.mask)
    np.testing.assert_allclose(found.geometry.index_to_world((1, 2, 3)), OBLIQUE.index_to_world((1, 2, 3)))


def test_a_map_of_labels_takes_its_names_from_whoever_knows_them(tmp_path: Path) -> None:
    path = tmp_path / "labels.nii.gz"
    write_segmentation(path, [Segment("first", LIVER & ~TUMOUR), Segment("second", TUMOUR)], OBLIQUE)
    assert list(read_segments(path).masks) == ["label 1", "label 2"]
    named = read_segments(path, {1: "liver", 2: "tumour", 3: "spleen"})
    assert {name: int(mask.sum()) for name, mask in named.masks.items()} == {"liver": 11, "tumour": 2, "spleen": 0}
    with pytest.raises(VolumeError, match="unknown label value 2; known are 1 = liver"):
        read_segments(path, {1: "liver"})


def test_a_voxel_of_no_segment_is_unknown(tmp_path: Path) -> None:
    path = tmp_path / "s.seg.nrrd"
    write_segmentation(path, [Segment("liver", LIVER), Segment("tumour", TUMOUR & ~LIVER)], OBLIQUE)
    path.write_bytes(path.read_bytes().replace(b"Segment1_LabelValue:=2", b"Segment1_LabelValue:=5"))
    with pytest.raises(VolumeError, match="unknown label value 2; known are 1 = liver, 5 = tumour"):
        read_segments(path)


def test_what_is_no_segmentation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.seg.nrrd"
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(LIVER.astype(np.uint8)), str(path))
    with pytest.raises(VolumeError, match="its header names none"):
        read_segments(path)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(VolumeError, match="cannot be read"):
        read_segments(path)


def test_two_segments_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.seg.nrrd"
    write_segmentation(path, [Segment("liver", LIVER), Segment("tumour", TUMOUR)], OBLIQUE)
    path.write_bytes(path.read_bytes().replace(b"Name:=tumour", b"Name:=liver"))
    with pytest.raises(VolumeError, match="two segments are called 'liver'"):
        read_segments(path)
