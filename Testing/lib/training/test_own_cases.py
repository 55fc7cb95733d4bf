"""A few cases of one's own: which are held out, how clips are drawn from the others."""

from __future__ import annotations

import numpy as np
import pytest

from MedSAM2Lib.errors import OptionError, TrainingError
from MedSAM2Lib.geometry import Geometry
from MedSAM2Lib.network.config import NETWORKS
from MedSAM2Lib.training.clips import ClipSource
from MedSAM2Lib.training.fine_tuning import fine_tuning_plan, split_cases
from MedSAM2Lib.training.own_cases import CaseClips, CaseCubes, own_volume
from MedSAM2Lib.training.sources import SourceOptions
from MedSAM2Lib.training.volumes import TrainingVolume
from MedSAM2Lib.volume import Volume
from Testing.lib.training.support import same_batch

SHAPE = (10, 40, 44)
IDS = [f"case {n}" for n in range(8)]


def a_volume(name: str = "a") -> TrainingVolume:
    """An organ with a lesion inside (they overlap), and four scattered spots under one name."""
    k, j, i = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    organ = np.broadcast_to(((j - 20) / 9) ** 2 + ((i - 16) / 8) ** 2 <= 1, SHAPE) & (k > 0)
    lesion = organ & ((j - 20) ** 2 + (i - 16) ** 2 <= 9)
    spots = np.zeros(SHAPE, dtype=bool)
    for row, column in ((4, 32), (4, 38), (30, 32), (30, 38)):
        spots[2:8, row : row + 4, column : column + 4] = True
    image = 100.0 * organ + 80 * lesion + 150 * spots + np.random.default_rng(0).normal(0, 5, SHAPE)
    volume = Volume(image.astype(np.float64), Geometry(SHAPE, (1.0, 1.0, 3.0)))
    return own_volume(name, volume, {"organ": organ, "lesion": lesion, "spots": spots})


def test_structures_that_overlap_and_scattered_ones_are_targets_of_their_own() -> None:
    volume = a_volume()
    assert {name: len(targets) for name, targets in volume.targets.items()} == {"organ": 1, "lesion": 1, "spots": 4}
    assert volume.spacing == (3.0, 1.0, 1.0)
    assert not volume.is_ct


def test_clips_show_every_structure_and_follow_from_the_seed() -> None:
    source = CaseClips([a_volume("a"), a_volume("b")])
    clips = [source.sample(np.random.default_rng(seed), 32, 4) for seed in range(24)]
    assert {clip.name.split(": ")[1].split()[0] for clip in clips} == {"organ", "lesion", "spots"}
    assert all(clip.images.shape == (4, 3, 32, 32) and clip.masks[0].any() for clip in clips)
    first, again = (source.sample_batch(np.random.default_rng(1), 2, 32, 4) for _ in range(2))
    assert same_batch(first, again)


def test_whole_slices_are_shown_to_networks_that_see_them() -> None:
    share = {
        whole: np.mean(
            [CaseClips([a_volume()], whole).sample(np.random.default_rng(n), 32, 1).masks[0].mean() for n in range(30)]
        )
        for whole in (0.0, 1.0)
    }
    assert share[1.0] < 0.6 * share[0.0]  # of the picture that the object takes


def test_more_slices_than_there_are_cannot_be_drawn() -> None:
    with pytest.raises(TrainingError, match="example of 11 slices"):
        CaseClips([a_volume()]).sample(np.random.default_rng(0), 32, 11)


@pytest.mark.parametrize(("thickest", "lengths"), [(1, (1,)), (5, (1, 4)), (90, (1, 4, 6, 8))])
def test_clips_are_no_longer_than_the_cases(thickest: int, lengths: tuple[int, ...]) -> None:
    plan = fine_tuning_plan(NETWORKS["nano"], [1, thickest], steps=40, slices_per_step=16, learning_rate=1e-4, seed=0)
    assert plan.lengths == lengths
    assert (plan.warmup_steps, plan.save_every, plan.validate_every) == (2, 2, 10)


@pytest.mark.parametrize(("hold_out", "count"), [("0.25", 2), ("0.01", 1), ("0.9", 7), ("0", 0)])
def test_a_share_of_the_cases_is_held_out(hold_out: str, count: int) -> None:
    trained, held_out = split_cases(IDS, hold_out, seed=0)
    assert len(held_out) == count
    assert sorted(trained + held_out) == IDS
    assert (trained, held_out) == split_cases(IDS, hold_out, seed=0)


def test_another_seed_holds_out_others_and_names_hold_out_themselves() -> None:
    assert len({tuple(split_cases(IDS, "0.25", seed)[1]) for seed in range(5)}) > 1
    assert split_cases(IDS, "case 2, case 5", seed=0)[1] == ["case 2", "case 5"]


@pytest.mark.parametrize(
    ("ids", "hold_out", "told"),
    [
        (IDS, "nobody", "names 'nobody', but the cases are case 0"),
        (IDS, "1.5", "from 0 to below 1"),
        (["only"], "0.25", "of 1 there 1 would be held out"),
        (["a", "b"], "a,b", "of 2 there 2 would be held out"),
    ],
)
def test_a_split_that_leaves_nothing_is_refused(ids: list[str], hold_out: str, told: str) -> None:
    with pytest.raises(OptionError, match=told):
        split_cases(ids, hold_out, seed=0)


def test_a_share_of_the_clips_may_show_something_else() -> None:
    synthetic = ClipSource(None, SourceOptions(synthetic_shape=(12, 32, 32)))
    assert synthetic.sample(np.random.default_rng(0), 32, 2).kind == "synthetic"
    mixed = CaseClips([a_volume()], others=(synthetic, 0.5))
    rng = np.random.default_rng(0)
    kinds = [mixed.sample(rng, 32, 2).kind for _ in range(16)]
    assert 4 <= kinds.count("scan") <= 12
    assert mixed.sample_batch(rng, 3, 32, 2).images.shape == (3, 2, 3, 32, 32)


def test_cubes_are_drawn_of_own_cases_too() -> None:
    cubes = CaseCubes([a_volume()]).sample_batch(np.random.default_rng(0), 2, 32)
    assert cubes.grey.shape == (2, 32, 32, 32)
    assert cubes.mask.flatten(1).any(1).all()
