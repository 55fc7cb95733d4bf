"""`medsam2 segment` on single images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK
import torch
from PIL import Image

from MedSAM2Lib.checkpoints import loading
from MedSAM2Lib.cli.engine import Engine
from MedSAM2Lib.cli.image_set_inputs import ImageSetRequest, read_image_set_inputs
from MedSAM2Lib.network import config
from MedSAM2Lib.network.config import SAMConfig
from MedSAM2Lib.prompts import Box, Points
from Testing.lib.cli.support import Command, Ended
from Testing.lib.network.parity.random_sam import random_sam

USAGE, FAILURE = 2, 1
BOX = "lesion:b2.png:9,8,30,25"


def drawn(rows: int, columns: int, number: int) -> npt.NDArray[np.uint8]:
    y, x = np.ogrid[:rows, :columns]
    inside = ((y - rows / 2) / 9) ** 2 + ((x - columns / 2) / 12) ** 2 <= 1
    noise = np.random.default_rng(number).normal(0, 8, (rows, columns))
    return np.clip(np.where(inside, 190, 60) + noise, 0, 255).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A grey PNG, a 16-bit PNG, a JPEG in colour and a DICOM file, of different sizes."""
    path = tmp_path / "photos"
    path.mkdir()
    Image.fromarray(drawn(34, 40, 2)).save(path / "b2.png")
    Image.fromarray(drawn(50, 44, 10).astype(np.uint16) * 100).save(path / "b10.png")
    grey = drawn(30, 60, 3)
    Image.fromarray(np.stack((grey, grey // 2, grey // 3), axis=-1)).save(path / "a.jpg")
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(drawn(40, 40, 4).astype(np.int16)), str(path / "scan.dcm"))
    return path


@pytest.fixture
def segment(medsam2: Command, folder: Path, an_untrained_model: Path, tmp_path: Path) -> Command:
    """`medsam2 segment photos -o masks`; options as given, later ones win."""

    def run(*options: object) -> Ended:
        return medsam2("segment", folder, "-o", tmp_path / "masks", "--model", an_untrained_model, *options)

    return run


def masks_in(folder: Path) -> dict[str, npt.NDArray[np.uint8]]:
    return {path.name: np.array(Image.open(path)) for path in sorted(folder.iterdir())}


def test_one_box_gives_a_mask_for_every_image(segment: Command, tmp_path: Path) -> None:
    ended = segment("--box", BOX)
    assert ended.status == 0, ended.err
    masks = masks_in(tmp_path / "masks" / "lesion")
    assert {name: mask.shape for name, mask in masks.items()} == {
        "a.png": (30, 60), "b10.png": (50, 44), "b2.png": (34, 40), "scan.png": (40, 40)
    }  # fmt: skip
    assert all(mask.dtype == np.uint8 and set(np.unique(mask)) <= {0, 255} for mask in masks.values())
    assert masks["b2.png"].any()
    assert "found on" in ended.out
    assert f"wrote {tmp_path / 'masks' / 'lesion'} (4 masks of lesion, 0 or 255)" in ended.out
    assert "images: 4, 60 x 30 to 44 x 50 pixels, 1 in colour" in ended.err
    assert np.array(Image.open(tmp_path / "masks" / "preview.png")).shape[2] == 3


@pytest.mark.parametrize("named", ["b2.png", "b2", "1", " b2.png "])
def test_an_image_is_named_by_file_stem_or_number(folder: Path, tmp_path: Path, named: str) -> None:
    texts = [("--box", f"the lesion: left:{named}:9,8,30,25"), ("--point", f"x:{named}:9,8"), ("--point", f"x:{named}:7,8:-")]
    request = ImageSetRequest(
        folder, tmp_path / "masks", texts, None, "auto", Engine(), "recent", True, True, tmp_path / "p.png", tmp_path / "r.json"
    )
    assert read_image_set_inputs(request).prompts == [
        ("the lesion: left", Box(1, 9, 8, 30, 25)),
        ("x", Points(1, (9, 7), (8, 8), (True, False))),
    ]


def test_a_run_can_be_repeated_from_its_report(segment: Command, folder: Path, tmp_path: Path) -> None:
    painted = np.zeros((50, 44), dtype=bool)
    painted[10:30, 12:33] = True
    Image.fromarray(painted).save(tmp_path / "painted.png")
    first = segment(
        "--box", BOX, "--point", "lesion:b2.png:20,16:+", "--point", "lesion:a.jpg:2,2:-",
        "--recist", "scar:scan.dcm:12,12,28,28", "--mask", f"spot:b10.png={tmp_path / 'painted.png'}",
    )  # fmt: skip
    assert first.status == 0, first.err
    np.testing.assert_array_equal(masks_in(tmp_path / "masks" / "spot")["b10.png"] > 0, painted)
    again = segment("-o", tmp_path / "again", "--prompts", tmp_path / "masks" / "report.json")
    assert again.status == 0, again.err
    for name in ("lesion", "scar", "spot"):
        one, two = masks_in(tmp_path / "masks" / name), masks_in(tmp_path / "again" / name)
        assert one.keys() == two.keys()
        assert all(np.array_equal(one[key], two[key]) for key in one)


def test_the_report_tells_what_was_done(segment: Command, tmp_path: Path) -> None:
    assert segment("--box", BOX, "--memory", "recent", "--report", tmp_path / "r.json", "--keep-all", "--zoom", "off").status == 0
    report: dict[str, Any] = json.loads((tmp_path / "r.json").read_text())
    assert report["format"] == "medsam2-image-set-report/1"
    assert [image["name"] for image in report["images"]] == ["a.jpg", "b2.png", "b10.png", "scan.dcm"]
    assert report["images"][0] == {"name": "a.jpg", "rows": 30, "columns": 60, "colour": True}
    options = report["options"]
    assert (options["memory"], options["keep_largest"], options["zoom"]) == ("recent", False, None)
    (lesion,) = report["objects"]
    assert [row["prompted"] for row in lesion["images"]] == [False, True, False, False]
    for row in lesion["images"]:
        mask = np.array(Image.open(tmp_path / "masks" / row["mask"]))
        assert (mask > 0).sum() == row["pixels"]
    assert report["model"]["network"] == "nano"
    assert not (tmp_path / "masks" / "report.json").exists()


def test_a_single_picture_is_a_set_of_one(medsam2: Command, folder: Path, an_untrained_model: Path, tmp_path: Path) -> None:
    ended = medsam2(
        "segment", folder / "a.jpg", "-o", tmp_path / "m", "--model", an_untrained_model, "--box", "spot:a.jpg:20,8,40,20"
    )
    assert ended.status == 0, ended.err
    assert list(masks_in(tmp_path / "m" / "spot")) == ["a.png"]


def test_objects_and_images_whose_names_would_clash_get_places_of_their_own(
    segment: Command, folder: Path, tmp_path: Path
) -> None:
    Image.fromarray(drawn(34, 40, 5)).save(folder / "b2.jpg")
    boxes = [f"{name}:b2.png:9,8,30,25" for name in ("a/b", "a?b", "..")]
    assert segment(*(part for box in boxes for part in ("--box", box))).status == 0
    assert {path.name for path in (tmp_path / "masks").iterdir() if path.is_dir()} == {"a_b", "a_b_2", "object"}
    assert {"b2.jpg.png", "b2.png.png", "a.png"} <= masks_in(tmp_path / "masks" / "a_b").keys()


# MedSAM


@pytest.fixture
def a_medsam(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A checkpoint of MedSAM's layout, small and untrained."""
    small = SAMConfig(32, 2, 2, 3, (1,), image_size=64, hidden_dim=32, feedforward_dim=48)
    monkeypatch.setitem(config.SAM_NETWORKS, "medsam", small)
    monkeypatch.setattr(loading, "_layout", loading._layout.__wrapped__)
    torch.save(random_sam(small).state_dict(), tmp_path / "medsam_vit_b.pth")
    return tmp_path / "medsam_vit_b.pth"


def test_medsam_segments_the_images_that_have_a_box(segment: Command, a_medsam: Path, tmp_path: Path) -> None:
    ended = segment("--model", a_medsam, "--box", BOX, "--box", "lesion:a.jpg:20,8,40,20")
    assert ended.status == 0, ended.err
    assert list(masks_in(tmp_path / "masks" / "lesion")) == ["a.png", "b2.png"]
    assert "has no memory: only images with a box are segmented" in ended.err
    assert json.loads((tmp_path / "masks" / "report.json").read_text())["model"]["network"] == "medsam"


def test_medsam_segments_a_slice_from_a_box(medsam2: Command, a_scan: Path, a_medsam: Path, tmp_path: Path) -> None:
    box = "organ:3:12,11,36,29"
    ended = medsam2("segment", a_scan, "-o", tmp_path / "m.nrrd", "--model", a_medsam, "--box", box, "--keep-all")
    assert ended.status == 0, ended.err
    mask = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(tmp_path / "m.nrrd")))
    assert np.flatnonzero(mask.any((1, 2))).tolist() == [3]
    assert "has no memory: only slices with a box are segmented (--box3d segments a range of them)" in ended.err


def test_medsam_segments_the_slices_of_a_3d_box(medsam2: Command, a_scan: Path, a_medsam: Path, tmp_path: Path) -> None:
    ended = medsam2(
        "segment", a_scan, "-o", tmp_path / "m.nrrd", "--model", a_medsam, "--box3d", "organ:1-4:12,11,36,29", "--keep-all",
        "--preview", tmp_path / "p.png", "--report", tmp_path / "r.json",
    )  # fmt: skip
    assert ended.status == 0, ended.err
    mask = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(tmp_path / "m.nrrd")))
    assert np.flatnonzero(mask.any((1, 2))).tolist() == [1, 2, 3, 4]
    assert json.loads((tmp_path / "r.json").read_text())["slices_encoded"] == 4


