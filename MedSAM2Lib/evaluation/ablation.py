"""What each part of the self-sorting memory does: the same structures and prompts under one variant after the other.

The studies follow table 3 and figure 7 of Medical SAM 2 (arXiv 2408.00874), and ask what the paper leaves open. Every
variant is compared with `RECENT`, SAM 2's own rule, structure by structure.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace

from MedSAM2Lib.errors import PromptError
from MedSAM2Lib.evaluation.bootstrap import Interval, mean_with_interval
from MedSAM2Lib.evaluation.cases import LoadedCase, Target
from MedSAM2Lib.evaluation.rows import Row, agreement
from MedSAM2Lib.evaluation.run import Protocol, Unscored, evaluate_structure, window_of
from MedSAM2Lib.inference.orientations import Aggregation, Orientations
from MedSAM2Lib.inference.session import Session
from MedSAM2Lib.memory.options import NAMED_RULES, Memory, SelfSorting

__all__ = ["RECENT", "STUDIES", "Comparison", "Study", "Variant", "compare", "evaluate_variants", "variants_of"]

_NOTICEABLE = 0.005  # of Dice; less is not counted as better or worse


@dataclass(frozen=True)
class Variant:
    """A rule of memory, how often a person prompts, and along how many axes. Its name is that of its rows' method."""

    name: str
    memory: Memory
    share: float | None = None  # of the slices with the object that are prompted; None: one slice
    orientations: int = 1
    aggregation: Aggregation = "mean"


@dataclass(frozen=True)
class Study:
    """Variants that answer one question; `against` are those with SAM 2's rule that they are compared with."""

    title: str
    variants: tuple[Variant, ...]
    against: tuple[Variant, ...]  # one for each variant


@dataclass(frozen=True)
class Comparison:
    """A variant beside another one, over the structures that both have."""

    variant: str
    dice: Interval
    difference: Interval
    better: int  # structures by more than 0.005 of Dice
    worse: int
    structures: int
    seconds: float  # on average, from the prompts to the mask


RECENT = Variant("last slices (SAM 2)", "recent")
_SORTED = Variant("self-sorting (all three)", "self-sorting")
_RULE = SelfSorting()
_SHARES = (None, 0.25, 0.5, 1.0)  # None: one slice


def _study(title: str, *variants: Variant) -> Study:
    return Study(title, variants, (RECENT,) * len(variants))


def _frequency() -> Study:
    recent, sorted_ = (
        [first if share is None else Variant(f"{first.name}, {share:.0%}", first.memory, share) for share in _SHARES]
        for first in (RECENT, _SORTED)
    )
    pairs = list(zip(recent, sorted_, strict=True))
    return Study(
        "Slices prompted: one, or a share of those with the object",
        tuple(variant for pair in pairs for variant in pair),
        tuple(first for first, _ in pairs for _ in range(2)),
    )


STUDIES = {
    "parts": _study(
        "The parts of the rule",
        RECENT,
        Variant("threshold", replace(_RULE, keep="recent", resample="no")),
        Variant("threshold, dissimilarity", replace(_RULE, resample="no")),
        _SORTED,
        Variant("all three, resampled by chance", "self-sorting-random"),
        Variant("the published code's rule", "self-sorting-code"),
    ),
    "threshold": _study(
        "Confidence that admits a slice",
        *(Variant(f"threshold {value:g}", replace(_RULE, threshold=value)) for value in (0.0, 0.2, 0.5, 0.7)),
        Variant("threshold 0.5, nothing below it", replace(_RULE, threshold=0.5, fill=False)),
    ),
    "capacity": _study(
        "Slices remembered",
        Variant("K = 3", replace(_RULE, capacity=3)),
        Variant("K = 6, as many as networks are trained to see", _RULE),
        *(Variant(f"K = {count}", replace(_RULE, capacity=count)) for count in (12, 24)),
    ),
    "open": _study(
        "What else the paper leaves open",
        Variant("compared by object pointers", replace(_RULE, compare="pointer")),
        Variant("compared by looks", replace(_RULE, compare="appearance")),
        Variant("drawn by the power of 1 of similarity", replace(_RULE, sharpness=1.0)),
        Variant("drawn by the power of 32", replace(_RULE, sharpness=32.0)),
        Variant("without temporal positions", replace(_RULE, slots="timeless")),
    ),
    "frequency": _frequency(),
    "orientations": _study(
        "Sequences along three axes, outwards and inwards",
        Variant("3 orientations, mean of logits", "recent", orientations=3),
        Variant("3 orientations, majority", "recent", orientations=3, aggregation="majority"),
        Variant("6 orientations, mean of logits", "recent", orientations=6),
    ),
}


