"""What is said to the engine, and done to the scene, for each thing that a user does with a volume's objects."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from MedSAM2Lib.agreement import agreement, box_on, largest_slice
from MedSAM2Lib.errors import EngineError, StateError, UsageError
from MedSAM2Lib.prompts import Box3D, MaskPrompt, Points, Prompt
from MedSAM2Lib.results import SliceResult
from MedSAM2SlicerLib.CommandQueue import Call, Command
from MedSAM2SlicerLib.TimeSequence import TimeSequence
from MedSAM2SlicerLib.TrackedObject import GivenPrompt
from MedSAM2SlicerLib.VolumeSession import StackEntry, Step, VolumeSession

__all__ = ["CHECK", "PROPAGATION", "Conversation"]

PROPAGATION = "propagation"  # label of such a step; the engine's word for it, too
CHECK = "check"


class Conversation:
    """Commands for a CommandQueue, about one session. Each leaves engine, scene and history in step, however it ends.

    shown(name, index)  is called for each slice whose mask reached the scene
    maker()             says which network runs, and how it computes; empty where that is not known
    changed()           is called when something else that a panel shows may be different
    """

    def __init__(
        self,
        session: VolumeSession,
        shown: Callable[[str, int], object],
        changed: Callable[[], object],
        maker: Callable[[], str],
    ) -> None:
        self.session, self._shown, self._changed, self._maker = session, shown, changed, maker
        self.cancelled = False  # set by whoever cancels: a command of several requests makes no new ones
        self.part = 0  # directions looked along so far

    def _opening(self, entry: StackEntry) -> Command:
        """The engine has the stack's volume and all that is known of its objects."""
        if entry.isOpen:
            return
        yield Call("set_volume", entry.volumeId, self._settings(entry, entry.stack.axis))
        try:
            if entry.state is not None:
                yield Call("restore", entry.volumeId, {"state": entry.state})
        except StateError:  # of another network: the masks in the scene are what remains
            entry.state = None
        if entry.state is None:
            yield from self._seeding(entry)
        entry.isOpen = True

    def _settings(self, entry: StackEntry, axis: int) -> dict[str, Any]:
        """What an engine's session on a stack's array is given, sliced along an axis of it. An oblique one is resampled there."""
        grid = entry.stack.geometry if entry.stack.is_oblique else None
        return {"volume": self.session.image, "grid": grid, "axis": "kji"[axis], "window": entry.window}

    def _seeding(self, entry: StackEntry) -> Command:
        """Tells an engine that knows nothing of the objects what the scene shows on the slices that a person settled.

        Of our steps the engine has made none: its own history begins after this.
        """
        place = self.session.stacks.index(entry)
        objects = [one for one in self.session.objects.values() if one.stack == place and self.session.bridge.has(one.segmentId)]
        for target in objects:
            name, mask = target.segmentId, self.session.bridge.mask(target.segmentId)
            anchors = [index for index in target.anchors() if index < entry.stack.slice_count]
            cuts = {index: cut for index in anchors if (cut := entry.stack.cut(mask, index)).any()}
            for index, cut in cuts.items():
                yield Call("add_prompt", entry.volumeId, {"name": name, "prompt": MaskPrompt(index, cut)})
            if cuts and target.locked:
                yield Call("lock", entry.volumeId, {"name": name, "slices": sorted(target.locked)})
        if objects:
            state = yield Call("state", entry.volumeId)
            yield Call("restore", entry.volumeId, {"state": state})

    def looking(self, place: int, index: int) -> Command:
        """A prompt is about to be given on a slice of the session's stack number `place`."""
        entry = self.session.stacks[place]
        yield from self._opening(entry)
        yield Call("look_at", entry.volumeId, {"slice_index": index})

    def prompting(self, segmentId: str, place: int, prompt: Prompt) -> Command:
        """Gives an object a prompt on a slice of the session's stack number `place`; its mask there appears."""
        entry = self.session.stacks[place]
        self.session.bridge.segment(segmentId)  # it may have been removed while this waited
        if self.session.objects[segmentId].stack not in (None, place):  # the prompt before this one decided otherwise
            raise self.session.anotherView(segmentId)
        yield from self._opening(entry)
        yield from self._takingEdits(entry, segmentId, apart=None if isinstance(prompt, Points) else GivenPrompt.sliceOf(prompt))
        step = self.session.begin("prompt", place)
        result = yield Call("add_prompt", entry.volumeId, {"name": segmentId, "prompt": prompt})
        self.session.given(segmentId, place, result.slice_index, GivenPrompt.of(prompt))
        self._show(step, result)
        if isinstance(prompt, Box3D):  # slices beyond it were forgotten
            yield from self._showingWhole(step, entry, segmentId)
        self.session.end(step)
        if isinstance(prompt, MaskPrompt):  # perhaps painted on more slices than this one
            yield from self._takingEdits(entry, segmentId)
        yield from self._saving(entry)

    def takingBack(self, segmentId: str, index: int) -> Command:
        """Takes the prompts on a slice back; an object without any may begin anew in another view."""
        place = self.session.objects[segmentId].stack
        assert place is not None
        entry = self.session.stacks[place]
        yield from self._opening(entry)
        step = self.session.begin("removed prompt", place)
        yield Call("remove_prompt", entry.volumeId, {"name": segmentId, "slice_index": index})
        self.session.takenBack(segmentId, index)
        yield from self._showingWhole(step, entry, segmentId)
        if not (self.session.objects[segmentId].prompts or self.session.objects[segmentId].slices):
            self.session.beginAnew(segmentId)
        self.session.end(step)
        yield from self._saving(entry)

    def _takingEdits(self, entry: StackEntry, segmentId: str, apart: int | None = None) -> Command:
        """What was painted or erased by hand since the last step is told to the engine, as the person's word on its slices.

        apart  a slice that a new box or mask begins anew in any case
        """
        place = self.session.objects[segmentId].stack
        if place is None:
            return
        for index, mask in self.session.edits(segmentId).items():
            if not mask.any() or index == apart or index in self.session.objects[segmentId].locked:
                continue
            step = self.session.begin("painting", place)
            result = yield Call("add_prompt", entry.volumeId, {"name": segmentId, "prompt": MaskPrompt(index, mask)})
            self.session.given(segmentId, place, index, GivenPrompt("mask", True))
            self.session.adopt(step, segmentId, entry.stack.regions(index, mask, self.session.bridge.box(segmentId)))
            self._show(step, result)
            self.session.end(step)

    def propagating(self, segmentIds: Sequence[str], direction: str, first: int | None, last: int | None) -> Command:
        """Follows those of the objects that have prompts through the slices, as SegmentationLogic.propagate says."""
        prompted = self.session.followable(segmentIds)
        for place in dict.fromkeys(prompted.values()):
            entry = self.session.stacks[place]
            yield from self._opening(entry)
            group = [one for one in prompted if prompted[one] == place]
            for one in group:
                yield from self._takingEdits(entry, one)
            # In one direction each object has its own range; in both the engine follows them side by side.
            for together in [group] if direction == "both" else [[one] for one in group]:
                if self.cancelled:
                    break
                limits = _range(direction, self.session.objects[together[0]].anchors(), first, last)
                yield from self._following(place, together, *limits)
            yield from self._saving(entry)

    def _following(self, place: int, together: list[str], first: int | None, last: int | None) -> Command:
        entry = self.session.stacks[place]
        step = self.session.begin(PROPAGATION, place)
        arguments = {"objects": together, "first": first, "last": last}
        has = self.session.bridge.has

        def take(result: SliceResult) -> None:
            """A segment that somebody removes meanwhile does not end it for the others."""
            if has(result.object) or not any(map(has, together)):
                self._show(step, result)

        try:
            with self.session.bridge.withoutSurface():
                yield Call("propagate", entry.volumeId, arguments, take)
                for one in filter(has, together):
                    yield from self._showingWhole(step, entry, one)
            yield from self.session.ending(step)
        except EngineError:
            step.stack = None  # the engine that did it is gone, and the next one knows nothing of it
            raise
        finally:  # also of one that failed or was dropped: the slices that came stay, and can be taken back
            self.session.end(step)

    def checking(self, segmentId: str) -> Command:
        """Follows an object along the other two axes of its array as well, and notes how far the three masks agree on each
        slice. No mask, no prompt and no step of the history changes.

        As in inference.orientations, the mask that there is gives the others their prompt: a box on the slice that shows
        most of it. Slices beyond a 3D box, where the person wants nothing, are not compared.
        """
        entry = self.session.entryOf(segmentId)
        assert entry is not None, "the logic has looked whether there is a mask"
        axis = entry.stack.axis
        yield from self._opening(entry)
        masks = [(yield from self._onArray(entry, segmentId))]
        for other in (one for one in range(3) if one != axis):
            if self.cancelled:
                return
            self.part += 1
            masks.append((yield from self._looking(entry, other, masks[0])))
        if self.cancelled:
            return
        said = yield Call("prompts", entry.volumeId, {"name": segmentId})
        limits = [one for one in said if isinstance(one, Box3D)]
        found = {}
        for index in range(limits[-1].first, limits[-1].last + 1) if limits else range(entry.stack.slice_count):
            planes = [np.take(mask, [index], axis) for mask in masks]
            if any(plane.any() for plane in planes):
                found[index] = agreement(planes)
            yield None
        self.session.agree(segmentId, found)
        self.session.store()
        self._changed()

    def _onArray(self, entry: StackEntry, segmentId: str) -> Generator[None, None, npt.NDArray[np.bool_]]:
        """(k, j, i) bool on the array that a stack slices: the object's segment as it is in the scene."""
        mask = self.session.bridge.mask(segmentId)
        if not entry.stack.is_oblique:
            return mask
        placed = np.zeros(entry.stack.geometry.shape, dtype=bool)
        for index in sorted(self.session.objects[segmentId].slices):
            placed[index] = entry.stack.cut(mask, index)
            yield
        return placed

    def _looking(self, entry: StackEntry, axis: int, mask: npt.NDArray[np.bool_]) -> Generator[Call | None, Any, Any]:
        """(k, j, i) bool: what the network makes of an object along another axis, asked by its mask."""
        volumeId = f"{entry.volumeId}/{'kji'[axis]}"
        entry.looks.add(volumeId)
        yield Call("set_volume", volumeId, self._settings(entry, axis))
        yield Call("add_prompt", volumeId, {"name": CHECK, "prompt": box_on(mask, axis, largest_slice(mask, axis))})
        yield Call("propagate", volumeId, {"objects": [CHECK]}, lambda _result: None)
        found = yield Call("mask", volumeId, {"name": CHECK})
        yield Call("close_volume", volumeId)
        entry.looks.discard(volumeId)
        return found

    def followingInTime(self, series: TimeSequence, prompted: dict[str, int]) -> Command:
        """Follows objects through all time points, as SegmentationLogic.propagateInTime says; `prompted` as of `followable`."""
        home = series.index
        yield from self.propagating(list(prompted), "both", None, None)
        known, boxes = dict(self.session.objects), {one: self.session.boxes(one) for one in prompted}
        with self._paging():  # Slicer shows the time point anew when sequences come and go
            series.begin()
        series.keep()
        try:
            for way in (range(home + 1, series.count), range(home - 1, -1, -1)):
                guides = boxes
                for index in way:
                    if self.cancelled:
                        break
                    self._page(series, index)
                    for one, place in prompted.items():
                        self.session.clear(one)
                        for box in guides[one]:
                            yield from self.prompting(one, place, box)
                    yield from self.propagating(list(prompted), "both", None, None)
                    series.keep()
                    # An object that is not seen in one time point is looked for in the next where it was seen last.
                    guides = {one: self.session.boxes(one) or guides[one] for one in prompted}
        finally:
            if not self.session.scene.IsClosing():
                if series.isThere:
                    with self._paging():
                        series.end()
                    self._page(series, home)
                self.session.forgetSteps(known)
                self.session.store()
        self._changed()

    def _page(self, series: TimeSequence, index: int) -> None:
        """Shows another time point, in whose voxels the work goes on."""
        with self._paging():
            series.select(index)
        self.session.renewVolume()

    @contextmanager
    def _paging(self) -> Iterator[None]:
        """The volume changes because we turn to a time point, not because somebody replaced it."""
        self.session.isPaging = True
        try:
            yield
        finally:
            self.session.isPaging = False

    def locking(self, segmentId: str, entry: StackEntry, indices: list[int], method: str) -> Command:
        """`method` is "lock" or "unlock"."""
        yield from self._opening(entry)
        yield from self._takingEdits(entry, segmentId)
        step = self.session.begin(method, self.session.objects[segmentId].stack)
        yield Call(method, entry.volumeId, {"name": segmentId, "slices": indices})
        self.session.lock(segmentId, indices, method == "lock")
        self.session.end(step)
        yield from self._saving(entry)

    def removing(self, segmentId: str) -> Command:
        """Takes an object away, in the engine and in the scene."""
        entry = self.session.entryOf(segmentId)
        step = self.session.begin("removal", self.session.objects[segmentId].stack)
        if entry is not None:
            yield from self._opening(entry)
            known = yield Call("objects", entry.volumeId)
            if segmentId in known:
                yield Call("remove_object", entry.volumeId, {"name": segmentId})
            else:
                step.stack = None
        self.session.remove(step, segmentId)
        self.session.end(step)
        if entry is not None:
            yield from self._saving(entry)
        self.session.store()
        self._changed()

    def turning(self, forwards: bool) -> Command:
        """Undo, or redo. The scene's part never fails; an engine that has lost its history is told what the scene shows."""
        steps = self.session.undone if forwards else self.session.steps
        if not steps:
            return
        place = steps[-1].stack
        entry = None if place is None else self.session.stacks[place]
        if entry is not None and entry.isOpen:
            try:
                yield from self._turningEngine(entry, steps[-1], "redo" if forwards else "undo")
            except UsageError:
                entry.isOpen, entry.state = False, None
        elif entry is not None:
            entry.state = None
        yield from self.session.doingAgain() if forwards else self.session.takingBack()
        if entry is not None and entry.isOpen:
            yield from self._saving(entry)
        self.session.store()
        self._changed()

    @staticmethod
    def _turningEngine(entry: StackEntry, step: Step, method: str) -> Command:
        """Undo or redo in the engine. It counts a propagation that changed nothing as a step of its own; we do not."""
        while step.label != PROPAGATION and (yield Call(f"{method}_label", entry.volumeId)) == PROPAGATION:
            yield Call(method, entry.volumeId)
        changed = yield Call(method, entry.volumeId)
        while step.label == PROPAGATION and step.patches and not changed:
            changed = yield Call(method, entry.volumeId)

    def _showingWhole(self, step: Step, entry: StackEntry, segmentId: str) -> Command:
        """The engine's mask of the whole object, cleaned as its options say, takes the place of the slices it sent."""
        mask = yield Call("mask", entry.volumeId, {"name": segmentId})
        confidence = yield Call("confidence", entry.volumeId, {"name": segmentId})
        for _ in self.session.showWhole(step, segmentId, mask, confidence):
            yield None

    def _saving(self, entry: StackEntry) -> Command:
        """The engine's state goes into the scene, so that it is there whenever the scene is saved."""
        entry.state = yield Call("state", entry.volumeId)
        self.session.store()
        self._changed()

    def _show(self, step: Step, result: SliceResult) -> None:
        self.session.show(step, result)
        self.session.bridge.noteMaker(result.object, self._maker())
        self._shown(self.session.nameOf(result.object), result.slice_index)


def _range(direction: str, anchors: Sequence[int], first: int | None, last: int | None) -> tuple[int | None, int | None]:
    """The slices to stay within when an object is followed in a direction from the slices that a person settled."""
    if direction == "up":
        first = max(anchors[0], first or 0)
    elif direction == "down":
        last = anchors[-1] if last is None else min(anchors[-1], last)
    return first, last
