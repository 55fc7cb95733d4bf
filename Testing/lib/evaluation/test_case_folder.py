from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from MedSAM2Lib.errors import OptionError, UsageError, VolumeError
from MedSAM2Lib.evaluation.case_folder import CasePair, find_pairs, load_pair
from MedSAM2Lib.geometry import Geometry
from MedSAM2Lib.volume_io.segments import Segment
from MedSAM2Lib.volume_io.write import write_segmentation
from Testing.lib.evaluation.support import SHAPE, SPACING, labels, write_image

GRID = Geometry(SHAPE, SPACING)


def names_of(pairs: list[CasePair]) -> list[tuple[str, str, str]]:
    return [(pair.id, pair.image.name, pair.label.name) for pair in pairs]


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.fixture
def a_pair(tmp_path: Path) -> CasePair:
    """The image, and its ball and bar as a map of labels."""
    write_image(tmp_path / "a.nrrd", np.random.default_rng(0).normal(0, 10, SHAPE).astype(np.int16))
    write_image(tmp_path / "a_label.nrrd", labels())
    return CasePair("a", tmp_path / "a.nrrd", tmp_path / "a_label.nrrd")


def test_image_and_segmentation_are_matched_by_name(tmp_path: Path) -> None:
    touch(tmp_path, "anna.nrrd", "anna.seg.nrrd", "bert_image.nii.gz", "bert_label.nii.gz", "carl_0000.mha", "carl-mask.mha")
    touch(tmp_path, "notes.txt", ".hidden.nrrd", "dora.v2.nrrd", "dora.v2 Seg.nrrd")
    assert names_of(find_pairs(tmp_path)) == [
        ("anna", "anna.nrrd", "anna.seg.nrrd"),
        ("bert", "bert_image.nii.gz", "bert_label.nii.gz"),
        ("carl", "carl_0000.mha", "carl-mask.mha"),
        ("dora.v2", "dora.v2.nrrd", "dora.v2 Seg.nrrd"),
    ]


@pytest.mark.parametrize(("images", "labels"), [("images", "labels"), ("imagesTr", "labelsTr")])
def test_or_they_lie_in_two_folders(tmp_path: Path, images: str, labels: str) -> None:
    touch(tmp_path, f"{images}/a_0000.nii.gz", f"{labels}/a.nii.gz", f"{images}/b.nrrd", f"{labels}/b.seg.nrrd")
    assert names_of(find_pairs(tmp_path)) == [("a", "a_0000.nii.gz", "a.nii.gz"), ("b", "b.nrrd", "b.seg.nrrd")]


def test_everything_without_its_other_half_is_named_at_once(tmp_path: Path) -> None:
    touch(tmp_path, "a.nrrd", "b.nrrd", "b_label.nrrd", "b.seg.nrrd", "c_mask.nrrd")
    with pytest.raises(UsageError) as caught:
        find_pairs(tmp_path)
    for told in ("a.nrrd has no segmentation", "c_mask.nrrd has no image", "b.seg.nrrd and b_label.nrrd are both"):
        assert told in str(caught.value)


def test_a_folder_without_cases_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no case"):
        find_pairs(touch(tmp_path, "notes.txt"))
    with pytest.raises(OptionError, match="no such folder"):
        find_pairs(tmp_path / "nowhere")


def test_a_file_of_names_names_the_labels(a_pair: CasePair) -> None:
    folder = a_pair.image.parent
    (folder / "labels.json").write_text('{"1": "ball", "2": "bar"}')
    loaded = load_pair(find_pairs(folder)[0])
    assert [target.structure.name for target in loaded.targets] == ["ball", "bar"]
    np.testing.assert_array_equal(loaded.targets[0].reference, labels() == 1)
    (folder / "labels.json").write_text('{"1": "ball"}')
    with pytest.raises(VolumeError, match="unknown label value 2"):
        load_pair(find_pairs(folder)[0])
    (folder / "labels.json").write_text("[1]")
    with pytest.raises(UsageError, match="name of label 1"):
        find_pairs(folder)


def test_an_empty_segment_is_a_problem_and_the_others_are_taken(a_pair: CasePair, tmp_path: Path) -> None:
    segments = [Segment("ball", labels() == 1), Segment("nothing", labels() == 9)]
    write_segmentation(tmp_path / "a.seg.nrrd", segments, GRID)
    loaded = load_pair(CasePair("a", a_pair.image, tmp_path / "a.seg.nrrd"))
    assert [target.structure.name for target in loaded.targets] == ["ball"]
    assert "structure 'nothing' is empty in a.seg.nrrd" in loaded.problems[0]
    write_segmentation(tmp_path / "a.seg.nrrd", segments[1:], GRID)
    with pytest.raises(VolumeError, match="no voxel in any structure"):
        load_pair(CasePair("a", a_pair.image, tmp_path / "a.seg.nrrd"))


def test_slicer_may_save_a_part_of_the_grid(a_pair: CasePair, tmp_path: Path) -> None:
    part = Geometry((6, 20, 30), SPACING, (SPACING[0], 3 * SPACING[1], SPACING[2]))  # from voxel (i, j, k) = (1, 3, 1)
    write_segmentation(tmp_path / "a.seg.nrrd", [Segment("ball", labels()[1:7, 3:23, 1:31] == 1)], part)
    loaded = load_pair(CasePair("a", a_pair.image, tmp_path / "a.seg.nrrd"))
    np.testing.assert_array_equal(loaded.targets[0].reference, labels() == 1)


@pytest.mark.parametrize(
    ("grid", "told"),
    [
        (Geometry(SHAPE, (1.0, 1.0, 2.0)), "resample the segmentation"),
        (Geometry(SHAPE, SPACING, (0.4, 0.0, 0.0)), "0.4 of a voxel apart"),
        (Geometry(SHAPE, SPACING, (-30.0, 0.0, 0.0)), "reaches beyond a.nrrd"),
    ],
)
def test_another_grid_is_refused(a_pair: CasePair, tmp_path: Path, grid: Geometry, told: str) -> None:
    write_segmentation(tmp_path / "a.seg.nrrd", [Segment("ball", labels() == 1)], grid)
    with pytest.raises(VolumeError, match=told):
        load_pair(CasePair("a", a_pair.image, tmp_path / "a.seg.nrrd"))


def test_a_map_of_labels_must_have_the_images_size(a_pair: CasePair, tmp_path: Path) -> None:
    write_image(tmp_path / "short.nrrd", labels()[:7])
    with pytest.raises(VolumeError, match=r"\(7, 24, 32\) voxels \(k, j, i\) instead of \(8, 24, 32\)"):
        load_pair(CasePair("a", a_pair.image, tmp_path / "short.nrrd"))
