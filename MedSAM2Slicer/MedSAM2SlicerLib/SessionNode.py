"""A session in the scene: one node for its settings and references, one for what does not fit in there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["SessionNode"]

_KIND = "MedSAM2Session"  # ModuleName of the nodes; the panel's parameter node has another
_FORMAT = "medsam2-scene/1"


class SessionNode:
    """A vtkMRMLScriptedModuleNode that refers to a volume, its segmentation, our editor node, and a text node.

    The references and the text are saved with the scene, as .mrml or .mrb, and come back with it.
    """

    def __init__(self, node: Any) -> None:
        self.node = node

    @classmethod
    def create(cls, scene: Any, volumeNode: Any) -> SessionNode:
        node = scene.AddNewNodeByClass("vtkMRMLScriptedModuleNode", f"MedSAM2 session of {volumeNode.GetName()}")
        node.SetModuleName(_KIND)
        node.SetAttribute("ModuleName", _KIND)
        node.SetHideFromEditors(True)
        made = cls(node)
        made.refer("volume", volumeNode)
        return made

    @classmethod
    def all(cls, scene: Any) -> Iterator[SessionNode]:
        """The sessions that a scene holds."""
        for n in range(scene.GetNumberOfNodesByClass("vtkMRMLScriptedModuleNode")):
            node = scene.GetNthNodeByClass(n, "vtkMRMLScriptedModuleNode")
            if node.GetModuleName() == _KIND:
                yield cls(node)

    def refer(self, role: str, node: Any | None) -> None:
        """Notes the node of a role: volume, segmentation, editor, text."""
        self.node.SetNodeReferenceID(role, None if node is None else node.GetID())

    def referred(self, role: str) -> Any:
        """The node of a role, or None."""
        return self.node.GetNodeReference(role)

    @property
    def isCurrent(self) -> bool:
        """Whether this was the session being worked on when the scene was saved."""
        return bool(self.node.GetParameter("current") == "true")

    @isCurrent.setter
    def isCurrent(self, current: bool) -> None:
        self.node.SetParameter("current", "true" if current else "false")

    def write(self, content: Mapping[str, Any]) -> None:
        """Keeps a dictionary of JSON."""
        text = self.referred("text") or self._createText()
        text.SetText(json.dumps({"format": _FORMAT, **content}, separators=(",", ":")))

    def read(self) -> dict[str, Any] | None:
        """What was kept; None where there is nothing, or nothing that this version understands."""
        text = self.referred("text")
        try:
            content = json.loads(text.GetText() or "") if text is not None else None
        except ValueError:
            return None
        return content if isinstance(content, dict) and content.get("format") == _FORMAT else None

    def _createText(self) -> Any:
        scene = self.node.GetScene()
        text = scene.AddNewNodeByClass("vtkMRMLTextNode", f"{self.node.GetName()} (state)")
        text.SetHideFromEditors(True)
        # Masks make it long: it is saved as a file of its own, not as an attribute in the scene's XML.
        text.SetForceCreateStorageNode(text.CreateStorageNodeAlways)
        self.refer("text", text)
        return text
