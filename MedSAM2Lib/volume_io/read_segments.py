"""The named masks of a segmentation file: 3D Slicer's `.seg.nrrd`, overlapping segments too, or any map of labels."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from MedSAM2Lib.errors import VolumeError
from MedSAM2Lib.geometry import Geometry
from MedSAM2Lib.volume_io.itk import geometry_of, quiet_itk, reason_of
from MedSAM2Lib.volume_io.read import read_labels

__all__ = ["SegmentationFile", "read_segments"]

_SEGMENT_NAME = re.compile(r"Segment(\d+)_Name")


@dataclass(frozen=True)
class SegmentationFile:
    """Masks (k, j, i) bool by name, some of which may be empty, on the file's own grid."""

    masks: Mapping[str, npt.NDArray[np.bool_]] = field(repr=False)
    geometry: Geometry


def read_segments(path: Path, names: Mapping[int, str] | None = None) -> SegmentationFile:
    """Reads a segmentation.

    names  what the values of a map of labels mean. None: `label 1` and so on. Segments of `.seg.nrrd` have their own names

    Raises VolumeError where the file is missing, damaged or no segmentation, where two segments have one name, and for a
    label value that no name belongs to.
    """
    return _read_slicer(path) if path.name.lower().endswith(".seg.nrrd") else _read_labels(path, names)


def _read_labels(path: Path, names: Mapping[int, str] | None) -> SegmentationFile:
    labels = read_labels(path)
    values = labels.values()
    named = {value: f"label {value}" for value in values} if names is None else dict(names)
    _check_values(path, values, named)
    return SegmentationFile({name: labels.array == value for value, name in named.items()}, labels.geometry)


def _read_slicer(path: Path) -> SegmentationFile:
    layers, geometry, header = _read_layers(path)
    numbers = sorted(int(match[1]) for match in map(_SEGMENT_NAME.fullmatch, header) if match)
    if not numbers:
        raise VolumeError(f"{path}: expected segments, but its header names none; save the segmentation from 3D Slicer again.")
    masks: dict[str, npt.NDArray[np.bool_]] = {}
    named: dict[int, dict[int, str]] = {layer: {} for layer in range(len(layers))}  # by layer, then by value
    for number in numbers:
        name = header[f"Segment{number}_Name"]
        # Before Slicer 4.11 each segment had a layer of its own and the value 1.
        layer, value = (int(header.get(f"Segment{number}_{key}", other)) for key, other in (("Layer", number), ("LabelValue", 1)))
        if name in masks or layer not in named:
            fault = f"two segments are called {name!r}" if name in masks else f"segment {name!r} is in layer {layer}"
            raise VolumeError(f"{path}: {fault}, of {len(layers)} layers; rename or save the segmentation again.")
        named[layer][value] = name
        masks[name] = layers[layer] == value
    for layer, array in enumerate(layers):
        _check_values(path, [int(value) for value in np.unique(array) if value], named[layer])
    return SegmentationFile(masks, geometry)


def _read_layers(path: Path) -> tuple[list[npt.NDArray[Any]], Geometry, dict[str, str]]:
    """Maps of labels (k, j, i), their grid, and the header's lines."""
    with quiet_itk() as sitk:
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(path))
        try:
            image = reader.Execute()
        except RuntimeError as error:
            raise VolumeError(f"{path} cannot be read ({reason_of(error)}); save the segmentation again.") from error
        header = {key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys()}
        array = sitk.GetArrayFromImage(image)
    if array.ndim not in (3, 4) or array.dtype.kind not in "iu":
        raise VolumeError(f"{path}: expected 3D maps of labels, but it is {array.dtype} of {array.shape}; save it again.")
    layers = [array] if array.ndim == 3 else [array[..., layer] for layer in range(array.shape[-1])]
    return layers, geometry_of(image), header


def _check_values(path: Path, values: list[int], names: Mapping[int, str]) -> None:
    unknown = [value for value in values if value not in names]
    if unknown:
        known = ", ".join(f"{value} = {name}" for value, name in names.items()) or "none"
        raise VolumeError(f"{path}: unknown label value {unknown[0]}; known are {known}. Name it, or remove its voxels.")
