"""What the tests on real MRML share: an application's scene, nodes as a user makes them, and where things are in the world."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk

Array = npt.NDArray[Any]
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
SHAPE = (16, 44, 48)  # (k, j, i) of the patient


class Application:
    """The parts of qSlicerApplication that nodes rely on. Must live as long as its scene."""

    def __init__(self) -> None:
        self.scene = slicer.vtkMRMLScene()
        self.logic = slicer.vtkMRMLApplicationLogic()
        self.logic.SetMRMLScene(self.scene)
        self._temporary = tempfile.TemporaryDirectory()  # bundles are unpacked there
        self._cache, self._files = slicer.vtkCacheManager(), slicer.vtkDataIOManager()  # the scene does not own them
        self._cache.SetRemoteCacheDirectory(self._temporary.name)
        self._files.SetCacheManager(self._cache)
        self.scene.SetCacheManager(self._cache)
        self.scene.SetDataIOManager(self._files)
        self.modules = [
            slicer.vtkSlicerSegmentationsModuleLogic(),
            slicer.vtkSlicerMarkupsLogic(),
            slicer.vtkSlicerVolumesLogic(),
        ]
        for module in self.modules:
            module.SetMRMLApplicationLogic(self.logic)
            module.SetMRMLScene(self.scene)
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(self.scene)
        for name, orientation in (("Red", "Axial"), ("Green", "Coronal"), ("Yellow", "Sagittal")):
            view = self.scene.CreateNodeByClass("vtkMRMLSliceNode")
            view.UnRegister(None)
            view.SetName(name)
            view.SetLayoutName(name)
            view.SetSingletonTag(name)
            self.scene.AddNode(view)
            view.SetOrientation(orientation)

    def close(self) -> None:
        self.scene.Clear(True)
        self._temporary.cleanup()


def add_volume(scene: Any, array: Array, ijk_to_ras: Array | None = None, name: str = "CT") -> Any:
    """A vtkMRMLScalarVolumeNode of a (k, j, i) array, with a display node."""
    image = vtk.vtkImageData()
    image.SetDimensions(*array.shape[::-1])
    image.GetPointData().SetScalars(numpy_to_vtk(array.ravel(), deep=True))
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    node.SetAndObserveImageData(image)
    node.SetIJKToRASMatrix(vtk_matrix(np.eye(4) if ijk_to_ras is None else ijk_to_ras))
    node.CreateDefaultDisplayNodes()
    return node


def the_kidney() -> npt.NDArray[np.bool_]:
    """(k, j, i) bool: an ellipsoid on slices 4..12, left in the picture."""
    return _ellipsoid((8, 13, 12), (4.4, 6.4, 5.4))


def the_cyst() -> npt.NDArray[np.bool_]:
    """(k, j, i) bool: a ball on slices 4..12, right in the picture."""
    return _ellipsoid((8, 33, 37), (4.4, 4.4, 4.4))


def _ellipsoid(middle: tuple[float, ...], radii: tuple[float, ...]) -> npt.NDArray[np.bool_]:
    axes = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    inside: npt.NDArray[np.bool_] = sum(((x - m) / r) ** 2 for x, m, r in zip(axes, middle, radii, strict=True)) <= 1
    return inside


def add_patient(scene: Any) -> Any:
    """A CT of 1 x 1 x 2 mm, stored head first: kidney and cyst bright on dark, in the window 0:255."""
    noise = np.random.default_rng(0).normal(0, 5, SHAPE)
    array = np.round(np.where(the_kidney() | the_cyst(), 220, 30) + noise).astype(np.int16)
    matrix = np.array([[-1.0, 0, 0, 60], [0, -1, 0, 45], [0, 0, 2, -300], [0, 0, 0, 1]])
    node = add_volume(scene, array, matrix)
    node.GetScalarVolumeDisplayNode().AutoWindowLevelOff()
    node.GetScalarVolumeDisplayNode().SetWindowLevelMinMax(0, 255)
    return node


def add_transform(scene: Any, matrix: Array) -> Any:
    node = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    node.SetMatrixTransformToParent(vtk_matrix(matrix))
    return node


def add_roi(scene: Any, matrix: Array, size: Sequence[float]) -> Any:
    """A ROI: `matrix` (4, 4) has its axes and, in RAS mm, its middle; `size` its sides in mm."""
    node = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "R")
    node.SetSize(*size)
    node.SetAndObserveObjectToNodeMatrix(vtk_matrix(matrix))
    return node


def add_markups(scene: Any, kind: str, points: Array) -> Any:
    """A markups node with control points at world RAS mm; kind is Fiducial, Line, Curve or ClosedCurve."""
    node = scene.AddNewNodeByClass(f"vtkMRMLMarkups{kind}Node")
    for point in points:
        node.AddControlPointWorld(*point)
    return node


def view(scene: Any, name: str = "Red") -> Any:
    return next(node for node in nodes(scene, "vtkMRMLSliceNode") if node.GetName() == name)


def nodes(scene: Any, class_name: str) -> list[Any]:
    found = scene.GetNodesByClass(class_name)
    found.UnRegister(None)
    return [found.GetItemAsObject(n) for n in range(found.GetNumberOfItems())]


def turn(slice_node: Any, ras_axes: Array, through: Sequence[float]) -> None:
    """Turns a slice view: columns of `ras_axes` (3, 3) are its right, up and normal; through a world RAS point."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = ras_axes, through
    slice_node.GetSliceToRAS().DeepCopy(vtk_matrix(matrix))
    slice_node.UpdateMatrices()


