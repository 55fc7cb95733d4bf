"""What the panel shows of an object, beside its voxels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from MedSAM2Lib.prompts import Box, Box3D, MaskPrompt, Points, Prompt, RecistLine

__all__ = ["GivenPrompt", "SliceNote", "TrackedObject"]


@dataclass(frozen=True)
class GivenPrompt:
    """A prompt that the engine took."""

    kind: str  # as in Records.PromptRecord
    positive: bool

    @classmethod
    def of(cls, prompt: Prompt) -> GivenPrompt:
        kinds = {Box: "box", Points: "points", RecistLine: "line", MaskPrompt: "mask", Box3D: "box3d"}
        return cls(kinds[type(prompt)], not isinstance(prompt, Points) or any(prompt.labels))

    @staticmethod
    def sliceOf(prompt: Prompt) -> int:
        """The slice on which a prompt is answered."""
        return prompt.middle_box().slice_index if isinstance(prompt, Box3D) else prompt.slice_index


@dataclass(frozen=True)
class SliceNote:
    """What is known of a segmented slice."""

    iou: float  # expected, 0..1
    present: bool  # the mask has a pixel


@dataclass(frozen=True)
class TrackedObject:
    """One object; never changed, but replaced by a changed copy, so that a step of the history can hold on to it.

    segmentId  of its segment; the engine calls the object by it too, so that renaming concerns only the scene
    stack      the place of its slice stack in the session's list; None before the first prompt
    """

    segmentId: str
    stack: int | None = None
    prompts: Mapping[int, tuple[GivenPrompt, ...]] = field(default_factory=dict)  # by slice
    locked: frozenset[int] = frozenset()
    slices: Mapping[int, SliceNote] = field(default_factory=dict)
    agreement: Mapping[int, float] = field(default_factory=dict)  # 0..1, by slice, as long as its mask is what was checked

    def withPrompt(self, index: int, prompt: GivenPrompt) -> TrackedObject:
        """Clicks add to what their slice has; anything else begins it anew."""
        before = self.prompts.get(index, ()) if prompt.kind == "points" else ()
        return replace(self, prompts={**self.prompts, index: (*before, prompt)})

    def withoutPrompts(self, index: int) -> TrackedObject:
        return replace(self, prompts={slice_: given for slice_, given in self.prompts.items() if slice_ != index})

    def withSlice(self, index: int, note: SliceNote) -> TrackedObject:
        return replace(self, slices={**self.slices, index: note})

    def withoutAgreement(self, index: int) -> TrackedObject:
        """The slice's mask has changed, so that what is known of its agreement is of another."""
        if index not in self.agreement:
            return self
        return replace(self, agreement={slice_: share for slice_, share in self.agreement.items() if slice_ != index})

    def anchors(self) -> list[int]:
        """Slices on which a person spoke, by a prompt or by a lock, ascending."""
        return sorted(set(self.prompts) | self.locked)

    def toJson(self) -> dict[str, Any]:
        return {
            "segment": self.segmentId,
            "stack": self.stack,
            "prompts": [[index, [[one.kind, one.positive] for one in given]] for index, given in self.prompts.items()],
            "locked": sorted(self.locked),
            "slices": [[index, note.iou, note.present] for index, note in self.slices.items()],
            "agreement": list(self.agreement.items()),
        }

    @classmethod
    def fromJson(cls, content: Mapping[str, Any]) -> TrackedObject:
        return cls(
            str(content["segment"]),
            content["stack"],
            {
                int(index): tuple(GivenPrompt(str(kind), bool(positive)) for kind, positive in given)
                for index, given in content["prompts"]
            },
            frozenset(int(index) for index in content["locked"]),
            {int(index): SliceNote(float(iou), bool(present)) for index, iou, present in content["slices"]},
            {int(index): float(share) for index, share in content.get("agreement", [])},  # older scenes have none
        )
