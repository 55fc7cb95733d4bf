from __future__ import annotations

import gzip
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from MedSAM2Lib.geometry import Geometry
from MedSAM2Lib.volume_io.seg_nrrd import MADE_WITH_TAG
from MedSAM2Lib.volume_io.segments import Segment
from MedSAM2Lib.volume_io.write import write_segmentation

SHAPE = (4, 5, 6)
OBLIQUE = Geometry(
    SHAPE,
    (0.7, 1 / 3, 2.5),
    (-123.456, 1 / 7, 99.9),
    (math.cos(0.3), 0.0, -math.sin(0.3), math.sin(0.3), 0.0, math.cos(0.3), 0.0, -1.0, 0.0),
)


def box(k: slice, j: slice, i: slice) -> np.ndarray:
    mask = np.zeros(SHAPE, dtype=bool)
    mask[k, j, i] = True
    return mask


LIVER = box(slice(0, 2), slice(1, 3), slice(1, 4))
SPLEEN = box(slice(3, 4), slice(0, 5), slice(0, 2))
TUMOUR = box(slice(1, 2), slice(2, 4), slice(2, 3))  # overlaps the liver
EMPTY = np.zeros(SHAPE, dtype=bool)


def header_of(path: Path) -> tuple[dict[str, str], bytes]:
    head, data = path.read_bytes().split(b"\n\n", maxsplit=1)
    pairs = (line.split(":=" if ":=" in line else ": ", maxsplit=1) for line in head.decode().splitlines()[1:])
    return dict(pairs), gzip.decompress(data)


def test_segments_that_do_not_overlap_share_a_3d_map(tmp_path: Path) -> None:
    write_segmentation(tmp_path / "s.seg.nrrd", [Segment("liver", LIVER), Segment("spleen", SPLEEN)], Geometry(SHAPE))
    header, data = header_of(tmp_path / "s.seg.nrrd")
    assert (header["dimension"], header["sizes"], header["kinds"]) == ("3", "6 5 4", "domain domain domain")
    assert (header["Segment0_Layer"], header["Segment1_Layer"]) == ("0", "0")
    np.testing.assert_array_equal(np.frombuffer(data, np.uint8).reshape(SHAPE), LIVER * 1 + SPLEEN * 2)


def test_segments_that_overlap_lie_in_layers(tmp_path: Path) -> None:
    segments = [Segment("liver", LIVER), Segment("tumour", TUMOUR), Segment("spleen", SPLEEN)]
    write_segmentation(tmp_path / "s.seg.nrrd", segments, Geometry(SHAPE))
    header, data = header_of(tmp_path / "s.seg.nrrd")
    assert (header["dimension"], header["sizes"], header["kinds"]) == ("4", "2 6 5 4", "list domain domain domain")
    assert header["space directions"] == "none (1.0,0.0,0.0) (0.0,1.0,0.0) (0.0,0.0,1.0)"
    assert [header[f"Segment{n}_Layer"] for n in range(3)] == ["0", "1", "0"]
    layers = np.frombuffer(data, np.uint8).reshape((*SHAPE, 2))
    np.testing.assert_array_equal(layers[..., 0], LIVER * 1 + SPLEEN * 3)
    np.testing.assert_array_equal(layers[..., 1], TUMOUR * 2)


def test_a_segment_carries_the_extent_of_its_layer(tmp_path: Path) -> None:
    write_segmentation(tmp_path / "s.seg.nrrd", [Segment("a", LIVER), Segment("b", TUMOUR)], Geometry(SHAPE))
    header, _ = header_of(tmp_path / "s.seg.nrrd")
    assert (header["Segment0_Extent"], header["Segment1_Extent"]) == ("1 3 1 2 0 1", "2 2 2 3 1 1")


def test_names_and_colours_are_in_the_header(tmp_path: Path) -> None:
    write_segmentation(tmp_path / "s.seg.nrrd", [Segment("Milz\n links\\", SPLEEN, (1.0, 0.5, 0.25))], Geometry(SHAPE))
    header, _ = header_of(tmp_path / "s.seg.nrrd")
    assert header["Segment0_Name"] == "Milz links\\\\"
    assert header["Segment0_Color"] == "1 0.5 0.25"
    assert header["Segmentation_MasterRepresentation"] == "Binary labelmap"


# The same files in 3D Slicer's own code: `pip install slicer-core` (it brings its own VTK, so use a separate environment).


@pytest.fixture
def slicer() -> ModuleType:
    return pytest.importorskip("slicer", reason="needs the slicer-core wheel")


