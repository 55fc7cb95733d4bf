"""What the panel's buttons do, without the buttons: volumes, objects, prompts, propagation, history, export.

    logic = SegmentationLogic(scene, engine)          # engine: MedSAM2Lib.worker.client.EngineClient
    logic.onSlice.connect(showSlice)
    logic.setVolume(volumeNode)
    logic.addObject("liver")
    logic.addPrompt("liver", roiNode, redSliceNode)   # returns at once; the mask appears during a later poll()
    logic.propagate()
    timer -> logic.poll()                             # 10..30 ms; applies what the engine has answered meanwhile

Nothing here blocks: work goes to the engine's process, answers come back in `poll`. What cannot be done raises a
MedSAM2Error whose text is for the message line and leaves everything as it was; what goes wrong later arrives through
`onMessage`. No Qt; the scene is an argument; only nodes that this class made are changed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from MedSAM2Lib.errors import MedSAM2Error, OptionError, PromptError, UsageError
from MedSAM2Lib.geometry import Geometry
from MedSAM2Lib.masks import bounding_box
from MedSAM2Lib.prompts import MaskPrompt, Prompt
from MedSAM2Lib.volume_io.segments import Segment
from MedSAM2Lib.worker.events import EngineDied
from MedSAM2Lib.worker.events import Progress as EngineProgress
from MedSAM2SlicerLib.CommandQueue import CommandQueue, Engine
from MedSAM2SlicerLib.Conversation import CHECK, PROPAGATION, Conversation
from MedSAM2SlicerLib.Export import Export
from MedSAM2SlicerLib.PromptBridge import PromptBridge
from MedSAM2SlicerLib.Records import Message, ObjectRecord, Progress, PromptRecord, SliceMark
from MedSAM2SlicerLib.SceneSessions import SceneSessions
from MedSAM2SlicerLib.SegmentBridge import OVERWRITING
from MedSAM2SlicerLib.Signal import Signal
from MedSAM2SlicerLib.Speed import Speed
from MedSAM2SlicerLib.TimeSequence import TimeSequence
from MedSAM2SlicerLib.TrackedObject import GivenPrompt
from MedSAM2SlicerLib.ViewBridge import ViewBridge
from MedSAM2SlicerLib.VolumeBridge import DISPLAYED
from MedSAM2SlicerLib.VolumeSession import VolumeSession

__all__ = ["SegmentationLogic"]

_PROGRESS_INTERVAL_S = 0.1
_DIRECTIONS = ("both", "up", "down")


class SegmentationLogic:
    """One per scene. Keeps a session for every volume it was given; one of them is current.

    Signals (plain lists of functions, see Signal):
      onChange()             objects, prompts, locks, history, volume or busy state may be different now: read them anew
      onSlice(name, index)   a slice of an object's mask reached the scene
      onProgress(Progress)   during a propagation, at most ten times a second
      onMessage(Message)     a sentence for the message line
    """

    def __init__(self, scene: Any, engine: Engine | None) -> None:
        """`scene` is a vtkMRMLScene. `engine` may be None as long as none is there (torch missing); see setEngine.

        The session that was current when the scene was saved is taken up at once, others when their volume is chosen.
        """
        self.onChange, self.onSlice, self.onProgress, self.onMessage = Signal(), Signal(), Signal(), Signal()
        self._scene = scene
        self._queue = CommandQueue(engine, self._tellError, self._tellProgress, self._tellDeath)
        self._speed, self._progressTold = Speed(), 0.0
        self._talking: Conversation | None = None  # the last one that was begun
        self._sessions = SceneSessions(scene, self)
        self._sessions.takeUp()

    @property
    def _current(self) -> VolumeSession | None:
        return self._sessions.current

    @property
    def sessions(self) -> Iterator[VolumeSession]:
        """Of all volumes that were worked on."""
        return iter(self._sessions)

    def setEngine(self, engine: Engine | None) -> None:
        """Another engine (other model, other Python, restarted). Sessions are carried over to it at their next use."""
        for session in self._sessions:
            for entry in session.stacks:
                entry.isOpen = False
        self._queue.replaceEngine(engine)
        self.onChange.emit()

    def close(self) -> None:
        """Cancels what runs and removes every observer from the scene. The engine is the caller's to close."""
        self._sessions.close()

    # ── the volume ────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def volumeNode(self) -> Any | None:
        """The current vtkMRMLScalarVolumeNode."""
        return None if self._current is None else self._current.volumeNode

    @property
    def segmentationNode(self) -> Any | None:
        """The vtkMRMLSegmentationNode of the current volume's objects; None until there is a volume."""
        return None if self._current is None else self._current.bridge.node

    def setVolume(self, volumeNode: Any | None) -> None:
        """Makes a volume current; a session that the scene holds for it (also one loaded from a file) is taken up.

        Raises VolumeError for a 2D, RGB, vector, empty or label volume, for one under a non-linear transform, ...
        """
        self._sessions.choose(volumeNode)

    def setSegmentation(self, segmentationNode: Any | None) -> None:
        """Puts the current volume's objects into a segmentation that is there already, or into a new one (None).

        Segments that are in it stay as they are. Raises OptionError when it is on another grid than the volume, UsageError
        when there are objects already.
        """
        self._session()
        self._sessions.useSegmentation(segmentationNode)

    @property
    def overwriting(self) -> str:
        """Which other segments give way to the masks: 'none' (segments may overlap), 'visible', 'all', or 'editor'.

        The last: as Segment Editor is set at the time, whose masking (editable area and intensities) holds too.
        """
        return OVERWRITING[0] if self._current is None else self._current.bridge.overwriting

    def setOverwriting(self, which: str) -> None:
        """For masks from now on; kept with the scene. Undo gives back what was overwritten. Raises OptionError."""
        session = self._session()
        self._checkNotPropagating()
        session.bridge.setOverwriting(which)
        self.onChange.emit()

    @property
    def window(self) -> str:
        """'displayed', 'auto', 'percentiles', a key of MedSAM2Lib.intensity.PRESETS, or 'LOW:HIGH'."""
        return DISPLAYED if self._current is None else self._current.window

    def setWindow(self, window: str) -> None:
        """The window that the engine sees the volume through; the voxels are not touched. New prompts use it.

        Raises OptionError for an unknown one.
        """
        session = self._session()
        self._checkNotPropagating()
        session.setWindow(window)
        session.store()
        self.onChange.emit()

    @property
    def geometry(self) -> Geometry | None:
        """Of the current volume, where it is seen in the world."""
        return None if self._current is None else self._current.volume.geometry

    # ── objects ───────────────────────────────────────────────────────────────────────────────────────────────

    def objects(self) -> list[ObjectRecord]:
        """The current volume's objects, in the order of the list."""
        session = self._current
        return [] if session is None else [self._record(session, one) for one in session.objects if session.bridge.has(one)]

    def _record(self, session: VolumeSession, segmentId: str) -> ObjectRecord:
        target, segment = session.objects[segmentId], session.bridge.segment(segmentId)
        entry = session.entryOf(segmentId)
        surenesses = [note.iou for note in target.slices.values() if note.present]
        return ObjectRecord(
            name=str(segment.GetName()),
            segmentId=segmentId,
            color=tuple(segment.GetColor()),
            visible=session.bridge.visible(segmentId),
            volumeMl=session.bridge.milliliters(segmentId),
            confidence=float(np.mean(surenesses)) if surenesses else None,
            axis=None if entry is None else "oblique" if entry.stack.is_oblique else entry.axis,
            prompted=bool(target.prompts),
            terminology=str(segment.GetTerminology()),
            term=session.bridge.term(segmentId),
        )

    @property
    def currentObject(self) -> str | None:
        """The name of the object that prompts go to."""
        session = self._current
        if session is None or session.currentId not in session.objects or not session.bridge.has(session.currentId):
            return None
        return session.nameOf(session.currentId)

    def setCurrentObject(self, name: str | None) -> None:
        session = self._session()
        session.currentId = None if name is None else session.idOf(name)
        self.onChange.emit()

    def addObject(self, name: str | None = None) -> str:
        """Adds an empty object (a segment), makes it current and returns its name, made up if none is given.

        Raises OptionError when the name is taken, UsageError without a volume.
        """
        session = self._session()
        taken, isMadeUp = session.names(), name is None
        if name is None:
            name = next(made for n in range(1, len(taken) + 2) if (made := f"Object {n}") not in taken)
        self._checkName(session, name)
        session.currentId = session.add(name.strip())
        session.bridge.segment(session.currentId).SetNameAutoGenerated(isMadeUp)
        session.store()
        self.onChange.emit()
        return name.strip()

    def renameObject(self, name: str, newName: str) -> None:
        """Raises OptionError when the new name is taken or empty."""
        session = self._session()
        segment = session.bridge.segment(session.idOf(name))
        if newName != name:
            self._checkName(session, newName)
            segment.SetName(newName.strip())
            segment.SetNameAutoGenerated(False)
            self.onChange.emit()

    def removeObject(self, name: str) -> None:
        """With its segment, its prompts and its locks; can be undone."""
        session = self._session()
        self._checkNotPropagating()
        self._queue.add(self._talk(session).removing(session.idOf(name)), session, "removal")
        self.onChange.emit()

    def setObjectColor(self, name: str, color: tuple[float, float, float]) -> None:
        session = self._session()
        segment = session.bridge.segment(session.idOf(name))
        segment.SetColor(*color)
        segment.SetColorAutoGenerated(False)
        self.onChange.emit()

    def setObjectTerm(
        self, name: str, terminology: str, termName: str = "", color: tuple[float, float, float] | None = None
    ) -> str:
        """Says what an object is, as vtkSegment keeps it; files of Slicer and DICOM carry it on.

        termName, color  of the term: they take the place of a name and a colour that nobody chose. Returns the name
        """
        session = self._session()
        segment = session.bridge.segment(session.idOf(name))
        segment.SetTerminology(terminology)
        if termName.strip() and segment.GetNameAutoGenerated() and termName not in session.names():
            segment.SetName(termName.strip())
        if color is not None and segment.GetColorAutoGenerated():
            segment.SetColor(*color)
        self.onChange.emit()
        return str(segment.GetName())

    def setObjectVisible(self, name: str, visible: bool) -> None:
        session = self._session()
        session.bridge.setVisible(session.idOf(name), visible)
        self.onChange.emit()

    # ── prompts ───────────────────────────────────────────────────────────────────────────────────────────────

    def lookAt(self, name: str | None, sliceNode: Any) -> None:
        """Someone begins to draw in a slice view: meanwhile the engine gets the volume, and encodes the slice that is shown.

        name  the object that it is for; None for one that is yet to be made

        Does nothing where the engine has other things to do, or there is none.
        """
        session = self._session()
        if self._queue.engine is None or self._queue.isBusy:
            return
        view = ViewBridge(sliceNode)
        entry = None if name is None else session.entryOf(session.idOf(name))
        stack = view.stack(session.volume.geometry) if entry is None else entry.stack
        index = view.sliceIndex(stack)
        if index is not None:
            self._queue.add(self._talk(session).looking(session.entryFor(stack), index), session, "look")

    def addPrompt(self, name: str, markupsNode: Any, sliceNode: Any, positive: bool = True) -> None:
        """Gives an object what was drawn in a slice view.

        markupsNode  vtkMRMLMarkupsROINode (box on the view's slice; for a 3D box see addBox3D), ...FiducialNode (points),
                     ...LineNode (RECIST line), ...ClosedCurveNode or ...CurveNode (outline, scribble).
                     Only read; remove it yourself when you no longer need it
        sliceNode    the vtkMRMLSliceNode it was drawn in: decides along which axis (or oblique stack) the object is
                     followed, if it has no prompt yet, and which slice is meant
        positive     for points and scribbles: the object is here (True), or is not (False)

        Raises PromptError (outside the volume, degenerate, another axis than the object's, ...).
        """
        session, segmentId = self._ready(name)
        view = ViewBridge(sliceNode)
        anyView = markupsNode.IsA("vtkMRMLMarkupsFiducialNode")  # a point is on one slice of whatever axis
        stack = self._stackFor(session, segmentId, view, anyView)
        prompts = PromptBridge(stack).prompts(markupsNode, view.sliceIndex(stack), positive)
        self._give(session, segmentId, session.entryFor(stack), prompts)

    def addBox3D(self, name: str, roiNode: Any, sliceNode: Any) -> None:
        """A box on the middle slice of a vtkMRMLMarkupsROINode and the order to stay within its slices."""
        session, segmentId = self._ready(name)
        stack = self._stackFor(session, segmentId, ViewBridge(sliceNode))
        self._give(session, segmentId, session.entryFor(stack), [PromptBridge(stack).box3D(roiNode)])

    def addMaskPrompt(self, name: str, segmentationNode: Any, segmentId: str, sliceNode: Any) -> None:
        """What a segment has on the view's slice (painted, or of an earlier segmentation) becomes the object's mask there.

        With the object's own segment: takes over what was painted or erased in Segment Editor.
        """
        session, ownId = self._ready(name)
        view = ViewBridge(sliceNode)
        stack = self._stackFor(session, ownId, view)
        index = view.sliceIndex(stack)
        if index is None:
            raise PromptError("The view shows no slice of the volume; page to one on which something is painted.")
        mask = stack.cut(session.bridge.maskOf(segmentationNode, segmentId), index)
        self._give(session, ownId, session.entryFor(stack), [MaskPrompt(index, mask)])

    def prompts(self, name: str) -> list[PromptRecord]:
        """What a person said about the object, by slice."""
        session = self._session()
        given = session.objects[session.idOf(name)].prompts
        return [
            PromptRecord(f"{index}/{place}", one.kind, index, one.positive)
            for index in sorted(given)
            for place, one in enumerate(given[index])
        ]

    def removePrompt(self, name: str, promptId: str) -> None:
        """Takes back all that was said on the prompt's slice; the next propagation segments that slice again."""
        session, segmentId = self._ready(name)
        index = int(promptId.partition("/")[0])
        if index not in session.objects[segmentId].prompts:
            raise OptionError("That prompt is not there any more; choose another one in the list.")
        self._checkUnlocked(session, segmentId, [index])
        self._queue.add(self._talk(session).takingBack(segmentId, index), session, "prompt")
        self.onChange.emit()

    # ── propagation ───────────────────────────────────────────────────────────────────────────────────────────

    def propagate(
        self,
        names: Sequence[str] | None = None,
        direction: str = "both",
        first: int | None = None,
        last: int | None = None,
    ) -> None:
        """Follows objects through the slices, in the engine; masks arrive in `poll`, slice by slice.

        names        None for all that have a prompt
        direction    'both', 'up' (towards higher slice numbers) or 'down', from the prompts
        first, last  slices to stay within, inclusive, along the objects' axis; None for the ends of the volume

        Begins when the prompts before it are answered. Raises UsageError when there is nothing to propagate, or a
        propagation is running.
        """
        session = self._session()
        self._checkEngine()
        self._checkNotPropagating()
        if direction not in _DIRECTIONS:
            raise OptionError(f"The direction is one of {', '.join(_DIRECTIONS)}, but {direction!r} came.")
        chosen = list(session.objects) if names is None else [session.idOf(name) for name in names]
        if not self.isBusy:  # else the first prompt may still be on its way
            session.followable(chosen)
        self._queue.add(self._talk(session).propagating(chosen, direction, first, last), session, PROPAGATION)
        self.onChange.emit()

    @property
    def timePoints(self) -> int:
        """How many images the current volume node pages through; 1 for one that is not part of a sequence."""
        series = None if self._current is None else self._series(self._current)
        return 1 if series is None else series.count

    def _series(self, session: VolumeSession) -> TimeSequence | None:
        return TimeSequence.of(self._scene, session.volumeNode, session.bridge.node)

    def propagateInTime(self, names: Sequence[str] | None = None) -> None:
        """Follows objects through the slices of the time point that is shown, and then of all others, outward from it.

        In each time point the object is looked for where it was in the one before: in the boxes around its masks on the
        slices that a person prompted. Afterwards the segmentation pages with the volume. Steps before this cannot be
        undone any more. Raises UsageError for a volume that is not part of a sequence, and as `propagate` does.
        """
        session = self._session()
        self._checkEngine()
        self._checkNotPropagating()
        series = self._series(session)
        if series is None:
            raise UsageError(f"{session.volume.name} is a single image; load a sequence to follow objects through time.")
        chosen = list(session.objects) if names is None else [session.idOf(name) for name in names]
        prompted = session.followable(chosen)
        self._queue.add(self._talk(session).followingInTime(series, prompted), session, PROPAGATION)
        self.onChange.emit()

    def cancel(self) -> None:
        """Ends what runs, after the slice being worked on; the slices that have arrived stay. Harmless when nothing runs."""
        if self._talking is not None:
            self._talking.cancelled = True
        self._queue.cancel()
        self.onChange.emit()

    @property
    def isBusy(self) -> bool:
        """The engine works on a prompt or a propagation."""
        return self._queue.isBusy

    @property
    def isPropagating(self) -> bool:
        """Slices come, or will: of a propagation or of a check. Meanwhile only `cancel` is of use."""
        return self._queue.has(PROPAGATION) or self.isChecking

    @property
    def isChecking(self) -> bool:
        return self._queue.has(CHECK)

    def poll(self, milliseconds: float = 20.0) -> None:
        """Applies what the engine has answered, for about so long; call it from a timer. Never waits for the engine."""
        self._queue.poll(milliseconds)

    # ── review ────────────────────────────────────────────────────────────────────────────────────────────────

    def timeline(self, name: str) -> list[SliceMark]:
        """Every slice of the object's axis, from 0; empty before its first prompt."""
        session = self._session()
        segmentId = session.idOf(name)
        entry, target = session.entryOf(segmentId), session.objects[segmentId]
        if entry is None:
            return []
        notes = target.slices
        return [
            SliceMark(
                index,
                present=index in notes and notes[index].present,
                prompted=index in target.prompts,
                locked=index in target.locked,
                confidence=notes[index].iou if index in notes else None,
                agreement=target.agreement.get(index),
            )
            for index in range(entry.stack.slice_count)
        ]

    def check(self, name: str) -> None:
        """Follows an object along the two other axes too, in the engine; `timeline` then has on each slice how far the three
        directions agree. Masks and history stay as they are.

        Raises UsageError when the object was not followed through its slices yet, or something is running.
        """
        session, segmentId = self._ready(name)
        if sum(note.present for note in session.objects[segmentId].slices.values()) < 2:
            raise UsageError("There is nothing to check yet; follow the object through its slices first.")
        self._queue.add(self._talk(session).checking(segmentId), session, CHECK)
        self.onChange.emit()

    def jumpTo(self, name: str, index: int, sliceNode: Any) -> None:
        """Moves a slice view to a slice of the object's axis (vtkMRMLSliceNode.JumpSliceByCentering at the mask's middle)."""
        session = self._session()
        segmentId = session.idOf(name)
        entry = session.entryOf(segmentId)
        if entry is None:
            raise UsageError("The object has no prompt yet, so there is no slice to go to.")
        box = bounding_box(session.cut(segmentId, index))
        middle = None if box is None else tuple((part.start + part.stop - 1) / 2 for part in reversed(box))
        ViewBridge(sliceNode).jump(entry.stack, index, None if middle is None else (middle[0], middle[1]))

    def sliceShown(self, name: str, sliceNode: Any) -> int | None:
        """Which slice of the object's axis a view shows; None when it shows another plane, or lies outside the volume."""
        session = self._session()
        entry = session.entryOf(session.idOf(name))
        return None if entry is None else ViewBridge(sliceNode).sliceIndex(entry.stack)

    def lock(self, name: str, indices: Sequence[int]) -> None:
        """These slices stay as they are, whatever is propagated; propagation stops there."""
        self._changeLocks(name, indices, "lock")

    def unlock(self, name: str, indices: Sequence[int]) -> None:
        self._changeLocks(name, indices, "unlock")

    def _changeLocks(self, name: str, indices: Sequence[int], method: str) -> None:
        session, segmentId = self._ready(name)
        entry = session.entryOf(segmentId)
        if entry is None or not session.objects[segmentId].slices:
            raise UsageError("The object has no mask yet; draw a box (or another prompt) on one slice first.")
        outside = [index for index in indices if not 0 <= index < entry.stack.slice_count]
        if outside:
            raise OptionError(f"Slices are numbered 0..{entry.stack.slice_count - 1}, but {outside[0]} came.")
        self._queue.add(self._talk(session).locking(segmentId, entry, list(indices), method), session, method)
        self.onChange.emit()

    # ── history ───────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def canUndo(self) -> bool:
        return self._current is not None and bool(self._current.steps)

    @property
    def canRedo(self) -> bool:
        return self._current is not None and bool(self._current.undone)

    def undo(self) -> None:
        """Takes the last step back, in the engine and in the scene; also what it did to neighbouring segments."""
        session = self._session()
        self._checkNotPropagating()
        if not self.canUndo and not self.isBusy:
            raise UsageError("There is nothing to undo.")
        self._queue.add(self._talk(session).turning(forwards=False), session, "undo")
        self.onChange.emit()

    def redo(self) -> None:
        """Does the step again that was undone last."""
        session = self._session()
        self._checkNotPropagating()
        if not self.canRedo and not self.isBusy:
            raise UsageError("There is nothing to redo.")
        self._queue.add(self._talk(session).turning(forwards=True), session, "redo")
        self.onChange.emit()

    # ── finish ────────────────────────────────────────────────────────────────────────────────────────────────

    def export(self, path: str | Path, names: Sequence[str] | None = None, onePerObject: bool = False) -> list[Path]:
        """Writes objects on the volume's grid: `.seg.nrrd`, `.nrrd`, `.nii.gz`, ... by the path's ending.

        names         None for all
        onePerObject  one file per object, its name added to the path's

        The grid is that of the volume's own file: a parent transform is left out. Reads back what was written and
        compares the geometry. Returns the files. Raises OutputError, OptionError.
        """
        session = self._session()
        chosen = (
            [one for one in session.objects if session.bridge.has(one)]
            if names is None
            else [session.idOf(name) for name in names]
        )
        segments = [
            Segment(
                session.nameOf(one),
                session.bridge.mask(one),
                tuple(session.bridge.segment(one).GetColor()),
                session.bridge.segment(one).GetTerminology(),
                session.bridge.madeWith(one),
            )
            for one in chosen
        ]
        return Export(session.volume.fileGeometry).write(Path(path), segments, onePerObject)

    # ── what the door checks ──────────────────────────────────────────────────────────────────────────────────

    def _talk(self, session: VolumeSession) -> Conversation:
        self._talking = Conversation(session, self.onSlice.emit, self.onChange.emit, self._maker)
        return self._talking

    def _maker(self) -> str:
        """What a segment is said to be made with: the network that runs, and how it computes."""
        facts = {} if self._queue.engine is None else self._queue.engine.facts
        if not facts:
            return ""
        said = (f"{facts['model']} (sha256 {facts['sha256'][:12]})", facts["precision"], *facts["approximations"])
        return ", ".join(said)

    def _session(self) -> VolumeSession:
        if self._current is None:
            raise UsageError("There is no volume yet; choose one in the Volume section.")
        return self._current

    def _ready(self, name: str) -> tuple[VolumeSession, str]:
        """The session and an object's segment, where a prompt can be taken now."""
        session = self._session()
        segmentId = session.idOf(name)
        self._checkEngine()
        self._checkNotPropagating()
        return session, segmentId

    def _checkNotPropagating(self) -> None:
        if self.isPropagating:
            what = "check" if self.isChecking else "propagation"
            raise UsageError(f"A {what} is running; cancel it first (Space), or wait until it is done.")

    def _checkEngine(self) -> None:
        if self._queue.engine is None:
            raise UsageError("There is no engine yet; start it in the Engine section.")

    @staticmethod
    def _checkName(session: VolumeSession, name: str) -> None:
        if not (name.strip() and name.isprintable()):
            raise OptionError(f"An object's name must be printable text, but {name!r} came.")
        if name.strip() in session.names():
            raise OptionError(f"There is an object {name.strip()!r} already; choose another name.")

    @staticmethod
    def _checkUnlocked(session: VolumeSession, segmentId: str, indices: Sequence[int]) -> None:
        locked = sorted(session.objects[segmentId].locked & set(indices))
        if locked:
            raise PromptError(f"Slice {locked[0]} is locked; unlock it first (L), or draw on another slice.")

    @staticmethod
    def _stackFor(session: VolumeSession, segmentId: str, view: ViewBridge, anyView: bool = False) -> Any:
        """The slices that an object is followed along: those of its first prompt, or those of the view."""
        entry = session.entryOf(segmentId)
        if entry is None:
            stack = view.stack(session.volume.geometry)
            return session.stacks[session.entryFor(stack)].stack
        if not (anyView or view.shows(entry.stack)):
            raise session.anotherView(segmentId)
        return entry.stack

    def _give(self, session: VolumeSession, segmentId: str, place: int, prompts: Sequence[Prompt]) -> None:
        self._checkUnlocked(session, segmentId, [GivenPrompt.sliceOf(prompt) for prompt in prompts])
        for prompt in prompts:
            self._queue.add(self._talk(session).prompting(segmentId, place, prompt), session, "prompt")
        self.onChange.emit()

    # ── what SceneSessions asks of its user ───────────────────────────────────────────────────────────────────

    def interrupt(self, session: VolumeSession) -> bool:
        """Ends what is being done for a session, here and now; returns whether something was."""
        busy = self._queue.concerns(session)
        self._queue.drop(session)
        return busy

    def forget(self, session: VolumeSession) -> None:
        """Lets go of a session in the engine."""
        for entry in session.stacks:
            opened = [entry.volumeId] if entry.isOpen else []
            for volumeId in (*opened, *entry.looks):
                if self._queue.engine is not None:
                    self._queue.engine.request("close_volume", volumeId)

    def tell(self, message: Message) -> None:
        self.onMessage.emit(message)

    def changed(self) -> None:
        self.onChange.emit()

    # ── messages ──────────────────────────────────────────────────────────────────────────────────────────────

    def _tellError(self, error: MedSAM2Error) -> None:
        self.onMessage.emit(Message("error", self._withNames(str(error))))
        self.onChange.emit()

    def _tellDeath(self, event: EngineDied) -> None:
        self.onMessage.emit(
            Message("warning", f"The engine ended ({event.reason}). Nothing is lost: the next step starts it again.")
        )

    def _tellProgress(self, progress: EngineProgress) -> None:
        if progress.text:
            self.onMessage.emit(Message("info", self._withNames(progress.text)))
        if not (progress.total and self.isPropagating):
            return
        self._speed.note(progress.done)
        now = time.monotonic()
        if now - self._progressTold >= _PROGRESS_INTERVAL_S or progress.done == progress.total:
            self._progressTold = now
            rate = self._speed.perSecond
            left = (progress.total - progress.done) / rate if rate else None
            self.onProgress.emit(Progress(progress.done, progress.total, rate, left, *self._part()))

    def _part(self) -> tuple[int, int]:
        """Which part of what runs is being done, from 0, and of how many: directions of a check, or time points."""
        if self._talking is None:
            return 0, 1
        if self.isChecking:
            return self._talking.part - 1, 2
        series = self._series(self._talking.session)
        return (0, 1) if series is None else (series.index, series.count)

    def _withNames(self, text: str) -> str:
        """The engine knows objects by their segments' IDs; people know them by name."""
        for session in self._sessions:
            for segmentId in session.objects:
                if segmentId in text and session.bridge.has(segmentId):
                    text = text.replace(segmentId, session.nameOf(segmentId))
        return text
