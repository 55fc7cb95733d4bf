"""Other implementations of SAM 2 on the steps of a benchmark."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from torch import Tensor

from MedSAM2Lib.benchmark.plan import CORRECTED, Masks, Plan, Steps, click
from MedSAM2Lib.benchmark.subject import object_boxes
from MedSAM2Lib.network.config import TrunkConfig
from MedSAM2Lib.network.sam2 import SAM2
from MedSAM2Lib.prompts import Box

__all__ = ["REFERENCES", "NewReference", "Reference", "installed_references"]

NewReference = Callable[[SAM2, Tensor, Plan], "Reference"]

# By name: the module that must be there, and where what wraps it is.
REFERENCES = {
    "Meta's": ("sam2", "MedSAM2Lib.benchmark.meta", "MetaReference"),
    "transformers'": ("transformers.models.sam2_video", "MedSAM2Lib.benchmark.hugging_face", "TransformersReference"),
}


def installed_references() -> dict[str, NewReference]:
    """By name, those that are on this machine; imported when they are called."""

    def imported(module: str, name: str) -> NewReference:
        return lambda *given: getattr(import_module(module), name)(*given)

    return {name: imported(*where) for name, (needed, *where) in REFERENCES.items() if _is_installed(needed)}


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # its package is missing, or is older than the module
        return False


class Reference(ABC):
    """A model with our network's weights, in float32, used as its makers show.

    network  whose weights it has; SAM 2's own, with a Hiera for an image encoder (`can_run`)
    frames   (T, 3, S, S): the slices as the network sees them
    """

    shares_features = False  # whether several objects are segmented in one run, rather than in one each

    def __init__(self, network: SAM2, frames: Tensor, plan: Plan) -> None:
        self._frames, self._plan = frames, plan
        self._size = network.config.image_size
        self._box = object_boxes(self._size, 1)[0]
        self.masks: Masks = {}

    @staticmethod
    def can_run(network: SAM2) -> bool:
        return isinstance(network.config.trunk, TrunkConfig)

    # ── what it has to know ───────────────────────────────────────────────────────────────────────────────────

    @abstractmethod
    def _encode(self, frame: Tensor) -> object:
        """(1, 3, S, S) to image features, as the mask decoder takes them."""

    @abstractmethod
    def _open(self) -> Any:
        """A session on the frames, in which nothing was said yet."""

    @abstractmethod
    def _draw_box(self, session: Any, number: int, box: Box) -> object:
        """The mask of an object on slice 0."""

    @abstractmethod
    def _click(self, session: Any, index: int, x: float, y: float) -> object:
        """The mask of object 0 on a slice that has one."""

    @abstractmethod
    def _propagate(self, session: Any, last: int) -> Iterator[tuple[int, Tensor]]:
        """Slices 0 to `last` in order, each with the logits (objects, 1, S, S) of all objects."""

    # ── the steps ─────────────────────────────────────────────────────────────────────────────────────────────

    def encode(self) -> Steps:
        for _ in range(self._plan.encoder_repeats):
            yield self._encode(self._frames[:1])

    def first_mask(self) -> Steps:
        """From opening on: Meta's model encodes slice 0 then."""
        for _ in range(self._plan.first_mask_repeats):
            self._session = self._open()
            yield self._draw_box(self._session, 0, self._box)

    def first_pass(self) -> Steps:
        for index, logits in self._tracked(self._session, self._plan.slices - 1):
            self.masks[index] = (logits[0, 0] > 0).cpu().numpy()
            yield index

    def prompt_again(self) -> Steps:
        session = self._open()
        self._draw_box(session, 0, self._box)  # from now on the slice has been seen
        return (self._draw_box(session, 1 + number, self._box) for number in range(self._plan.prompt_repeats))

    def correct(self) -> None:
        self._click(self._session, CORRECTED, *click(self._size))

    def second_pass(self) -> Steps:
        slices = self._tracked(self._session, self._plan.slices - 1)
        for _ in range(CORRECTED):
            next(slices)  # its answer stands
        yield from slices

    def objects(self) -> Steps:
        boxes = object_boxes(self._size, self._plan.objects)
        runs = [self._run(together) for together in ([boxes] if self.shares_features else [[box] for box in boxes])]
        return ([next(run) for run in runs] for _ in range(self._plan.object_slices))

    def _run(self, boxes: Sequence[Box]) -> Steps:
        session = self._open()
        for number, box in enumerate(boxes):
            self._draw_box(session, number, box)
        return self._tracked(session, self._plan.object_slices)

    def _tracked(self, session: Any, last: int) -> Iterator[tuple[int, Tensor]]:
        """Without slice 0, whose answer stands: it comes with the first step."""
        slices = self._propagate(session, last)
        next(slices)
        yield from slices
