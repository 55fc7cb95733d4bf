"""Clips: what is drawn, from where, and that a batch depends on its seed and step alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from MedSAM2Lib.errors import TrainingError
from MedSAM2Lib.training import clips as clips_module
from MedSAM2Lib.training.augmentation import augment, choose_window
from MedSAM2Lib.training.clip import Clip, ClipBatch
from MedSAM2Lib.training.clips import ClipSource
from MedSAM2Lib.training.regions import grow_region
from MedSAM2Lib.training.sources import ALWAYS_LEFT_OUT, SourceOptions
from MedSAM2Lib.training.views import View, choose_view, resample
from MedSAM2Lib.training.volumes import TrainingVolume, label_targets
from Testing.lib.training.support import ball, entry, same_batch, write_manifest

REAL_FOLDER = Path(__file__).parents[4] / "shared" / "train"
needs_real_folder = pytest.mark.skipif(not (REAL_FOLDER / "manifest.json").exists(), reason=f"no training set at {REAL_FOLDER}")

SIZE = 32
SYNTHETIC_SHAPE = (12, 32, 32)


def _source(folder: Path, *, repainted: float = 0.0, **options: Any) -> ClipSource:
    return ClipSource(folder, SourceOptions(synthetic_shape=SYNTHETIC_SHAPE, **options), repainted=repainted)


def _clips(source: ClipSource, count: int = 12, length: int = 3) -> list[Clip]:
    rng = np.random.default_rng(1)
    return [source.sample(rng, SIZE, length) for _ in range(count)]


@pytest.mark.parametrize("kind", ["scan", "label map", "supervoxel", "lesion", "synthetic"])
def test_every_kind_gives_clips_of_the_right_shape_whose_first_mask_is_not_empty(a_train_folder: Path, kind: str) -> None:
    for clip in _clips(_source(a_train_folder, only=[kind])):
        assert clip.kind == kind
        assert clip.images.shape == (3, 3, SIZE, SIZE)
        assert clip.masks.shape == (3, SIZE, SIZE)
        assert clip.images.dtype == np.float32
        assert clip.masks.dtype == np.bool_
        assert clip.images.min() >= 0
        assert clip.images.max() <= 1
        assert clip.masks[0].any()


def test_all_kinds_are_drawn(a_train_folder: Path) -> None:
    kinds = {clip.kind for clip in _clips(_source(a_train_folder), count=80)}
    assert kinds == {"scan", "label map", "supervoxel", "lesion", "synthetic"}


def test_a_lesion_differs_from_the_scan_it_is_drawn_into(a_train_folder: Path) -> None:
    clips = _clips(_source(a_train_folder, only=["lesion"]), count=30, length=1)
    for clip in clips:
        outside = ndimage.binary_dilation(clip.masks[0], iterations=4) & ~ndimage.binary_dilation(clip.masks[0])
        clip_contrast = abs(float(clip.images[0, 1][clip.masks[0]].mean() - clip.images[0, 1][outside].mean()))
        assert clip_contrast > 0.01
    assert len({int(clip.masks[0].sum()) for clip in clips}) > 15


def test_a_repainted_scan_keeps_its_outlines_in_another_contrast(a_train_folder: Path) -> None:
    def contrasts(repainted: float) -> list[float]:
        source = _source(a_train_folder, only=["scan"], held_out=["ct"], repainted=repainted)
        images = [(clip.images[:, 1], clip.masks) for clip in _clips(source, count=30, length=1)]
        return [float(np.median(image[mask]) - np.median(image[~mask])) for image, mask in images]

    assert sum(contrast < -0.02 for contrast in contrasts(0.0)) < 4  # only where grey values are inverted
    assert sum(contrast < -0.02 for contrast in contrasts(1.0)) > 5


def test_the_mask_lies_on_the_object(a_train_folder: Path) -> None:
    for clip in _clips(_source(a_train_folder, only=["scan"], held_out=["ct"]), count=30, length=1):
        images = clip.images[:, 1]
        inside, outside = images[clip.masks], images[~clip.masks]
        assert abs(float(np.median(inside) - np.median(outside))) > 0.05


def test_a_clips_slices_follow_one_another_each_between_its_neighbours(
    a_train_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clips_module, "augment", lambda rng, images: images)
    label = ball((16, 40, 40), (8, 20, 20), 7).astype(np.uint8)
    brighter_upwards = np.broadcast_to(np.arange(20, 180, 10, np.uint8)[:, None, None], label.shape)
    np.savez(a_train_folder / "scan.npz", image=brighter_upwards, label=label, spacing=np.ones(3, np.float32))
    write_manifest(a_train_folder, [entry("scan", "image+label", {"organ": [1]})])
    clips = _clips(_source(a_train_folder, only=["scan"]), count=40)
    for clip in clips:
        np.testing.assert_array_equal(clip.images[1:, 0], clip.images[:-1, 1])
        np.testing.assert_array_equal(clip.images[:-1, 2], clip.images[1:, 1])
    run = [np.concatenate((clip.images[:, 0], clip.images[-1, 1:])) for clip in clips]
    steps = np.stack([np.diff(slices.mean(axis=(1, 2))) for slices in run])  # (clips, 4)
    upwards = steps.sum(axis=1) > 0
    steps[~upwards] *= -1
    assert steps.min() > -0.02  # noise, and slices along j or i, which are all alike
    assert (steps.min(axis=1) > 0.02)[upwards].sum() > 5
    assert (steps.min(axis=1) > 0.02)[~upwards].sum() > 5


def test_scattered_lesions_are_split_into_pieces(a_train_folder: Path) -> None:
    names = {clip.name for clip in _clips(_source(a_train_folder, only=["scan"], held_out=["ct"]), count=40)}
    assert names == {"scan: organ", "scan: lesions 1", "scan: lesions 2"}


def test_what_is_held_out_and_the_people_of_evaluation_cases_are_never_opened(a_train_folder: Path) -> None:
    assert _source(a_train_folder, held_out=["ct"]).volume_names == ("scan", "map")
    assert _source(a_train_folder, held_out=["tests"]).volume_names == ("ct",)


def test_a_batch_depends_on_generator_and_step_alone(a_train_folder: Path) -> None:
    def batch(source: ClipSource, step: int) -> ClipBatch:
        return source.sample_batch(np.random.default_rng((5, step)), 2, SIZE, 3, step=step)

    in_order, other = _source(a_train_folder), _source(a_train_folder)
    expected = [batch(in_order, step) for step in range(6)]
    for step in (5, 2, 0, 4):
        assert same_batch(batch(other, step), expected[step])


def test_synthetic_volumes_change_as_the_run_goes_on(a_train_folder: Path) -> None:
    source = _source(a_train_folder, only=["synthetic"])
    early, late = (source.sample(np.random.default_rng(0), SIZE, 1, step=step) for step in (0, 16 * 60))
    assert early.name.split(".")[:2] == late.name.split(".")[:2]
    assert not np.array_equal(early.images, late.images)


def test_a_view_contains_the_object_it_was_chosen_for() -> None:
    shape = (9, 60, 60)
    label = ball(shape, (4, 30, 22), 9).astype(np.uint8)
    volume = TrainingVolume("ball", (1.0, 1.0, 1.0), label, label)
    (target,) = label_targets(volume, "ball", [1], split=False)
    rng = np.random.default_rng(0)
    for _ in range(30):
        view = choose_view(rng, shape, volume.spacing, target, 0, 64, 1)
        assert view is not None
        rows, columns = view.window(shape[1:])
        mask = target.cut(0, view.indices[:, 1], rows, columns)
        seen = resample(view, mask.astype(np.float32), rows, columns)[0] >= 0.5
        expected = label[view.indices[0, 1]].sum() / (view.shrink[0] * view.shrink[1])
        assert seen.sum() == pytest.approx(expected, rel=0.25)


def _views(depth: int, length: int, far: float = 0.0) -> list[View]:
    """30 views of a ball of 12 slices' radius in the middle of a volume of so many slices, 2 mm apart."""
    label = ball((depth, 40, 40), (depth // 2, 20, 20), 12).astype(np.uint8)
    volume = TrainingVolume("ball", (2.0, 1.0, 1.0), label, label)
    (target,) = label_targets(volume, "ball", [1], split=False)
    rng = np.random.default_rng(0)
    views = [choose_view(rng, label.shape, volume.spacing, target, 0, SIZE, length, far=far) for _ in range(30)]
    return [view for view in views if view is not None]


def test_a_views_slices_are_one_step_apart_and_so_are_their_neighbours() -> None:
    steps = {tuple({*np.diff(view.indices).flat, *np.diff(view.indices[:, 1])}) for view in _views(depth=60, length=3)}
    assert {(1,), (-1,)} < steps
    assert all(len(step) == 1 for step in steps)


def test_at_the_ends_of_the_volume_neighbours_are_the_slice_itself() -> None:
    seen = {tuple(map(tuple, view.indices.tolist())) for view in _views(depth=4, length=4)}
    assert seen == {((0, 0, 1), (0, 1, 2), (1, 2, 3), (2, 3, 3)), ((3, 3, 2), (3, 2, 1), (2, 1, 0), (1, 0, 0))}


def test_slices_can_be_left_out_after_the_prompted_one_and_before_the_last() -> None:
    views = _views(depth=90, length=4, far=1.0)
    jumps = np.stack([np.abs(np.diff(view.indices[:, 1])) for view in views])  # (views, 3)
    assert (jumps[:, 0] > jumps[:, 1]).sum() > 10
    assert (jumps[:, 2] > jumps[:, 1]).sum() > 10
    resumed = np.array([view.indices[1, 1] for view in views])
    ended = (resumed < 33) | (resumed > 57)
    assert 3 < ended.sum() < len(views) / 2  # a pass that goes on beyond the object's end must notice
    assert ((resumed >= 33 - 8) & (resumed <= 57 + 8)).all()  # but not far beyond


def test_a_view_knows_how_far_its_slices_are_from_the_prompted_one() -> None:
    for view in _views(depth=90, length=4, far=0.5):
        pixel = float(np.hypot(*(np.diff(side[:2, :2], axis=axis).mean() for side, axis in ((view.rows, 0), (view.columns, 0)))))
        jumps = np.abs(view.indices[:, 1] - view.indices[0, 1])
        np.testing.assert_allclose(view.distances, jumps * 2.0 / pixel, rtol=0.3)  # squares are stretched and bent a little
        assert view.step == pytest.approx(view.distances[2] - view.distances[1], rel=1e-3)


def test_a_ct_window_shows_the_object() -> None:
    values = np.full((40, 40), 30, np.float32)
    mask = np.zeros((40, 40), bool)
    mask[10:20, 10:20] = True
    values[mask] = 1200  # bone
    volume = TrainingVolume("ct", (1, 1, 1), values[None].astype(np.int16), None, is_ct=True)
    rng = np.random.default_rng(0)
    for _ in range(50):
        low, high = choose_window(rng, volume, values, mask)
        shown = np.clip((values - low) / (high - low), 0, 1)
        assert shown[mask].mean() - shown[~mask].mean() > 0.1


def test_some_images_are_seen_through_another_curve() -> None:
    ramp = np.linspace(0, 1, SIZE, dtype=np.float32)[None, None].repeat(SIZE, 1)
    rows = [augment(np.random.default_rng(seed), ramp)[0].mean(0) for seed in range(60)]
    turns = [int((np.diff(np.sign(np.diff(row[2:-2:4]))) != 0).sum()) for row in rows]
    assert 0 < sum(turn > 0 for turn in turns) < 30


def test_augmented_images_stay_between_0_and_1() -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        images = augment(rng, rng.random((2, SIZE, SIZE), dtype=np.float32))
        assert images.dtype == np.float32
        assert images.min() >= 0
        assert images.max() <= 1
        assert np.isfinite(images).all()


def test_a_grown_region_is_one_piece_and_fills_an_even_object() -> None:
    shape = (12, 60, 60)
    region = ball(shape, (6, 30, 30), 10)
    volume = TrainingVolume("ball", (1, 1, 1), (100 * region + 50).astype(np.uint8), None)
    rng = np.random.default_rng(0)
    grown = [target for _ in range(100) if (target := grow_region(rng, volume, 0, 1)) is not None]
    assert grown
    masks = [target.cut(0, np.arange(12), slice(0, 60), slice(0, 60)) for target in grown]
    assert all(mask.sum() > 30 and ndimage.label(mask)[1] == 1 for mask in masks)
    assert any((mask & region).sum() > 0.8 * mask.sum() > 0.4 * region.sum() for mask in masks)


def test_a_folder_without_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"Expected the training set's manifest.json"):
        ClipSource(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", '{"volumes": [{"id": "a"}]}', '{"volumes": []}'])
def test_a_damaged_or_empty_manifest_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(TrainingError, match="should list"):
        ClipSource(tmp_path)


def test_a_damaged_volume_is_refused_by_name(a_train_folder: Path) -> None:
    (a_train_folder / "ct.npz").write_bytes(b"PK damaged")
    with pytest.raises(TrainingError, match=r"ct\.npz should be an \.npz of image, label, spacing"):
        _source(a_train_folder).preload()


def test_a_missing_volume_is_refused_by_name(a_train_folder: Path) -> None:
    (a_train_folder / "map.npz").unlink()
    with pytest.raises(TrainingError, match=r"map\.npz, but there is no such file"):
        _source(a_train_folder).preload()


def test_a_label_of_another_shape_than_its_image_is_refused(a_train_folder: Path) -> None:
    image, label = np.zeros((4, 8, 8), np.uint8), np.zeros((4, 8, 9), np.uint8)
    np.savez(a_train_folder / "scan.npz", image=image, label=label, spacing=np.ones(3, np.float32))
    with pytest.raises(TrainingError, match=r"\(4, 8, 8\) and \(4, 8, 9\)"):
        _source(a_train_folder).preload()


def test_options_that_leave_nothing_are_refused(a_train_folder: Path) -> None:
    with pytest.raises(TrainingError, match="Nothing is left"):
        _source(a_train_folder, synthetic_share=0, held_out=["tests", "more tests"])
    with pytest.raises(TrainingError, match="check the spelling"):
        _source(a_train_folder, held_out=["no such volume"])
    with pytest.raises(TrainingError, match="from 0 to 1, but 2"):
        _source(a_train_folder, synthetic_share=2)
    with pytest.raises(TrainingError, match="kinds of clips"):
        _source(a_train_folder, only=["dreams"])


def test_a_clip_longer_than_every_volume_is_refused(a_train_folder: Path) -> None:
    with pytest.raises(TrainingError, match="ask for fewer slices"):
        _source(a_train_folder, only=["scan"]).sample(np.random.default_rng(0), SIZE, 99)


@needs_real_folder
def test_clips_come_from_many_real_volumes_but_never_from_those_left_out() -> None:
    source = ClipSource(REAL_FOLDER, SourceOptions(synthetic_share=0, only=["scan"], held_out=["TotalSegmentator"]))
    names = {clip.name.split(":")[0] for clip in _clips(source, count=60, length=4)}
    assert len(names) > 20
    assert not names & {*ALWAYS_LEFT_OUT, "ct_abdomen_ts3mm", "ct_trunk_ts3mm"}
