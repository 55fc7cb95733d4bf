"""Going on from a trained network with a few cases of one's own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from MedSAM2Lib.errors import OptionError
from MedSAM2Lib.network.config import NetworkConfig
from MedSAM2Lib.training.clip_training import TrainingPlan
from MedSAM2Lib.training.draft_training import DraftPlan
from MedSAM2Lib.training.losses import FROM_SCRATCH, LossWeights
from MedSAM2Lib.training.steps import PAPER_MIX, PromptMix
from MedSAM2Lib.training.views import WHOLE_SLICE_SHARE

__all__ = ["draft_tuning_plan", "fine_tuning_plan", "split_cases", "whole_slice_share"]

_WARMUP_SHARE = 0.05  # of the steps
_SAVES, _VALIDATIONS = 20, 4  # of a run
_CLIP_LENGTHS = (1, 4, 6, 8)
_OWN_MIX = PromptMix(correction=0.4, missed=0.3, unfollowed=0.15, astray=0.15, bounded=0.3)
_SLICES_PER_CUBE = 8  # that take as long to train on
_WITHOUT_ZOOM = 0.8  # of the clips of a network that sees whole slices show them; the rest shows it details


def fine_tuning_plan(
    config: NetworkConfig, slice_counts: Sequence[int], *, steps: int, slices_per_step: int, learning_rate: float, seed: int
) -> TrainingPlan:
    """How a network is fine-tuned.

    slice_counts  of the cases: a clip is no longer than the thickest of them
    """
    thickest = max(slice_counts)
    own_network = config.trunk is None  # trained by this project, from random weights
    return TrainingPlan(
        steps=steps,
        slices_per_step=slices_per_step,
        lengths=tuple(length for length in _CLIP_LENGTHS if length <= min(thickest, slices_per_step)),
        learning_rate=learning_rate,
        warmup_steps=max(1, round(_WARMUP_SHARE * steps)),
        prompts=_OWN_MIX if own_network else PAPER_MIX,
        losses=FROM_SCRATCH if own_network else LossWeights(),
        seed=seed,
        save_every=max(1, steps // _SAVES),
        validate_every=max(1, steps // _VALIDATIONS),
    )


def draft_tuning_plan(plan: TrainingPlan) -> DraftPlan:
    """How drafts are fine-tuned beside it."""
    return DraftPlan(
        steps=plan.steps,
        cubes_per_step=max(1, plan.slices_per_step // _SLICES_PER_CUBE),
        learning_rate=plan.learning_rate,
        warmup_steps=plan.warmup_steps,
        mixed_precision=plan.mixed_precision,
        seed=plan.seed,
        save_every=plan.save_every,
        validate_every=plan.validate_every,
        workers=plan.workers,
        tensorboard=plan.tensorboard,
    )


def split_cases(ids: Sequence[str], hold_out: str, seed: int) -> tuple[list[str], list[str]]:
    """Cases to train on and cases to measure on, both in the order of `ids`.

    hold_out  a share 0..1 of the cases, drawn by the seed (at least one case, unless it is 0); or names, with commas between

    Raises OptionError where a name is unknown, or either side would be empty.
    """
    held_out = _drawn(ids, hold_out, seed)
    if len(held_out) == len(ids):
        raise OptionError(
            f"Training needs a case beside those held out, but of {len(ids)} there {len(held_out)} would be held out; add cases, "
            "or say --hold-out 0 to measure nothing."
        )
    return [one for one in ids if one not in held_out], [one for one in ids if one in held_out]


def _drawn(ids: Sequence[str], hold_out: str, seed: int) -> set[str]:
    try:
        share = float(hold_out)
    except ValueError:
        names = {name.strip() for name in hold_out.split(",") if name.strip()}
        if unknown := sorted(names - set(ids)):
            raise OptionError(f"--hold-out names {unknown[0]!r}, but the cases are {', '.join(ids)}.") from None
        return names
    if not 0 <= share < 1:
        raise OptionError(f"--hold-out is a share of the cases from 0 to below 1, or their names, but {hold_out} came.")
    count = max(1, round(share * len(ids))) if share else 0
    return {ids[place] for place in np.random.default_rng(seed).permutation(len(ids))[:count]}


def whole_slice_share(zoom: float | None) -> float:
    """Which share of the clips shows whole slices, for a network that sees `zoom` times the prompt (None: whole slices)."""
    return _WITHOUT_ZOOM if zoom is None else WHOLE_SLICE_SHARE
