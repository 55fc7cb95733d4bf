"""From a scalar volume of the scene to the library's Volume: voxels, and where they lie in the world."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import vtk
from vtk.util.numpy_support import vtk_to_numpy

from MedSAM2Lib.errors import VolumeError
from MedSAM2Lib.geometry import Geometry
from MedSAM2Lib.volume import Volume

__all__ = ["DISPLAYED", "VolumeBridge"]

DISPLAYED = "displayed"  # the window that the volume's display node shows now

_RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])
_HOUNSFIELD = "[hnsf'U]"  # UCUM code, as Slicer's DICOM reader sets it on CT volumes
# Of these Slicer makes scalar volumes too, but their voxels are no intensities.
_REFUSED = {
    "vtkMRMLLabelMapVolumeNode": "a label map",
    "vtkMRMLVectorVolumeNode": "a colour or vector volume",
    "vtkMRMLTensorVolumeNode": "a tensor volume",
}


class VolumeBridge:
    """Reads a vtkMRMLScalarVolumeNode; never writes to it.

    The parent transform, if there is one, is hardened in memory only: `geometry` is where the voxels are seen, in world
    coordinates. (The scene's RAS becomes the library's LPS.)
    """

    def __init__(self, volumeNode: Any) -> None:
        """Raises VolumeError, with what to do, when the node cannot be segmented."""
        self.node = volumeNode
        self._checkKind()
        self.geometry = self._geometry(self.worldMatrix())

    def volume(self) -> Volume:
        """The voxels as they are, not copied: a read-only view that is good as long as the node keeps its image.

        Raises VolumeError for NaN or infinite voxels, or when all are the same.
        """
        return Volume(self._array(), self.geometry, self._modality(), source=self.name)

    @property
    def name(self) -> str:
        return self.node.GetName() or "The volume"

    def window(self, word: str) -> str:
        """The window as MedSAM2Lib.intensity.resolve_window takes it: 'displayed' becomes 'LOW:HIGH', others stay.

        A volume without a display node has nothing displayed; it gets 'auto'.
        """
        if word != DISPLAYED:
            return word
        display = self.node.GetScalarVolumeDisplayNode()
        if display is None or not display.GetWindow() > 0:
            return "auto"
        return f"{display.GetWindowLevelMin()!r}:{display.GetWindowLevelMax()!r}"

    def worldMatrix(self) -> npt.NDArray[np.float64]:
        """(4, 4): voxels (i, j, k) to world RAS mm. Raises VolumeError under a transform that is not linear."""
        parent = self.node.GetParentTransformNode()
        toRas = self._matrix()
        if parent is None:
            return toRas
        if not parent.IsTransformToWorldLinear():
            raise VolumeError(
                f"{self.name} lies under a transform that bends space ({parent.GetName()}), so its slices are no planes; "
                "harden the transform (Transforms module), or take the volume out of it."
            )
        toWorld = vtk.vtkMatrix4x4()
        parent.GetMatrixTransformToWorld(toWorld)
        world: npt.NDArray[np.float64] = _numbers(toWorld) @ toRas
        return world

    @property
    def fileGeometry(self) -> Geometry:
        """Where the voxels lie by the volume's own file, whatever transform the node is under."""
        return self._geometry(self._matrix())

    def _matrix(self) -> npt.NDArray[np.float64]:
        """(4, 4): voxels (i, j, k) to RAS mm of the node."""
        matrix = vtk.vtkMatrix4x4()
        self.node.GetIJKToRASMatrix(matrix)
        return _numbers(matrix)

    def _checkKind(self) -> None:
        for className, what in _REFUSED.items():
            if self.node.IsA(className):
                raise VolumeError(f"{self.name} is {what}; choose a volume with one intensity per voxel, as a CT or MR has.")
        image = self.node.GetImageData()
        if image is None or image.GetNumberOfPoints() == 0 or image.GetPointData().GetScalars() is None:
            raise VolumeError(f"{self.name} has no voxels (yet); load its image first, or choose another volume.")
        if image.GetNumberOfScalarComponents() != 1:
            raise VolumeError(
                f"{self.name} has {image.GetNumberOfScalarComponents()} values per voxel (colours or vectors); "
                "choose a volume with one, or convert it (Vector to Scalar Volume module)."
            )
        dimensions = image.GetDimensions()
        if min(dimensions) < 2:
            raise VolumeError(
                f"{self.name} is a 2D image ({' x '.join(map(str, dimensions))} voxels); choose a volume of several slices."
            )

    def _geometry(self, matrix: npt.NDArray[np.float64]) -> Geometry:
        columns = _RAS_TO_LPS[:, np.newaxis] * matrix[:3, :3]
        spacing = np.linalg.norm(columns, axis=0)
        if not (np.isfinite(spacing).all() and spacing.all()):
            raise VolumeError(f"{self.name} has a spacing of {spacing.tolist()} mm; correct it in the Volumes module.")
        origin = _RAS_TO_LPS * matrix[:3, 3]
        i, j, k = self.node.GetImageData().GetDimensions()
        return Geometry(
            shape=(k, j, i),
            spacing=(float(spacing[0]), float(spacing[1]), float(spacing[2])),
            origin=(float(origin[0]), float(origin[1]), float(origin[2])),
            direction=tuple(float(value) for value in (columns / spacing).ravel()),
        )

    def _array(self) -> npt.NDArray[Any]:
        """(k, j, i)"""
        image = self.node.GetImageData()
        array: npt.NDArray[Any] = vtk_to_numpy(image.GetPointData().GetScalars())
        return array.reshape(image.GetDimensions()[::-1])

    def _modality(self) -> str | None:
        """'CT' where the voxels are known to be in Hounsfield units; else what DICOM said, which Slicer keeps in the subject
        hierarchy."""
        units = self.node.GetVoxelValueUnits()
        if units is not None and units.GetCodeValue() == _HOUNSFIELD:
            return "CT"
        scene = self.node.GetScene()
        hierarchy: Any = None if scene is None else scene.GetFirstNodeByClass("vtkMRMLSubjectHierarchyNode")
        item = 0 if hierarchy is None else hierarchy.GetItemByDataNode(self.node)
        return hierarchy.GetItemAttribute(item, "DICOM.Modality") or None if item else None


def _numbers(matrix: Any) -> npt.NDArray[np.float64]:
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])
