"""How alike the memories are that a slice gets to see, as a pass goes on: figure 6 of Medical SAM 2, arXiv 2408.00874.

The paper shows mutual information, without saying how it is estimated. Here it is the mean cosine of every two memory maps,
prompted slices among them: what the rule itself compares.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import mean

import torch

from MedSAM2Lib.evaluation.ablation import RECENT, Variant
from MedSAM2Lib.evaluation.cases import LoadedCase
from MedSAM2Lib.evaluation.run import Protocol, first_prompts, window_of
from MedSAM2Lib.inference.session import Session
from MedSAM2Lib.memory.options import SelfSorting
from MedSAM2Lib.memory.self_sorting import mean_similarity

__all__ = ["LIKENESS_VARIANTS", "likeness_over_slices", "likeness_table"]

# Before resampling, which depends on the slice that looks.
LIKENESS_VARIANTS = (RECENT, Variant("self-sorting, before resampling", SelfSorting(resample="no")))
_STEPS = (2, 4, 8, 16, 32, 64)  # slices tracked


def likeness_over_slices(session: Session, loaded: LoadedCase, protocol: Protocol, variant: Variant) -> list[list[float]]:
    """Per structure: after one slice was tracked, after two and so on, how alike the memories are that the next one sees."""
    session.set_volume(loaded.volume, axis="k", window=window_of(loaded.case, protocol))
    session.options = replace(session.options, memory=variant.memory)
    unseen = torch.zeros(1, 1, 1, 1)  # neither rule looks at the slice
    curves = []
    for target in loaded.targets:
        session.reset()
        name = target.structure.name
        (prompt,) = first_prompts(loaded, target, replace(protocol, every=None))
        session.add_prompt(name, prompt)
        curve = []
        for result in session.propagate([name]):
            direction = 1 if result.slice_index > prompt.slice_index else -1
            seen = session.memory(name).select(result.slice_index + direction, direction, session.slice_count, unseen)
            curve.append(mean_similarity(torch.stack([entry.map.flatten().float() for entry, _ in seen.maps])))
        curves.append(curve)
    session.reset()
    return curves


def likeness_table(curves: Mapping[str, Sequence[Sequence[float]]]) -> str:
    """Markdown: the mean over the structures whose passes reach so far, by variant."""
    longest = max(len(curve) for several in curves.values() for curve in several)
    steps = [step for step in _STEPS if step <= longest]
    lines = ["| slices tracked | " + " | ".join(map(str, steps)) + " |", "| --- |" + " --- |" * len(steps)]
    for name, several in curves.items():
        reached = [[curve[step - 1] for curve in several if len(curve) >= step] for step in steps]
        lines.append(f"| {name} | " + " | ".join(f"{mean(values):.3f} ({len(values)})" for values in reached) + " |")
    return "### Likeness of what a slice sees\n\n" + "\n".join(lines) + "\n"
