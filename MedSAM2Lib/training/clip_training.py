"""Training a network to follow an object through clips."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from MedSAM2Lib.errors import OptionError
from MedSAM2Lib.network.sam2 import SAM2
from MedSAM2Lib.training.clip import ClipBatch
from MedSAM2Lib.training.loop import RunPlan, StepBatches, run_training
from MedSAM2Lib.training.losses import FROM_SCRATCH, LossWeights
from MedSAM2Lib.training.parts import DRAFTS, check_parts, part_of
from MedSAM2Lib.training.processes import Processes
from MedSAM2Lib.training.steps import ClipOptions, PromptMix, clip_loss

__all__ = ["BatchSource", "TrainingPlan", "train"]

_ALONE = Processes()


class BatchSource(Protocol):
    """Where clips come from; `training.clips.ClipSource.sample_batch` is one."""

    def __call__(self, rng: np.random.Generator, batch_size: int, image_size: int, length: int, *, step: int) -> ClipBatch:
        """A function of the arguments alone."""


@dataclass(frozen=True)
class TrainingPlan(RunPlan):
    """What a run on clips does."""

    slices_per_step: int = 16  # a step holds slices_per_step / length clips, over all processes
    single_slice_steps: int = 0  # first steps that train on single slices only
    lengths: tuple[int, ...] = (4, 6, 8)  # clip lengths afterwards, one drawn per step
    # First steps that train on smaller images, which are seen twice as fast; only for networks of convolutions.
    small_image_steps: int = 0
    small_image_size: int = 96
    frozen: tuple[str, ...] = ()  # of `parts.PARTS`: what is never trained
    prompts: PromptMix = field(default_factory=PromptMix)
    losses: LossWeights = FROM_SCRATCH
    clips: ClipOptions = field(default_factory=ClipOptions)

    def __post_init__(self) -> None:
        check_parts(self.frozen)

    def scaled(self, steps: int) -> TrainingPlan:
        """The same plan over another number of steps, its stages in proportion."""
        share = steps / self.steps
        return replace(
            self,
            steps=steps,
            single_slice_steps=round(self.single_slice_steps * share),
            small_image_steps=round(self.small_image_steps * share),
        )

    def image_size(self, step: int, full: int) -> int:
        """Side of the images of a step, pixels; `full` is the network's own."""
        return self.small_image_size if step < self.small_image_steps else full

    def clip_length(self, step: int) -> int:
        if step < self.single_slice_steps:
            return 1
        return int(np.random.default_rng((self.seed, step, 1)).choice(self.lengths))


class _ClipBatches(StepBatches):
    def __init__(self, source: BatchSource, plan: TrainingPlan, image_size: int, processes: Processes) -> None:
        super().__init__(plan, processes)
        self.source, self.plan, self.image_size = source, plan, image_size

    def draw(self, rng: np.random.Generator, step: int, processes: int, number: int) -> ClipBatch:
        length = self.plan.clip_length(step)
        clips = max(1, self.plan.slices_per_step // length // processes)
        return self.source(rng, clips, self.plan.image_size(step, self.image_size), length, step=number)


class _ClipLoss(nn.Module):
    def __init__(self, network: SAM2, plan: TrainingPlan) -> None:
        super().__init__()
        self.network, self.plan = network, plan

    def forward(self, batch: ClipBatch, generator: torch.Generator) -> Tensor:
        plan = self.plan
        self.network.config = replace(self.network.config, image_size=batch.images.shape[-1])
        with torch.autocast(batch.images.device.type, torch.bfloat16, enabled=plan.mixed_precision):
            return clip_loss(self.network, batch, plan.prompts, plan.losses, generator, plan.clips)


def train(
    network: SAM2,
    source: BatchSource,
    plan: TrainingPlan,
    folder: Path,
    *,
    validate: Callable[[SAM2], dict[str, float]] | None = None,
    report: Callable[[str], None] = lambda line: None,
    processes: Processes = _ALONE,
) -> SAM2:
    """Trains all of `network` that clips show, and returns its averaged copy; see `loop.run_training`."""
    config = network.config
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(part_of(name) not in {*plan.frozen, DRAFTS})
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise OptionError("All parts that this network has are frozen, so nothing would be trained on clips; freeze fewer.")
    trained = run_training(
        network,
        _ClipLoss(network, plan),
        _ClipBatches(source, plan, config.image_size, processes),
        plan,
        folder,
        device=network.device,
        validate=validate,
        report=report,
        processes=processes,
    )
    network.config = config
    return trained
