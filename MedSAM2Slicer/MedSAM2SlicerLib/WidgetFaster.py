"""What may be given up for speed: exact numbers, and parts of the network's work. What each gains and costs is said beside it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import qt
from slicer.i18n import tr as _

from MedSAM2Lib.network.config import APPROXIMATIONS
from MedSAM2SlicerLib.WidgetKit import explain

__all__ = ["WidgetFaster", "approximationTexts", "fasterBy"]


def approximationTexts() -> dict[str, tuple[str, str]]:
    """Of each approximation: what it is called, what it gains and costs (docs/performance.md)."""
    return {
        "crop": (_("square around the object"), _("3.6 times as fast, 4.4 after a correction. Cost: not measured.")),
        "pooled-memories": (_("coarser memories"), _("1.02 times as fast, 1.14 after a correction. Dice to exact: 0.993.")),
    }


class WidgetFaster:
    """Rows of the section Engine."""

    def __init__(self, panel: Any, form: Any) -> None:
        self._panel, self._engine = panel, panel.engine
        self.precision = qt.QComboBox()
        self.precision.objectName = "MedSAM2Precision"
        self.precision.addItem(_("Exact"), "float32")
        self.precision.addItem(_("Fast (bfloat16)"), "bfloat16")
        self.precision.toolTip = _(
            "Fast: 1.6 times as fast as exact, Dice to exact 0.998 (MedSAM2); nano: 1.5 times, 0.999. "
            "On a processor without bfloat16 it is slower: the status below says so."
        )
        self.precision.connect("currentIndexChanged(int)", self._onPrecision)
        form.addRow(_("Precision:"), self.precision)
        self.approximations = {}
        for place, name in enumerate(APPROXIMATIONS):
            switch = qt.QCheckBox(approximationTexts().get(name, (name, ""))[0])
            switch.objectName = f"MedSAM2Approximate-{name}"
            switch.connect("toggled(bool)", partial(self._onApproximation, name))
            self.approximations[name] = switch
            form.addRow("" if place else _("Approximate:"), switch)

    def _onPrecision(self, _index: int) -> None:
        chosen = str(self.precision.currentData)
        if not self._panel.refreshing and chosen != self._engine.setting("precision"):
            self._engine.setSetting("precision", chosen)
            self._panel.renewEngine()

    def _onApproximation(self, name: str, checked: bool) -> None:
        if not self._panel.refreshing and checked != self._engine.approximates(name):
            self._engine.setApproximates(name, checked)
            self._panel.renewEngine()

    def refresh(self) -> None:
        self.precision.currentIndex = max(self.precision.findData(self._engine.setting("precision")), 0)
        for name, switch in self.approximations.items():
            why = self._engine.whyNotApproximated(name)
            switch.checked = why is None and self._engine.approximates(name)
            figures = approximationTexts().get(name, ("", ""))[1]
            explain(switch, _("Masks are not quite the network's own. {figures}").format(figures=figures).strip(), why)


def fasterBy(facts: Mapping[str, Any]) -> list[str]:
    """What an engine gives up for speed, from what it says of itself."""
    said = []
    if facts.get("precision") == "bfloat16":
        slow = (facts.get("bfloat16_gain") or 1) < 1
        said.append(_("bfloat16, slower than exact on this processor") if slow else "bfloat16")
    approximations = [approximationTexts().get(name, (name,))[0] for name in facts.get("approximations", ())]
    return said + [_("approximate: {name}").format(name=name) for name in approximations]
