from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
import torch
from PIL import Image

from MedSAM2Lib.benchmark.subject import random_network
from MedSAM2Lib.network.config import NETWORKS
from MedSAM2Lib.volume_io.read import read_labels, read_volume
from MedSAM2Lib.volume_io.write import Segment, write_segmentation
from Testing.lib.cli.support import BOX, Command


def labels_in(path: Path) -> np.ndarray:
    return read_labels(path).array


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha", ".seg.nrrd"])
def test_a_mask_lies_where_the_image_lies(segment: Command, a_scan: Path, tmp_path: Path, ending: str) -> None:
    output = tmp_path / f"organ{ending}"
    ended = segment("-o", output, "--box", BOX)
    assert ended.status == 0, ended.err
    mask, image = read_labels(output).geometry, read_volume(a_scan).geometry
    assert mask.shape == image.shape
    np.testing.assert_allclose(mask.spacing, image.spacing, rtol=1e-6)
    np.testing.assert_allclose(mask.origin, image.origin, rtol=1e-6)
    np.testing.assert_allclose(mask.direction, image.direction, atol=1e-6)


def test_the_image_is_left_as_it_was(segment: Command, a_scan: Path) -> None:
    before = hashlib.sha256(a_scan.read_bytes()).hexdigest()
    assert segment("--box", BOX).status == 0
    assert hashlib.sha256(a_scan.read_bytes()).hexdigest() == before


def test_results_go_to_stdout_and_progress_to_stderr(segment: Command, tmp_path: Path) -> None:
    ended = segment(
        "--box", BOX, "--point", "vessel: left:2:20,20:+", "--preview", tmp_path / "p.png", "--report", tmp_path / "r.json"
    )
    organ, vessel, mask, preview, report = ended.out.splitlines()
    alone = tmp_path / "organ.nrrd"  # in one map of labels, the vessel may lie on it
    assert segment("-o", alone, "--box", BOX).status == 0
    found = np.flatnonzero(labels_in(alone).any((1, 2)))
    assert organ.startswith(f"organ         slices {found[0]}..{found[-1]} ({len(found)})")
    assert " mL  confidence 0." in organ
    assert vessel.startswith("vessel: left  slices")
    assert mask == f"wrote {tmp_path / 'mask.nrrd'} (1 = organ, 2 = vessel: left)"
    assert (preview, report) == (f"wrote {tmp_path / 'p.png'}", f"wrote {tmp_path / 'r.json'}")
    assert "image: 48 x 40 x 6 voxels (i, j, k) of 0.8 x 0.9 x 3 mm" in ended.err
    assert "propagating: done, 10 slices" in ended.err
    assert "\r" not in ended.err


def test_a_checkpoint_of_efficient_medsam2_segments(segment: Command, tmp_path: Path) -> None:
    weights = tmp_path / "eff_medsam2.pt"
    state = random_network(NETWORKS["efficienttam-tiny"]).half().state_dict()
    torch.save({"model": state}, weights)  # as published: the network's name is not in it
    ended = segment("--box", BOX, "--range", "2:3", "--model", weights)
    assert ended.status == 0, ended.err
    assert labels_in(tmp_path / "mask.nrrd").sum() > 0
    weights.unlink()  # pytest keeps the folders of three runs


def test_an_approximation_is_told_and_reported(segment: Command, tmp_path: Path) -> None:
    ended = segment("--box", BOX, "--approximate", "pooled-memories", "--report", tmp_path / "report.json")
    assert "approximate: pooled-memories" in ended.err
    model = json.loads((tmp_path / "report.json").read_text())["model"]
    assert (model["network"], model["approximations"]) == ("nano", ["pooled-memories"])


def test_the_same_command_gives_the_same_mask(segment: Command, tmp_path: Path) -> None:
    for name in ("one.nrrd", "two.nrrd"):
        assert segment("-o", tmp_path / name, "--box", BOX).status == 0
    np.testing.assert_array_equal(labels_in(tmp_path / "one.nrrd"), labels_in(tmp_path / "two.nrrd"))


