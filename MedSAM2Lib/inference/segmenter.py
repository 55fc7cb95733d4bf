"""One object on one slice of a volume: from prompts or memories, through a view wide enough, to a mask.

Nothing here is kept between calls but image features: what is known of an object is in the object, which is changed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from MedSAM2Lib.frames import View, logits_to_frame, logits_to_slice, mask_to_frame
from MedSAM2Lib.inference.door import SlicePrompt
from MedSAM2Lib.inference.drafts import DraftedSlice, Drafts, draft_share
from MedSAM2Lib.inference.embeddings import FORWARD, Embeddings
from MedSAM2Lib.inference.kept_logits import KeptLogits, rounded
from MedSAM2Lib.inference.late_memory import LateMemory, Parts
from MedSAM2Lib.inference.mask_size import cut_to_box, piece_under
from MedSAM2Lib.inference.objects import SegmentedObject, SliceRecord
from MedSAM2Lib.inference.options import SessionOptions
from MedSAM2Lib.inference.prompt_tensors import point_tensors
from MedSAM2Lib.inference.tracker import ROUGH_MASK_BOUND, Tracker, absent
from MedSAM2Lib.memory.opening import open_bank
from MedSAM2Lib.network.sam2 import SAM2, ImageFeatures, MaskPrediction, PointTensors, SliceDepth
from MedSAM2Lib.packed_mask import PackedMask
from MedSAM2Lib.postprocess import depths, fill_holes, pieces_touching
from MedSAM2Lib.prompts import Box, MaskPrompt, Points
from MedSAM2Lib.results import SliceConfidence, SliceResult
from MedSAM2Lib.session_steps import Painted

__all__ = ["Segmenter"]

_Mask = npt.NDArray[np.bool_]

_MIDDLE = 0.6  # of the greatest depth of a piece: what lies as deep is its middle
_MOST_GROWTH = 1.25  # of an object's area to a slice where it was missed
_WIDEN_FACTOR = 1.5  # of a view whose edge the mask reaches
# A click tells where, not how large. These shares of the longer slice side are tried, and the surest answer is kept.
_CLICK_VIEW_SHARES = (0.125, 0.25, 0.5, 1.0)


@dataclass
class Segmenter:
    """What a session asks for one slice after the other.

    spacing  mm between slices, rows, columns
    """

    network: SAM2
    embeddings: Embeddings
    drafts: Drafts | None  # None: the network makes none
    slice_count: int
    slice_shape: tuple[int, int]
    spacing: tuple[float, float, float]
    options: SessionOptions

    # ── objects ───────────────────────────────────────────────────────────────────────────────────────────────

    def new_object(self, name: str, prompt: SlicePrompt) -> SegmentedObject:
        """An object that looks where its first prompt is."""
        return SegmentedObject(name, self.new_tracker(), self._first_view(prompt), unreached=set(range(self.slice_count)))

    def new_tracker(self) -> Tracker:
        config = self.network.config
        bank = open_bank(self.options.memory, config.memory_slots, config.max_object_pointers)
        return Tracker(self.network, bank, self.slice_count)

    # ── prompts ───────────────────────────────────────────────────────────────────────────────────────────────

    def prompt(self, target: SegmentedObject, prompt: SlicePrompt) -> SliceResult:
        """The mask of a prompt's slice; the prompt has been checked."""
        target.view = self._view_of(target, prompt)
        return self._adopt(target, prompt) if isinstance(prompt, MaskPrompt) else self._answer(target, prompt)

    def _answer(self, target: SegmentedObject, prompt: Box | Points) -> SliceResult:
        """The mask from a slice's box and clicks, in a view wide enough to show it whole."""
        index = prompt.slice_index
        before = target.records.get(index)
        if isinstance(prompt, Box):  # says anew where the object is; what the slice had is not worth keeping
            target.boxes[index] = prompt
            target.clicks.pop(index, None)
            corrected = None
        else:
            target.clicks[index] = (*target.clicks.get(index, ()), prompt)
            corrected = before
        while True:
            view = target.view
            features = self._features(target, index, view)
            direction = target.tracker.tracked_direction.get(index)
            if direction is not None:  # a slice that was not tracked yet looks at no memory
                self._refresh_memories(target, index, features, direction, view)
            points = self._point_tensors(target, index, view)
            previous = self._corrected_logits(target, prompt, corrected, view)
            prediction = target.tracker.answer_points(index, features, points, previous)
            if isinstance(prompt, Points) and any(prompt.labels) and before is not None and before.packed.empty:
                prediction = self._no_larger(target, prompt, prediction, view)
            if isinstance(prompt, Box):
                prediction = self._filling(target, prompt, prediction, view)
            mask = self._to_mask(prediction.logits, view)
            if not view.cuts(mask):
                break
            target.view = self._widened(view, _bounding_box(mask))
        mask, prediction = self._without_refused(target, index, before, mask, prediction, view)
        return self._prompted(target, index, view, prediction, mask)

    def _corrected_logits(
        self, target: SegmentedObject, prompt: Box | Points, corrected: SliceRecord | None, view: View
    ) -> Tensor | None:
        """(1, 1, L, L) logits that a prompt corrects: the slice's own; where the object was missed, those of a draft that has it
        where the person points."""
        if isinstance(prompt, Points) and (corrected is None or corrected.packed.empty):
            drafted = self._drafted(target, prompt.slice_index)
            if drafted is not None:
                shown = logits_to_slice(drafted.logits, drafted.view, *self.slice_shape)
                clicks = zip(prompt.xs, prompt.ys, prompt.labels, strict=True)
                if any(on and shown[self._pixel(x, y)] > 0 for x, y, on in clicks):
                    return self._seen_through(drafted.logits, drafted.view, view)
        return None if corrected is None else self.logits_through(corrected, view)

    def _filling(self, target: SegmentedObject, box: Box, prediction: MaskPrediction, view: View) -> MaskPrediction:
        """An answer to a box, cut so that it fills the box, where somebody drew it: that of a line or of a 3D box may be larger
        than what this slice shows. Of a small network alone: others judge size better."""
        if not self.network.knows_depth or not isinstance(target.spoken[-1], Box):
            return prediction
        logits = logits_to_slice(prediction.logits, view, *self.slice_shape).cpu().numpy()
        return prediction._replace(logits=prediction.logits - cut_to_box(logits, (box.x0, box.y0, box.x1, box.y1)))

    def _no_larger(self, target: SegmentedObject, prompt: Points, prediction: MaskPrediction, view: View) -> MaskPrediction:
        """An answer to clicks on what a pass had missed: what is under them, cut so that it is hardly larger than the object is
        on the nearest slice that shows it. A click tells where, not how large, and what was missed is mostly an end."""
        found = [index for index in target.records if index != prompt.slice_index and target.is_on(index)]
        if not self.network.knows_depth or not found:
            return prediction
        nearest = min(found, key=lambda index: abs(index - prompt.slice_index))
        most = _MOST_GROWTH * target.records[nearest].packed.pixels
        clicked = np.zeros(self.slice_shape, dtype=bool)
        for x, y, on in zip(prompt.xs, prompt.ys, prompt.labels, strict=True):
            clicked[self._pixel(x, y)] |= on
        logits = logits_to_slice(prediction.logits, view, *self.slice_shape).cpu().numpy()
        cut, piece = piece_under(logits, clicked, most)
        mask = logits > cut
        return self._only(piece if piece.any() else mask, mask, prediction._replace(logits=prediction.logits - cut), view)[1]

    def _without_refused(
        self,
        target: SegmentedObject,
        index: int,
        before: SliceRecord | None,
        mask: _Mask,
        prediction: MaskPrediction,
        view: View,
    ) -> tuple[_Mask, MaskPrediction]:
        """What is left of an answer after clicks beside the object. Where that is nothing, the object is not on this slice.

        A slice on which nobody said where the object is, only where it is not, stays empty if it was; a click in the middle of
        a piece removes the piece, and so does a second click on one that the network holds on to.
        """
        clicks = target.clicks.get(index, ())
        beside = [
            self._pixel(x, y) for points in clicks for x, y, on in zip(points.xs, points.ys, points.labels, strict=True) if not on
        ]
        located = index in target.boxes or any(any(points.labels) for points in clicks)
        painted = any(isinstance(spoken, Painted) and spoken.slice_index == index for spoken in target.spoken)
        if beside and not (located or painted):
            if before is None or before.packed.empty:
                mask = np.zeros_like(mask)
            else:
                refused = _pieces_hit(before.mask, beside)
                kept = _without_pieces_under(mask & ~pieces_touching(mask, refused), beside)
                mask, prediction = self._only(kept, mask, prediction, view)
        if beside and not mask.any():
            prediction = absent(self.network, prediction)
        return mask, prediction

    def _adopt(self, target: SegmentedObject, prompt: MaskPrompt) -> SliceResult:
        """Takes a painted mask as the slice's answer, to the pixel."""
        if target.view.cuts(prompt.mask):
            target.view = self._widened(target.view, _bounding_box(prompt.mask))
        index, view = prompt.slice_index, target.view
        target.boxes.pop(index, None)
        target.clicks.pop(index, None)
        frame = mask_to_frame(prompt.mask, view, self.network.config.image_size)
        features = self._features(target, index, view)
        prediction = self.network.adopt_mask(features, frame[None].to(self.network.device))
        return self._prompted(target, index, view, prediction, prompt.mask)

    def _prompted(self, target: SegmentedObject, index: int, view: View, prediction: MaskPrediction, mask: _Mask) -> SliceResult:
        """Keeps the answer to a prompt; its memory is made when the next pass begins."""
        direction = target.tracker.tracked_direction.get(index, FORWARD)
        record = self._record(target, index, view, direction, prediction, mask, prompted=True)
        target.tracker.expect(self.memory(index, record, record.view, prompted=True))
        return SliceResult(target.name, index, record.mask, record.confidence)

    # ── passes ────────────────────────────────────────────────────────────────────────────────────────────────

    def track(
        self, target: SegmentedObject, index: int, direction: int, leader: SliceRecord | None, coming: Sequence[int]
    ) -> SliceResult:
        """The mask of a slice from the object's memories.

        leader  the slice before, where the pass comes from there: some networks get its mask as a hint, and what does not
                touch it is dropped
        coming  this slice and those after it in this direction, as far as they are encoded at once
        """
        follow = self.network.config.follow_mask
        target.tracker.settle()
        view = target.view if leader is None else leader.view
        moved = False
        while True:
            self.embeddings.prefetch(coming, view, direction)
            features = self.embeddings.features(index, view, direction)
            self._refresh_memories(target, index, features, direction, view)
            doubt, depth = self._depth(target, index, direction, view)
            hint = self._hint(target, index, direction, leader, view, doubt)
            prediction = target.tracker.answer(index, features, direction, hint, doubt, depth)
            mask = self._to_mask(prediction.logits, view)
            if follow and leader is not None and not leader.packed.empty:  # the next slice would follow strays
                mask, prediction = self._only(pieces_touching(mask, leader.mask), mask, prediction, view)
            if not view.cuts(mask):
                break
            view, moved = self._towards(view, mask, moved), True
        record = self._record(target, index, view, direction, prediction, mask, prompted=False)
        memory = self.memory(index, record, view, prompted=False)
        memory.look()  # while the features are at hand
        target.tracker.remember(memory, direction)
        return SliceResult(target.name, index, record.mask, record.confidence)

    def _hint(
        self, target: SegmentedObject, index: int, direction: int, leader: SliceRecord | None, view: View, doubt: float
    ) -> Tensor | None:
        """(1, 1, L, L) logits that a network which follows masks is told: of the slice before, and what a draft says.

        doubt  as `_depth` says it
        """
        if not self.network.config.follow_mask:
            return None
        before = None if leader is None else self.logits_through(leader, view)
        drafted = self._drafted(target, index)
        if drafted is None:
            return before
        draft = self._seen_through(drafted.logits, drafted.view, view).clamp(-ROUGH_MASK_BOUND, ROUGH_MASK_BOUND)
        if before is None or len(target.anchors) > 1:
            return draft
        share = draft_share(draft, before, target.areas_before(index, direction), doubt)
        return torch.lerp(before.clamp(-ROUGH_MASK_BOUND, ROUGH_MASK_BOUND), draft, share)

    def _drafted(self, target: SegmentedObject, index: int) -> DraftedSlice | None:
        if self.drafts is None or not self.options.drafts:
            return None
        others = (other for other in target.anchors if other != index and other in target.records)
        return self.drafts.at(index, {other: target.records[other].packed for other in others})

    def _only(self, kept: _Mask, mask: _Mask, prediction: MaskPrediction, view: View) -> tuple[_Mask, MaskPrediction]:
        """A mask and its answer with only some of its pixels; an answer that has none left is that the object is not here."""
        dropped = mask & ~kept
        if not dropped.any():
            return mask, prediction
        if not kept.any():
            return kept, absent(self.network, prediction)
        return kept, prediction._replace(logits=self._ruled_out(prediction.logits, dropped, view))

    def _ruled_out(self, logits: Tensor, dropped: _Mask, view: View) -> Tensor:
        """(1, 1, L, L) logits that say no where pixels of the slice were dropped."""
        where = mask_to_frame(dropped, view, logits.shape[-1]).to(logits.device) > 0
        return logits.masked_fill(where, -ROUGH_MASK_BOUND)

    def _depth(self, target: SegmentedObject, index: int, direction: int, view: View) -> tuple[float, SliceDepth | None]:
        """What the expected depth says against a slice, and where it lies; nothing where a person said how far the object
        reaches."""
        shown = target.shown
        if not shown or target.limits:
            return 0.0, None
        nearest = min(shown, key=lambda other: abs(other - index))
        place = self._place(target, index, nearest, direction, view)
        prior = self.options.depth_prior
        if prior is None or shown[0] < index < shown[-1]:
            return 0.0, place
        # Counted from where the object is widest: a tip that somebody pointed out says little of how deep it is.
        widest = max(shown, key=lambda other: self._radius(target.records[other]))
        seen = next((index - back * direction for back in (1, 2, 3) if target.is_on(index - back * direction)), nearest)
        share = target.records[seen].packed.pixels / target.records[widest].packed.pixels
        depth_mm, seen_mm = (abs(other - widest) * self.spacing[0] for other in (index, seen))
        return prior.doubt(depth_mm, self._radius(target.records[widest]), seen_mm, share), place

    def _place(self, target: SegmentedObject, index: int, nearest: int, direction: int, view: View) -> SliceDepth:
        """Where a slice lies, for the network; `nearest` is the nearest slice on which a person said where the object is."""
        slice_mm, row_mm, column_mm = self.spacing
        distance, radius = abs(index - nearest) * slice_mm, self._radius(target.records[nearest])
        pixel_mm = math.sqrt(view.height * row_mm * view.width * column_mm) / self.network.config.image_size
        ahead = target.anchor_ahead(index, direction)
        ahead_mm = 0.0 if ahead is None else abs(ahead - index) * slice_mm
        place = SliceDepth(
            torch.tensor([distance / pixel_mm]),
            torch.tensor([slice_mm / pixel_mm]),
            torch.tensor([radius / pixel_mm]),
            torch.tensor([ahead_mm / pixel_mm]),
            torch.tensor([ahead is not None and target.is_on(ahead)]),
        )
        return place.to(self.network.device)

    def _radius(self, record: SliceRecord) -> float:
        """Half the mean side of the bounding box of a slice's mask, mm."""
        top, bottom, left, right = record.packed.box
        _, row_mm, column_mm = self.spacing
        return ((right - left) * column_mm + (bottom - top) * row_mm) / 4

    # ── what a person approved ────────────────────────────────────────────────────────────────────────────────

    def approve(self, target: SegmentedObject, index: int, shown: _Mask) -> None:
        """The slice is to stay as it is shown."""
        record = target.records.get(index)
        if record is None or not (dropped := record.mask & ~shown).any():
            return
        logits = self._ruled_out(record.logits.float(), dropped, record.view)
        target.records[index] = record = replace(record, packed=PackedMask.of(shown), kept=self._kept(logits))
        if target.is_prompted(index):
            target.tracker.expect(self.memory(index, record, record.view, prompted=True))

    def disapprove(self, target: SegmentedObject, index: int) -> None:
        """Takes back that a slice was approved: if it was tracked, it is one among others again."""
        record = target.records.get(index)
        if record is not None and not target.is_prompted(index) and index in target.tracker.bank.conditioning:
            target.tracker.bank.forget(index)
            self.remember_again(target, index)

    def heed_approved(self, target: SegmentedObject) -> None:
        """Conditions the passes to come on locked slices that have a mask, as on prompted ones.

        Of locked slices side by side only those that a pass leaves from: a network that was trained with a few conditioning
        slices is not to look at a hundred, and what lies further in is behind them.
        """
        conditioning = target.tracker.bank.conditioning
        anchors = target.anchors
        for index in sorted(target.locked):
            record = target.records.get(index)
            if record is None or record.packed.empty or target.is_prompted(index):
                continue
            if {index - 1, index + 1} <= anchors:
                self.disapprove(target, index)
            elif index not in conditioning:
                target.tracker.bank.add_conditioning(self.memory(index, record, record.view, prompted=True))

    def remember_again(self, target: SegmentedObject, index: int) -> None:
        """A tracked slice that was to be segmented again stays as it is, and is remembered as before."""
        record = target.records.get(index)
        if record is not None:
            target.tracker.remember(self.memory(index, record, record.view, prompted=False), record.direction)

    # ── records and memories ──────────────────────────────────────────────────────────────────────────────────

    def _record(
        self,
        target: SegmentedObject,
        index: int,
        view: View,
        direction: int,
        prediction: MaskPrediction,
        mask: _Mask,
        prompted: bool,
    ) -> SliceRecord:
        """Keeps a slice's answer."""
        confidence = SliceConfidence(float(prediction.iou), float(prediction.object_score.sigmoid()), prompted)
        record = SliceRecord(
            packed=PackedMask.of(mask),
            kept=self._kept(prediction.logits),
            view=view,
            direction=direction,
            confidence=confidence,
            pointer=prediction.pointer.float(),
            iou=prediction.iou.float(),
            object_score=prediction.object_score.float(),
        )
        target.records[index] = record
        return record

    def _kept(self, logits: Tensor) -> KeptLogits:
        return KeptLogits(logits, math.prod(self.slice_shape))

    def memory(self, index: int, record: SliceRecord, view: View, prompted: bool) -> LateMemory:
        """The memory of a slice as seen through a view. It is made of what is kept of the slice, so it can be made again,
        the same bit for bit wherever the slice's features are."""

        def make() -> Parts:
            features = self.embeddings.features(index, view, record.direction)
            logits = self.logits_through(record, view)
            return Parts.of(self.network, features, logits, record.object_score, prompted, torch.bfloat16)

        return LateMemory(index, record.pointer, record.iou, record.object_score, view, make, record, prompted)

    def _refresh_memories(
        self, target: SegmentedObject, index: int, features: ImageFeatures, direction: int, view: View
    ) -> None:
        """Memories made through another view than a slice's are made anew before it looks at them, in `direction`."""
        while stale := target.tracker.stale(index, features, direction, view):
            for entry in stale:
                assert isinstance(entry, LateMemory)
                assert entry.record is not None
                renewed = self.memory(entry.slice_index, entry.record, view, entry.prompted)
                target.tracker.bank.renew(renewed)

    def logits_through(self, record: SliceRecord, view: View) -> Tensor:
        """(1, 1, L, L) logits of a segmented slice, as seen through a view."""
        return self._seen_through(record.logits.float().to(self.network.device), record.view, view)

    def _seen_through(self, logits: Tensor, seen: View, view: View) -> Tensor:
        """(1, 1, L, L) logits through a view, of logits (1, 1, l, l) of the same slice through another one."""
        side = self.network.config.logits_size
        if seen == view and logits.shape[-1] == side:
            return logits
        return logits_to_frame(logits_to_slice(logits, seen, *self.slice_shape), view, side)

    def _features(self, target: SegmentedObject, index: int, view: View) -> ImageFeatures:
        """Of a slice, as the object's last pass saw it."""
        return self.embeddings.features(index, view, target.tracker.tracked_direction.get(index, FORWARD))

    def _to_mask(self, logits: Tensor, view: View) -> _Mask:
        kept = rounded(logits, math.prod(self.slice_shape))  # so that the mask is that of what is kept
        mask: _Mask = (logits_to_slice(kept, view, *self.slice_shape) > 0).cpu().numpy()
        cell = view.height * view.width / logits.shape[-1] ** 2  # slice pixels per cell of the logits
        hole = int(self.options.fill_hole_cells * cell)
        return fill_holes(mask, hole) if hole and mask.any() else mask

    # ── views ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _first_view(self, prompt: SlicePrompt) -> View:
        if self.options.zoom is None:
            return View.whole(*self.slice_shape)
        if isinstance(prompt, Points):
            return self._surest_view(prompt)
        return View.around(_extent(prompt), self.options.zoom, *self.slice_shape)

    def _surest_view(self, prompt: Points) -> View:
        """Around the clicks, the view in which the network expects its mask to be best."""
        box = _extent(prompt)
        longest = max(box[2] - box[0] + 1, box[3] - box[1] + 1)
        sides = [max(share * max(self.slice_shape) / longest, _WIDEN_FACTOR) for share in _CLICK_VIEW_SHARES]
        views = {View.around(box, zoom, *self.slice_shape) for zoom in sides}

        def expected_iou(view: View) -> float:
            trial = SegmentedObject("trial", self.new_tracker(), view, clicks={prompt.slice_index: (prompt,)})
            features = self.embeddings.features(prompt.slice_index, view)
            points = self._point_tensors(trial, prompt.slice_index, view)
            prediction = trial.tracker.answer_points(prompt.slice_index, features, points)
            mask = self._to_mask(prediction.logits, view)
            return float(prediction.iou) - float(view.cuts(mask) or not mask.any())

        return max(sorted(views, key=lambda view: view.width), key=expected_iou)

    def _view_of(self, target: SegmentedObject, prompt: SlicePrompt) -> View:
        """Of a slice that is prompted: as the slice was seen, or the nearest one with the object, wide enough for the prompt."""
        extent, index = _extent(prompt), prompt.slice_index
        seen = [other for other in target.records if other == index or target.is_on(other)]
        view = target.records[min(seen, key=lambda other: abs(other - index))].view if seen else target.view
        return view if view.shows(extent) else self._widened(view, extent)

    def _towards(self, view: View, mask: _Mask, moved: bool) -> View:
        """Where to look for the rest of a mask that reaches the view's edge: it is followed, and only where that is not enough
        the view gets wider. What is seen smaller is seen less well."""
        box = _bounding_box(mask)
        followed = view.moved_to(box, *self.slice_shape)
        return self._widened(view, box) if moved or followed == view else followed

    def _widened(self, view: View, box: tuple[float, float, float, float]) -> View:
        return view.widened(box, _WIDEN_FACTOR, *self.slice_shape)

    def _point_tensors(self, target: SegmentedObject, index: int, view: View) -> PointTensors:
        return point_tensors(self.network, view, target.boxes.get(index), target.clicks.get(index, ()))

    def _pixel(self, x: float, y: float) -> tuple[int, int]:
        """Row and column of the pixel that a point lies on; points on the slice's outer edge count to the pixel inside."""
        rows, columns = self.slice_shape
        return min(max(round(y), 0), rows - 1), min(max(round(x), 0), columns - 1)


