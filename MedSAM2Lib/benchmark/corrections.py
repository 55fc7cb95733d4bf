"""What a correction costs beside a pass through the whole volume, and what a step to undo takes of memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import median

import torch

from MedSAM2Lib.benchmark.clock import seconds
from MedSAM2Lib.benchmark.compare import PLAIN
from MedSAM2Lib.benchmark.plan import Plan
from MedSAM2Lib.benchmark.subject import object_boxes, random_volume
from MedSAM2Lib.checkpoints.loading import LoadedModel
from MedSAM2Lib.inference.session import Session
from MedSAM2Lib.prompts import Points

__all__ = ["Corrections", "LocalCorrection", "measure_corrections", "measure_local_correction"]

_REPEATS = 3
_LEAST_APART = 2  # slices from the correction to the locked ones: one at least is segmented again


@dataclass(frozen=True)
class Corrections:
    """Seconds; image features of all slices are there, as they are when a person corrects.

    tracked     slices that a pass through the whole volume segments
    recomputed  of these, those that are segmented again after a click between two locked slices
    whole_pass  all of them again
    encode      one slice through the image encoder
    measured    the click, and what is segmented again
    undo_bits   what the step back from the whole pass holds, bits per voxel of the slices that it segmented
    """

    tracked: int
    recomputed: int
    whole_pass: float
    encode: float
    measured: float
    undo_bits: float

    @property
    def predicted(self) -> float:
        """The share of the slices of a whole pass, and one encode."""
        return self.recomputed / self.tracked * self.whole_pass + self.encode


@torch.inference_mode()
def measure_corrections(model: LoadedModel, plan: Plan) -> Corrections:
    """One object on the benchmark's volume, from a box on slice 0; a click on its middle slice. Everything is done several
    times, in turns, so that what else the machine does falls on all alike; the corrections are taken back."""
    size = model.network.config.image_size
    session = Session(model, replace(PLAIN, agreement=0))  # random masks agree or not by chance
    session.set_volume(random_volume(size, plan.slices))
    session.add_prompt("object", object_boxes(size, 1)[0])
    tracked = len(list(session.propagate()))
    middle = plan.slices // 2
    apart = max(_LEAST_APART, plan.slices // 4)
    locked = [index for index in (middle - apart, middle + apart) if 0 <= index < plan.slices]
    click = Points(middle, (size * 0.55,), (size * 0.5,), (True,))
    frame = torch.zeros(1, 3, size, size, device=model.network.device)
    recomputed = 0

    def correct() -> None:
        nonlocal recomputed
        session.add_prompt("object", click)
        recomputed = len(list(session.propagate()))

    whole, encode, corrections = [], [], []
    for _ in range(_REPEATS):
        whole.append(seconds(lambda: list(session.propagate(redo=True)), model.network.device))
        passes_held = 8 * session.history_bytes / (tracked * size * size)
        encode.append(seconds(lambda: model.network.encode_image(frame), model.network.device))
        session.lock("object", locked)
        corrections.append(seconds(correct, model.network.device))
        for _ in range(3 if locked else 2):
            session.undo()
    return Corrections(tracked, recomputed, median(whole), median(encode), median(corrections), passes_held / _REPEATS)


@dataclass(frozen=True)
class LocalCorrection:
    """Seconds.

    slices      of the volume
    apart       slices from one lock to the other
    recomputed  slices that are segmented again after a click halfway between them
    first_pass  the box and the pass through the whole volume, from which the image features of all slices are there
    measured    the click, and what is segmented again
    """

    slices: int
    apart: int
    recomputed: int
    first_pass: float
    measured: float

    @property
    def share(self) -> float:
        return self.measured / self.first_pass


@torch.inference_mode()
def measure_local_correction(model: LoadedModel, slices: int = 200, apart: int = 20) -> LocalCorrection:
    """A click between two locked slices of a long volume; all slices between them are segmented again, though after most
    corrections old and new masks agree sooner."""
    size = model.network.config.image_size
    session = Session(model, replace(PLAIN, agreement=0))
    session.set_volume(random_volume(size, slices))
    middle, recomputed = slices // 2, 0

    def first_pass() -> None:
        session.add_prompt("object", object_boxes(size, 1)[0])
        list(session.propagate())

    def correct() -> None:
        nonlocal recomputed
        session.add_prompt("object", Points(middle, (size * 0.55,), (size * 0.5,), (True,)))
        recomputed = len(list(session.propagate()))

    first = seconds(first_pass, model.network.device)
    session.lock("object", [middle - apart // 2, middle + apart // 2])
    corrections = []
    for _ in range(_REPEATS):
        corrections.append(seconds(correct, model.network.device))
        session.undo()
        session.undo()
    return LocalCorrection(slices, apart, recomputed, first, median(corrections))
