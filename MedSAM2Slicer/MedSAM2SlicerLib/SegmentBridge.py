"""Masks into segments of a vtkMRMLSegmentationNode and back, through Slicer's segment editor logic.

Written is what differs, within the smallest box around it. The rules of the editor node given hold: which part may be
edited, which intensities, and whether other segments give way (by default none does: segments may overlap). Each write
returns a Patch with what it did to the segment and to its neighbours, so that it can be taken back to the voxel.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

from MedSAM2Lib.errors import OptionError
from MedSAM2Lib.masks import VoxelBox, bounding_box, intersection
from MedSAM2Lib.slice_stack import Region
from MedSAM2Lib.volume_io.seg_nrrd import MADE_WITH_TAG
from MedSAM2SlicerLib.Patch import Patch

__all__ = ["OVERWRITING", "SegmentBridge"]

_Mask = npt.NDArray[np.bool_]

_LABELMAP = "Binary labelmap"
_SURFACE = "Closed surface"
_OURS = "MedSAM2.created"  # node attribute
_AS_EDITOR = "MedSAM2.asSegmentEditor"  # attribute of our editor node: it takes its rules from Segment Editor's
_OVERWRITE_MODES = {
    "none": slicer.vtkMRMLSegmentEditorNode.OverwriteNone,
    "visible": slicer.vtkMRMLSegmentEditorNode.OverwriteVisibleSegments,
    "all": slicer.vtkMRMLSegmentEditorNode.OverwriteAllSegments,
}
OVERWRITING = (*_OVERWRITE_MODES, "editor")  # other segments that give way to a mask; "editor": as in Segment Editor
_SEGMENT_EDITOR = "SegmentEditor"  # tag of that module's node (Slicer: Modules/Scripted/SegmentEditor/SegmentEditor.py)
_NO_TERM = slicer.vtkSegment().GetTerminology()  # of a segment of which nobody said what it is: "Tissue"
_SAME_PLACE = 1e-3  # voxels that two grids may lie apart; files round
_MERGE_MASK = slicer.vtkSlicerSegmentationsModuleLogic.MODE_MERGE_MASK
_MERGE_MIN = slicer.vtkSlicerSegmentationsModuleLogic.MODE_MERGE_MIN


class SegmentBridge:
    """One segmentation, on the grid of one volume. Masks are (k, j, i) bool on that grid.

    Segments that others made are never changed, except where the editor node's overwrite mode says so.
    """

    def __init__(self, scene: Any, volumeNode: Any, segmentationNode: Any, editorNode: Any) -> None:
        """Raises OptionError when the segmentation is on another grid than the volume, or under another transform."""
        self.volumeNode, self.node, self.editorNode = volumeNode, segmentationNode, editorNode
        self._counts: dict[str, tuple[tuple[int, int], int]] = {}
        self._logic = slicer.vtkSlicerSegmentEditorLogic()
        self._logic.SetMRMLScene(scene)
        self.followVolume()
        self._checkGrid()
        editorNode.SetAndObserveSegmentationNode(segmentationNode)
        editorNode.SetAndObserveSourceVolumeNode(volumeNode)
        self._logic.SetSegmentEditorNode(editorNode)

    # ── nodes ─────────────────────────────────────────────────────────────────────────────────────────────────

    @staticmethod
    def createSegmentation(scene: Any, volumeNode: Any) -> Any:
        """A new, empty vtkMRMLSegmentationNode on a volume's grid."""
        node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", scene.GenerateUniqueName(f"{volumeNode.GetName()} MedSAM2"))
        node.CreateDefaultDisplayNodes()
        node.SetAttribute(_OURS, "1")
        # First the transform: the reference geometry is in the segmentation's space, not in the world.
        node.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
        node.SetReferenceImageGeometryParameterFromVolumeNode(volumeNode)
        node.GetSegmentation().SetSourceRepresentationName(_LABELMAP)
        return node

    @staticmethod
    def createEditor(scene: Any) -> Any:
        """A vtkMRMLSegmentEditorNode of our own: no segment gives way to another, edits are allowed everywhere."""
        node = scene.AddNewNodeByClass("vtkMRMLSegmentEditorNode", "MedSAM2 editor")
        node.SetHideFromEditors(True)
        node.SetOverwriteMode(node.OverwriteNone)
        return node

    @property
    def isOurs(self) -> bool:
        """Whether the segmentation was made here, not by the user or another module."""
        return bool(self.node.GetAttribute(_OURS))

    @property
    def overwriting(self) -> str:
        """One of OVERWRITING, as the editor node says."""
        if self.editorNode.GetAttribute(_AS_EDITOR):
            return "editor"
        return next(which for which, mode in _OVERWRITE_MODES.items() if mode == self.editorNode.GetOverwriteMode())

    def setOverwriting(self, which: str) -> None:
        """Raises OptionError for what is not of OVERWRITING."""
        if which not in OVERWRITING:
            raise OptionError(f"Segments that give way are one of {', '.join(OVERWRITING)}, but {which!r} came.")
        self.editorNode.SetAttribute(_AS_EDITOR, "1" if which == "editor" else None)
        self._setRules(_OVERWRITE_MODES.get(which, self.editorNode.OverwriteNone))

    def _setRules(self, overwrite: int) -> None:
        """Edits are allowed everywhere."""
        self.editorNode.SetOverwriteMode(overwrite)
        self.editorNode.SetMaskMode(slicer.vtkMRMLSegmentationNode.EditAllowedEverywhere)
        self.editorNode.SourceVolumeIntensityMaskOff()

    def _followSegmentEditor(self) -> None:
        """Takes over what Segment Editor is set to now; its masks only as far as they are about our nodes."""
        theirs = self.node.GetScene().GetSingletonNode(_SEGMENT_EDITOR, "vtkMRMLSegmentEditorNode")
        if theirs is None:  # it was never opened
            return
        self._setRules(theirs.GetOverwriteMode())
        if theirs.GetSegmentationNode() is self.node:
            self.editorNode.SetMaskMode(theirs.GetMaskMode())
            self.editorNode.SetMaskSegmentID(theirs.GetMaskSegmentID())
        if theirs.GetSourceVolumeNode() is self.volumeNode:
            self.editorNode.SetSourceVolumeIntensityMask(theirs.GetSourceVolumeIntensityMask())
            self.editorNode.SetSourceVolumeIntensityMaskRange(*theirs.GetSourceVolumeIntensityMaskRange())

    def followVolume(self) -> None:
        """A segmentation of our own moves with its volume; another one must be where the volume is.

        Raises OptionError where it is not.
        """
        ours, theirs = self.node.GetTransformNodeID(), self.volumeNode.GetTransformNodeID()
        if ours == theirs:
            return
        if not self.isOurs:
            raise OptionError(
                f"The segmentation {self.node.GetName()} must be under the same transform as {self.volumeNode.GetName()}; "
                "move it there (Transforms module), or begin a new segmentation."
            )
        self.node.SetAndObserveTransformNodeID(theirs)

    # ── segments ──────────────────────────────────────────────────────────────────────────────────────────────

    def addSegment(self, name: str, color: tuple[float, float, float]) -> str:
        """An empty segment of our own; returns its ID."""
        return str(self.node.GetSegmentation().AddEmptySegment("", name, list(color)))

    def removeSegment(self, segmentId: str) -> None:
        self.node.GetSegmentation().RemoveSegment(segmentId)

    def bringBack(self, segmentId: str, name: str, color: tuple[float, float, float], terminology: str, madeWith: str) -> None:
        """A removed segment, still empty, under its old ID."""
        self.node.GetSegmentation().AddEmptySegment(segmentId, name, list(color))
        self.segment(segmentId).SetTerminology(terminology)
        self.noteMaker(segmentId, madeWith)

    def madeWith(self, segmentId: str) -> str:
        """The networks that wrote into a segment, with semicolons between them; empty where none did."""
        said = vtk.mutable("")
        return str(said) if self.segment(segmentId).GetTag(MADE_WITH_TAG, said) else ""

    def noteMaker(self, segmentId: str, maker: str) -> None:
        """Notes that a network wrote into a segment; Slicer saves it with the segmentation."""
        before = [one for one in self.madeWith(segmentId).split("; ") if one]
        if maker and maker not in before:
            self.segment(segmentId).SetTag(MADE_WITH_TAG, "; ".join((*before, maker)))

    def term(self, segmentId: str) -> str:
        """What a segment is, for people ("Kidney, Right"); empty as long as nobody said it."""
        entry, text = slicer.vtkSlicerTerminologyEntry(), self.segment(segmentId).GetTerminology()
        if text == _NO_TERM or not slicer.vtkSlicerTerminologiesModuleLogic.DeserializeTerminologyEntry(text, entry):
            return ""
        codes = (entry.GetTypeObject(), entry.GetTypeModifierObject(), entry.GetRegionObject(), entry.GetRegionModifierObject())
        return ", ".join(code.GetCodeMeaning() for code in codes if code is not None and code.GetCodeMeaning())

    def has(self, segmentId: str) -> bool:
        return self.node.GetSegmentation().GetSegment(segmentId) is not None

    def segment(self, segmentId: str) -> Any:
        """The vtkSegment. Raises OptionError when it was removed from the scene."""
        segment = self.node.GetSegmentation().GetSegment(segmentId)
        if segment is None:
            raise OptionError("The object's segment was removed from the scene; undo that there, or draw it anew.")
        return segment

    def visible(self, segmentId: str) -> bool:
        display = self.node.GetDisplayNode()
        return bool(display and display.GetSegmentVisibility(segmentId))

    def setVisible(self, segmentId: str, visible: bool) -> None:
        self.node.CreateDefaultDisplayNodes()
        self.node.GetDisplayNode().SetSegmentVisibility(segmentId, visible)

    def milliliters(self, segmentId: str) -> float:
        """The volume of a segment; a linear transform that scales counts."""
        spacing = np.asarray(self.volumeNode.GetSpacing())
        scale = 1.0
        parent = self.node.GetParentTransformNode()
        if parent is not None and parent.IsTransformToWorldLinear():
            matrix = vtk.vtkMatrix4x4()
            parent.GetMatrixTransformToWorld(matrix)
            scale = abs(matrix.Determinant())
        return float(self._count(segmentId) * np.prod(spacing) * scale / 1000)

    def _count(self, segmentId: str) -> int:
        """The segment's voxels; counted again only when its labels have changed."""
        changed = self.stamp(segmentId)
        if self._counts.get(segmentId, (None, 0))[0] != changed:
            labels, value, _ = self._labels(segmentId)
            self._counts[segmentId] = changed, int(np.count_nonzero(labels == value))
        return self._counts[segmentId][1]

    def stamp(self, segmentId: str) -> tuple[int, int]:
        """Another one after the segment's voxels may have changed."""
        image = self.segment(segmentId).GetRepresentation(_LABELMAP)
        return (0 if image is None else image.GetMTime(), self.segment(segmentId).GetLabelValue())

    # ── masks out ─────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels of the volume along (k, j, i)."""
        i, j, k = self.volumeNode.GetImageData().GetDimensions()
        return k, j, i

    def mask(self, segmentId: str) -> _Mask:
        """(k, j, i) bool, a copy; voxels of the segment beyond the volume are left out."""
        return self.maskIn(segmentId, self._whole())

    def maskIn(self, segmentId: str, box: VoxelBox) -> _Mask:
        """The part of a segment's mask within a box of the volume's (k, j, i) voxels, a copy."""
        labels, value, offset = self._labels(segmentId)
        found = np.zeros([part.stop - part.start for part in box], dtype=bool)
        into, out_of = [], []
        for part, start, size in zip(box, offset, labels.shape, strict=True):
            low, high = max(part.start, start), min(part.stop, start + size)
            if low >= high:
                return found
            into.append(slice(low - part.start, high - part.start))
            out_of.append(slice(low - start, high - start))
        found[tuple(into)] = labels[tuple(out_of)] == value
        return found

    def box(self, segmentId: str) -> VoxelBox | None:
        """The part of the volume outside of which the segment surely has no voxel; None for an empty one."""
        labels, _, offset = self._labels(segmentId)
        if not labels.size:
            return None
        found = tuple(slice(start, start + size) for start, size in zip(offset, labels.shape, strict=True))
        return intersection(found, self._whole())

    def maskOf(self, segmentationNode: Any, segmentId: str) -> _Mask:
        """(k, j, i) bool of a segment of any segmentation, whatever its grid: at each voxel the nearest one of it."""
        if segmentationNode is self.node:
            return self.mask(segmentId)
        source = slicer.vtkOrientedImageData()
        if not segmentationNode.GetBinaryLabelmapRepresentation(segmentId, source):
            raise OptionError(f"{segmentationNode.GetName()} has no such segment with voxels; paint it first, or choose another.")
        toOurs = vtk.vtkGeneralTransform()
        slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(
            segmentationNode.GetParentTransformNode(), self.node.GetParentTransformNode(), toOurs
        )
        reference = self._image(np.zeros(self.shape, dtype=np.uint8), self._whole())
        placed = slicer.vtkOrientedImageData()
        slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage(
            source, reference, placed, False, False, toOurs
        )
        mask: _Mask = vtk_to_numpy(placed.GetPointData().GetScalars()).reshape(self.shape) > 0
        return mask

    # ── masks in ──────────────────────────────────────────────────────────────────────────────────────────────

    def write(self, segmentId: str, region: Region) -> Patch | None:
        """Makes a segment what a region says, as far as the editor node's rules allow; None when nothing changed."""
        self.segment(segmentId)
        self.followVolume()
        if self.overwriting == "editor":
            self._followSegmentEditor()
        before = self.maskIn(segmentId, region.box)
        added, removed = region.mask & ~before, before & region.governed & ~region.mask
        inner = bounding_box(added | removed)
        if inner is None:
            return None
        box = tuple(
            slice(outer.start + part.start, outer.start + part.stop) for outer, part in zip(region.box, inner, strict=True)
        )
        neighbours = [one for one in self._segmentIds() if one != segmentId] if self._mayOverwrite() else []
        touched = [segmentId, *neighbours]
        was = {one: self.maskIn(one, box) for one in touched}
        self.editorNode.SetSelectedSegmentID(segmentId)
        for change, mode in ((added, self._logic.ModificationModeAdd), (removed, self._logic.ModificationModeRemove)):
            if change.any():
                image = self._image(change[inner].astype(np.uint8), box)
                self._logic.ModifySegmentByLabelmap(self.node, segmentId, image, mode, False, False)
        patch = Patch.between(box, was, {one: self.maskIn(one, box) for one in touched})
        return patch if patch.changes else None

    def apply(self, patch: Patch, forwards: bool) -> None:
        """Makes the segments of a patch what they were after it (forwards) or before it, whatever the rules are now.

        Segments that were removed since are passed over.
        """
        for change in patch.changes:
            if not self.has(change.segmentId):
                continue
            wanted = change.after() if forwards else change.before()
            now = self.maskIn(change.segmentId, patch.box)
            self._merge(change.segmentId, wanted & ~now, patch.box, added=True)
            self._merge(change.segmentId, now & ~wanted, patch.box, added=False)

    @contextmanager
    def withoutSurface(self) -> Iterator[None]:
        """Puts the 3D surface aside while a segment changes many times: Slicer makes it anew after each change."""
        segmentation = self.node.GetSegmentation()
        shown = segmentation.ContainsRepresentation(_SURFACE)
        if shown:
            segmentation.RemoveRepresentation(_SURFACE)
        try:
            yield
        finally:
            if shown:
                segmentation.CreateRepresentation(_SURFACE)

    def _merge(self, segmentId: str, change: _Mask, box: VoxelBox, added: bool) -> None:
        """Adds voxels to a segment, or takes them out, and does nothing to any other."""
        if not change.any():
            return
        values = np.where(change, 1, 0) if added else np.where(change, 0, 255)
        image = self._image(values.astype(np.uint8), box)
        slicer.vtkSlicerSegmentationsModuleLogic.SetBinaryLabelmapToSegment(
            image, self.node, segmentId, _MERGE_MASK if added else _MERGE_MIN, image.GetExtent(), False, []
        )

    # ── images ────────────────────────────────────────────────────────────────────────────────────────────────

    def _whole(self) -> VoxelBox:
        return tuple(slice(0, size) for size in self.shape)

    def _segmentIds(self) -> list[str]:
        return list(self.node.GetSegmentation().GetSegmentIDs())

    def _mayOverwrite(self) -> bool:
        return bool(self.editorNode.GetOverwriteMode() != self.editorNode.OverwriteNone)

    def _image(self, values: npt.NDArray[np.uint8], box: VoxelBox) -> Any:
        """A vtkOrientedImageData of values that lie at a box of the volume's (k, j, i) voxels."""
        image = slicer.vtkOrientedImageData()
        k, j, i = box
        image.SetExtent(i.start, i.stop - 1, j.start, j.stop - 1, k.start, k.stop - 1)
        image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
        vtk_to_numpy(image.GetPointData().GetScalars())[:] = values.ravel()
        image.SetGeometryFromImageToWorldMatrix(self._matrix())
        return image

    def _matrix(self) -> Any:
        """Voxels (i, j, k) of the volume to the RAS of the node, parent transform apart."""
        matrix = vtk.vtkMatrix4x4()
        self.volumeNode.GetIJKToRASMatrix(matrix)
        return matrix

    def _labels(self, segmentId: str) -> tuple[npt.NDArray[Any], int, tuple[int, int, int]]:
        """The labels of a segment's layer (k, j, i), the segment's own among them, and the volume's voxel they begin at."""
        segment = self.segment(segmentId)
        image = segment.GetRepresentation(_LABELMAP)
        i0, i1, j0, j1, k0, k1 = image.GetExtent() if image is not None else (0, -1) * 3
        if i1 < i0 or j1 < j0 or k1 < k0:
            return np.zeros((0, 0, 0), dtype=np.uint8), 1, (0, 0, 0)
        shape = k1 - k0 + 1, j1 - j0 + 1, i1 - i0 + 1
        di, dj, dk = self._shift(image)
        labels: npt.NDArray[Any] = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(shape)
        return labels, int(segment.GetLabelValue()), (k0 + dk, j0 + dj, i0 + di)

    def _shift(self, image: Any) -> tuple[int, int, int]:
        """By how many voxels (i, j, k) an image's numbering lies off the volume's; the grids' lines coincide.

        Raises OptionError where they do not.
        """
        ours, theirs = self._matrix(), vtk.vtkMatrix4x4()
        image.GetImageToWorldMatrix(theirs)
        ours.Invert()
        vtk.vtkMatrix4x4.Multiply4x4(ours, theirs, theirs)
        relative = np.array([[theirs.GetElement(row, column) for column in range(4)] for row in range(3)])
        shift = np.round(relative[:, 3])
        farthest = max(self.shape)
        if (np.abs(relative[:, :3] - np.eye(3)).max() * farthest > _SAME_PLACE * 10) or (
            np.abs(relative[:, 3] - shift).max() > _SAME_PLACE
        ):
            raise OptionError(
                f"The segmentation {self.node.GetName()} must be on the grid of {self.volumeNode.GetName()}, but it is on "
                "another one; begin a new segmentation, or resample that one to the volume (Segmentations module)."
            )
        return int(shift[0]), int(shift[1]), int(shift[2])

    def _checkGrid(self) -> None:
        segmentation = self.node.GetSegmentation()
        if segmentation.GetNumberOfSegments() and segmentation.GetSourceRepresentationName() != _LABELMAP:
            raise OptionError(
                f"The segments of {self.node.GetName()} must be label maps, but they are a "
                f"{segmentation.GetSourceRepresentationName()}; "
                "make Binary labelmap their source (Segmentations module), or begin a new segmentation."
            )
        geometry = slicer.vtkOrientedImageData()
        text = self.node.GetSegmentation().GetConversionParameter("Reference image geometry")
        if text and slicer.vtkSegmentationConverter.DeserializeImageGeometry(text, geometry, False):
            self._shift(geometry)
        elif self.node.GetSegmentation().GetNumberOfSegments() == 0:
            self.node.SetReferenceImageGeometryParameterFromVolumeNode(self.volumeNode)
        for segmentId in self._segmentIds():
            self._labels(segmentId)