def _pieces_hit(mask: _Mask, pixels: Sequence[tuple[int, int]]) -> _Mask:
    """The pieces of a mask in whose middle one of the pixels lies."""
    hit = np.zeros_like(mask)
    for pixel in pixels:
        if not mask[pixel]:
            continue
        piece = _piece_at(mask, pixel)
        depth = depths(piece)
        if depth[pixel] >= _MIDDLE * depth.max():
            hit |= piece
    return hit


def _without_pieces_under(mask: _Mask, pixels: Sequence[tuple[int, int]]) -> _Mask:
    """A mask without those of its pieces on which two or more of the pixels lie."""
    kept = mask.copy()
    for pixel in pixels:
        piece = _piece_at(mask, pixel)
        if sum(piece[other] for other in pixels) >= 2:
            kept &= ~piece
    return kept


def _piece_at(mask: _Mask, pixel: tuple[int, int]) -> _Mask:
    """The piece of a mask that a pixel lies on; empty where it lies beside the mask."""
    here = np.zeros_like(mask)
    here[pixel] = True
    return pieces_touching(mask, here)


def _extent(prompt: SlicePrompt) -> tuple[float, float, float, float]:
    """(x0, y0, x1, y1) of what a prompt speaks of."""
    if isinstance(prompt, Box):
        return prompt.x0, prompt.y0, prompt.x1, prompt.y1
    if isinstance(prompt, Points):
        return min(prompt.xs), min(prompt.ys), max(prompt.xs), max(prompt.ys)
    return _bounding_box(prompt.mask)


def _bounding_box(mask: _Mask) -> tuple[float, float, float, float]:
    """Inclusive (x0, y0, x1, y1) of a mask that has a pixel."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return float(columns[0]), float(rows[0]), float(columns[-1]), float(rows[-1])
