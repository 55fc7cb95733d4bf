from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from MedSAM2Lib.errors import VolumeError
from MedSAM2Lib.evaluation.cases import LoadedCase, load_case
from MedSAM2Lib.evaluation.manifest import read_manifest
from Testing.lib.evaluation.support import SHAPE, WriteManifest, entry, labels, write_image


def test_a_structure_is_the_union_of_its_labels(write_manifest: WriteManifest) -> None:
    both = {"name": "both", "label_values": [1, 2]}
    loaded = load_case(read_manifest(write_manifest(entry(structures=[both])))[0])
    assert np.array_equal(loaded.targets[0].reference, labels() > 0)


def test_an_empty_structure_is_a_problem_and_the_others_are_scored(write_manifest: WriteManifest) -> None:
    wanted = [{"name": "ball", "label_values": [1]}, {"name": "cube", "label_values": [3]}]
    loaded = load_case(read_manifest(write_manifest(entry(structures=wanted, labels=None)))[0])
    assert [target.structure.name for target in loaded.targets] == ["ball"]
    assert loaded.problems == (
        "Case 'volume', structure 'cube' is empty: label 3 has no voxel in label.nrrd, which holds [1, 2]; "
        "correct its label_values, or leave it out.",
    )


def test_a_label_that_does_not_occur_is_a_problem(write_manifest: WriteManifest) -> None:
    wanted = [{"name": "all", "label_values": [1, 9]}]
    loaded = load_case(read_manifest(write_manifest(entry(structures=wanted, labels=None)))[0])
    assert not loaded.targets
    assert "unknown label value 9; label.nrrd holds [1, 2]" in loaded.problems[0]


def test_a_label_without_a_name_is_warned_of(write_manifest: WriteManifest, caplog: pytest.LogCaptureFixture) -> None:
    wanted = [{"name": "ball", "label_values": [1]}]
    with caplog.at_level(logging.WARNING):
        load_case(read_manifest(write_manifest(entry(structures=wanted, labels={"1": "ball"})))[0])
    assert "holds values that the manifest does not name: [2]" in caplog.text


def with_other_label(write_manifest: WriteManifest, shape: tuple[int, ...], origin: tuple[float, float, float]) -> LoadedCase:
    manifest = write_manifest()
    label = np.zeros(shape, dtype=np.uint8)
    label[:, :2] = 1
    write_image(manifest.parent / "label.nrrd", label, origin)
    return load_case(read_manifest(manifest)[0])


def test_another_grid_is_refused_with_both_sizes(write_manifest: WriteManifest) -> None:
    with pytest.raises(VolumeError, match=r"must be on one grid, but the image has \(8, 24, 32\) .* \(8, 24, 31\)"):
        with_other_label(write_manifest, (8, 24, 31), (0, 0, 0))


def test_a_shifted_label_map_is_refused(write_manifest: WriteManifest) -> None:
    with pytest.raises(VolumeError, match="they lie up to 1 voxels apart"):
        with_other_label(write_manifest, SHAPE, (0, 0, 2.0))


def test_rounded_headers_are_one_grid(write_manifest: WriteManifest) -> None:
    assert with_other_label(write_manifest, SHAPE, (0, 0, 0.001)).targets


def test_a_damaged_file_is_told_by_name(write_manifest: WriteManifest) -> None:
    manifest: Path = write_manifest()
    (manifest.parent / "image.nrrd").write_bytes(b"NRRD0004\n")
    with pytest.raises(VolumeError, match=r"image\.nrrd"):
        load_case(read_manifest(manifest)[0])