def variants_of(studies: Sequence[Study]) -> list[Variant]:
    """Every variant that the studies need, once."""
    return list(dict.fromkeys(variant for study in studies for variant in (*study.against, *study.variants)))


def evaluate_variants(
    session: Session, loaded: LoadedCase, protocol: Protocol, variants: Sequence[Variant]
) -> Iterator[list[Row] | Unscored]:
    """Yields the rows of each structure, one per variant, whose name is the row's method.

    The session takes the case's volume; all variants share its image features.
    """
    session.set_volume(loaded.volume, axis="k", window=window_of(loaded.case, protocol))
    own = session.options
    for target in loaded.targets:
        try:
            rows: dict[Variant, Row] = {}
            for variant in map(_nameless, variants):
                if variant not in rows:
                    rows[variant] = _evaluate_variant(session, loaded, target, protocol, variant)
            yield [replace(rows[_nameless(variant)], method=variant.name) for variant in variants]
        except PromptError as error:
            yield Unscored(f"Case {loaded.case.id!r}, structure {target.structure.name!r}: {error}")
        finally:
            session.reset()
            session.options = own


def _nameless(variant: Variant) -> Variant:
    """Variants that differ in their names only are the same one, and are not run twice."""
    memory = variant.memory
    return replace(variant, name="", memory=memory if isinstance(memory, SelfSorting) else NAMED_RULES.get(memory, memory))


def _evaluate_variant(session: Session, loaded: LoadedCase, target: Target, protocol: Protocol, variant: Variant) -> Row:
    # 1. Along k
    session.reset()
    session.options = replace(session.options, memory=variant.memory)
    row = evaluate_structure(session, loaded, target, replace(protocol, every=variant.share)).rows[0]
    if variant.orientations == 1 or len(loaded.volume.array) == 1:  # an image of one slice has no other axis
        return row
    # 2. Along the other axes
    begun = time.perf_counter()
    window = window_of(loaded.case, protocol)
    others = Orientations(session, loaded.volume, "k", window, variant.orientations, variant.aggregation)
    mask = others.segment(target.structure.name).mask
    scores = agreement(mask, target.reference, loaded.volume.geometry.spacing, row.prompted_slices)
    return replace(row, **asdict(scores), seconds=(row.seconds or 0.0) + time.perf_counter() - begun)


def compare(rows: Sequence[Row], study: Study, seed: int = 0) -> list[Comparison]:
    """The study's variants beside the ones they are compared with. Images of one slice have no 3D Dice and are left out."""
    return [_compared(rows, one.name, other.name, seed) for one, other in zip(study.variants, study.against, strict=True)]


def _compared(rows: Sequence[Row], name: str, other: str, seed: int) -> Comparison:
    mine = {(row.case, row.structure): row for row in rows if row.method == name and row.dice is not None}
    theirs = {(row.case, row.structure): row for row in rows if row.method == other and row.dice is not None}
    keys = [key for key in mine if key in theirs]
    cases = [case for case, _ in keys]
    dice = [mine[key].dice or 0.0 for key in keys]
    differences = [(mine[key].dice or 0.0) - (theirs[key].dice or 0.0) for key in keys]
    return Comparison(
        variant=name,
        dice=mean_with_interval(dice, cases, seed),
        difference=mean_with_interval(differences, cases, seed),
        better=sum(difference > _NOTICEABLE for difference in differences),
        worse=sum(difference < -_NOTICEABLE for difference in differences),
        structures=len(keys),
        seconds=sum(mine[key].seconds or 0.0 for key in keys) / len(keys),
    )
