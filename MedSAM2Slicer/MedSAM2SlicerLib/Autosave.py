"""Work that is not lost when Slicer itself ends: written beside the scene every now and then, offered after a crash.

    autosave = Autosave(scene, logic, folder)     # logic: SegmentationLogic; folder: below Slicer's temporary one
    timer -> autosave.poll()                      # writes what changed, a few milliseconds of work at a time
    autosave.offered                              # what another Slicer left behind that did not end well
    autosave.restore() or autosave.discard()
    autosave.close()                              # this one ended well

Nothing is written while nothing changes, nor more often than every half minute, nor for more than a twentieth of the time.
What was saved with the scene, or closed with it, is not kept here any longer. No Qt; the scene is an argument.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from vtk.util.numpy_support import vtk_to_numpy

from MedSAM2Lib.errors import MedSAM2Error, OutputError, StateError, UsageError, VolumeError
from MedSAM2Lib.masks import slabs
from MedSAM2SlicerLib import AutosaveFile
from MedSAM2SlicerLib.AutosaveFile import Content, Found, Identity, Part, SegmentFacts
from MedSAM2SlicerLib.AutosaveFolder import AutosaveFolder
from MedSAM2SlicerLib.Patch import Patch
from MedSAM2SlicerLib.Records import Message
from MedSAM2SlicerLib.Signal import Signal
from MedSAM2SlicerLib.VolumeBridge import VolumeBridge
from MedSAM2SlicerLib.VolumeSession import VolumeSession

__all__ = ["Autosave", "Logic"]

_LOGGER = logging.getLogger(__name__)

_INTERVAL_S = 30.0
_SHARE = 1 / 20  # of the time, at most
_VOXELS = 1_000_000  # of a segment or a volume that are looked at in one go: a few milliseconds
_YIELD_S = 0.001
_JOIN_S = 5.0  # that the end of a process waits for a file being written

Work = Generator[None, None, None]


class Logic(Protocol):
    """What is needed of SegmentationLogic."""

    onChange: Signal
    onMessage: Signal

    @property
    def sessions(self) -> Iterator[VolumeSession]: ...

    def setVolume(self, volumeNode: Any) -> None: ...

    def setSegmentation(self, segmentationNode: Any) -> None: ...


class Autosave:
    def __init__(self, scene: Any, logic: Logic, folder: Path, interval: float = _INTERVAL_S) -> None:
        """interval: seconds between the end of one autosave and the beginning of the next."""
        self._scene, self._logic, self._interval = scene, logic, interval
        self._folder = AutosaveFolder(folder)
        self._saved: dict[str, object] = {}  # by ID of the session's node: what was when it was saved last
        self._digests: dict[str, tuple[int, str]] = {}  # by ID of the volume: when it was looked at, and its voxels
        self._due = time.monotonic() + interval
        self._work: Work | None = None
        self.isRestoring = False
        self._failed = False  # the user has been told
        self._offers = self._leftBehind()
        self._observers = [
            scene.AddObserver(scene.StartCloseEvent, lambda *_: self._forget()),
            scene.AddObserver(scene.EndSaveEvent, lambda *_: self._isSaved()),
        ]

    def close(self) -> None:
        """This process ends well, so nothing has to be restored."""
        self._stop()
        self._folder.close()
        for observer in self._observers:
            self._scene.RemoveObserver(observer)
        self._observers = []

    # ── what somebody else left behind ────────────────────────────────────────────────────────────────────────

    @property
    def offered(self) -> Found | None:
        """The newest autosave of a Slicer that did not end well; None where there is none."""
        return self._offers[0] if self._offers else None

    def whyNot(self) -> str | None:
        """Why what is offered cannot be restored now; None where it can."""
        if self.offered is None:
            return "There is nothing to restore."
        if not self._candidates(self.offered.volume):
            k, j, i = self.offered.volume.shape
            return f"Load {self.offered.volume.name} ({i} × {j} × {k} voxels) first; the image itself is not in the saved work."
        return None

    def restore(self) -> None:
        """Puts what is offered into the scene, in `poll`: a new segmentation on its volume, objects, prompts, locks.

        What could be undone before cannot any more. Raises UsageError where it cannot be done now.
        """
        why = self.whyNot()
        if self.offered is None or why is not None:
            raise UsageError(why or "There is nothing to restore.")
        self._begin(self._restoring(self.offered))
        self.isRestoring = True

    def discard(self) -> None:
        """What is offered is not wanted."""
        if self._offers:
            self._folder.remove(self._offers.pop(0).path)
            self._logic.onChange.emit()

    def _leftBehind(self) -> list[Found]:
        try:
            paths = self._folder.left_behind()
        except (OSError, OutputError) as error:  # the panel opens all the same
            _LOGGER.warning("Autosaves cannot be looked for: %s", error)
            return []
        found = []
        for path in paths:
            try:
                found.append(AutosaveFile.read_header(path))
            except StateError as error:
                _LOGGER.warning("%s", error)
                self._folder.remove(path)
        return found

    def _candidates(self, volume: Identity) -> list[Any]:
        """The scene's volumes that lie as one does; whether their voxels are the same is not known yet."""
        found = []
        for n in range(self._scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")):
            node = self._scene.GetNthNodeByClass(n, "vtkMRMLScalarVolumeNode")
            try:
                if volume.lies_as(VolumeBridge(node).fileGeometry):
                    found.append(node)
            except VolumeError:
                continue
        return found

    # ── work, a little at a time ──────────────────────────────────────────────────────────────────────────────

    @property
    def isBusy(self) -> bool:
        return self._work is not None

    def poll(self, milliseconds: float = 5.0) -> None:
        """Goes on for about so long; begins when there is something to save."""
        if self._work is None and time.monotonic() >= self._due:
            self._begin(self._savingAll())
        end = time.perf_counter() + milliseconds / 1000
        while self._work is not None and time.perf_counter() < end:
            work = self._work
            try:
                next(work)
            except StopIteration:
                self._stop()
            except (MedSAM2Error, OSError) as error:
                self._tell(error)

    def saveNow(self) -> None:
        """The next `poll` begins to save what changed."""
        self._due = 0.0

    def _begin(self, work: Work) -> None:
        self._stop()
        self._work = work

    def _stop(self) -> None:
        work, self._work, self.isRestoring = self._work, None, False
        if work is not None:
            work.close()

    def _tell(self, error: Exception) -> None:
        """What the user asked for; else once: a full disk would be told every half minute."""
        _LOGGER.warning("%s", error)
        if self.isRestoring or not self._failed:
            self._logic.onMessage.emit(Message("warning", str(error)))
        self._failed = self._failed or not self.isRestoring
        self._stop()
        self._wait(0.0)
        self._logic.onChange.emit()

    def _wait(self, spent: float) -> None:
        self._due = time.monotonic() + max(self._interval, spent / _SHARE)

    # ── saving ────────────────────────────────────────────────────────────────────────────────────────────────

    def _savingAll(self) -> Work:
        began = time.monotonic()
        self._wait(0.0)
        sessions = {session.node.node.GetID(): session for session in self._logic.sessions if session.objects}
        for gone in self._saved.keys() - sessions.keys():
            self._folder.remove(self._folder.path(_fileName(gone)))
            del self._saved[gone]
        for nodeId, session in sessions.items():
            now = _stamp(session)
            if self._saved.get(nodeId) != now:
                yield from self._saving(nodeId, session)
                self._saved[nodeId] = now
        self._failed = False
        self._wait(time.monotonic() - began)

    def _saving(self, nodeId: str, session: VolumeSession) -> Work:
        text = session.node.referred("text")
        segmentIds = [one for one in session.objects if session.bridge.has(one)]
        facts = tuple(_facts(session, one) for one in segmentIds)
        said = "" if text is None else text.GetText()
        voxels = yield from self._digest(session.volumeNode)
        parts: list[Part] = []
        for segmentId in segmentIds:
            yield from _collecting(session, segmentId, parts)
        volume = Identity.of(session.volume.name, session.volume.fileGeometry, voxels)
        yield from _writing(self._folder.path(_fileName(nodeId)), Content(volume, session.window, facts, tuple(parts), said))

    def _digest(self, volumeNode: Any) -> Generator[None, None, str]:
        """Of a volume's voxels; looked at again only when they changed."""
        image, volumeId = volumeNode.GetImageData(), volumeNode.GetID()
        looked, known = self._digests.get(volumeId, (-1, ""))
        if looked == image.GetMTime():
            return known
        array = vtk_to_numpy(image.GetPointData().GetScalars())
        digest = hashlib.blake2b(str(array.dtype).encode(), digest_size=16)
        for start in range(0, array.size, _VOXELS):
            digest.update(np.ascontiguousarray(array[start : start + _VOXELS]).data)
            yield
        self._digests[volumeId] = image.GetMTime(), digest.hexdigest()
        return digest.hexdigest()

    # ── restoring ─────────────────────────────────────────────────────────────────────────────────────────────

    def _restoring(self, found: Found) -> Work:
        content = AutosaveFile.read(found.path)
        yield
        volumeNode = yield from self._volumeOf(content.volume)
        session = self._emptySession(volumeNode)
        for one in content.segments:
            session.bridge.bringBack(one.id, one.name, one.color, one.terminology, one.madeWith)
        with session.bridge.withoutSurface():
            for part in content.parts:
                mask = part.mask()
                patch = Patch.between(part.box, {part.segmentId: np.zeros_like(mask)}, {part.segmentId: mask})
                session.bridge.apply(patch, forwards=True)
                yield
        session.node.write({})
        session.node.referred("text").SetText(content.text)
        self._logic.setSegmentation(session.bridge.node)  # the session is taken up anew, with what was saved of it
        self._sessionOf(volumeNode).window = content.window
        self._logic.onMessage.emit(Message("info", f"The work on {content.volume.name} is restored."))
        yield
        yield from self._savingAll()  # it is ours now
        self._offers.remove(found)
        self._folder.remove(found.path)
        self.isRestoring = False
        self._logic.onChange.emit()

    def _volumeOf(self, volume: Identity) -> Generator[None, None, Any]:
        for node in self._candidates(volume):
            if (yield from self._digest(node)) == volume.voxels:
                return node
        raise VolumeError(
            f"The saved work belongs to the {volume.name} that it was made on, but the images in the scene have other voxels; "
            "load that image, or discard the work."
        )

    def _emptySession(self, volumeNode: Any) -> VolumeSession:
        """A volume's session, with a segmentation of our own in which there is nothing yet."""
        self._logic.setVolume(volumeNode)
        session = self._sessionOf(volumeNode)
        if session.objects:
            raise UsageError(f"{session.volume.name} has objects already; remove them first, then restore the saved work.")
        if not session.bridge.isOurs or session.bridge.node.GetSegmentation().GetNumberOfSegments():
            self._logic.setSegmentation(None)
            session = self._sessionOf(volumeNode)
        return session

    def _sessionOf(self, volumeNode: Any) -> VolumeSession:
        return next(session for session in self._logic.sessions if session.volumeNode is volumeNode)

    # ── what the scene tells ──────────────────────────────────────────────────────────────────────────────────

    def _forget(self) -> None:
        """The scene is closed: whoever did that does not want what was in it."""
        self._stop()
        self._saved.clear()
        self._digests.clear()
        self._folder.clear()

    def _isSaved(self) -> None:
        """All that there is is in a file of the user's now."""
        self._stop()
        self._folder.clear()
        self._saved = {session.node.node.GetID(): _stamp(session) for session in self._logic.sessions if session.objects}


def _fileName(nodeId: str) -> str:
    return hashlib.sha256(nodeId.encode()).hexdigest()[:16]


def _stamp(session: VolumeSession) -> object:
    """Something that differs after a session's objects, prompts or masks have changed."""
    text = session.node.referred("text")
    known = [one for one in session.objects if session.bridge.has(one)]
    return (
        0 if text is None else text.GetMTime(),
        session.volumeNode.GetImageData().GetMTime(),
        tuple((_facts(session, one), session.bridge.stamp(one)) for one in known),
    )


def _facts(session: VolumeSession, segmentId: str) -> SegmentFacts:
    segment = session.bridge.segment(segmentId)
    red, green, blue = segment.GetColor()
    madeWith = session.bridge.madeWith(segmentId)
    return SegmentFacts(segmentId, str(segment.GetName()), (red, green, blue), str(segment.GetTerminology()), madeWith)


def _collecting(session: VolumeSession, segmentId: str, parts: list[Part]) -> Work:
    """Adds what a segment has to `parts`. A segment that changes meanwhile is saved as it is where one is at; the next
    autosave has it whole."""
    box = session.bridge.box(segmentId)
    for slab in [] if box is None else slabs(box, _VOXELS):
        mask = session.bridge.maskIn(segmentId, slab)
        if mask.any():
            parts.append(Part.of(segmentId, slab, mask))
        yield


def _writing(path: Path, content: Content) -> Work:
    """Compresses and writes in a thread: a disk may take its time."""
    failed: list[MedSAM2Error | OSError] = []

    def write() -> None:
        try:
            AutosaveFile.write(path, content)
        except (MedSAM2Error, OSError) as error:
            failed.append(error)

    thread = threading.Thread(target=write, name="medsam2-autosave")
    thread.start()
    try:
        while thread.is_alive():
            time.sleep(_YIELD_S)  # Slicer's event loop keeps Python's lock; the thread gets on while we sleep
            yield
    finally:
        thread.join(_JOIN_S)
    if failed:
        raise failed[0]
