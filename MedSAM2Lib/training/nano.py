"""The recipe of the network that ships: what it is trained on, what is held out, for how long.

Its two parts are trained one after the other: what follows an object through slices, on clips; what drafts it, on cubes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
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
from MedSAM2Lib.training.processes import Processes
from MedSAM2Lib.training.sources import SourceOptions
from MedSAM2Lib.training.state import tensor_file
from MedSAM2Lib.training.steps import PromptMix
from MedSAM2Lib.training.validation import ClipValidation

__all__ = ["DRAFT_PLAN", "HELD_OUT", "NANO_PLAN", "train_nano"]

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

# Single slices until a box is understood, then clips; small images until little is left to learn on them.
NANO_PLAN = TrainingPlan(
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
DRAFT_PLAN = DraftPlan(
    steps=4_500,
    cubes_per_step=8,
    small_cube_steps=2_600,
    learning_rate=1.5e-3,
    warmup_steps=100,
    weight_decay=0.02,
    averaging=0.998,
    seed=1,
)
_REPAINTED = 0.15  # of labelled scans are shown in contrasts of their own
_FAR = 0.35  # of its clips leave out slices after the prompted one: what ten slices show is near the prompt
_DRAFTS = "drafts"  # folder of the second run


def train_nano(
    data: Path,
    folder: Path,
    plan: TrainingPlan,
    draft_plan: DraftPlan,
    *,
    device: torch.device,
    held_out: Collection[str] = HELD_OUT,
    report: Callable[[str], None] = lambda line: None,
    processes: Processes = _ALONE,
) -> Path:
    """Trains nano on a folder of volumes (layout: ../shared/train/README.md) and on synthetic patients.

    Goes on where an interrupted run in `folder` stopped. Returns the path of the finished weights, `nano.pt`, beside
    which `log.csv` and `curve.png` tell how they came about, and in the folder `drafts` those of its drafts; of several
    processes, the first one writes. Raises TrainingError.
    """
    torch.manual_seed(plan.seed)
    network = initialise(build_network(network_config("nano"))).to(device)
    runs = [folder]
    trained = _follow(network, data, folder, plan, held_out, report, processes)
    if network.volume_draft is not None:
        runs.append(folder / _DRAFTS)
        trained.volume_draft = _draft(network.volume_draft, data, runs[-1], draft_plan, held_out, report, processes)
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
    held_out: Collection[str],
    report: Callable[[str], None],
    processes: Processes,
) -> SAM2:
    source = ClipSource(data, SourceOptions(held_out=held_out, seed=plan.seed), far=_FAR, repainted=_REPAINTED)
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