def vtk_matrix(matrix: Array) -> Any:
    made = vtk.vtkMatrix4x4()
    made.DeepCopy(np.asarray(matrix, dtype=float).ravel().tolist())
    return made


def from_vtk(matrix: Any) -> Array:
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def world_of(volume_node: Any, ijk: Array) -> Array:
    """(n, 3) voxels (i, j, k) to world RAS mm, by Slicer's own word, parent transforms included."""
    matrix = vtk.vtkMatrix4x4()
    volume_node.GetIJKToRASMatrix(matrix)
    in_node = np.asarray(ijk, dtype=float) @ from_vtk(matrix)[:3, :3].T + from_vtk(matrix)[:3, 3]
    world = []
    for point in in_node.reshape(-1, 3):
        placed = [0.0, 0.0, 0.0]
        volume_node.TransformPointToWorld(point, placed)
        world.append(placed)
    return np.asarray(world)


def rotation(axis: Sequence[float], degrees: float) -> Array:
    """(3, 3), by Rodrigues' formula."""
    x, y, z = np.asarray(axis, dtype=float) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.deg2rad(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def box_around(scene: Any, volume_node: Any, thing: Array, index: int, axis: int = 0, margin: float = 1.0) -> Any:
    """A ROI around what a (k, j, i) mask has on a slice, as somebody draws it: flat, `margin` voxels off, in the world.

    For volumes whose axes lie along the world's.
    """
    rows, columns = (np.flatnonzero(np.take(thing, index, axis).any(one)) for one in (1, 0))
    low, high = np.full(3, float(index)), np.full(3, float(index))
    for other, places in zip([one for one in range(3) if one != axis], (rows, columns), strict=True):
        low[other], high[other] = places[0] - 0.5 - margin, places[-1] + 0.5 + margin
    corners = world_of(volume_node, np.stack((low, high))[:, ::-1])
    matrix = np.eye(4)
    matrix[:3, 3] = corners.mean(0)
    return add_roi(scene, matrix, np.abs(corners[1] - corners[0]))


def mask_of(logic: Any, name: str) -> Array:
    """(k, j, i) bool of an object's segment, by what Slicer stored."""
    from vtk.util.numpy_support import vtk_to_numpy

    segment_id = next(one.segmentId for one in logic.objects() if one.name == name)
    image = slicer.vtkOrientedImageData()
    mask = np.zeros(logic.volumeNode.GetImageData().GetDimensions()[::-1], dtype=bool)
    logic.segmentationNode.GetBinaryLabelmapRepresentation(segment_id, image)
    i0, i1, j0, j1, k0, k1 = image.GetExtent()
    if i0 <= i1:
        voxels = vtk_to_numpy(image.GetPointData().GetScalars())
        mask[k0 : k1 + 1, j0 : j1 + 1, i0 : i1 + 1] = voxels.reshape(k1 - k0 + 1, j1 - j0 + 1, i1 - i0 + 1) > 0
    return mask
