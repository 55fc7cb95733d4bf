"""The synthetic patient of `medsam2 demo`, as a volume node."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import slicer
import vtk

from MedSAM2Lib.phantom import Phantom, make_phantom

_RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0])


@cache
def phantom() -> Phantom:
    return make_phantom(0)


def load_patient(host: Any, name: str = "CT") -> Any:
    """Puts the patient into the scene and the views, windowed as an abdomen."""
    volume, geometry = phantom().volume, phantom().volume.geometry
    node = host.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    to_ras = vtk.vtkMatrix4x4()
    axes = _RAS_FROM_LPS @ geometry.direction_matrix * geometry.spacing
    for row in range(3):
        for column in range(3):
            to_ras.SetElement(row, column, axes[row, column])
        to_ras.SetElement(row, 3, (_RAS_FROM_LPS @ geometry.origin)[row])
    node.SetIJKToRASMatrix(to_ras)
    slicer.util.updateVolumeFromArray(node, np.array(volume.array))
    node.CreateDefaultDisplayNodes()
    node.GetDisplayNode().SetAutoWindowLevel(False)
    node.GetDisplayNode().SetWindowLevel(400, 40)
    host.show(node)
    return node


def ras(index_ijk: Any) -> Any:
    """RAS mm of a voxel."""
    return _RAS_FROM_LPS @ np.asarray(phantom().volume.geometry.index_to_world(index_ijk))


def box_around(structure: str, axis: int, margin: float = 2.0) -> tuple[int, Any, Any]:
    """The slice along an array axis (0: k, 1: j) that shows most of a structure, and RAS corners of a box around it there."""
    truth = phantom().structures[structure]
    slice_index = int(np.argmax(truth.sum(axis=tuple(other for other in range(3) if other != axis))))
    where = np.argwhere(np.take(truth, slice_index, axis))
    low, high = where.min(0) - margin, where.max(0) + margin
    first, last = np.insert(low, axis, slice_index), np.insert(high, axis, slice_index)  # (k, j, i)
    return slice_index, ras(first[::-1]), ras(last[::-1])
