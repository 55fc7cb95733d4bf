"""3D Slicer's segmentation file, `.seg.nrrd`, written as vtkMRMLSegmentationStorageNode of Slicer reads it.

The file is NRRD 4: a text header, a blank line, gzip data. Segments that do not overlap share one map of labels (a
*layer*); where they overlap there are several layers, and the data become 4D with the layer as the fastest axis
(kinds `list domain domain domain`). Everything that makes a segment (name, colour, label, layer, ...) is a
`Segment{N}_...:=` line. Slicer crops all segments of a layer to the `Extent` of the first one it meets, so every
segment carries the extent of its whole layer.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from MedSAM2Lib.geometry import Geometry
from MedSAM2Lib.masks import bounding_box
from MedSAM2Lib.volume_io.segments import Segment, check_segments, label_type, segment_color

__all__ = ["MADE_WITH_TAG", "write_seg_nrrd"]

MADE_WITH_TAG = "MedSAM2.madeWith"  # of a vtkSegment

# What Slicer itself writes for a segment of which nothing is known: DICOM's "Tissue" (SNOMED CT 85756007).
_TERMINOLOGY = (
    "Segmentation category and type - 3D Slicer General Anatomy list~SCT^85756007^Tissue~SCT^85756007^Tissue~^^"
    "~Anatomic codes - DICOM master list~^^~^^"
)
_EMPTY_EXTENT = (0, -1, 0, -1, 0, -1)
_NRRD_TYPES: dict[type, str] = {np.uint8: "unsigned char", np.uint16: "unsigned short"}
# Label maps are long runs of equal bytes: higher levels cost time and win a few percent.
_COMPRESSION_LEVEL = 4

_Extent = tuple[int, int, int, int, int, int]


@dataclass
class _Layer:
    """Segments that share no voxel. `occupied` is their union, (k, j, i) bool; `members` are places in the list."""

    occupied: npt.NDArray[np.bool_]
    members: list[int] = field(default_factory=list)


def write_seg_nrrd(path: Path, segments: Sequence[Segment], geometry: Geometry) -> None:
    """Writes segments with label values 1, 2, ... in their order, streaming slice by slice. Not atomic by itself.

    Raises OSError as the system does.
    """
    check_segments(segments, geometry)
    layers = _layers(segments, geometry)
    dtype = label_type(len(segments))
    header = "\n".join([*_grid_lines(geometry, len(layers), _NRRD_TYPES[dtype]), *_segment_lines(segments, layers, geometry)])
    with path.open("wb") as stream:
        stream.write(f"{header}\n\n".encode())
        # No name and no time in the gzip header: the same segments give the same bytes.
        with gzip.GzipFile(filename="", mode="wb", compresslevel=_COMPRESSION_LEVEL, fileobj=stream, mtime=0) as data:
            for k in range(geometry.shape[0]):
                data.write(_slice_of_layers(segments, layers, k, dtype).tobytes())


def _layers(segments: Sequence[Segment], geometry: Geometry) -> list[_Layer]:
    """Each segment goes to the first layer in which all its voxels are free."""
    layers: list[_Layer] = []
    for index, segment in enumerate(segments):
        box = bounding_box(segment.mask)
        layer = next((one for one in layers if box is None or not np.any(one.occupied[box] & segment.mask[box])), None)
        if layer is None:
            layer = _Layer(np.zeros(geometry.shape, dtype=np.bool_))
            layers.append(layer)
        layer.members.append(index)
        if box is not None:
            layer.occupied[box] |= segment.mask[box]
    return layers


def _slice_of_layers(segments: Sequence[Segment], layers: Sequence[_Layer], k: int, dtype: type) -> npt.NDArray[np.integer]:
    """(j, i, layers) labels of slice k, little-endian."""
    plane = np.zeros((*segments[0].mask.shape[1:], len(layers)), dtype=np.dtype(dtype).newbyteorder("<"))
    for number, layer in enumerate(layers):
        for index in layer.members:
            plane[..., number][segments[index].mask[k]] = index + 1
    return plane


def _grid_lines(geometry: Geometry, layer_count: int, nrrd_type: str) -> list[str]:
    k, j, i = geometry.shape
    steps = geometry.direction_matrix * np.asarray(geometry.spacing)
    directions = [_vector(steps[:, column]) for column in range(3)]
    sizes, kinds = [i, j, k], ["domain"] * 3
    if layer_count > 1:
        sizes, directions, kinds = [layer_count, *sizes], ["none", *directions], ["list", *kinds]
    return [
        "NRRD0004",
        f"type: {nrrd_type}",
        f"dimension: {len(sizes)}",
        "space: left-posterior-superior",
        f"sizes: {' '.join(map(str, sizes))}",
        f"space directions: {' '.join(directions)}",
        f"kinds: {' '.join(kinds)}",
        "endian: little",
        "encoding: gzip",
        f"space origin: {_vector(np.asarray(geometry.origin))}",
    ]


def _segment_lines(segments: Sequence[Segment], layers: Sequence[_Layer], geometry: Geometry) -> list[str]:
    lines: list[str] = []
    for number, layer in enumerate(layers):
        extent = " ".join(map(str, _extent(layer.occupied)))
        for index in layer.members:
            segment = segments[index]
            color = " ".join(f"{part:.6g}" for part in segment.color or segment_color(index))
            lines += [
                f"Segment{index}_ID:=Segment_{index + 1}",
                f"Segment{index}_Name:={_escaped(segment.name)}",
                f"Segment{index}_NameAutoGenerated:=0",
                f"Segment{index}_Color:={color}",
                f"Segment{index}_ColorAutoGenerated:=0",
                f"Segment{index}_LabelValue:={index + 1}",
                f"Segment{index}_Layer:={number}",
                f"Segment{index}_Extent:={extent}",
                f"Segment{index}_Tags:=TerminologyEntry:{_escaped(segment.terminology or _TERMINOLOGY)}|{_made_with(segment)}",
            ]
    return [
        *lines,
        "Segmentation_MasterRepresentation:=Binary labelmap",
        "Segmentation_ContainedRepresentationNames:=Binary labelmap|",
        f"Segmentation_ConversionParameters:=Reference image geometry|{_reference_geometry(geometry)}|The segmented image.&",
        "Segmentation_ReferenceImageExtentOffset:=0 0 0",
    ]


def _extent(mask: npt.NDArray[np.bool_]) -> _Extent:
    """First and last voxel along i, j, k."""
    box = bounding_box(mask)
    if box is None:
        return _EMPTY_EXTENT
    k, j, i = box
    return (i.start, i.stop - 1, j.start, j.stop - 1, k.start, k.stop - 1)


def _reference_geometry(geometry: Geometry) -> str:
    """Slicer's text for the grid: the 16 numbers of the voxel-to-RAS matrix, then the extent, each with a `;` behind."""
    lps_to_ras = np.array([-1.0, -1.0, 1.0])
    matrix = np.eye(4)
    matrix[:3, :3] = lps_to_ras[:, np.newaxis] * geometry.direction_matrix * np.asarray(geometry.spacing)
    matrix[:3, 3] = lps_to_ras * np.asarray(geometry.origin)
    k, j, i = geometry.shape
    return "".join(f"{value};" for value in [*map(_number, matrix.ravel()), 0, i - 1, 0, j - 1, 0, k - 1])


def _vector(values: npt.NDArray[np.float64]) -> str:
    return f"({','.join(map(_number, values))})"


def _number(value: float) -> str:
    """The shortest text that reads back as the same float64."""
    return repr(float(value) + 0.0)  # + 0.0 turns -0.0 into 0.0


def _made_with(segment: Segment) -> str:
    """As a tag among others, which a bar ends."""
    return f"{MADE_WITH_TAG}:{_escaped(segment.made_with.replace('|', '/'))}|" if segment.made_with else ""


def _escaped(text: str) -> str:
    """A value of a `key:=value` line may hold anything once `\\` and line breaks are escaped (NRRD definition, section 4)."""
    return " ".join(text.split()).replace("\\", "\\\\")