def test_a_run_can_be_repeated_from_its_report(segment: Command, a_scan: Path, tmp_path: Path) -> None:
    painted = np.zeros(read_volume(a_scan).geometry.shape, dtype=bool)
    painted[1, 10:20, 12:30] = painted[4, 15:20, 12:20] = True
    write_segmentation(tmp_path / "painted.nrrd", [Segment("x", painted)], read_volume(a_scan).geometry)
    prompts: list[object] = [
        "--point", "organ:3:30,12:-", "--box", BOX, "--point", "organ:3:24,20:+", "--point", "organ:5:24,20:+",
        "--recist", "lesion: 1:2:20,20,28,22", "--box3d", "part:1-4:14,12,30,28.5",
        "--mask", f"drawn={tmp_path / 'painted.nrrd'}:1",
        "--range", "1:5",
    ]  # fmt: skip
    first = segment("-o", tmp_path / "one.seg.nrrd", *prompts, "--report", tmp_path / "report.json")
    assert first.status == 0, first.err
    again = segment("-o", tmp_path / "two.seg.nrrd", "--prompts", tmp_path / "report.json")
    assert again.status == 0, again.err
    assert (tmp_path / "one.seg.nrrd").read_bytes() == (tmp_path / "two.seg.nrrd").read_bytes()


