"""What each of the processes does that `test_joined_training` starts with torchrun: a run, its gradients, an interruption."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from MedSAM2Lib.errors import TrainingError
from MedSAM2Lib.network.build import build_network, initialise
from MedSAM2Lib.network.sam2 import SAM2
from MedSAM2Lib.training.clip import ClipBatch
from MedSAM2Lib.training.clip_training import BatchSource, TrainingPlan, train
from MedSAM2Lib.training.processes import joined_processes
from MedSAM2Lib.training.steps import PromptMix
from Testing.lib.training.support import PLAIN, squares

# Masks as prompts: a box would be drawn with other random numbers for half a batch than for a whole one.
MASKS = PromptMix(box=0.0, click=0.0, correction=0.0)
PLAN = TrainingPlan(
    steps=1, slices_per_step=8, lengths=(2,), warmup_steps=1, workers=0, mixed_precision=False, gradient_clip=1e9, prompts=MASKS
)
LONGER = replace(PLAN, steps=4, save_every=2)


def a_network() -> SAM2:
    torch.manual_seed(0)
    return initialise(build_network(PLAIN))


def clips(rng: np.random.Generator, batch_size: int, image_size: int, length: int, *, step: int) -> ClipBatch:
    """Two clips that depend on the step alone, which is another one for each process."""
    return squares(np.random.default_rng(step), 2, image_size, length, step=step)


def joined_clips(rng: np.random.Generator, batch_size: int, image_size: int, length: int, *, step: int) -> ClipBatch:
    """What two processes get together."""
    parts = [clips(rng, 2, image_size, length, step=2 * step + rank) for rank in range(2)]
    return ClipBatch(*(torch.cat(part) for part in zip(*parts, strict=True)))


def stopping_at(last: int, how: BaseException | None) -> BatchSource:
    """`clips`, until both processes are interrupted; or, where nothing interrupts, one of them sees NaN."""

    def source(rng: np.random.Generator, batch_size: int, image_size: int, length: int, *, step: int) -> ClipBatch:
        batch = clips(rng, batch_size, image_size, length, step=step)
        if step // 2 >= last and how is not None:
            raise how
        return batch._replace(images=batch.images * (torch.nan if step == 2 * last + 1 else 1))

    return source


def main(folder: Path) -> None:
    with joined_processes(torch.device("cpu")) as (processes, _):
        assert processes.count == 2
        # 1. One step, and the gradients that it left
        network = a_network()
        train(network, clips, PLAN, folder / "step", processes=processes)
        if processes.is_first:
            torch.save({name: p.grad for name, p in network.named_parameters() if p.grad is not None}, folder / "gradients.pt")
        # 2. A whole run, and one that is interrupted and goes on
        whole = train(a_network(), clips, LONGER, folder / "whole", processes=processes).state_dict()
        with contextlib.suppress(KeyboardInterrupt):
            train(a_network(), stopping_at(3, KeyboardInterrupt()), LONGER, folder / "halves", processes=processes)
        resumed = train(a_network(), clips, LONGER, folder / "halves", processes=processes).state_dict()
        assert all(torch.equal(value, resumed[name]) for name, value in whole.items()), "resumed, it is another network"
        # 3. A loss that is not finite in one process ends both
        try:
            train(a_network(), stopping_at(1, None), LONGER, folder / "poisoned", processes=processes)
        except TrainingError:
            (folder / f"ended{processes.rank}").touch()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
