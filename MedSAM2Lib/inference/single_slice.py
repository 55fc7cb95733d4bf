"""MedSAM: a box to a mask on one slice, or slice by slice from a 3D box. It remembers nothing of other slices.

    session = SingleSliceSession(load_any_model("medsam", device))
    session.set_volume(read_volume("ct.nrrd"))
    session.add_prompt("liver", Box3D(30, 55, 80, 60, 210, 190))
    for result in session.propagate():
        show(result)

The calls are those of `Session`, as far as they mean something without memory.

How an image is shown, a box is given and a mask is read: Ma et al., Nature Communications 15, 654 (2024), and
MedSAM_Inference.py of github.com/bowang-lab/MedSAM: the whole slice stretched to 1024 x 1024 pixels of 8 bits, its lowest
value as 0 and its highest as 1; the box scaled likewise; probabilities of 256 x 256 cells enlarged bilinearly and cut at a
half. There the picture is stretched by scikit-image's cubic spline, here by the bicubic filter of all other networks.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from MedSAM2Lib.checkpoints.loading import LoadedSAM
from MedSAM2Lib.errors import OptionError, PromptError, UsageError
from MedSAM2Lib.frames import View, slice_to_frame
from MedSAM2Lib.inference.door import Door
from MedSAM2Lib.inference.options import SessionOptions
from MedSAM2Lib.inference.order import Step, outward
from MedSAM2Lib.intensity import apply_window, resolve_window
from MedSAM2Lib.network.prompt_encoder import PointLabel
from MedSAM2Lib.network.sam import SAM
from MedSAM2Lib.network.sam2 import PointTensors
from MedSAM2Lib.postprocess import fill_holes, largest_component
from MedSAM2Lib.prompts import Box, Box3D, Prompt
from MedSAM2Lib.results import SliceConfidence, SliceResult
from MedSAM2Lib.volume import Volume
from MedSAM2Lib.volume_io.images import ImageOfSet

__all__ = ["BoxSegmenter", "SingleSliceSession"]

_Pixels = npt.NDArray[np.uint8]


class BoxSegmenter:
    """Boxes to masks, each slice encoded once while its features fit into the budget.

    read_slice  index -> (rows, columns) or (rows, columns, 3) uint8, as shown
    """

    def __init__(self, network: SAM, read_slice: Callable[[int], _Pixels], *, byte_budget: int) -> None:
        self._network = network
        self._read_slice = read_slice
        slice_bytes = 4 * network.config.hidden_dim * network.config.feature_size**2
        self._features = lru_cache(max(1, byte_budget // slice_bytes))(self._encode)
        self.encoded = 0  # slices sent through the encoder so far

    @torch.inference_mode()
    def segment(self, box: Box) -> tuple[npt.NDArray[np.bool_], float]:
        """The mask (rows, columns), and the IoU that the network expects it to have, 0..1.

        MedSAM's training left that expectation as it was in SAM.
        """
        features, (rows, columns) = self._features(box.slice_index)
        side = self._network.config.image_size
        corners = View.whole(rows, columns).box_to_frame((box.x0, box.y0, box.x1, box.y1), side)
        labels = torch.tensor([[PointLabel.BOX_TOP_LEFT, PointLabel.BOX_BOTTOM_RIGHT]], device=self._network.device)
        points = PointTensors(torch.from_numpy(corners)[None].to(self._network.device), labels)
        logits, iou = self._network.predict(features, points)
        probability = F.interpolate(logits.sigmoid(), size=(rows, columns), mode="bilinear", align_corners=False)[0, 0]
        return (probability > 0.5).cpu().numpy(), float(iou.clamp(0, 1))

    def _encode(self, index: int) -> tuple[Tensor, tuple[int, int]]:
        pixels = self._read_slice(index)
        rows, columns = pixels.shape[:2]
        frame = slice_to_frame(pixels, View.whole(rows, columns), self._network.config.image_size)
        low, high = frame.min(), frame.max()
        stretched = (frame - low) / (high - low).clamp(min=1e-8)  # a picture of one value becomes black
        shown = stretched.expand(3, -1, -1)[None].to(self._network.device)
        self.encoded += 1
        return self._network.encode_image(shown), (rows, columns)


@dataclass(frozen=True)
class _Boxed:
    """One object: its boxes and masks by slice. The slices that have no mask are empty."""

    boxes: dict[int, Box] = field(default_factory=dict)
    depth: Box3D | None = None
    masks: dict[int, npt.NDArray[np.bool_]] = field(default_factory=dict)
    confidence: dict[int, SliceConfidence] = field(default_factory=dict)

    def copy(self) -> _Boxed:
        return replace(self, boxes=dict(self.boxes), masks=dict(self.masks), confidence=dict(self.confidence))


class SingleSliceSession:
    """Of `SessionOptions`, those on holes, pieces and the cache are followed; there is nothing to stop or to expect."""

    def __init__(self, model: LoadedSAM, options: SessionOptions | None = None) -> None:
        self.model = model
        self.options = options or SessionOptions()
        if self.options.zoom is not None:
            raise OptionError(f"{model.name} always sees the whole slice, but a zoom of {self.options.zoom:g} came; leave it.")
        self._objects: dict[str, _Boxed] = {}
        self._door: Door | None = None

    # ── what is segmented ─────────────────────────────────────────────────────────────────────────────────────

    def set_volume(self, volume: Volume, axis: str = "k", window: str = "auto") -> None:
        """Takes a volume; forgets every object of the one before. As `Session.set_volume`."""
        self._axis = volume.geometry.array_axis(axis)
        self.window = resolve_window(window, volume)
        stack = np.moveaxis(volume.array, self._axis, 0)  # (slices, rows, columns), a view
        rows, columns = stack.shape[1:]
        self._take(lambda index: apply_window(stack[index], self.window), Door(len(stack), lambda _: (rows, columns)))

    def set_images(self, images: Sequence[ImageOfSet]) -> None:
        """Takes single images of any sizes, numbered in their order; forgets every object."""
        self._take(lambda index: images[index].pixels, Door(len(images), lambda index: images[index].shape, images=True))

    def _take(self, read_slice: Callable[[int], _Pixels], door: Door) -> None:
        self._door = door
        self.slice_count = door.count
        self.embeddings = BoxSegmenter(self.model.network, read_slice, byte_budget=self.options.cache_bytes)
        self._objects = {}

    @property
    def objects(self) -> list[str]:
        return list(self._objects)

    def reset(self) -> None:
        """Forgets every object."""
        self._objects = {}

    def remove_object(self, name: str) -> None:
        self._object(name)
        del self._objects[name]

    # ── boxes ─────────────────────────────────────────────────────────────────────────────────────────────────

    def add_prompt(self, name: str, prompt: Prompt) -> SliceResult:
        """The object's mask on the box's slice, at once; of a 3D box, on its middle slice.

        A caliper line counts as its box. Raises PromptError for everything that is no box: MedSAM was trained on nothing else.
        """
        if not name:
            raise PromptError("An object needs a name; give one before the first prompt.")
        box = self._checked_door().checked(prompt)
        if not isinstance(box, Box):
            raise PromptError(f"{self.model.name} takes boxes, but {type(prompt).__name__} came; draw a box around the object.")
        target = self._objects[name].copy() if name in self._objects else _Boxed()
        if isinstance(prompt, Box3D):
            target = self._within(target, prompt)
        else:
            target.boxes[box.slice_index] = box
        result = self._segment(name, target, box, prompted=True)
        self._objects[name] = target
        return result

    def _within(self, target: _Boxed, depth: Box3D) -> _Boxed:
        """The object with another 3D box: only slices with boxes of their own keep their masks."""
        kept = {index: target.masks[index] for index in target.boxes}
        return replace(target, depth=depth, masks=kept, confidence={index: target.confidence[index] for index in kept})

    def plan(
        self, objects: Sequence[str] | None = None, first: int | None = None, last: int | None = None
    ) -> list[tuple[str, Step]]:
        """What `propagate` would do, in order. Raises UsageError where no object has a 3D box."""
        low, high = self._checked_range(first, last)
        names = self.objects if objects is None else list(objects)
        steps: list[tuple[str, Step]] = []
        deep = {name: depth for name in names if (depth := self._object(name).depth) is not None}
        if not deep:
            raise UsageError(
                f"{self.model.name} remembers nothing from slice to slice, so there is nothing to propagate; give a 3D box "
                "(on the command line --box3d), a box on each slice, or take a model with memory."
            )
        for name, depth in deep.items():
            middle = depth.middle_box().slice_index
            steps += [(name, step) for step in outward([middle], max(low, depth.first), min(high, depth.last))]
        return [(name, step) for name, step in steps if step[0] not in self._object(name).boxes]

    def propagate(
        self, objects: Sequence[str] | None = None, first: int | None = None, last: int | None = None
    ) -> Generator[SliceResult, None, None]:
        """Segments the slices of each 3D box, each by itself, nearest to the middle first; yields them as they are ready.

        Slices that have a box of their own stay as they are. Stopping the iteration is the way to cancel.
        """
        return self._propagate(self.plan(objects, first, last), self._objects)

    def _propagate(self, plan: Sequence[tuple[str, Step]], objects: dict[str, _Boxed]) -> Generator[SliceResult, None, None]:
        for name, (index, _) in plan:
            if self._objects is not objects:  # a reset, or another volume
                return
            if name not in objects or (depth := objects[name].depth) is None:
                continue
            box = replace(depth.middle_box(), slice_index=index)
            target = objects[name].copy()
            result = self._segment(name, target, box, prompted=False)
            objects[name] = target
            yield result

    def _segment(self, name: str, target: _Boxed, box: Box, prompted: bool) -> SliceResult:
        mask, iou = self.embeddings.segment(box)
        # The box says that the object is there; the network has no opinion of its own.
        confidence = SliceConfidence(iou, presence=1.0, prompted=prompted)
        cell = mask.size / (self.model.network.config.image_size / 4) ** 2  # slice pixels per cell of the logits
        if (hole := int(self.options.fill_hole_cells * cell)) and mask.any():
            mask = fill_holes(mask, hole)
        target.masks[box.slice_index], target.confidence[box.slice_index] = mask, confidence
        return SliceResult(name, box.slice_index, mask.copy(), confidence)

    # ── results ───────────────────────────────────────────────────────────────────────────────────────────────

    def mask(self, name: str) -> npt.NDArray[np.bool_]:
        """(k, j, i) bool on the volume's grid, a copy; post-processed as the options say."""
        rows, columns = self._checked_door().shape_of(0)
        stack = np.zeros((self.slice_count, rows, columns), dtype=bool)
        for index, mask in self._object(name).masks.items():
            stack[index] = mask
        mask = np.ascontiguousarray(np.moveaxis(stack, 0, self._axis))
        return largest_component(mask) if self.options.keep_largest else mask

    def image_mask(self, name: str, index: int) -> npt.NDArray[np.bool_] | None:
        """(rows, columns) bool of one image, a copy; None where the object was not looked for on it."""
        mask = self._object(name).masks.get(index)
        if mask is None:
            return None
        return largest_component(mask) if self.options.keep_largest else mask.copy()

    def confidence(self, name: str) -> dict[int, SliceConfidence]:
        """By slice index, for every slice that was segmented."""
        return dict(sorted(self._object(name).confidence.items()))

    # ── the door ──────────────────────────────────────────────────────────────────────────────────────────────

    def _checked_door(self) -> Door:
        if self._door is None:
            raise UsageError("The session has no volume yet; call set_volume first.")
        return self._door

    def _object(self, name: str) -> _Boxed:
        if name not in self._objects:
            raise OptionError(f"There is no object {name!r}; objects are: {', '.join(self._objects) or 'none yet'}.")
        return self._objects[name]

    def _checked_range(self, first: int | None, last: int | None) -> tuple[int, int]:
        high_end = self._checked_door().count - 1
        low, high = 0 if first is None else first, high_end if last is None else last
        if not 0 <= low <= high <= high_end:
            raise OptionError(f"A slice range is FIRST:LAST within 0:{high_end}, but {low}:{high} came.")
        return low, high