def test_bfloat16_that_is_slower_here_is_told(segment: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("MedSAM2Lib.network.precision.bfloat16_gain", lambda: 0.5)
    assert "more slowly than exactly; leave --precision out" in segment("--box", BOX, "--precision", "bfloat16").err


def test_the_report_tells_what_was_done(segment: Command, an_untrained_model: Path, a_scan: Path, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    ended = segment(
        "--box", BOX, "--report", path, "--window", "-200:200", "--keep-all", "--no-fill-holes", "--stop-after", 2, "--zoom", 3,
        "--precision", "bfloat16",
    )
    assert ended.status == 0, ended.err
    report: dict[str, Any] = json.loads(path.read_text())
    assert report["format"] == "medsam2-report/1"
    assert report["model"] == {
        "name": "untrained.pt",
        "network": "nano",
        "file": "untrained.pt",
        "sha256": hashlib.sha256(an_untrained_model.read_bytes()).hexdigest(),
        "approximations": [],
    }
    assert report["window"] == {"asked": "-200:200", "low": -200.0, "high": 200.0}
    assert report["axis"] == "k"
    assert report["precision"] == "bfloat16"
    options = report["options"]
    assert (options["zoom"], options["stop_after"], options["fill_hole_cells"], options["keep_largest"]) == (3.0, 2, 0, False)
    assert report["image"]["shape_kji"] == [6, 40, 48]
    assert report["image"]["spacing_ijk_mm"] == [0.8, 0.9, 3.0]
    (organ,) = report["objects"]
    mask = labels_in(tmp_path / "mask.nrrd") == 1
    assert organ["voxels"] == mask.sum()
    assert organ["volume_ml"] == pytest.approx(mask.sum() * 0.8 * 0.9 * 3 / 1000)
    assert [row["slice"] for row in organ["per_slice"]] == list(range(6))
    assert [row["slice"] for row in organ["per_slice"] if row["prompted"]] == [3]
    assert sum(row["pixels"] for row in organ["per_slice"]) >= mask.sum()
    assert {"read_image", "load_model", "first_mask_after", "propagation", "write_mask", "total"} <= report["timings_s"].keys()
    assert report["versions"].keys() == {"medsam2", "python", "torch", "numpy", "simpleitk", "platform"}
    assert report["slices_encoded"] >= 6
    assert report["peak_memory_mb"] is None or report["peak_memory_mb"] > 50


def test_an_existing_output_is_replaced_by_the_new_one(segment: Command, tmp_path: Path) -> None:
    (tmp_path / "mask.nrrd").write_text("old")
    assert segment("--box", BOX).status == 0
    assert labels_in(tmp_path / "mask.nrrd").shape == (6, 40, 48)
    assert [path.name for path in tmp_path.iterdir()] == ["mask.nrrd"]


def test_masks_stay_within_the_range(segment: Command, tmp_path: Path) -> None:
    assert segment("--box", BOX, "--range", "2:4").status == 0
    assert set(np.flatnonzero(labels_in(tmp_path / "mask.nrrd").any(axis=(1, 2)))) <= {2, 3, 4}


def test_a_3d_box_keeps_its_object_within_its_slices(segment: Command, tmp_path: Path) -> None:
    assert segment("-o", tmp_path / "m.seg.nrrd", "--box3d", "organ:2-3:12,11,36,29", "--box", "other:1:10,10,20,20").status == 0
    told = SimpleITK.ReadImage(str(tmp_path / "m.seg.nrrd"))
    organ = SimpleITK.GetArrayFromImage(told)
    organ = organ[..., 0] if organ.ndim == 4 else organ
    assert set(np.flatnonzero((organ == 1).any(axis=(1, 2)))) <= {2, 3}


def test_slices_are_counted_along_the_axis(segment: Command, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    ended = segment("--axis", "sagittal", "--box", "organ:24:10,1,30,5", "--report", report)
    assert ended.status == 0, ended.err
    assert "slices along i" in ended.err
    told = json.loads(report.read_text())
    assert told["axis"] == told["prompts"]["axis"] == "i"
    assert len(told["objects"][0]["per_slice"]) > 6


def test_the_axis_of_a_prompts_file_is_taken(segment: Command, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.json"
    box = {"type": "box", "slice": 20, "box": [10, 1, 30, 4]}
    prompts.write_text(json.dumps({"axis": "coronal", "objects": [{"name": "organ", "prompts": [box]}]}))
    assert "slices along j" in segment("--prompts", prompts).err
    assert segment("--prompts", prompts, "--axis", "j").status == 0
    refused = segment("--prompts", prompts, "--axis", "k")
    assert refused.status == 2
    assert "counts slices along coronal" in refused.err


def test_one_slice_is_a_volume(segment: Command, a_scan: Path, tmp_path: Path) -> None:
    flat = tmp_path / "slice.nrrd"
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(a_scan))[:, :, 3:4], str(flat))
    ended = segment("--box", "organ:0:12,11,36,29", "--preview", tmp_path / "p.png", image=flat)
    assert ended.status == 0, ended.err
    assert ended.out.startswith("organ  slices 0..0 (1)")
    assert labels_in(tmp_path / "mask.nrrd").shape == (1, 40, 48)


def test_overlapping_objects_are_told_where_the_format_cannot_keep_them(segment: Command, tmp_path: Path) -> None:
    both = ["--box", BOX, "--box", "same:3:12,11,36,29"]
    assert "'organ' and 'same' share" in segment(*both).err
    assert "share" not in segment("-o", tmp_path / "mask.seg.nrrd", *both).err


def test_the_preview_can_be_read(segment: Command, tmp_path: Path) -> None:
    assert segment("--box", BOX, "--preview", tmp_path / "p.png").status == 0
    with Image.open(tmp_path / "p.png") as picture:
        assert picture.format == "PNG"
        assert min(picture.size) >= 220


def test_threads_are_set(segment: Command, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    assert segment("--box", BOX, "--threads", 2, "--report", report).status == 0
    assert json.loads(report.read_text())["device"]["threads"] == 2


def test_a_small_network_gets_one_thread_where_nobody_asks_for_more(segment: Command, tmp_path: Path) -> None:
    torch.set_num_threads(2)
    report = tmp_path / "report.json"
    assert segment("--box", BOX, "--report", report).status == 0
    assert json.loads(report.read_text())["device"]["threads"] == 1


def test_zoom_off_shows_the_whole_slice(segment: Command, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    assert segment("--box", BOX, "--zoom", "off", "--report", report).status == 0
    assert json.loads(report.read_text())["options"]["zoom"] is None


def test_a_process_of_its_own_does_the_same(
    medsam2_process: Command, a_scan: Path, an_untrained_model: Path, tmp_path: Path
) -> None:
    ended = medsam2_process("segment", a_scan, "-o", tmp_path / "mask.nii.gz", "--model", an_untrained_model, "--box", BOX)
    assert ended.status == 0, ended.err
    assert ended.out.endswith(f"wrote {tmp_path / 'mask.nii.gz'} (1 = organ)\n")
    assert labels_in(tmp_path / "mask.nii.gz").shape == (6, 40, 48)
