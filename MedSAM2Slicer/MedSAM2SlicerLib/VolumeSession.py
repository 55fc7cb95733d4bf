"""All that belongs to one volume: its segmentation, its objects, their slices, the steps that can be taken back.

Knows the scene, not the engine: Conversation asks the engine, and tells this class what came of it.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from MedSAM2Lib.errors import MedSAM2Error, OptionError, PromptError, UsageError
from MedSAM2Lib.geometry import Geometry
from MedSAM2Lib.intensity import resolve_window
from MedSAM2Lib.masks import VoxelBox, bounding_box, intersection, slabs, union
from MedSAM2Lib.prompts import Box
from MedSAM2Lib.results import SliceConfidence, SliceResult
from MedSAM2Lib.slice_stack import Region, SliceStack
from MedSAM2Lib.volume import Volume
from MedSAM2Lib.volume_io.segments import segment_color
from MedSAM2SlicerLib.Patch import Patch
from MedSAM2SlicerLib.SegmentBridge import SegmentBridge
from MedSAM2SlicerLib.SessionNode import SessionNode
from MedSAM2SlicerLib.TrackedObject import GivenPrompt, SliceNote, TrackedObject
from MedSAM2SlicerLib.VolumeBridge import DISPLAYED, VolumeBridge

__all__ = ["StackEntry", "Step", "VolumeSession"]

_LOGGER = logging.getLogger(__name__)
_Mask = npt.NDArray[np.bool_]
# Of a box's sides, on each side. In a tight one, nano kept to where a block had been before it moved by a seventh of its width.
_ROOM = 0.1
_SLAB_VOXELS = 1_000_000  # that are taken back, or done again, at once: a few milliseconds


@dataclass
class StackEntry:
    """One way in which the volume is sliced; the engine has a session for each.

    volumeId  the engine's name for that session
    window    'LOW:HIGH', as the engine was told
    isOpen    the engine has the volume and the objects
    looks     the engine's names for sessions along the other axes of the same array, while an object is checked
    state     the engine's last word on all its objects, to be taken up when it is opened again; None: not known
    """

    stack: SliceStack
    volumeId: str
    window: str
    isOpen: bool = False
    looks: set[str] = field(default_factory=set)
    state: dict[str, Any] | None = None

    @property
    def axis(self) -> str:
        """Of the array that is sliced: 'k', 'j' or 'i'."""
        return "kji"[self.stack.axis]


@dataclass
class Step:
    """One entry of the history.

    stack    place of the stack whose engine session made the step; None where the engine had no part in it
    removed  what is needed to bring a removed segment back: ID, name, colour, terminology, what it was made with
    """

    label: str
    stack: int | None
    before: dict[str, TrackedObject]
    after: dict[str, TrackedObject] = field(default_factory=dict)
    patches: list[Patch] = field(default_factory=list)
    removed: tuple[str, str, tuple[float, float, float], str, str] | None = None
    isOpen: bool = True
    # While the step is open: slices shown, by object and slice, as bits; and where segments were written.
    shown: dict[tuple[str, int], bytes] = field(default_factory=dict)
    written: list[tuple[str, VoxelBox]] = field(default_factory=list)


@dataclass(frozen=True)
class _Shown:
    """An object's mask as it was last written, to tell what a person painted since; bits of the part within the box."""

    box: VoxelBox
    bits: bytes


