"""Single images that belong together without order: one prompt on one of them, all others segmented through memory.

    images = ImageSet(load_model("medsam2", device), read_image_set(Path("fundus")))
    images.add_prompt("disc", Box(3, 80, 60, 210, 190))      # on the fourth image
    for result in images.propagate():
        show(result)
    mask = images.image_mask("disc", 0)                      # (rows, columns) of that image

Medical SAM 2's one-prompt segmentation (Zhu et al., arXiv 2408.00874, section 3.3): the set is treated as a video whose
frames come in any order, and the memory bank is sorted by worth instead of time. The order is chosen here: images that look
most like a prompted one come first, so the result does not depend on what the files are called.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from MedSAM2Lib.checkpoints.loading import LoadedModel
from MedSAM2Lib.errors import OptionError, PromptError, UsageError, VolumeError
from MedSAM2Lib.frames import View, logits_to_frame, logits_to_slice, mask_to_frame
from MedSAM2Lib.inference.door import Door, SlicePrompt
from MedSAM2Lib.inference.embeddings import Embeddings
from MedSAM2Lib.inference.prompt_tensors import point_tensors
from MedSAM2Lib.inference.tracker import Tracker
from MedSAM2Lib.masks import bounding_box
from MedSAM2Lib.memory.bank import MemoryBank
from MedSAM2Lib.memory.entry import appearance
from MedSAM2Lib.memory.opening import open_bank
from MedSAM2Lib.memory.options import MEMORIES, NAMED_RULES, Memory, SelfSorting
from MedSAM2Lib.network.sam2 import NO_OBJECT_LOGIT, ImageFeatures, MaskPrediction, PointTensors
from MedSAM2Lib.postprocess import fill_holes, largest_component
from MedSAM2Lib.prompts import Box, MaskPrompt, Points, Prompt
from MedSAM2Lib.results import SliceConfidence, SliceResult
from MedSAM2Lib.volume_io.images import ImageOfSet

__all__ = ["ImageSet", "ImageSetOptions"]

_Extent = tuple[float, float, float, float]  # x0, y0, x1, y1

_ONWARD = 1  # images have no direction: the whole set is one pass
_WIDEN_FACTOR = 1.5  # of a view whose edge the mask reaches
_SEARCH_FACTOR = 1.4  # of the zoom on images without a prompt, where the object lies only about where it is on the prompted one


@dataclass(frozen=True)
class ImageSetOptions:
    """How a set is segmented. `self-sorting` here gives all memories the same, timeless position: there is no distance."""

    zoom: float | None = None  # side of the view in sides of the prompt's box; None: the whole image, as SAM 2 does
    memory: Memory = "self-sorting"
    fill_hole_cells: int = 8  # background specks of up to this many cells of the grid of logits are filled (SAM 2); 0: none
    keep_largest: bool = True  # of an object's mask on an image, keep only the largest connected piece
    cache_bytes: int = 2 * 10**9  # image features kept

    def __post_init__(self) -> None:
        if self.zoom is not None and not 1 <= self.zoom < math.inf:
            raise OptionError(f"The zoom is None for the whole image, or a number from 1, but {self.zoom} came.")
        if self.memory not in MEMORIES and not isinstance(self.memory, SelfSorting):
            raise OptionError(f"The memory is one of {', '.join(MEMORIES)}, or a SelfSorting, but {self.memory!r} came.")
        for name in ("fill_hole_cells", "cache_bytes"):
            if getattr(self, name) < 0:
                raise OptionError(f"The option {name} must be at least 0, but {getattr(self, name)} came.")

    def open_bank(self, slots: int, max_pointers: int) -> MemoryBank:
        memory = self.memory
        if not isinstance(memory, SelfSorting) and memory in NAMED_RULES:
            memory = replace(NAMED_RULES[memory], slots="timeless")
        return open_bank(memory, slots, max_pointers)


@dataclass(frozen=True)
class _Answer:
    """What is kept of an image: enough to show its mask, to correct it, and to remember it."""

    logits: Tensor  # (1, 1, L, L) float16 on the CPU
    view: View
    confidence: SliceConfidence
    appearance: Tensor  # as `memory.entry` has it
    painted: npt.NDArray[np.bool_] | None = None  # a person's mask, kept to the pixel


@dataclass
class _Object:
    """One thing to segment on all images. Images without an answer have not been looked at."""

    boxes: dict[int, Box] = field(default_factory=dict)
    clicks: dict[int, tuple[Points, ...]] = field(default_factory=dict)
    # Of the prompted images, in the order of prompting: features, answer and view, of which memories are made.
    prompted: dict[int, tuple[ImageFeatures, MaskPrediction, View]] = field(default_factory=dict)
    extent: tuple[int, _Extent] | None = None  # the first prompt's image, and where the object is on it
    answers: dict[int, _Answer] = field(default_factory=dict)

    def copy(self) -> _Object:
        return replace(
            self, boxes=dict(self.boxes), clicks=dict(self.clicks), prompted=dict(self.prompted), answers=dict(self.answers)
        )


@dataclass
class _Pass:
    """One object on its way through the set.

    place    in the order, of the next image; stands for time
    leaders  by image, answers that have the object
    """

    tracker: Tracker
    place: int
    leaders: dict[int, _Answer] = field(default_factory=dict)

    def know(self, index: int, answer: _Answer) -> None:
        if (answer.logits > 0).any():
            self.leaders[index] = answer


class ImageSet:
    """Images are numbered in the order in which they are given; a prompt's `slice_index` is an image's number."""

    def __init__(self, model: LoadedModel, images: Sequence[ImageOfSet], options: ImageSetOptions | None = None) -> None:
        if not images:
            raise VolumeError("A set needs at least one image, but none came.")
        self.model = model
        self.images = list(images)
        self.options = options or ImageSetOptions(zoom=model.zoom)
        self._network = model.network
        self._door = Door(len(images), lambda index: self.images[index].shape, images=True)
        self._objects: dict[str, _Object] = {}
        self.embeddings = Embeddings(
            self._network,
            lambda index: self.images[index].pixels,
            len(images),
            byte_budget=self.options.cache_bytes,
            ordered=False,
        )

    @property
    def objects(self) -> list[str]:
        return list(self._objects)

    # ── prompts ───────────────────────────────────────────────────────────────────────────────────────────────

    @torch.inference_mode()
    def add_prompt(self, name: str, prompt: Prompt) -> SliceResult:
        """The object's mask on the prompt's image, at once. The first prompt of a name makes the object.

        A box or a mask starts its image anew; clicks add to what the image has. The other images are as before until the
        next `propagate`. Raises PromptError, and changes nothing, where the prompt does not fit.
        """
        if not name:
            raise PromptError("An object needs a name; give one before the first prompt.")
        simple = self._door.checked(prompt)
        target = self._objects[name].copy() if name in self._objects else _Object()
        answer = self._adopt(target, simple) if isinstance(simple, MaskPrompt) else self._answer(target, simple)
        result = self._result(name, simple.slice_index, answer)
        if target.extent is None:
            from_mask = isinstance(simple, Points) and result.mask.any()  # a click tells where, not how large
            target.extent = simple.slice_index, _bounds(result.mask) if from_mask else _extent(simple)
        self._objects[name] = target
        return result

    def _answer(self, target: _Object, prompt: Box | Points) -> _Answer:
        index = prompt.slice_index
        corrected = None
        if isinstance(prompt, Box):
            target.boxes[index] = prompt
            target.clicks.pop(index, None)
        else:
            target.clicks[index] = (*target.clicks.get(index, ()), prompt)
            corrected = target.answers.get(index)
        view = self._view_for(target, prompt)
        while True:
            features = self.embeddings.features(index, view)
            previous = None if corrected is None else self._logits_through(corrected, index, view)
            tracker = self._new_tracker()
            prediction = tracker.prompt(index, features, self._point_tensors(target, index, view), previous, view)
            mask = self._to_mask(prediction.logits, index, view)
            if not view.cuts(mask):
                return self._keep(target, index, features, prediction, view)
            view = view.widened(_bounds(mask), _WIDEN_FACTOR, *self.images[index].shape)

    def _adopt(self, target: _Object, prompt: MaskPrompt) -> _Answer:
        index = prompt.slice_index
        target.boxes.pop(index, None)
        target.clicks.pop(index, None)
        view = self._view_for(target, prompt)
        features = self.embeddings.features(index, view)
        frame = mask_to_frame(prompt.mask, view, self._network.config.image_size)[None].to(self._network.device)
        prediction = self._new_tracker().adopt_mask(index, features, frame, view)
        return self._keep(target, index, features, prediction, view, prompt.mask.copy())

    def _keep(
        self,
        target: _Object,
        index: int,
        features: ImageFeatures,
        prediction: MaskPrediction,
        view: View,
        painted: npt.NDArray[np.bool_] | None = None,
    ) -> _Answer:
        target.prompted[index] = features.for_memory(), prediction, view
        target.answers[index] = answer = self._answered(prediction, view, features, True, painted)
        return answer

    def _new_tracker(self) -> Tracker:
        config = self._network.config
        bank = self.options.open_bank(config.memory_slots, config.max_object_pointers)
        return Tracker(self._network, bank, len(self.images), ordered=False)

    def _point_tensors(self, target: _Object, index: int, view: View) -> PointTensors:
        return point_tensors(self._network, view, target.boxes.get(index), target.clicks.get(index, ()))

    # ── all other images ──────────────────────────────────────────────────────────────────────────────────────

    def plan(self, objects: Sequence[str] | None = None) -> list[tuple[str, int]]:
        """What `propagate` would do, in order: each object's images without a prompt, the most alike first."""
        names = self.objects if objects is None else list(objects)
        if not names:
            raise UsageError("There is nothing to propagate yet; draw a box (or another prompt) on one image first.")
        return [(name, index) for name in names for index in self._order(self._object(name))]

    def propagate(self, objects: Sequence[str] | None = None) -> Generator[SliceResult, None, None]:
        """Segments all images that have no prompt, one object after the other, and yields each as it is ready.

        Every call starts from the prompts alone. Stopping the iteration is the way to cancel: what was yielded stays.
        """
        return self._propagate(self.plan(objects))

    def _propagate(self, plan: Sequence[tuple[str, int]]) -> Generator[SliceResult, None, None]:
        passes: dict[str, _Pass] = {}
        for name, index in plan:
            if name not in passes:
                passes[name] = self._begun(self._objects[name])
            yield self._result(name, index, self._track(self._objects[name], passes[name], index))

    def _begun(self, target: _Object) -> _Pass:
        """A pass that knows the prompted images, in the order of prompting."""
        begun = _Pass(self._new_tracker(), len(target.prompted))
        for place, (index, (features, prediction, view)) in enumerate(target.prompted.items()):
            begun.tracker.expect_answer(place, features, prediction, view)
            begun.know(index, target.answers[index])
        return begun

    @torch.inference_mode()
    def _track(self, target: _Object, running: _Pass, index: int) -> _Answer:
        """The mask of an image from memory."""
        view = self._search_view(target, index)
        while True:
            features = self.embeddings.features(index, view)
            hint = self._hint(running, index, view, features) if self._network.config.follow_mask else None
            prediction = running.tracker.track(running.place, features, _ONWARD, hint, view)
            mask = self._to_mask(prediction.logits, index, view)
            if not view.cuts(mask):
                break
            view = view.widened(_bounds(mask), _WIDEN_FACTOR, *self.images[index].shape)
        target.answers[index] = answer = self._answered(prediction, view, features, False)
        running.place += 1
        running.know(index, answer)
        return answer

    def _hint(self, running: _Pass, index: int, view: View, features: ImageFeatures) -> Tensor | None:
        """(1, 1, L, L): of the images known to have the object, the logits of the one that looks most like this one,
        laid over this one. A network that follows the mask of a neighbouring slice finds little without."""
        if not running.leaders:
            return None
        here = appearance(features.stride16).flatten()

        def likeness(known: tuple[int, _Answer]) -> float:
            return float(F.cosine_similarity(known[1].appearance.flatten(), here, dim=0))

        leader, answer = max(running.leaders.items(), key=likeness)
        logits = answer.logits.float().to(self._network.device)
        on_image = logits_to_slice(logits, answer.view, *self.images[leader].shape)[None, None]
        laid_over = F.interpolate(on_image, size=self.images[index].shape, mode="bilinear", align_corners=False)
        return logits_to_frame(laid_over[0, 0], view, logits.shape[-1])

    @torch.inference_mode()
    def _order(self, target: _Object) -> list[int]:
        """The images without a prompt, those that look most like one with a prompt first."""
        known = torch.stack([appearance(features.stride16).flatten() for features, _, _ in target.prompted.values()])

        def likeness(index: int) -> float:
            stride16 = self.embeddings.features(index, self._search_view(target, index)).stride16
            return float(F.cosine_similarity(appearance(stride16).flatten()[None], known).max())

        others = [index for index in range(len(self.images)) if index not in target.prompted]
        return sorted(others, key=lambda index: -likeness(index))

    # ── views ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _view_for(self, target: _Object, prompt: SlicePrompt) -> View:
        """In which a prompt is answered: around a box or a mask; clicks in the view of what they add to."""
        index, extent = prompt.slice_index, _extent(prompt)
        rows, columns = self.images[index].shape
        if isinstance(prompt, Points):
            view = target.answers[index].view if index in target.answers else self._search_view(target, index)
        elif self.options.zoom is None:
            view = View.whole(rows, columns)
        else:
            view = View.around(extent, self.options.zoom, rows, columns)
        return view if view.shows(extent) else view.widened(extent, _WIDEN_FACTOR, rows, columns)

    def _search_view(self, target: _Object, index: int) -> View:
        """Around the place where the object is on the image of its first prompt, with more room; or the whole image."""
        rows, columns = self.images[index].shape
        if self.options.zoom is None or target.extent is None:
            return View.whole(rows, columns)
        source, (x0, y0, x1, y1) = target.extent
        down, across = (length / other for length, other in zip((rows, columns), self.images[source].shape, strict=True))
        extent = ((x0 + 0.5) * across - 0.5, (y0 + 0.5) * down - 0.5, (x1 + 0.5) * across - 0.5, (y1 + 0.5) * down - 0.5)
        return View.around(extent, self.options.zoom * _SEARCH_FACTOR, rows, columns)

    # ── results ───────────────────────────────────────────────────────────────────────────────────────────────

    def image_mask(self, name: str, index: int) -> npt.NDArray[np.bool_] | None:
        """(rows, columns) bool of one image, a copy, post-processed as the options say; None where it was not looked at."""
        answer = self._object(name).answers.get(index)
        return None if answer is None else self._mask_of(answer, index)

    def confidence(self, name: str) -> dict[int, SliceConfidence]:
        """By number, for every image that was segmented."""
        answers = self._object(name).answers
        return {index: answers[index].confidence for index in sorted(answers)}

    def _result(self, name: str, index: int, answer: _Answer) -> SliceResult:
        return SliceResult(name, index, self._mask_of(answer, index), answer.confidence)

    def _mask_of(self, answer: _Answer, index: int) -> npt.NDArray[np.bool_]:
        if answer.painted is not None:
            return answer.painted.copy()
        mask = self._to_mask(answer.logits.float(), index, answer.view)
        return largest_component(mask) if self.options.keep_largest else mask

    def _answered(
        self,
        prediction: MaskPrediction,
        view: View,
        features: ImageFeatures,
        prompted: bool,
        painted: npt.NDArray[np.bool_] | None = None,
    ) -> _Answer:
        confidence = SliceConfidence(float(prediction.iou), float(prediction.object_score.sigmoid()), prompted)
        logits = prediction.logits.clamp(NO_OBJECT_LOGIT, -NO_OBJECT_LOGIT).half().cpu()
        return _Answer(logits, view, confidence, appearance(features.stride16), painted)

    def _to_mask(self, logits: Tensor, index: int, view: View) -> npt.NDArray[np.bool_]:
        mask: npt.NDArray[np.bool_] = (logits_to_slice(logits, view, *self.images[index].shape) > 0).cpu().numpy()
        hole = int(self.options.fill_hole_cells * view.height * view.width / logits.shape[-1] ** 2)
        return fill_holes(mask, hole) if hole and mask.any() else mask

    def _logits_through(self, answer: _Answer, index: int, view: View) -> Tensor:
        """(1, 1, L, L) logits of an image, as seen through a view."""
        logits = answer.logits.float().to(self._network.device)
        if answer.view == view:
            return logits
        return logits_to_frame(logits_to_slice(logits, answer.view, *self.images[index].shape), view, logits.shape[-1])

    def _object(self, name: str) -> _Object:
        if name not in self._objects:
            raise OptionError(f"There is no object {name!r}; objects are: {', '.join(self._objects) or 'none yet'}.")
        return self._objects[name]


def _extent(prompt: SlicePrompt) -> _Extent:
    """(x0, y0, x1, y1) of what a prompt speaks of."""
    if isinstance(prompt, Box):
        return prompt.x0, prompt.y0, prompt.x1, prompt.y1
    if isinstance(prompt, Points):
        return min(prompt.xs), min(prompt.ys), max(prompt.xs), max(prompt.ys)
    return _bounds(prompt.mask)


def _bounds(mask: npt.NDArray[np.bool_]) -> _Extent:
    """Inclusive (x0, y0, x1, y1) of a mask that has a pixel."""
    box = bounding_box(mask)
    assert box is not None
    rows, columns = box
    return columns.start, rows.start, columns.stop - 1, rows.stop - 1
