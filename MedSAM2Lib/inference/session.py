"""The interactive state of one volume: objects, their prompts, their masks. The only class that front ends know.

    session = Session(load_model("nano", device))
    session.set_volume(read_volume("ct.nrrd"), axis="k", window="auto")
    session.add_prompt("liver", Box(42, 80, 60, 210, 190))
    for result in session.propagate():
        show(result)
    mask = session.mask("liver")        # (k, j, i) bool

Prompts are checked at this door; a prompt that does not fit raises PromptError and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from MedSAM2Lib.checkpoints.loading import LoadedModel
from MedSAM2Lib.errors import OptionError, PromptError, UsageError
from MedSAM2Lib.frames import View, logits_to_frame, logits_to_slice, mask_to_frame
from MedSAM2Lib.inference.embeddings import Embeddings
from MedSAM2Lib.inference.objects import SegmentedObject, SliceConfidence, SliceRecord, SliceResult
from MedSAM2Lib.inference.order import Step, outward
from MedSAM2Lib.inference.tracker import Tracker
from MedSAM2Lib.intensity import apply_window, resolve_window
from MedSAM2Lib.memory.bank import RecentBank
from MedSAM2Lib.network.prompt_encoder import PointLabel
from MedSAM2Lib.network.sam2 import ImageFeatures, MaskPrediction, PointTensors
from MedSAM2Lib.postprocess import fill_holes, largest_component
from MedSAM2Lib.prompts import Box, Box3D, MaskPrompt, Points, Prompt, RecistLine
from MedSAM2Lib.volume import Volume

__all__ = ["Session", "SessionOptions"]


@dataclass(frozen=True)
class SessionOptions:
    """How a session segments. Defaults suit a person in a hurry; each can be switched off."""

    zoom: float | None = None  # side of the view in sides of the prompt's box; None: the whole slice, as SAM 2 does
    stop_after: int = 3  # a direction ends after this many slices in a row without the object; 0: never
    fill_hole_cells: int = 8  # background specks of up to this many cells of the S / 4 grid are filled (SAM 2); 0: none
    keep_largest: bool = True  # of an object's 3D mask, keep only the largest connected piece
    cache_bytes: int = 2 * 2**30  # image features kept
    encoder_batch: int | None = None  # slices encoded at once; None: 1 on a CPU, 8 on a GPU


_WIDEN_FACTOR = 1.5  # of a view whose edge the mask reaches
# A click tells where, not how large. These shares of the longer slice side are tried, and the surest answer is kept.
_CLICK_VIEW_SHARES = (0.125, 0.25, 0.5, 1.0)


class Session:
    def __init__(self, model: LoadedModel, options: SessionOptions | None = None) -> None:
        self.model = model
        self.options = options or SessionOptions(zoom=model.zoom)
        self._network = model.network
        self._objects: dict[str, SegmentedObject] = {}
        self._volume: Volume | None = None

    # ── the volume ────────────────────────────────────────────────────────────────────────────────────────────

    def set_volume(self, volume: Volume, axis: str = "k", window: str = "auto") -> None:
        """Takes a volume to segment slice by slice along an axis; forgets every object of the one before.

        axis    k, j, i, axial, coronal or sagittal: slices are numbered along it
        window  see `intensity.resolve_window`; applied to a copy of each slice, the volume is not changed
        """
        array_axis = volume.geometry.array_axis(axis)
        resolved = resolve_window(window, volume)
        stack = np.moveaxis(volume.array, array_axis, 0)  # (slices, rows, columns), a view
        self._volume, self._axis, self.window = volume, array_axis, resolved
        self.slice_count, self._rows, self._columns = stack.shape
        batch = self.options.encoder_batch or (1 if self._network.device.type == "cpu" else 8)
        self.embeddings = Embeddings(
            self._network,
            lambda index: apply_window(stack[index], resolved),
            byte_budget=self.options.cache_bytes,
            batch=batch,
        )
        self._objects = {}

    @property
    def slice_shape(self) -> tuple[int, int]:
        """Rows and columns of a slice."""
        return self._rows, self._columns

    @property
    def objects(self) -> list[str]:
        return list(self._objects)

    def reset(self) -> None:
        """Forgets every object; the volume and its image features stay."""
        self._objects = {}

    def remove_object(self, name: str) -> None:
        self._object(name)
        del self._objects[name]

    # ── prompts ───────────────────────────────────────────────────────────────────────────────────────────────

    @torch.inference_mode()
    def add_prompt(self, name: str, prompt: Prompt) -> SliceResult:
        """The object's mask on the prompt's slice, at once. The first prompt of a name makes the object.

        A box or a mask starts its slice anew; clicks add to what its slice has. On a slice that was propagated to, the
        prompt is a correction: it sees the object's memories, clicks also the mask they correct.
        """
        self._checked_volume()
        limits = (prompt.first, prompt.last) if isinstance(prompt, Box3D) else None
        simple = self._checked(prompt)
        target = self._objects.get(name) or self._new_object(name, simple)
        target.limits = limits or target.limits
        result = self._adopt(target, simple) if isinstance(simple, MaskPrompt) else self._answer(target, simple)
        self._objects[name] = target
        return result

    def _answer(self, target: SegmentedObject, prompt: Box | Points) -> SliceResult:
        """The mask from a slice's box and clicks, in a view wide enough to show it whole."""
        index = prompt.slice_index
        if isinstance(prompt, Box):  # says anew where the object is; what the slice had is not worth keeping
            target.boxes[index], target.clicks[index] = prompt, []
        else:
            target.clicks.setdefault(index, []).append(prompt)
        corrected = None if isinstance(prompt, Box) else target.records.get(index)
        while True:
            view = target.view
            self._refresh_memories(target, index, target.tracker.tracked_direction.get(index, 1))
            points = self._point_tensors(target, index, view)
            previous = None if corrected is None else self._logits_through(corrected, view)
            prediction = target.tracker.prompt(index, self.embeddings.features(index, view), points, previous)
            mask = self._to_mask(prediction.logits, view)
            if not view.cuts(mask):
                return self._record(target, index, view, prediction, mask, prompted=True)
            target.view = self._widened(view, mask)

    def _adopt(self, target: SegmentedObject, prompt: MaskPrompt) -> SliceResult:
        """Takes a painted mask as the slice's answer, to the pixel."""
        index, view = prompt.slice_index, target.view
        if view.cuts(prompt.mask):
            view = target.view = self._widened(view, prompt.mask)
        target.boxes.pop(index, None)
        target.clicks.pop(index, None)
        frame = mask_to_frame(prompt.mask, view, self._network.config.image_size)
        features = self.embeddings.features(index, view)
        prediction = target.tracker.adopt_mask(index, features, frame[None].to(self._network.device))
        return self._record(target, index, view, prediction, prompt.mask.copy(), prompted=True)

    def _new_object(self, name: str, prompt: Box | Points | MaskPrompt) -> SegmentedObject:
        if not name:
            raise PromptError("An object needs a name; give one before the first prompt.")
        view = self._first_view(prompt)
        mask = np.zeros((self.slice_count, *self.slice_shape), dtype=bool)
        return SegmentedObject(name, self._new_tracker(), view, mask)

    def _new_tracker(self) -> Tracker:
        config = self._network.config
        return Tracker(self._network, RecentBank(config.memory_slots, config.max_object_pointers), self.slice_count)

    def _first_view(self, prompt: Box | Points | MaskPrompt) -> View:
        whole = View.whole(*self.slice_shape)
        zoom = self.options.zoom
        if zoom is None:
            return whole
        if isinstance(prompt, Box):
            return View.around((prompt.x0, prompt.y0, prompt.x1, prompt.y1), zoom, *self.slice_shape)
        if isinstance(prompt, MaskPrompt):
            return View.around(_bounding_box(prompt.mask), zoom, *self.slice_shape)
        return self._surest_view(prompt)

    def _surest_view(self, prompt: Points) -> View:
        """Around the clicks, the view in which the network expects its mask to be best."""
        box = (min(prompt.xs), min(prompt.ys), max(prompt.xs), max(prompt.ys))
        longest = max(box[2] - box[0] + 1, box[3] - box[1] + 1)
        sides = [max(share * max(self.slice_shape) / longest, _WIDEN_FACTOR) for share in _CLICK_VIEW_SHARES]
        views = {View.around(box, zoom, *self.slice_shape) for zoom in sides}

        def expected_iou(view: View) -> float:
            trial = SegmentedObject("trial", self._new_tracker(), view, np.zeros((self.slice_count, 0, 0), dtype=bool))
            trial.clicks[prompt.slice_index] = [prompt]
            features = self.embeddings.features(prompt.slice_index, view)
            points = self._point_tensors(trial, prompt.slice_index, view)
            prediction = trial.tracker.prompt(prompt.slice_index, features, points)
            mask = self._to_mask(prediction.logits, view)
            return float(prediction.iou) - float(view.cuts(mask) or not mask.any())

        return max(sorted(views, key=lambda view: view.width), key=expected_iou)

    def _point_tensors(self, target: SegmentedObject, index: int, view: View) -> PointTensors:
        """The box and clicks of a slice in pixels of the network's image; box corners come first."""
        side = self._network.config.image_size
        coordinates, labels = [], []
        if box := target.boxes.get(index):
            coordinates.append(view.box_to_frame((box.x0, box.y0, box.x1, box.y1), side))
            labels += [PointLabel.BOX_TOP_LEFT, PointLabel.BOX_BOTTOM_RIGHT]
        for points in target.clicks.get(index, []):
            coordinates.append(view.to_frame(points.xs, points.ys, side))
            labels += [PointLabel.POSITIVE if positive else PointLabel.NEGATIVE for positive in points.labels]
        device = self._network.device
        return PointTensors(
            torch.from_numpy(np.concatenate(coordinates))[None].to(device), torch.tensor([labels], dtype=torch.int32, device=device)
        )

    # ── propagation ───────────────────────────────────────────────────────────────────────────────────────────

    def plan(
        self, objects: Sequence[str] | None = None, first: int | None = None, last: int | None = None
    ) -> list[tuple[str, Step]]:
        """What `propagate` would do, in order: objects side by side, slices nearest to a prompt first."""
        self._checked_volume()
        names = self.objects if objects is None else list(objects)
        if not names:
            raise UsageError("There is nothing to propagate yet; draw a box (or another prompt) on one slice first.")
        first, last = self._checked_range(first, last)
        routes = {}
        for name in names:
            target = self._object(name)
            low, high = target.limits or (first, last)
            routes[name] = list(outward(target.prompted, max(first, low), min(last, high)))
        longest = max(len(route) for route in routes.values())
        return [(name, route[turn]) for turn in range(longest) for name, route in routes.items() if turn < len(route)]

    def propagate(
        self, objects: Sequence[str] | None = None, first: int | None = None, last: int | None = None
    ) -> Iterator[SliceResult]:
        """Segments the slices around the prompts, in both directions, and yields each as it is ready.

        objects      names; None for all. Objects share the image features of a slice
        first, last  slices to stay within, inclusive; None for the ends of the volume

        Stopping the iteration is the way to cancel: what was yielded stays, the rest is as before. A direction ends
        after `stop_after` slices in a row without the object; the slices beyond it become empty.
        """
        plan = self.plan(objects, first, last)
        for target in {name: self._object(name) for name, _ in plan}.values():
            with torch.inference_mode():
                for direction in (1, -1):
                    target.tracker.start_pass(direction)
        absent: dict[tuple[str, int], int] = {}
        for position, (name, (index, direction)) in enumerate(plan):
            target = self._object(name)
            if self.options.stop_after and absent.get((name, direction), 0) >= self.options.stop_after:
                self._forget_slice(target, index)
                continue
            ahead = [step[0] for other, step in plan[position:] if other == name and step[1] == direction]
            result = self._track(target, index, direction, ahead)
            seen = result.mask.any()
            absent[name, direction] = 0 if seen else absent.get((name, direction), 0) + 1
            yield result

    @torch.inference_mode()
    def _track(self, target: SegmentedObject, index: int, direction: int, ahead: Sequence[int]) -> SliceResult:
        while True:
            view = target.view
            self.embeddings.prefetch(ahead, view)
            features = self.embeddings.features(index, view)
            self._refresh_memories(target, index, direction)
            neighbour = target.records.get(index - direction)
            hint = None if neighbour is None else self._logits_through(neighbour, view)
            prediction = target.tracker.track(index, features, direction, hint)
            mask = self._to_mask(prediction.logits, view)
            if not view.cuts(mask):
                return self._record(target, index, view, prediction, mask, prompted=False)
            target.view = self._widened(view, mask)

    def _widened(self, view: View, mask: npt.NDArray[np.bool_]) -> View:
        return view.widened(_bounding_box(mask), _WIDEN_FACTOR, *self.slice_shape)

    def _refresh_memories(self, target: SegmentedObject, index: int, direction: int) -> None:
        """Memories made through an earlier, narrower view are made anew before a slice looks at them."""

        def encode_stale(other: int) -> ImageFeatures:
            target.memory_views[other] = target.view
            return self.embeddings.features(other, target.view)

        target.tracker.reframe(
            index,
            direction,
            encode=encode_stale,
            logits_of=lambda other: self._logits_through(target.records[other], target.view),
            is_stale=lambda other: target.memory_views[other] != target.view,
        )

    def _forget_slice(self, target: SegmentedObject, index: int) -> None:
        target.mask[index] = False
        target.records.pop(index, None)

    # ── results ───────────────────────────────────────────────────────────────────────────────────────────────

    def mask(self, name: str) -> npt.NDArray[np.bool_]:
        """(k, j, i) bool on the volume's grid, a copy; post-processed as the options say."""
        mask: npt.NDArray[np.bool_] = np.ascontiguousarray(np.moveaxis(self._object(name).mask, 0, self._axis))
        return largest_component(mask) if self.options.keep_largest else mask.copy()

    def confidence(self, name: str) -> dict[int, SliceConfidence]:
        """By slice index, for every slice that was segmented."""
        records = self._object(name).records
        return {index: records[index].confidence for index in sorted(records)}

    def _record(
        self,
        target: SegmentedObject,
        index: int,
        view: View,
        prediction: MaskPrediction,
        mask: npt.NDArray[np.bool_],
        prompted: bool,
    ) -> SliceResult:
        """Keeps a slice's answer."""
        confidence = SliceConfidence(float(prediction.iou), float(prediction.object_score.sigmoid()), prompted)
        target.records[index] = SliceRecord(prediction.logits.half().cpu(), view, confidence)
        target.memory_views[index] = view
        target.mask[index] = mask
        return SliceResult(target.name, index, mask, confidence)

    def _to_mask(self, logits: Tensor, view: View) -> npt.NDArray[np.bool_]:
        mask: npt.NDArray[np.bool_] = (logits_to_slice(logits, view, *self.slice_shape) > 0).cpu().numpy()
        cell = view.height * view.width / logits.shape[-1] ** 2  # slice pixels per cell of the logits
        hole = int(self.options.fill_hole_cells * cell)
        return fill_holes(mask, hole) if hole and mask.any() else mask

    def _logits_through(self, record: SliceRecord, view: View) -> Tensor:
        """(1, 1, S / 4, S / 4) logits of a segmented slice, as seen through a view."""
        logits = record.logits.float().to(self._network.device)
        if record.view == view:
            return logits
        return logits_to_frame(logits_to_slice(logits, record.view, *self.slice_shape), view, logits.shape[-1])

    # ── the door ──────────────────────────────────────────────────────────────────────────────────────────────

    def _checked_volume(self) -> Volume:
        if self._volume is None:
            raise UsageError("The session has no volume yet; call set_volume first.")
        return self._volume

    def _object(self, name: str) -> SegmentedObject:
        if name not in self._objects:
            known = ", ".join(self._objects) or "none yet"
            raise OptionError(f"There is no object {name!r}; objects are: {known}.")
        return self._objects[name]

    def _checked_range(self, first: int | None, last: int | None) -> tuple[int, int]:
        low = 0 if first is None else first
        high = self.slice_count - 1 if last is None else last
        if not 0 <= low <= high < self.slice_count:
            raise OptionError(f"A slice range is FIRST:LAST within 0:{self.slice_count - 1}, but {low}:{high} came.")
        return low, high

    def _checked(self, prompt: Prompt) -> Box | Points | MaskPrompt:
        """The prompt in its simplest form, sure to fit the volume."""
        if isinstance(prompt, Box3D):
            self._check_slice(prompt.last)
            prompt = prompt.middle_box()
        self._check_slice(prompt.slice_index)
        if isinstance(prompt, RecistLine):
            self._check_inside("line", [prompt.x0, prompt.x1], [prompt.y0, prompt.y1])
            return self._clipped(prompt.to_box())
        if isinstance(prompt, Box):
            self._check_inside("box", [prompt.x0, prompt.x1], [prompt.y0, prompt.y1])
        elif isinstance(prompt, Points):
            self._check_inside("point", prompt.xs, prompt.ys)
        elif prompt.mask.shape != self.slice_shape:
            raise PromptError(
                f"The mask prompt must have the slice's {self.slice_shape} rows and columns, but it has {prompt.mask.shape}."
            )
        return prompt

    def _check_slice(self, index: int) -> None:
        if not 0 <= index < self.slice_count:
            raise PromptError(
                f"The slice index must lie within 0..{self.slice_count - 1} along the slicing axis, but {index} came."
            )

    def _check_inside(self, what: str, xs: Sequence[float], ys: Sequence[float]) -> None:
        if min(xs) < -0.5 or min(ys) < -0.5 or max(xs) > self._columns - 0.5 or max(ys) > self._rows - 0.5:
            given = " ".join(f"{x:g},{y:g}" for x, y in zip(xs, ys, strict=True))
            raise PromptError(
                f"The {what} must lie on the slice, X (column) within 0..{self._columns - 1} and Y (row) within "
                f"0..{self._rows - 1}, but {given} came; is X,Y the other way round, or is it another slicing axis?"
            )

    def _clipped(self, box: Box) -> Box:
        return Box(
            box.slice_index, max(box.x0, 0), max(box.y0, 0), min(box.x1, self._columns - 1), min(box.y1, self._rows - 1)
        )


def _bounding_box(mask: npt.NDArray[np.bool_]) -> tuple[float, float, float, float]:
    """Inclusive (x0, y0, x1, y1) of a mask that has a pixel."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return float(columns[0]), float(rows[0]), float(columns[-1]), float(rows[-1])