class VolumeSession:
    """Objects are known by the IDs of their segments; the history is a list of steps, the last one last."""

    def __init__(self, scene: Any, node: SessionNode) -> None:
        """Takes up a session node that refers to a volume; makes what it lacks.

        Raises VolumeError for a volume that cannot be segmented, OptionError for a segmentation on another grid.
        """
        self.scene, self.node = scene, node
        self.volumeNode = node.referred("volume")
        self.volume = VolumeBridge(self.volumeNode)
        self._image: Volume | None = self.volume.volume()
        if node.referred("segmentation") is None:
            node.refer("segmentation", SegmentBridge.createSegmentation(scene, self.volumeNode))
        if node.referred("editor") is None:
            node.refer("editor", SegmentBridge.createEditor(scene))
        self.bridge = SegmentBridge(scene, self.volumeNode, node.referred("segmentation"), node.referred("editor"))
        self._grid = self.volume.geometry
        self.window = DISPLAYED
        self.objects: dict[str, TrackedObject] = {}
        self.currentId: str | None = None
        self.stacks: list[StackEntry] = []
        self.steps: list[Step] = []
        self.undone: list[Step] = []
        self.isPaging = False  # the volume changes because we turn to another time point
        self._shown: dict[str, _Shown] = {}
        self._read()

    # ── the volume and its slices ─────────────────────────────────────────────────────────────────────────────

    def entryFor(self, stack: SliceStack) -> int:
        """The place of a stack in the list; one whose slices are the same is shared."""
        for place, entry in enumerate(self.stacks):
            if entry.stack == stack or (entry.stack.is_oblique and stack.is_oblique and _parallel(entry.stack, stack)):
                return place
        volume_id = f"{self.volumeNode.GetID()}/{len(self.stacks)}"
        self.stacks.append(StackEntry(stack, volume_id, self._resolved(self.window)))
        return len(self.stacks) - 1

    def entryOf(self, segmentId: str) -> StackEntry | None:
        place = self.objects[segmentId].stack
        return None if place is None else self.stacks[place]

    @property
    def image(self) -> Volume:
        """The voxels, where they are now."""
        if self._image is None:
            self._image = self.volume.volume()
        return self._image

    def renewVolume(self) -> bool:
        """After the volume's voxels have changed: whether there are as many as there were.

        The engine has to be given them anew. On another grid the slices are others too, and this session has come to an
        end. Raises VolumeError where the volume cannot be segmented any more.
        """
        self.volume = VolumeBridge(self.volumeNode)
        self._image = self.volume.volume()
        for entry in self.stacks:
            entry.isOpen, entry.state = False, None
        if self.volume.geometry.shape != self._grid.shape:
            return False
        self._follow()
        return True

    def moveVolume(self) -> None:
        """After the volume was put elsewhere: segmentation and slices go with it. Raises VolumeError, OptionError."""
        self.volume = VolumeBridge(self.volumeNode)
        self._image = None
        self.bridge.followVolume()
        self._follow()

    def _follow(self) -> None:
        """Slices lie where the volume does now; the engine need not know, unless distances have changed."""
        for entry in self.stacks:
            moved = entry.stack.moved(self.volume.geometry)
            if not np.allclose(moved.geometry.spacing, entry.stack.geometry.spacing):
                entry.isOpen, entry.state = False, None
            entry.stack = moved
        self._grid = self.volume.geometry

    def setWindow(self, window: str) -> None:
        """Of what the engine is given from now on; objects are carried over by their masks.

        Raises OptionError for an unknown one.
        """
        wanted = self._resolved(window)
        self.window = window
        for entry in self.stacks:
            if entry.window != wanted:
                entry.window, entry.isOpen, entry.state = wanted, False, None

    def _resolved(self, window: str) -> str:
        """'LOW:HIGH', whatever word stands for it: a session that was saved must get the very same again."""
        resolved = resolve_window(self.volume.window(window), self.image)
        return f"{resolved.low!r}:{resolved.high!r}"

    # ── objects ───────────────────────────────────────────────────────────────────────────────────────────────

    def idOf(self, name: str) -> str:
        """The segment's ID. Raises OptionError for a name that no object has."""
        for segmentId in self.objects:
            if self.bridge.has(segmentId) and self.bridge.segment(segmentId).GetName() == name:
                return segmentId
        known = ", ".join(self.names()) or "none yet"
        raise OptionError(f"There is no object {name!r}; objects are: {known}.")

    def nameOf(self, segmentId: str) -> str:
        return str(self.bridge.segment(segmentId).GetName())

    def names(self) -> list[str]:
        return [self.nameOf(segmentId) for segmentId in self.objects if self.bridge.has(segmentId)]

    def add(self, name: str) -> str:
        """A new, empty object; returns its segment's ID."""
        segmentId = self.bridge.addSegment(name, segment_color(len(self.objects)))
        self.objects[segmentId] = TrackedObject(segmentId)
        return segmentId

    def followable(self, segmentIds: Sequence[str]) -> dict[str, int]:
        """Those of the objects that have a prompt to follow them from, with the place of their stack.

        Raises UsageError when none has.
        """
        targets = [self.objects[one] for one in segmentIds if one in self.objects and self.bridge.has(one)]
        found = {one.segmentId: one.stack for one in targets if one.prompts and one.stack is not None}
        if not found:
            raise UsageError("There is nothing to propagate yet; draw a box (or another prompt) on one slice first.")
        return found

    def anotherView(self, segmentId: str) -> PromptError:
        """What to raise when something is drawn across the slices that an object is followed along."""
        return PromptError(
            f"{self.nameOf(segmentId)} is followed along the slices of another view; draw there, click a point (in any view), "
            "or add another object."
        )

    def boxes(self, segmentId: str) -> list[Box]:
        """Around the object's mask, on each of the slices that a person prompted and that has some; with room to move."""
        entry, target = self.entryOf(segmentId), self.objects[segmentId]
        if entry is None:
            return []
        mask = self.bridge.mask(segmentId)
        cuts = {index: entry.stack.cut(mask, index) for index in sorted(target.prompts)}
        return [_around(index, cut) for index, cut in cuts.items() if cut.any()]

    def clear(self, segmentId: str) -> None:
        """Nothing is known of the object any more, and its segment is empty; no step of the history."""
        box = self.bridge.box(segmentId)
        if box is not None:
            nothing = np.zeros([part.stop - part.start for part in box], dtype=bool)
            self.bridge.write(segmentId, Region(box, ~nothing, nothing))
        self.objects[segmentId] = TrackedObject(segmentId)
        self._shown.pop(segmentId, None)

    def forgetSteps(self, objects: Mapping[str, TrackedObject]) -> None:
        """The scene shows another time point: what is there now is where the history begins, and what is known of it."""
        self.objects = dict(objects)
        self.steps.clear()
        self.undone.clear()
        self._shown.clear()
        self._noteAll()

    def edits(self, segmentId: str) -> dict[int, _Mask]:
        """Slices, along the object's stack, on which its segment was painted or erased since it was last written here,
        with what is there now (rows, columns)."""
        entry = self.entryOf(segmentId)
        box = self._boxOf(segmentId)
        if entry is None or box is None:
            return {}
        changed = self.bridge.maskIn(segmentId, box) != self._shownIn(segmentId, box)
        if not changed.any():
            return {}
        voxels = (np.argwhere(changed) + [part.start for part in box])[:, ::-1]
        slices = entry.stack.from_world(entry.stack.grid.index_to_world(voxels))[:, 2]
        indices = sorted(set(np.floor(slices + 0.5).astype(int).tolist()))
        now = self.bridge.mask(segmentId)
        return {index: entry.stack.cut(now, index) for index in indices if 0 <= index < entry.stack.slice_count}

    def cut(self, segmentId: str, index: int) -> _Mask:
        """(rows, columns) bool of what an object's segment has now on a slice of its stack."""
        entry = self.entryOf(segmentId)
        assert entry is not None, "slices are counted along a stack"
        if entry.stack.is_oblique:
            return entry.stack.cut(self.bridge.mask(segmentId), index)
        box = [slice(0, size) for size in self.bridge.shape]
        box[entry.stack.axis] = slice(index, index + 1)
        plane: _Mask = np.squeeze(self.bridge.maskIn(segmentId, tuple(box)), entry.stack.axis)
        return plane

    # ── what the engine said ──────────────────────────────────────────────────────────────────────────────────

    def begin(self, label: str, stack: int | None) -> Step:
        """A step of the history, open until `end`."""
        return Step(label, stack, dict(self.objects))

    def given(self, segmentId: str, place: int, index: int, prompt: GivenPrompt) -> None:
        """The engine took a prompt on a slice; the first one decides the object's stack."""
        self.objects[segmentId] = replace(self.objects[segmentId].withPrompt(index, prompt), stack=place)

    def takenBack(self, segmentId: str, index: int) -> None:
        self.objects[segmentId] = self.objects[segmentId].withoutPrompts(index)

    def lock(self, segmentId: str, indices: Sequence[int], locked: bool) -> None:
        target = self.objects[segmentId]
        changed = target.locked | set(indices) if locked else target.locked - set(indices)
        self.objects[segmentId] = replace(target, locked=frozenset(changed))

    def show(self, step: Step, result: SliceResult) -> None:
        """Puts a slice's mask into the scene; a locked slice stays."""
        segmentId = result.object
        entry = self.entryOf(segmentId)
        if entry is None or result.slice_index in self.objects[segmentId].locked:
            return
        if self._writeSlice(step, segmentId, entry.stack, result.slice_index, result.mask):
            self.objects[segmentId] = self.objects[segmentId].withoutAgreement(result.slice_index)
        step.shown[segmentId, result.slice_index] = np.packbits(result.mask).tobytes()
        note = SliceNote(result.confidence.iou, bool(result.mask.any()))
        self.objects[segmentId] = self.objects[segmentId].withSlice(result.slice_index, note)

    def showWhole(self, step: Step, segmentId: str, mask: _Mask, confidence: Mapping[int, SliceConfidence]) -> Iterator[int]:
        """Makes the object in the scene what the engine says of all its slices; locked ones stay. Slices that this step
        has shown already are not looked at again. Done slice by slice, as it is iterated.

        mask        (k, j, i) bool on the stack's grid
        confidence  of the slices that the engine has segmented; on the others there is no mask
        """
        entry = self.entryOf(segmentId)
        if entry is None:
            return
        by_slice = np.moveaxis(mask, entry.stack.axis, 0)
        notes: dict[int, SliceNote] = {}
        for index in sorted({*self.objects[segmentId].slices, *confidence}):
            present = bool(by_slice[index].any())
            if index in confidence:
                notes[index] = SliceNote(confidence[index].iou, present)
            locked = index in self.objects[segmentId].locked
            known = locked or step.shown.get((segmentId, index)) == np.packbits(by_slice[index]).tobytes()
            if not known and self._writeSlice(step, segmentId, entry.stack, index, by_slice[index]):
                self.objects[segmentId] = self.objects[segmentId].withoutAgreement(index)
            yield index
        self.objects[segmentId] = replace(self.objects[segmentId], slices=notes)

    def agree(self, segmentId: str, agreement: Mapping[int, float]) -> None:
        """Notes how far other ways to follow an object agree with its mask, by slice."""
        self.objects[segmentId] = replace(self.objects[segmentId], agreement=dict(agreement))

    def beginAnew(self, segmentId: str) -> None:
        """Nothing is said of the object any more: the next prompt may be in another view."""
        self.objects[segmentId] = TrackedObject(segmentId)

    def remove(self, step: Step, segmentId: str) -> None:
        """Takes an object and its segment away; the step knows how to bring them back."""
        segment = self.bridge.segment(segmentId)
        name, color, terminology = segment.GetName(), tuple(segment.GetColor()), segment.GetTerminology()
        step.removed = segmentId, name, color, terminology, self.bridge.madeWith(segmentId)
        box = self.bridge.box(segmentId)
        if box is not None:
            was = self.bridge.maskIn(segmentId, box)
            step.patches.append(Patch.between(box, {segmentId: was}, {segmentId: np.zeros_like(was)}))
        self.bridge.removeSegment(segmentId)
        del self.objects[segmentId]
        self._shown.pop(segmentId, None)
        if self.currentId == segmentId:
            self.currentId = next(iter(self.objects), None)

    def adopt(self, step: Step, segmentId: str, regions: Sequence[Region]) -> None:
        """What was painted within regions since the last write becomes part of a step, so that it is taken back with it."""
        for box in (region.box for region in regions):
            was, now = self._shownIn(segmentId, box), self.bridge.maskIn(segmentId, box)
            patch = Patch.between(box, {segmentId: was}, {segmentId: now})
            if patch.changes:
                step.patches.append(patch)
            step.written.append((segmentId, box))

    def end(self, step: Step) -> None:
        """Closes a step. One that changed nothing leaves no trace in the history. Harmless for one that is closed."""
        for _ in self.ending(step):
            pass

    def ending(self, step: Step) -> Iterator[None]:
        """As `end`, in small pieces as it is iterated; until the last of them the step is open."""
        if not step.isOpen:
            return
        patches = yield from self._merging(step.patches)
        yield from self._noting(step.written)
        step.isOpen, step.after, step.patches = False, dict(self.objects), patches
        step.shown.clear()
        step.written = []
        if step.after == step.before and not step.patches:
            return
        self.steps.append(step)
        self.undone.clear()

    def _writeSlice(self, step: Step, segmentId: str, stack: SliceStack, index: int, mask: _Mask) -> bool:
        """Returns whether anything changed."""
        patches = []
        for region in stack.regions(index, mask, self.bridge.box(segmentId)):
            step.written.append((segmentId, region.box))
            patch = self.bridge.write(segmentId, region)
            if patch is not None:
                patches.append(patch)
                step.written += [(other, box) for other, box in _boxesOf(patch) if other != segmentId]
        step.patches += patches
        return bool(patches)

    def _merging(self, patches: list[Patch]) -> Generator[None, None, list[Patch]]:
        """A few patches for each segment in place of one for each slice: quicker to take back."""
        if len(patches) < 2:
            return patches
        merged = []
        known = dict.fromkeys(change.segmentId for patch in patches for change in patch.changes)
        for segmentId in filter(self.bridge.has, known):  # somebody may have removed one meanwhile
            theirs = [(patch.box, change) for patch in patches for change in patch.changes if change.segmentId == segmentId]
            whole = theirs[0][0]
            for box, _ in theirs[1:]:
                whole = union(whole, box) or whole
            after = self.bridge.maskIn(segmentId, whole)
            yield
            before = after.copy()
            for box, change in reversed(theirs):
                yield
                before[_within(box, whole)] = change.before()
            for slab in slabs(whole, _SLAB_VOXELS):
                yield
                inside = _within(slab, whole)
                merged.append(Patch.between(slab, {segmentId: before[inside]}, {segmentId: after[inside]}))
        return [patch for patch in merged if patch.changes]

    # ── history ───────────────────────────────────────────────────────────────────────────────────────────────

    def takingBack(self) -> Iterator[None]:
        """Undoes the last step in the scene, neighbours included; in small pieces as it is iterated."""
        step = self.steps.pop()
        if step.removed is not None:
            self.bridge.bringBack(*step.removed)
        try:
            yield from self._applying(list(reversed(step.patches)), forwards=False)
        finally:
            self._settle(step.before, step)
            self.undone.append(step)

    def doingAgain(self) -> Iterator[None]:
        """Redoes the step that was undone last; in small pieces as it is iterated."""
        step = self.undone.pop()
        try:
            yield from self._applying(step.patches, forwards=True)
        finally:
            if step.removed is not None:
                self.bridge.removeSegment(step.removed[0])
            self._settle(step.after, step)
            self.steps.append(step)

    def _applying(self, patches: Sequence[Patch], forwards: bool) -> Iterator[None]:
        """Patch by patch. Where nobody waits for the rest, it is done at once: no step is ever half undone."""
        rest = iter(patches)
        try:
            for patch in rest:
                self.bridge.apply(patch, forwards)
                yield
        finally:
            for patch in rest:
                self.bridge.apply(patch, forwards)

    def _settle(self, objects: dict[str, TrackedObject], step: Step) -> None:
        """Objects that were added since, without a step of their own, stay; those whose segment somebody removed do not."""
        later = {one: known for one, known in self.objects.items() if one not in step.before and one not in step.after}
        self.objects = {one: known for one, known in {**objects, **later}.items() if self.bridge.has(one)}
        if self.currentId not in self.objects:
            self.currentId = next(iter(self.objects), None)
        self._noteShown([written for patch in step.patches for written in _boxesOf(patch)])

    # ── painted by hand ───────────────────────────────────────────────────────────────────────────────────────

    def _noteAll(self) -> None:
        boxes = {one: self.bridge.box(one) for one in self.objects if self.bridge.has(one)}
        self._noteShown([(one, box) for one, box in boxes.items() if box is not None])

    def _noteShown(self, written: Sequence[tuple[str, VoxelBox]]) -> None:
        """Within these boxes, what the segments are now is what was written here."""
        for _ in self._noting(written):
            pass

    def _noting(self, written: Sequence[tuple[str, VoxelBox]]) -> Iterator[None]:
        """As `_noteShown`, in small pieces."""
        for segmentId in dict.fromkeys(segmentId for segmentId, _ in written):
            if segmentId not in self.objects or not self.bridge.has(segmentId):
                continue
            reach = self._boxOf(segmentId)  # beyond it there is nothing, and was nothing
            boxes = [box for one, outer in written if one == segmentId and reach and (box := intersection(outer, reach))]
            former = self._shown.get(segmentId)
            whole = None if former is None else former.box
            for box in boxes:
                whole = union(whole, box)
            if whole is None:
                continue
            mask = self._shownIn(segmentId, whole)
            for box in boxes:
                yield
                mask[_within(box, whole)] = self.bridge.maskIn(segmentId, box)
            self._shown[segmentId] = _Shown(whole, np.packbits(mask).tobytes())

    def _shownIn(self, segmentId: str, box: VoxelBox) -> _Mask:
        """A segment's mask within a box, as it was last written here."""
        mask = np.zeros([part.stop - part.start for part in box], dtype=bool)
        shown = self._shown.get(segmentId)
        common = None if shown is None else intersection(box, shown.box)
        if shown is not None and common is not None:
            shape = tuple(part.stop - part.start for part in shown.box)
            bits = np.unpackbits(np.frombuffer(shown.bits, dtype=np.uint8), count=int(np.prod(shape)))
            mask[_within(common, box)] = bits.astype(bool).reshape(shape)[_within(common, shown.box)]
        return mask

    def _boxOf(self, segmentId: str) -> VoxelBox | None:
        """Where the segment is, or was when it was last written here."""
        shown = self._shown.get(segmentId)
        return union(self.bridge.box(segmentId), None if shown is None else shown.box)

    # ── in the scene ──────────────────────────────────────────────────────────────────────────────────────────

    def store(self) -> None:
        """Writes everything to the session node, to be saved with the scene."""
        self.node.write(
            {
                "window": self.window,
                "current": self.currentId,
                "objects": [one.toJson() for one in self.objects.values()],
                "stacks": [
                    {
                        "axis": entry.stack.axis,
                        "oblique": _geometryToJson(entry.stack.geometry) if entry.stack.is_oblique else None,
                        "window": entry.window,
                        "state": entry.state,
                    }
                    for entry in self.stacks
                ],
            }
        )

    def _read(self) -> None:
        """Takes up what was stored. What cannot be understood is left alone: the masks are in the segmentation anyway."""
        content = self.node.read()
        if content is None:
            return
        try:
            window, current = str(content["window"]), content["current"]
            stacks = [self._entryFromJson(place, one) for place, one in enumerate(content["stacks"])]
            objects = [TrackedObject.fromJson(one) for one in content["objects"]]
        except (KeyError, TypeError, ValueError, MedSAM2Error):
            _LOGGER.exception("The state of %s cannot be read", self.node.node.GetName())
            return
        self.window, self.stacks = window, stacks
        known = [one for one in objects if one.stack is None or 0 <= one.stack < len(stacks)]
        self.objects = {one.segmentId: one for one in known if self.bridge.has(one.segmentId)}
        self.currentId = current if current in self.objects else None
        self._noteAll()

    def _entryFromJson(self, place: int, content: Mapping[str, Any]) -> StackEntry:
        grid = self.volume.geometry
        geometry = grid if content["oblique"] is None else _geometryFromJson(content["oblique"])
        stack = SliceStack(grid, geometry, int(content["axis"]))
        return StackEntry(stack, f"{self.volumeNode.GetID()}/{place}", str(content["window"]), state=content["state"])


