"""What the logic tells the panel: plain records, none of which changes after it was handed out."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Message", "ObjectRecord", "Progress", "PromptRecord", "SliceMark"]


@dataclass(frozen=True)
class Message:
    """A sentence for the panel's message line."""

    level: str  # "info", "warning" or "error"
    text: str  # what was expected, what came, what to do


@dataclass(frozen=True)
class ObjectRecord:
    """One row of the panel's list of objects: one thing to segment, one segment in the scene."""

    name: str
    segmentId: str  # of the logic's segmentationNode
    color: tuple[float, float, float]  # red, green, blue, 0..1
    visible: bool
    volumeMl: float  # of the mask in the scene
    confidence: float | None  # mean expected IoU, 0..1, over the slices that have a mask; None: nothing segmented yet
    axis: str | None  # "k", "j", "i" or "oblique": slices are counted along it; None: no prompt yet decided it
    prompted: bool  # has at least one prompt
    terminology: str  # what it is, as vtkSegment keeps it
    term: str  # the same for people, "Kidney, Right"; empty as long as nobody chose one


@dataclass(frozen=True)
class PromptRecord:
    """One prompt that an object has."""

    id: str
    kind: str  # "box", "points", "line", "mask" or "box3d"
    sliceIndex: int  # along the object's axis; the middle slice of a 3D box
    positive: bool  # False for points that say where the object is not


@dataclass(frozen=True)
class SliceMark:
    """One cell of an object's timeline."""

    index: int  # slice, along the object's axis
    present: bool  # the mask has a voxel here
    prompted: bool  # a person spoke here
    locked: bool  # stays as it is, whatever is propagated
    confidence: float | None  # expected IoU, 0..1; None: not segmented
    agreement: float | None = None  # mean Dice with the other directions, 0..1; None: not checked, or changed since


@dataclass(frozen=True)
class Progress:
    """How far a propagation or a check is."""

    done: int  # slices
    total: int  # slices planned; fewer may be needed
    slicesPerSecond: float  # over the last seconds; 0 until known
    secondsLeft: float | None  # of this part; None until known
    part: int = 0  # time point of a sequence, or direction of a check, from 0
    parts: int = 1
