"""Someone in front of the panel."""

from __future__ import annotations

from typing import Any


class Person:
    """What someone in front of the panel does and sees."""

    def __init__(self, host: Any) -> None:
        self.host, self.panel = host, host.panel.panel

    @property
    def logic(self) -> Any:
        return self.panel.logic

    def reads_hint(self) -> str:
        return str(self.panel.hint.text)

    def loads(self, volume: Any) -> None:
        self.panel.volume.selector.setCurrentNode(volume)
        self.host.settle(20)

    def pages(self, view: str, corner: Any) -> None:
        self.host.slice_nodes[view].JumpSlice(*corner)

    def draws_box(self, view: str, first: Any, last: Any) -> None:
        for name in self.host.slice_nodes:
            self.pages(name, first if name == view else (first + last) / 2)
        self.host.press("B")
        self.host.click_on(view, first)
        self.host.click_on(view, last)
        self.waits()

    def waits(self) -> None:
        """Until the engine has answered."""
        self.host.settle(30)
        self.host.wait_until(lambda: not self.logic.isBusy and not self.logic.isPropagating)
        self.host.settle(150)

    def sees(self, name: str) -> Any:
        """(k, j, i) bool: an object's mask in the scene."""
        import slicer

        record = next(record for record in self.logic.objects() if record.name == name)
        return slicer.util.arrayFromSegmentBinaryLabelmap(
            self.logic.segmentationNode, record.segmentId, self.logic.volumeNode
        ).astype(bool)  # fmt: skip