def _around(index: int, mask: _Mask) -> Box:
    """A box around a slice's mask (rows, columns) that has a pixel, with room for the object to have moved since."""
    sides = []
    for part, size in zip(bounding_box(mask) or (), mask.shape, strict=True):
        room = _ROOM * (part.stop - part.start)
        sides.append((max(0.0, part.start - room), min(size - 1.0, part.stop - 1 + room)))
    (top, bottom), (left, right) = sides
    return Box(index, left, top, right, bottom)


def _parallel(one: SliceStack, other: SliceStack) -> bool:
    """Whether two oblique stacks have parallel slices; a view that was turned within its plane shows the same ones."""
    normals = [stack.geometry.direction_matrix[:, 2] for stack in (one, other)]
    return bool(abs(normals[0] @ normals[1]) > 1 - 1e-6)


def _boxesOf(patch: Patch) -> list[tuple[str, VoxelBox]]:
    return [(change.segmentId, patch.box) for change in patch.changes]


def _within(box: VoxelBox, outer: VoxelBox) -> tuple[slice, ...]:
    """A box, counted from the beginning of one that holds it."""
    return tuple(slice(part.start - whole.start, part.stop - whole.start) for part, whole in zip(box, outer, strict=True))


def _geometryToJson(geometry: Geometry) -> dict[str, Any]:
    return {
        "shape": list(geometry.shape),
        "spacing": list(geometry.spacing),
        "origin": list(geometry.origin),
        "direction": list(geometry.direction),
    }


def _geometryFromJson(content: Mapping[str, Any]) -> Geometry:
    k, j, i = (int(size) for size in content["shape"])
    si, sj, sk = (float(value) for value in content["spacing"])
    x, y, z = (float(value) for value in content["origin"])
    return Geometry((k, j, i), (si, sj, sk), (x, y, z), tuple(float(value) for value in content["direction"]))