def load(slicer: ModuleType, path: Path) -> Any:
    """The vtkSegmentation of a file, read by Slicer's storage node, and what keeps it alive."""
    scene = slicer.vtkMRMLScene()
    application = slicer.vtkMRMLApplicationLogic()
    application.SetMRMLScene(scene)
    logic = slicer.vtkSlicerSegmentationsModuleLogic()
    logic.SetMRMLApplicationLogic(application)
    logic.SetMRMLScene(scene)
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    storage = scene.AddNewNodeByClass("vtkMRMLSegmentationStorageNode")
    storage.SetFileName(str(path))
    assert storage.ReadData(node)
    assert storage.GetUserMessages().GetNumberOfMessages() == 0
    return node.GetSegmentation(), (scene, application, logic)


def mask_of(segment: Any) -> np.ndarray:
    """The segment's voxels on the full grid."""
    from vtk.util.numpy_support import vtk_to_numpy

    image = segment.GetRepresentation("Binary labelmap")
    mask = np.zeros(SHAPE, dtype=bool)
    i0, i1, j0, j1, k0, k1 = image.GetExtent()
    if i1 >= i0:
        voxels = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(k1 - k0 + 1, j1 - j0 + 1, i1 - i0 + 1)
        mask[k0 : k1 + 1, j0 : j1 + 1, i0 : i1 + 1] = voxels == segment.GetLabelValue()
    return mask


@pytest.mark.parametrize(
    "masks",
    [[LIVER], [LIVER, SPLEEN], [LIVER, TUMOUR, SPLEEN], [EMPTY, LIVER], [EMPTY], [TUMOUR, TUMOUR, TUMOUR], [LIVER | True]],
)
def test_slicer_opens_the_segments_as_they_were(slicer: ModuleType, tmp_path: Path, masks: list[np.ndarray]) -> None:
    segments = [Segment(f"Größe {n} \\ | x", mask, (1.0, 0.5, n / 8)) for n, mask in enumerate(masks)]
    write_segmentation(tmp_path / "s.seg.nrrd", segments, OBLIQUE)
    segmentation, _alive = load(slicer, tmp_path / "s.seg.nrrd")
    assert segmentation.GetNumberOfSegments() == len(masks)
    for n, mask in enumerate(masks):
        segment = segmentation.GetNthSegment(n)
        assert segment.GetName() == f"Größe {n} \\ | x"
        assert segment.GetColor() == (1.0, 0.5, n / 8)
        assert segment.GetLabelValue() == n + 1
        assert not segment.GetNameAutoGenerated()
        np.testing.assert_array_equal(mask_of(segment), mask)


def test_slicer_reads_what_a_segment_was_made_with(slicer: ModuleType, tmp_path: Path) -> None:
    import vtk

    made = "nano (sha256 0123), float32; own: one|two, bfloat16, crop"
    segments = [Segment("liver", LIVER, made_with=made), Segment("spleen", SPLEEN)]
    write_segmentation(tmp_path / "s.seg.nrrd", segments, OBLIQUE)
    segmentation, _alive = load(slicer, tmp_path / "s.seg.nrrd")
    said = [vtk.mutable(""), vtk.mutable("")]
    there = [segmentation.GetNthSegment(n).GetTag(MADE_WITH_TAG, text) for n, text in enumerate(said)]
    assert there == [True, False]
    assert said[0] == made.replace("|", "/")


def test_slicer_puts_the_segments_where_the_image_is(slicer: ModuleType, tmp_path: Path) -> None:
    import vtk

    write_segmentation(tmp_path / "s.seg.nrrd", [Segment("a", LIVER)], OBLIQUE)
    segmentation, _alive = load(slicer, tmp_path / "s.seg.nrrd")
    matrix = vtk.vtkMatrix4x4()
    segmentation.GetNthSegment(0).GetRepresentation("Binary labelmap").GetImageToWorldMatrix(matrix)
    for index in [(0, 0, 0), (5, 4, 3), (1, 2, 3)]:
        x, y, z = OBLIQUE.index_to_world(index)
        np.testing.assert_allclose(matrix.MultiplyPoint((*index, 1.0))[:3], (-x, -y, z), atol=1e-9)


def test_slicer_knows_the_grid_of_the_image(slicer: ModuleType, tmp_path: Path) -> None:
    write_segmentation(tmp_path / "s.seg.nrrd", [Segment("a", LIVER)], OBLIQUE)
    segmentation, _alive = load(slicer, tmp_path / "s.seg.nrrd")
    image = slicer.vtkOrientedImageData()
    geometry = segmentation.GetConversionParameter("Reference image geometry")
    assert slicer.vtkSegmentationConverter.DeserializeImageGeometry(geometry, image, False)
    assert image.GetExtent() == (0, 5, 0, 4, 0, 3)
    np.testing.assert_allclose(image.GetSpacing(), OBLIQUE.spacing)
    x, y, z = OBLIQUE.origin
    np.testing.assert_allclose(image.GetOrigin(), (-x, -y, z))
