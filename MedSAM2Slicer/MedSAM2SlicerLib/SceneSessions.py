"""The sessions of a scene, one for each volume that was worked on, through all that can happen to their nodes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import vtk

from MedSAM2Lib.errors import MedSAM2Error, UsageError
from MedSAM2SlicerLib.Records import Message
from MedSAM2SlicerLib.SessionNode import SessionNode
from MedSAM2SlicerLib.TimeSequence import TimeSequence
from MedSAM2SlicerLib.VolumeSession import VolumeSession

__all__ = ["SceneSessions", "SessionUser"]


class SessionUser(Protocol):
    """Who works with the sessions, and has to know when one of them cannot go on."""

    def interrupt(self, session: VolumeSession) -> bool:
        """What is being done for a session is of no use any more; returns whether something was."""

    def forget(self, session: VolumeSession) -> None:
        """The session is gone."""

    def tell(self, message: Message) -> None: ...

    def changed(self) -> None: ...


class SceneSessions:
    """Iterates over the sessions. Listens to the scene until `close`."""

    def __init__(self, scene: Any, user: SessionUser) -> None:
        self._scene, self._user = scene, user
        self.current: VolumeSession | None = None
        self._byVolume: dict[str, VolumeSession] = {}  # by ID of the volume node
        self._observers: dict[str, list[tuple[Any, int]]] = {}
        self._sceneObservers = [
            scene.AddObserver(scene.NodeAboutToBeRemovedEvent, self._onNodeAboutToBeRemoved),
            scene.AddObserver(scene.StartCloseEvent, lambda *_: self._dropAll()),
            scene.AddObserver(scene.EndImportEvent, lambda *_: self.takeUp()),
        ]

    def __iter__(self) -> Iterator[VolumeSession]:
        return iter(tuple(self._byVolume.values()))

    def close(self) -> None:
        """Forgets all sessions; what they have in the scene stays there."""
        self._dropAll()
        for observer in self._sceneObservers:
            self._scene.RemoveObserver(observer)
        self._sceneObservers = []

    def choose(self, volumeNode: Any | None) -> None:
        """Makes a volume's session the current one: the one there is, one that the scene holds, or a new one.

        Raises VolumeError for a volume that cannot be segmented.
        """
        known = None if volumeNode is None else self._byVolume.get(volumeNode.GetID())
        self.current = known if known is not None or volumeNode is None else self._open(volumeNode)
        for node in SessionNode.all(self._scene):
            node.isCurrent = self.current is not None and node.node is self.current.node.node
        self._user.changed()

    def takeUp(self) -> None:
        """The session that was current when the scene was saved, if nothing is yet."""
        kept = next((node for node in SessionNode.all(self._scene) if node.isCurrent and node.referred("volume")), None)
        if self.current is None and kept is not None:
            try:
                self.choose(kept.referred("volume"))
            except MedSAM2Error as error:
                self._user.tell(Message("error", str(error)))

    def useSegmentation(self, segmentationNode: Any | None) -> None:
        """Puts the objects of the current session into another segmentation, a new one for None.

        Raises OptionError when it is on another grid than the volume, UsageError when there are objects already.
        """
        session = self.current
        assert session is not None
        if session.objects:
            raise UsageError("The objects of this volume are in a segmentation already; remove them first, or send them there.")
        former = session.node.referred("segmentation")
        session.node.refer("segmentation", segmentationNode)
        try:
            replaced = VolumeSession(self._scene, session.node)
        except MedSAM2Error:
            session.node.refer("segmentation", former)
            raise
        replaced.window = session.window
        self._drop(session)
        self._keep(replaced)
        self.current = replaced
        needed = any(one.bridge.node is former for one in self)
        if session.bridge.isOurs and not needed and former.GetSegmentation().GetNumberOfSegments() == 0:
            self._scene.RemoveNode(former)
        self._user.changed()

    # ── coming and going ──────────────────────────────────────────────────────────────────────────────────────

    def _open(self, volumeNode: Any) -> VolumeSession:
        kept = next((node for node in SessionNode.all(self._scene) if node.referred("volume") is volumeNode), None)
        node = kept or SessionNode.create(self._scene, volumeNode)
        try:
            session = VolumeSession(self._scene, node)
        except MedSAM2Error:
            if kept is None:
                self._scene.RemoveNode(node.node)
            raise
        self._keep(session)
        return session

    def _keep(self, session: VolumeSession) -> None:
        volumeNode, segmentation = session.volumeNode, session.bridge.node.GetSegmentation()
        self._byVolume[volumeNode.GetID()] = session
        self._observers[volumeNode.GetID()] = [
            (volumeNode, volumeNode.AddObserver(volumeNode.ImageDataModifiedEvent, lambda *_: self._onVolumeChanged(session))),
            (volumeNode, volumeNode.AddObserver(volumeNode.TransformModifiedEvent, lambda *_: self._onVolumeMoved(session))),
            (segmentation, segmentation.AddObserver(segmentation.SegmentRemoved, lambda *_: self._user.changed())),
        ]

    def _drop(self, session: VolumeSession) -> None:
        """Forgets a session; what it has in the scene stays there."""
        self._user.interrupt(session)
        volumeId = next(key for key, one in self._byVolume.items() if one is session)
        for node, observer in self._observers.pop(volumeId):
            node.RemoveObserver(observer)
        del self._byVolume[volumeId]
        if self.current is session:
            self.current = None
        self._user.forget(session)

    def _dropAll(self) -> None:
        for session in self:
            self._drop(session)
        self._user.changed()

    # ── what happens to the nodes ─────────────────────────────────────────────────────────────────────────────

    def _onVolumeChanged(self, session: VolumeSession) -> None:
        """The voxels were replaced: what runs is of no use, what is in the scene stays."""
        if session.isPaging:
            return
        name, busy = session.volume.name, self._user.interrupt(session)
        try:
            same = session.renewVolume()
        except MedSAM2Error as error:
            self._giveUp(session, error)
            return
        if TimeSequence.of(self._scene, session.volumeNode, session.bridge.node) is not None:
            session.forgetSteps(session.objects)  # they were made in another time point
        if not same:
            self._drop(session)
            self._scene.RemoveNode(session.node.node)
            text = f"{name} was replaced by an image of another size; choose it again to segment it."
            self._user.tell(Message("warning", f"{text} The masks of the one before are still in the scene."))
        elif busy:
            self._user.tell(Message("warning", f"{name} changed, so the work on it was ended; what had arrived stays."))
        self._user.changed()

    def _onVolumeMoved(self, session: VolumeSession) -> None:
        """The volume is under another transform: its segmentation and its slices go with it."""
        try:
            session.moveVolume()
        except MedSAM2Error as error:
            self._giveUp(session, error)
        self._user.changed()

    def _giveUp(self, session: VolumeSession, error: MedSAM2Error) -> None:
        self._drop(session)
        self._user.tell(Message("error", str(error)))
        self._user.changed()

    @vtk.calldata_type(vtk.VTK_OBJECT)  # type: ignore[untyped-decorator]
    def _onNodeAboutToBeRemoved(self, _scene: Any, _event: str, node: Any) -> None:
        for session in self:
            needed = {
                "volume": session.volumeNode,
                "segmentation": session.bridge.node,
                "editor": session.bridge.editorNode,
                "session": session.node.node,
            }
            role = next((role for role, one in needed.items() if one is node), None)
            if role is None:
                continue
            self._drop(session)
            text = f"The {role} node {node.GetName()} was removed from the scene; choose a volume to go on."
            self._user.tell(Message("warning", text))
            self._user.changed()
