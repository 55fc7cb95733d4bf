"""A volume that is one time point of a sequence, and the segmentations of its time points."""

from __future__ import annotations

from typing import Any

from MedSAM2Lib.errors import UsageError

__all__ = ["TimeSequence"]

_ROLE = "MedSAM2.segmentations"  # node reference of the browser: the sequence that we made


class TimeSequence:
    """Pages through a vtkMRMLSequenceBrowserNode; keeps a copy of a segmentation for each time point, in a sequence of ours
    that the browser shows together with the volumes."""

    def __init__(self, browserNode: Any, segmentationNode: Any) -> None:
        self.browser, self.segmentation = browserNode, segmentationNode
        self._kept = browserNode.GetNodeReference(_ROLE)

    @classmethod
    def of(cls, scene: Any, volumeNode: Any, segmentationNode: Any) -> TimeSequence | None:
        """The sequence through which a volume node is shown; None for a volume that stands alone."""
        for n in range(scene.GetNumberOfNodesByClass("vtkMRMLSequenceBrowserNode")):
            browser = scene.GetNthNodeByClass(n, "vtkMRMLSequenceBrowserNode")
            if browser.GetSequenceNode(volumeNode) is not None and browser.GetNumberOfItems() > 1:
                return cls(browser, segmentationNode)
        return None

    @property
    def isThere(self) -> bool:
        """Whether the sequence is in the scene still."""
        return self.browser.GetScene() is not None and self.browser.GetMasterSequenceNode() is not None

    @property
    def count(self) -> int:
        """Time points."""
        return int(self.browser.GetNumberOfItems())

    @property
    def index(self) -> int:
        """The time point that is shown, from 0."""
        return int(self.browser.GetSelectedItemNumber())

    def select(self, index: int) -> None:
        """Shows a time point: the volume node gets its voxels."""
        self.browser.SetSelectedItemNumber(index)

    def begin(self) -> None:
        """From now on paging leaves the segmentation alone, and changes of it are not kept by themselves.

        Raises UsageError where the sequence was removed from the scene.
        """
        self._checkThere()
        if self._kept is not None:
            self.browser.RemoveSynchronizedSequenceNode(self._kept.GetID())
            self.browser.SetNodeReferenceID(_ROLE, None)
            self._kept.GetScene().RemoveNode(self._kept)
        master = self.browser.GetMasterSequenceNode()
        self._kept = self.browser.GetScene().AddNewNodeByClass(
            "vtkMRMLSequenceNode", f"{self.segmentation.GetName()} over time"
        )
        self._kept.SetIndexName(master.GetIndexName())
        self._kept.SetIndexUnit(master.GetIndexUnit())
        self._kept.SetIndexType(master.GetIndexType())
        self.browser.SetNodeReferenceID(_ROLE, self._kept.GetID())

    def keep(self) -> None:
        """Keeps a copy of the segmentation as it is for the time point that is shown. Raises UsageError, as `begin`."""
        self._checkThere()
        value = self.browser.GetMasterSequenceNode().GetNthIndexValue(self.index)
        self._kept.SetDataNodeAtValue(self.segmentation, value)

    def end(self) -> None:
        """From now on the segmentation follows the time point that is shown, and what is changed in it is kept."""
        self.browser.AddSynchronizedSequenceNodeID(self._kept.GetID())
        self.browser.AddProxyNode(self.segmentation, self._kept, False)
        self.browser.SetSaveChanges(self._kept, True)

    def _checkThere(self) -> None:
        if not self.isThere:
            raise UsageError("The sequence was removed from the scene, so following through time ended; load it again.")
