"""The parts of a network that can be trained or frozen, by the names of SAM 2's paper. No torch here: for `--help`."""

from __future__ import annotations

from collections.abc import Collection

from MedSAM2Lib.errors import OptionError

__all__ = ["DRAFTS", "PARTS", "PROMPTED_DECODER", "check_parts", "part_of"]

# How the names of a part's parameters begin.
PARTS = {
    "image-encoder": ("image_encoder.",),
    "prompt-encoder": ("sam_prompt_encoder.", "mask_downsample."),
    "memory": ("memory_", "maskmem_", "no_mem_", "no_obj_", "obj_ptr_", "depth_embedding."),
    "mask-decoder": ("sam_mask_decoder.",),
    "prompted-decoder": ("prompted_mask_decoder.",),
    "drafts": ("volume_draft.",),
}
PROMPTED_DECODER = "prompted-decoder"  # answers prompts, where the mask decoder follows objects
DRAFTS = "drafts"  # are made of cubes, not of clips, and trained by themselves (`draft_training`)


def part_of(parameter: str) -> str:
    """The part that a parameter belongs to, by its name in a checkpoint."""
    return next(part for part, beginnings in PARTS.items() if parameter.startswith(beginnings))


def check_parts(frozen: Collection[str]) -> None:
    """Raises OptionError for an unknown part, and where nothing is left to train."""
    if unknown := [part for part in frozen if part not in PARTS]:
        raise OptionError(f"Unknown part {unknown[0]!r}: what can be frozen is {', '.join(PARTS)}.")
    if {*frozen, DRAFTS} == set(PARTS):
        raise OptionError("All parts but drafts are frozen, so nothing would be trained on clips; freeze fewer.")
