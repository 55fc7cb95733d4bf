"""Review: finding the slices that are wrong, and keeping those that are right."""

from __future__ import annotations

from typing import Any

import qt
from slicer.i18n import tr as _

from MedSAM2SlicerLib.WidgetKit import Section, aside, button, explain, row
from MedSAM2SlicerLib.WidgetTimeline import WidgetTimeline

__all__ = ["WidgetReview", "surenessOf"]


def surenessOf(mark: Any) -> list[float]:
    """What is known of how right a slice's mask is, 0..1 each: the network's own word, and other directions'."""
    return [value for value in (mark.confidence, mark.agreement) if value is not None]


class WidgetReview(Section):
    def __init__(self, panel: Any, layout: Any) -> None:
        super().__init__(_("Review"), "MedSAM2ReviewSection", layout)
        self._panel = panel
        box = qt.QVBoxLayout(self.frame)
        box.setContentsMargins(8, 6, 8, 8)

        self.timeline = WidgetTimeline(panel.jumpTo)
        box.addWidget(self.timeline)
        box.addWidget(
            aside(
                _(
                    "Bars: where the object is, higher and greener where the network is surer. Orange: prompts. Blue: locked. "
                    "Line: how far other directions agree."
                )
            )
        )

        self.previousButton = button(_("[  Previous"), panel.previousWorst, "MedSAM2PreviousWorst")
        self.worstButton = button(_("Worst slice  ]"), panel.nextWorst, "MedSAM2Worst")
        self.lockButton = button(_("Lock slice"), panel.toggleLock, "MedSAM2Lock")
        self.correctButton = button(_("Correct here"), panel.correctHere, "MedSAM2Correct")
        box.addWidget(row(self.previousButton, self.worstButton, self.lockButton, self.correctButton))
        self.checkButton = button(_("Check by other directions"), panel.checkOrCancel, "MedSAM2Check")
        box.addWidget(self.checkButton)

        self.summary = qt.QLabel()
        self.summary.wordWrap = True
        box.addWidget(self.summary)

    def refresh(self) -> None:
        panel, logic = self._panel, self._panel.logic
        records = logic.objects()
        self.timeline.setRows(
            [(r.name, r.color, panel.timelineOf(r.name), panel.sliceShown(r.name)) for r in records], logic.currentObject
        )
        ranked = panel.worstSlices()
        nothing = (
            None
            if ranked
            else _("There is no slice to look at: propagate first. Prompted and locked slices are not asked about.")
        )
        explain(self.worstButton, _("Shows the slice the network is least sure of, then the next (])."), nothing)
        explain(self.previousButton, _("Goes back towards slices seen before ([)."), nothing)

        here, marks = panel.sliceShown(), panel.timelineOfCurrent()
        mark = marks[here] if here is not None and here < len(marks) else None
        noSlice = None if mark is not None else _("The active view shows no slice of the selected object.")
        running = panel.whyNoChange()
        self.lockButton.text = _("Unlock slice") if mark is not None and mark.locked else _("Lock slice")
        explain(self.lockButton, _("A locked slice stays as it is, whatever is propagated (L)."), noSlice or running)
        explain(
            self.correctButton,
            _("Clicks on this slice; propagating then redoes what depends on it."),
            noSlice or panel.whyNoPrompt(),
        )
        self.checkButton.text = _("Cancel check") if logic.isChecking else _("Check by other directions")
        explain(
            self.checkButton,
            _(
                "Follows the selected object in the two other directions as well, and shows on which slices the three masks "
                "agree. Masks stay as they are. Takes about as long as two propagations."
            ),
            None if logic.isChecking else panel.whyNoCheck(),
        )
        self.summary.text = " ".join(filter(None, (self._summary(marks), self._agreement(marks))))

    @staticmethod
    def _summary(marks: Any) -> str:
        known = [mark.confidence for mark in marks if mark.present and mark.confidence is not None]
        if not known:
            return ""
        return _("Slices: {present}, locked: {locked}. Confidence: {mean:.0f} % on average, {least:.0f} % at worst.").format(
            present=sum(mark.present for mark in marks),
            locked=sum(mark.locked for mark in marks),
            mean=100 * sum(known) / len(known),
            least=100 * min(known),
        )

    @staticmethod
    def _agreement(marks: Any) -> str:
        known = [mark.agreement for mark in marks if mark.agreement is not None]
        if not known:
            return ""
        text = _("Agreement of directions: {mean:.0f} % on average, {least:.0f} % at worst.").format(
            mean=100 * sum(known) / len(known), least=100 * min(known)
        )
        missing = sum(mark.agreement is not None and not mark.present for mark in marks)
        return text + (_(" On {count} slices only other directions see it.").format(count=missing) if missing else "")
