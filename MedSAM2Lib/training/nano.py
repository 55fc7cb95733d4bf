"""The recipe of the network that ships: what it is trained on, what is held out, for how long.

Its parts are trained one after the other: what follows an object through slices, on clips; once more what answers prompts,
on single slices and pairs of them; what drafts the object, on cubes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from MedSAM2Lib.checkpoints.loading import save_checkpoint
from MedSAM2Lib.network.build import build_network, initialise
from MedSAM2Lib.network.config import network_config
from MedSAM2Lib.network.sam2 import SAM2
from MedSAM2Lib.network.volume_unet import VolumeUNet
from MedSAM2Lib.training.clip_training import TrainingPlan, train
from MedSAM2Lib.training.clips import ClipSource
from MedSAM2Lib.training.cubes import CubeSource
from MedSAM2Lib.training.curve import plot_learning_curve
from MedSAM2Lib.training.draft_training import CubeValidation, DraftPlan, train_draft
from MedSAM2Lib.training.parts import PARTS, PROMPTED_DECODER
from MedSAM2Lib.training.processes import Processes
from MedSAM2Lib.training.sources import SourceOptions
from MedSAM2Lib.training.state import tensor_file
from MedSAM2Lib.training.steps import PromptMix
from MedSAM2Lib.training.validation import ClipValidation

__all__ = ["HELD_OUT", "NANO_RECIPE", "NanoRecipe", "train_nano"]

# Whole patients, of every larger source of ../shared/train: what the learning curve is measured on.
HELD_OUT = (
    "ct_headneck_kbp100",
    "ct_headneck_kbp104",
    "ct_headneck_kbp115",
    "ct_headneck_kbp116",
    "mr_ms_patient19_flair",
    "mr_ms_patient19_t1",
    "mr_ms_patient19_t1post",
    "mr_ms_patient19_t2",
    "mr_cord_unf01_t1w",
    "mr_cord_unf01_t2star",
    "mr_cord_unf01_t2w",
    "labels_head_synthseg19",
    "labels_head_synthseg20",
)

_ALONE = Processes()
_VALIDATED = ("scan", "label map")  # kinds that are somebody's labels


@dataclass(frozen=True)
class NanoRecipe:
    """The plans of nano's parts, in the order in which they are trained."""

    clips: TrainingPlan
    prompts: TrainingPlan
    drafts: DraftPlan

    @property
    def steps(self) -> int:
        """Of the first part, by which the others are scaled."""
        return self.clips.steps

    def scaled(self, steps: int) -> NanoRecipe:
        """The same recipe with another number of steps for the first part, and the others' in proportion."""
        prompts, drafts = (max(1, round(part.steps * steps / self.steps)) for part in (self.prompts, self.drafts))
        return replace(
            self, clips=self.clips.scaled(steps), prompts=self.prompts.scaled(prompts), drafts=self.drafts.scaled(drafts)
        )


# Single slices until a box is understood, then clips; small images until little is left to learn on them.
_CLIPS = TrainingPlan(
    steps=12_000,
    slices_per_step=48,
    single_slice_steps=2_000,
    lengths=(2, 4, 6, 10),
    small_image_steps=8_800,
    learning_rate=2e-3,
    prompts=PromptMix(
        box=0.7, click=0.15, correction=0.5, missed=0.3, most_clicks=2, unfollowed=0.15, astray=0.15, bounded=0.3
    ),
    seed=1,
)
# Prompted slices are few among those of clips, and all that follows rests on their masks.
_PROMPTS = TrainingPlan(
    steps=7_700,
    slices_per_step=48,
    lengths=(1, 1, 2),
    small_image_steps=3_500,
    learning_rate=6e-4,
    warmup_steps=200,
    final_share=0.01,
    averaging=0.9985,
    frozen=tuple(part for part in PARTS if part != PROMPTED_DECODER),
    # Never from a mask: there would be nothing to train.
    prompts=PromptMix(box=0.82, click=0.18, correction=0.35, boxed=0.6, missed=0.4, most_clicks=2),
    seed=2,
)
_DRAFTS = DraftPlan(
    steps=4_500,
    cubes_per_step=8,
    small_cube_steps=2_600,
    learning_rate=1.5e-3,
    warmup_steps=100,
    weight_decay=0.02,
    averaging=0.998,
    seed=1,
)
NANO_RECIPE = NanoRecipe(_CLIPS, _PROMPTS, _DRAFTS)
_REPAINTED = 0.15  # of labelled scans are shown in contrasts of their own
# Of its clips leave out slices after the prompted one: what ten slices show is near the prompt. More so where there are but two.
_FAR, _FAR_OF_PAIRS = 0.35, 0.5


def train_nano(
    data: Path,
    folder: Path,
    recipe: NanoRecipe,
    *,
    device: torch.device,
    held_out: Collection[str] = HELD_OUT,
    report: Callable[[str], None] = lambda line: None,
    processes: Processes = _ALONE,
) -> Path:
    """Trains nano on a folder of volumes (layout: ../shared/train/README.md) and on synthetic patients.

    Goes on where an interrupted run in `folder` stopped. Returns the path of the finished weights, `nano.pt`, beside
    which `log.csv` and `curve.png` tell how they came about, and in the folders `prompts` and `drafts` those of its other
    parts; of several processes, the first one writes. Raises TrainingError.
    """
    torch.manual_seed(recipe.clips.seed)
    network = initialise(build_network(network_config("nano"))).to(device)
    assert network.volume_draft is not None
    runs = [folder, folder / "prompts", folder / "drafts"]
    trained = _follow(network, data, runs[0], recipe.clips, _FAR, held_out, report, processes)
    trained = _follow(trained, data, runs[1], recipe.prompts, _FAR_OF_PAIRS, held_out, report, processes)
    trained.volume_draft = _draft(network.volume_draft, data, runs[2], recipe.drafts, held_out, report, processes)
    weights = folder / "nano.pt"
    if processes.is_first:
        with tensor_file(weights) as temporary:
            save_checkpoint(trained, "nano", temporary, eight_bits=True)
        try:
            for run in runs:
                plot_learning_curve(run / "log.csv", run / "curve.png")
        except ImportError:
            report("the learning curve was left out: it needs matplotlib (pip install matplotlib)")
    return weights


def _follow(
    network: SAM2,
    data: Path,
    folder: Path,
    plan: TrainingPlan,
    far: float,
    held_out: Collection[str],
    report: Callable[[str], None],
    processes: Processes,
) -> SAM2:
    source = ClipSource(data, SourceOptions(held_out=held_out, seed=plan.seed), far=far, repainted=_REPAINTED)
    source.preload()  # once, before the workers fork
    validate = None
    if held_out and processes.is_first:
        others = ClipSource(data, SourceOptions(held_out=source.volume_names, only=_VALIDATED))
        validate = ClipValidation(others.sample_batch, network.config.image_size)
    return train(network, source.sample_batch, plan, folder, validate=validate, report=report, processes=processes)


def _draft(
    network: VolumeUNet,
    data: Path,
    folder: Path,
    plan: DraftPlan,
    held_out: Collection[str],
    report: Callable[[str], None],
    processes: Processes,
) -> VolumeUNet:
    source = CubeSource(data, SourceOptions(held_out=held_out, seed=plan.seed), repainted=_REPAINTED)
    source.preload()
    validate = None
    if held_out and processes.is_first:
        others = CubeSource(data, SourceOptions(held_out=source.volume_names, only=_VALIDATED))
        validate = CubeValidation(others.sample_batch)
    return train_draft(network, source.sample_batch, plan, folder, validate=validate, report=report, processes=processes)