@pytest.mark.parametrize(
    ("options", "said"),
    [(["--point", "organ:3:20,20:+"], "takes boxes, but Points came"), (["--box", BOX, "--zoom", "2"], "always sees the whole")],
)
def test_what_medsam_cannot_do_is_refused(segment: Command, a_medsam: Path, options: list[str], said: str) -> None:
    ended = segment("--model", a_medsam, *[option.replace("organ:3", "organ:a.jpg") for option in options])
    assert_refused(ended, USAGE, said)


# What cannot be done


def assert_refused(ended: Ended, status: int, said: str) -> None:
    assert ended.status == status, ended.err
    last = ended.err.splitlines()[-1]
    assert last.startswith("medsam2: error: ")
    assert said in last
    assert "unexpected" not in last
    assert not ended.out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "Say what to segment on one of the images, for example"),
        (["--box", "lesion:none.png:9,8,30,25"], "no image 'none.png'; the images are a.jpg, b2.png, b10.png, scan.dcm"),
        (["--box", "lesion:4:9,8,30,25"], "numbered 0..3"),
        (["--box", "lesion:9,8,30,25"], 'is written "NAME:IMAGE:X0,Y0,X1,Y1"'),
        (["--box", "lesion:b2.png:9,8,30"], "but"),
        (["--box", "lesion:b2.png:9,8,50,25"], "lesion: The box must lie on the image"),
        (["--box3d", "lesion:0-2:9,8,30,25"], "--box3d needs a volume"),
        (["--point", "lesion:b2.png:9"], "but"),
        (["--mask", "lesion=b2.png"], 'is written "NAME:IMAGE=FILE"'),
        (["--box", BOX, "--axis", "k"], "--axis is for volumes"),
        (["--box", BOX, "--range", "0:2"], "--range is for volumes"),
        (["--box", BOX, "--series", "1.2"], "--series is for volumes"),
        (["--box", BOX, "--orientations", "3"], "--orientations is for volumes"),
        (["--box", BOX, "--window", "0:100"], "a.jpg is in colour; leave --window out"),
        (["--box", BOX, "--zoom", "0.2"], "--zoom is auto, off, or a number from 1"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused(segment: Command, tmp_path: Path, options: list[str], said: str) -> None:
    assert_refused(segment(*options), USAGE, said)
    assert not (tmp_path / "masks").exists()


def test_a_folder_that_holds_something_else_is_refused(segment: Command, folder: Path) -> None:
    (folder / "notes.txt").write_text("not an image")
    assert_refused(segment("--box", BOX), FAILURE, "images and nothing else, but there is also notes.txt")


def test_masks_do_not_go_among_the_images(segment: Command, folder: Path) -> None:
    before = sorted(path.name for path in folder.iterdir())
    assert_refused(segment("-o", folder, "--box", BOX), USAGE, "is where the images are")
    assert sorted(path.name for path in folder.iterdir()) == before


@pytest.mark.parametrize("option", ["--preview", "--report"])
def test_nothing_else_goes_among_the_images_either(segment: Command, folder: Path, option: str) -> None:
    path = folder / ("b2.png" if option == "--preview" else "r.json")
    assert_refused(segment("--box", BOX, option, path), USAGE, "would lie among the images")


def test_the_prompts_file_is_not_replaced(segment: Command, tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    prompts = tmp_path / "masks" / "report.json"
    prompts.write_text('{"objects": [{"name": "a", "prompts": [{"type": "box", "slice": 1, "box": [9, 8, 30, 25]}]}]}')
    assert_refused(segment("--prompts", prompts), USAGE, "which is read")


@pytest.mark.parametrize(("output", "said"), [("m.png", "name a folder"), ("none/m", "folder must exist")])
def test_an_output_that_is_no_folder_is_refused(segment: Command, tmp_path: Path, output: str, said: str) -> None:
    assert_refused(segment("-o", tmp_path / output, "--box", BOX), FAILURE, said)

