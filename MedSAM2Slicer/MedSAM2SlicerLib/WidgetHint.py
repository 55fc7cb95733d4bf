"""What to do next: one sentence for every state of the panel. No Qt, no scene."""

from __future__ import annotations

from dataclasses import dataclass

from slicer.i18n import tr as _

__all__ = ["PanelState", "nextStep"]


@dataclass(frozen=True)
class PanelState:
    """What the hint depends on."""

    engineProblem: str | None = None  # why nothing can be computed; None: the engine is there
    hasVolume: bool = False
    anyVolumeInScene: bool = False
    tool: str | None = None  # the prompt being drawn: "box", "point", ...
    positive: bool = True
    objectName: str | None = None
    prompted: bool = False  # the current object has a prompt
    followed: bool = False  # it has slices that were propagated to
    busy: bool = False
    propagating: bool = False
    checking: bool = False  # one kind of it
    worstSlice: int | None = None


def nextStep(state: PanelState) -> str:
    """The sentence of the hint line."""
    if state.engineProblem is not None:
        return state.engineProblem
    if not state.hasVolume:
        if state.anyVolumeInScene:
            return _("Choose the volume to segment, under Volume.")
        return _("Load a CT or MR volume (File > Add Data, or the Sample Data module); it then appears under Volume.")
    if state.checking:
        return _("Following the object in the other two directions, to compare. Masks stay as they are. Press Space to cancel.")
    if state.propagating:
        return _("Following the object through the slices. Press Space to cancel; what has arrived stays.")
    if state.tool is not None:
        return _drawing(state)
    if state.busy:
        return _("Working on the slice ...")
    if state.objectName is None or not state.prompted:
        return _("Press B, then click two opposite corners of a box around the structure in the Red, Green or Yellow view.")
    if not state.followed:
        return _("Look at the mask. Wrong: press P or N and click where. Right: press Space to follow it through the slices.")
    if state.worstSlice is not None:
        return _(
            "Press ] to see the slice the network is least sure of (slice {slice}). Wrong: P or N and a click. Right: L locks it."
        ).format(slice=state.worstSlice)
    return _("Done? Export the masks under Finish, or add the next object.")


def _drawing(state: PanelState) -> str:
    if state.tool == "point":
        if state.positive:
            return _("Click on what belongs to the object. N switches to what does not; a right click ends.")
        return _("Click on what does not belong to the object. N switches back; a right click ends.")
    return {
        "box": _("Click two opposite corners of the box in one slice view. A right click ends without a box."),
        "box3d": _("Click two opposite corners of the box; its depth becomes the range of slices. A right click ends."),
        "line": _("Click both ends of the longest diameter in one slice view."),
        "outline": _("Click along the outline of the object; a double click or a right click closes it."),
        "scribble": _("Click along the inside of the object; a double click or a right click ends the scribble."),
    }[state.tool or ""]
