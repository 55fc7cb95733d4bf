"""The interactive state of one volume: objects, their prompts, their masks. The only class that front ends know.

    session = Session(load_model("nano", device))
    session.set_volume(read_volume("ct.nrrd"), axis="k", window="auto")
    session.add_prompt("liver", Box(42, 80, 60, 210, 190))
    for result in session.propagate():
        show(result)
    mask = session.mask("liver")        # (k, j, i) bool

Prompts are checked at this door; a prompt that does not fit raises PromptError and changes nothing. Nor does a call that
is interrupted or runs out of memory: work is done on a copy of the object, which takes its place at the end.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from MedSAM2Lib.checkpoints.loading import LoadedModel
from MedSAM2Lib.depth_prior import DepthPrior
from MedSAM2Lib.errors import OptionError, PromptError, UsageError
from MedSAM2Lib.frames import View, logits_to_frame, logits_to_slice, mask_to_frame
from MedSAM2Lib.inference.embeddings import Embeddings
from MedSAM2Lib.inference.objects import SegmentedObject, SliceConfidence, SliceRecord, SliceResult
from MedSAM2Lib.inference.order import Step, outward
from MedSAM2Lib.inference.tracker import ROUGH_MASK_BOUND, Tracker
from MedSAM2Lib.intensity import apply_window, resolve_window
from MedSAM2Lib.memory.bank import RecentBank
from MedSAM2Lib.network.prompt_encoder import PointLabel
from MedSAM2Lib.network.sam2 import MaskPrediction, PointTensors
from MedSAM2Lib.postprocess import fill_holes, largest_component, pieces_touching
from MedSAM2Lib.prompts import Box, Box3D, MaskPrompt, Points, Prompt, RecistLine
from MedSAM2Lib.volume import Volume

__all__ = ["Session", "SessionOptions"]


@dataclass(frozen=True)
class SessionOptions:
    """How a session segments. Defaults suit a person in a hurry; each can be switched off."""

    zoom: float | None = None  # side of the view in sides of the prompt's box; None: the whole slice, as SAM 2 does
    depth_prior: DepthPrior | None = None  # how deep objects are expected to be; None: no expectation, as in SAM 2
    stop_after: int = 3  # a direction ends after this many slices in a row without the object; 0: never
    fill_hole_cells: int = 8  # background specks of up to this many cells of the S / 4 grid are filled (SAM 2); 0: none
    keep_largest: bool = True  # of an object's 3D mask, keep only the largest connected piece
    cache_bytes: int = 2 * 2**30  # image features kept
    encoder_batch: int | None = None  # slices encoded at once; None: 1 on a CPU, 8 on a GPU

    def __post_init__(self) -> None:
        if self.zoom is not None and not 1 <= self.zoom < math.inf:
            raise OptionError(f"The zoom is None for the whole slice, or a number from 1, but {self.zoom} came.")
        least = {"stop_after": 0, "fill_hole_cells": 0, "cache_bytes": 0, "encoder_batch": 1}
        for name, lowest in least.items():
            value = getattr(self, name)
            if value is not None and value < lowest:
                raise OptionError(f"The option {name} must be at least {lowest}, but {value} came.")


_LARGEST_LOGIT = 1024.0  # of logits that are kept, as float16; the same that an absent object has everywhere
_WIDEN_FACTOR = 1.5  # of a view whose edge the mask reaches
# A click tells where, not how large. These shares of the longer slice side are tried, and the surest answer is kept.
_CLICK_VIEW_SHARES = (0.125, 0.25, 0.5, 1.0)


@dataclass
class _Run:
    """How far an object was followed in one direction."""

    last: int | None = None  # the slice segmented last
    absent: int = 0  # slices in a row without the object


class Session:
    def __init__(self, model: LoadedModel, options: SessionOptions | None = None) -> None:
        self.model = model
        self.options = options or SessionOptions(zoom=model.zoom, depth_prior=model.depth_prior)
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
        spacing = [volume.geometry.spacing_along(other) for other in range(3)]
        self._stack_spacing = spacing.pop(array_axis), *spacing  # mm between slices, rows, columns
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
        simple = self._checked(prompt)
        known = self._objects.get(name)
        target = self._new_object(name, simple) if known is None else known.copy()
        if isinstance(prompt, Box3D):
            self._keep_within(target, prompt.first, prompt.last)
        if not target.view.shows(_extent(simple)):
            target.view = self._widened(target.view, _extent(simple))
        result = self._adopt(target, simple) if isinstance(simple, MaskPrompt) else self._answer(target, simple)
        self._objects[name] = target
        return result

    def _answer(self, target: SegmentedObject, prompt: Box | Points) -> SliceResult:
        """The mask from a slice's box and clicks, in a view wide enough to show it whole."""
        index = prompt.slice_index
        corrected = None
        if isinstance(prompt, Box):  # says anew where the object is; what the slice had is not worth keeping
            target.boxes[index] = prompt
            target.clicks.pop(index, None)
        else:
            target.clicks[index] = (*target.clicks.get(index, ()), prompt)
            corrected = target.records.get(index)
        while True:
            view = target.view
            self._refresh_memories(target, index, target.tracker.tracked_direction.get(index))
            points = self._point_tensors(target, index, view)
            previous = None if corrected is None else self._logits_through(corrected, view)
            prediction = target.tracker.prompt(index, self.embeddings.features(index, view), points, previous, view)
            mask = self._to_mask(prediction.logits, view)
            if not view.cuts(mask):
                return self._record(target, index, view, prediction, mask, prompted=True)
            target.view = self._widened(view, _bounding_box(mask))

    def _adopt(self, target: SegmentedObject, prompt: MaskPrompt) -> SliceResult:
        """Takes a painted mask as the slice's answer, to the pixel."""
        if target.view.cuts(prompt.mask):
            target.view = self._widened(target.view, _bounding_box(prompt.mask))
        index, view = prompt.slice_index, target.view
        target.boxes.pop(index, None)
        target.clicks.pop(index, None)
        frame = mask_to_frame(prompt.mask, view, self._network.config.image_size)
        features = self.embeddings.features(index, view)
        prediction = target.tracker.adopt_mask(index, features, frame[None].to(self._network.device), view)
        return self._record(target, index, view, prediction, prompt.mask.copy(), prompted=True)

    def _keep_within(self, target: SegmentedObject, first: int, last: int) -> None:
        """Limits an object to slices; those on which a person spoke stay."""
        target.limits = first, last
        for index in set(target.records) - set(target.prompted):
            if not first <= index <= last:
                target.forget(index)

    def _new_object(self, name: str, prompt: Box | Points | MaskPrompt) -> SegmentedObject:
        if not name:
            raise PromptError("An object needs a name; give one before the first prompt.")
        return SegmentedObject(name, self._new_tracker(), self._first_view(prompt))

    def _new_tracker(self) -> Tracker:
        config = self._network.config
        return Tracker(self._network, RecentBank(config.memory_slots, config.max_object_pointers), self.slice_count)

    def _first_view(self, prompt: Box | Points | MaskPrompt) -> View:
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
            trial = SegmentedObject("trial", self._new_tracker(), view, clicks={prompt.slice_index: (prompt,)})
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
        for points in target.clicks.get(index, ()):
            coordinates.append(view.to_frame(points.xs, points.ys, side))
            labels += [PointLabel.POSITIVE if positive else PointLabel.NEGATIVE for positive in points.labels]
        device = self._network.device
        placed = torch.from_numpy(np.concatenate(coordinates))[None].to(device)
        return PointTensors(placed, torch.tensor([labels], dtype=torch.int32, device=device))

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
    ) -> Generator[SliceResult, None, None]:
        """Segments the slices around the prompts, in both directions, and yields each as it is ready.

        objects      names; None for all. Objects share the image features of a slice
        first, last  slices to stay within, inclusive; None for the ends of the volume

        Stopping the iteration is the way to cancel: what was yielded stays, the rest is as before. A direction ends
        after `stop_after` slices in a row without the object; the slices beyond it become empty. While it goes on, a
        slice that is prompted is passed over, as is an object that is removed; a reset or another volume ends it.
        """
        return self._propagate(self.plan(objects, first, last), self._objects)

    def _propagate(
        self, plan: Sequence[tuple[str, Step]], objects: Mapping[str, SegmentedObject]
    ) -> Generator[SliceResult, None, None]:
        runs: dict[tuple[str, int], _Run] = {}
        for position, (name, (index, direction)) in enumerate(plan):
            if self._objects is not objects:  # a reset, or another volume
                return
            if position == 0:
                self._start_passes({name for name, _ in plan} & objects.keys())
            if name not in objects or not objects[name].may_track(index):
                continue
            run = runs.setdefault((name, direction), _Run())
            if objects[name].is_prompted(index - direction):
                run.last, run.absent = index - direction, 0
            if self.options.stop_after and run.absent >= self.options.stop_after:
                self._forget_slice(name, index)
                continue
            ahead = (step[0] for other, step in islice(plan, position, None) if other == name and step[1] == direction)
            coming = list(islice(ahead, self.embeddings.batch))
            result = self._track(name, index, direction, coming, follows=run.last == index - direction)
            run.last, run.absent = index, 0 if result.mask.any() else run.absent + 1
            yield result

    @contextmanager
    def _changing(self, name: str) -> Iterator[SegmentedObject]:
        """A copy of an object to work on, which takes its place when all went well."""
        target = self._object(name).copy()
        yield target
        self._objects[name] = target

    @torch.inference_mode()
    def _start_passes(self, names: Collection[str]) -> None:
        for name in names:
            with self._changing(name) as target:
                for direction in (1, -1):
                    target.tracker.start_pass(direction)

    def _forget_slice(self, name: str, index: int) -> None:
        with self._changing(name) as target:
            target.forget(index)

    @torch.inference_mode()
    def _track(self, name: str, index: int, direction: int, coming: Sequence[int], follows: bool) -> SliceResult:
        """The mask of a slice from the object's memories.

        coming   this slice and those after it in this direction, as far as they are encoded at once
        follows  the slice before was segmented in this pass, or is prompted
        """
        with self._changing(name) as target:
            # A network that follows the mask of the slice before gets it as a hint.
            follows = follows and self._network.config.follow_mask
            leader = target.records.get(index - direction) if follows else None
            target.tracker.settle()
            while True:
                view = target.view
                self.embeddings.prefetch(coming, view)
                features = self.embeddings.features(index, view)
                self._refresh_memories(target, index, direction)
                hint = None if leader is None else self._logits_through(leader, view)
                doubt = self._doubt(target, index)
                prediction = target.tracker.track(index, features, direction, hint, view, doubt)
                mask = self._to_mask(prediction.logits, view)
                if leader is not None and leader.mask.any():
                    mask, prediction = self._without_strays(mask, leader.mask, prediction, view)
                if not view.cuts(mask):
                    return self._record(target, index, view, prediction, mask, prompted=False)
                target.view = self._widened(view, _bounding_box(mask))

    def _without_strays(
        self, mask: npt.NDArray[np.bool_], before: npt.NDArray[np.bool_], prediction: MaskPrediction, view: View
    ) -> tuple[npt.NDArray[np.bool_], MaskPrediction]:
        """Drops the pieces of a mask that touch nothing of the slice before: the next slice would follow them."""
        kept = pieces_touching(mask, before)
        if (kept == mask).all():
            return mask, prediction
        strays = mask_to_frame(mask & ~kept, view, prediction.logits.shape[-1]).to(prediction.logits.device) > 0
        return kept, prediction._replace(logits=prediction.logits.masked_fill(strays, -ROUGH_MASK_BOUND))

    def _doubt(self, target: SegmentedObject, index: int) -> float:
        """What the expected depth says against a slice; nothing where a person said how far the object reaches."""
        prior, prompted = self.options.depth_prior, target.prompted
        if prior is None or target.limits or min(prompted) < index < max(prompted):
            return 0.0
        nearest = min(prompted, key=lambda other: abs(other - index))
        mask = target.records[nearest].mask
        if not mask.any():
            return 0.0
        x0, y0, x1, y1 = _bounding_box(mask)
        slice_mm, row_mm, column_mm = self._stack_spacing
        radius = ((x1 - x0 + 1) * column_mm + (y1 - y0 + 1) * row_mm) / 4
        return prior.doubt(abs(index - nearest) * slice_mm, radius)

    def _widened(self, view: View, box: tuple[float, float, float, float]) -> View:
        return view.widened(box, _WIDEN_FACTOR, *self.slice_shape)

    def _refresh_memories(self, target: SegmentedObject, index: int, direction: int | None) -> None:
        """Memories made through an earlier, narrower view are made anew before a slice looks at them, in `direction`."""
        if direction is None:  # a slice that was not tracked yet looks at none
            return
        view = target.view
        target.tracker.reframe(
            index,
            direction,
            view,
            encode=lambda other: self.embeddings.features(other, view),
            logits_of=lambda other: self._logits_through(target.records[other], view),
        )

    # ── results ───────────────────────────────────────────────────────────────────────────────────────────────

    def mask(self, name: str) -> npt.NDArray[np.bool_]:
        """(k, j, i) bool on the volume's grid, a copy; post-processed as the options say."""
        target = self._object(name)
        stack = np.zeros((self.slice_count, *self.slice_shape), dtype=bool)
        for index, record in target.records.items():
            stack[index] = record.mask
        mask: npt.NDArray[np.bool_] = np.ascontiguousarray(np.moveaxis(stack, 0, self._axis))
        if self.options.keep_largest:
            mask = largest_component(mask)
            by_slice = np.moveaxis(mask, self._axis, 0)
            for index in target.painted:  # to the pixel, whatever else the object is
                by_slice[index] = target.records[index].mask
        return mask

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
        logits = prediction.logits.clamp(-_LARGEST_LOGIT, _LARGEST_LOGIT).half().cpu()
        target.records[index] = SliceRecord(mask, logits, view, confidence)
        return SliceResult(target.name, index, mask.copy(), confidence)

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
        if not isinstance(prompt, (Box, Points, MaskPrompt, RecistLine, Box3D)):
            raise PromptError(f"A prompt is a Box, Points, MaskPrompt, RecistLine or Box3D, but a {type(prompt).__name__} came.")
        if isinstance(prompt, Box3D):
            self._check_slice(prompt.first)
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
                f"The mask prompt must have the slice's {self.slice_shape} rows and columns, but it has {prompt.mask.shape}; "
                "is it of another slicing axis?"
            )
        elif prompt.mask.dtype != bool:
            raise PromptError(f"A mask prompt is of type bool, but {prompt.mask.dtype} came; compare it with the label's value.")
        return prompt

    def _check_slice(self, index: int) -> None:
        if not isinstance(index, (int, np.integer)) or not 0 <= index < self.slice_count:
            raise PromptError(
                f"The slice index is a whole number within 0..{self.slice_count - 1} along the slicing axis, but {index} came; "
                "give another slice, or choose another slicing axis."
            )

    def _check_inside(self, what: str, xs: Sequence[float], ys: Sequence[float]) -> None:
        if min(xs) < -0.5 or min(ys) < -0.5 or max(xs) > self._columns - 0.5 or max(ys) > self._rows - 0.5:
            given = " ".join(f"{x:g},{y:g}" for x, y in zip(xs, ys, strict=True))
            raise PromptError(
                f"The {what} must lie on the slice, X (column) within 0..{self._columns - 1} and Y (row) within "
                f"0..{self._rows - 1}, but {given} came; is X,Y the other way round, or is it another slicing axis?"
            )

    def _clipped(self, box: Box) -> Box:
        x0, x1 = (min(max(x, 0), self._columns - 1) for x in (box.x0, box.x1))
        y0, y1 = (min(max(y, 0), self._rows - 1) for y in (box.y0, box.y1))
        return Box(box.slice_index, x0, y0, x1, y1)


def _extent(prompt: Box | Points | MaskPrompt) -> tuple[float, float, float, float]:
    """(x0, y0, x1, y1) of what a prompt speaks of."""
    if isinstance(prompt, Box):
        return prompt.x0, prompt.y0, prompt.x1, prompt.y1
    if isinstance(prompt, Points):
        return min(prompt.xs), min(prompt.ys), max(prompt.xs), max(prompt.ys)
    return _bounding_box(prompt.mask)


def _bounding_box(mask: npt.NDArray[np.bool_]) -> tuple[float, float, float, float]:
    """Inclusive (x0, y0, x1, y1) of a mask that has a pixel."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return float(columns[0]), float(rows[0]), float(columns[-1]), float(rows[-1])
