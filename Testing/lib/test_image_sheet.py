from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from MedSAM2Lib.image_sheet import SegmentedImage, image_sheet
from MedSAM2Lib.prompts import Box, Points
from MedSAM2Lib.volume_io.images import ImageOfSet
from MedSAM2Lib.volume_io.segments import segment_color

RED = np.round(np.array(segment_color(0)) * 255)


def segmented(name: str, rows: int = 30, columns: int = 40, *, prompted: bool = False, colour: bool = False) -> SegmentedImage:
    mask = np.zeros((rows, columns), dtype=bool)
    mask[rows // 4 : rows // 2, columns // 4 : columns // 2] = True
    prompts = [("disc", Box(0, 5, 5, 15, 15)), ("disc", Points(0, (8.0,), (8.0,), (True,)))] if prompted else []
    pixels = np.full((rows, columns, 3) if colour else (rows, columns), 90, np.uint8)
    return SegmentedImage(ImageOfSet(name, pixels), {"disc": mask}, prompts)


def contoured(sheet: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Where the sheet has about the colour of the first object, below the header."""
    shown: npt.NDArray[np.bool_] = np.abs(sheet[60:].astype(float) - RED).max(-1) < 40
    return shown


def test_every_image_is_there_with_its_contour() -> None:
    images = [segmented("a.png", prompted=True), segmented("b.jpg", 80, 20, colour=True), segmented("c.dcm")]
    sheet = np.array(image_sheet(images, ["disc"], "a set"))
    assert sheet.shape[2] == 3
    tiles = np.array_split(contoured(sheet), 2, axis=1)
    assert all(tile.any() for tile in tiles)


def test_an_image_without_a_mask_has_no_contour() -> None:
    bare = SegmentedImage(segmented("a.png").image, {})
    assert not contoured(np.array(image_sheet([bare], ["disc"]))).any()


@pytest.mark.parametrize("count", [1, 5, 12])
def test_a_sheet_is_about_as_wide_as_high(count: int) -> None:
    width, height = image_sheet([segmented(f"{number}.png") for number in range(count)], ["disc"]).size
    assert 0.6 < width / height < 2.6


def test_of_many_images_the_prompted_ones_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("MedSAM2Lib.image_sheet._MOST_IMAGES", 4)
    images = [segmented(f"{number}.png", prompted=number in (13, 17)) for number in range(20)]
    sheet = np.array(image_sheet(images, ["disc"]))
    assert sheet.size < 2 * np.array(image_sheet(images[:4], ["disc"])).size
    assert (sheet == 235).all(-1).sum() > 4 * 250  # two frames


def test_long_names_and_odd_shapes_are_shown() -> None:
    sheet = image_sheet([segmented("x" * 300 + ".png", 2, 400), segmented("b", 400, 2)], ["disc"])
    assert min(sheet.size) > 200
