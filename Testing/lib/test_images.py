"""Single images from files: every kind of pixel, and everything that can be wrong with a folder of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK
from PIL import Image

from MedSAM2Lib.errors import OptionError, VolumeError
from MedSAM2Lib.volume_io.images import read_image, read_image_set, write_mask_image

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
COLOUR = np.stack((GREY, 255 - GREY, GREY // 2), axis=-1)


def saved(picture: Image.Image, path: Path, **options: Any) -> Path:
    picture.save(path, **options)
    return path


def dicom(path: Path, array: npt.NDArray[Any], *, colour: bool = False, **tags: str) -> Path:
    """`tags` by their numbers, as _0008_0060="CT"."""
    image = SimpleITK.GetImageFromArray(array, isVector=colour)
    image.SetMetaData("0008|0060", "OT")
    for tag, value in tags.items():
        image.SetMetaData(tag[1:].replace("_", "|"), value)
    SimpleITK.WriteImage(image, str(path))
    return path


# ── pixels ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("pixels", [GREY, COLOUR], ids=["grey", "colour"])
def test_a_png_of_8_bits_is_taken_as_it_is(tmp_path: Path, pixels: npt.NDArray[np.uint8]) -> None:
    read = read_image(saved(Image.fromarray(pixels), tmp_path / "a.png"))
    np.testing.assert_array_equal(read, pixels)
    assert read.flags.writeable


def test_a_jpeg_is_read_in_colour_or_grey(tmp_path: Path) -> None:
    assert read_image(saved(Image.fromarray(COLOUR), tmp_path / "c.jpg")).shape == (6, 8, 3)
    grey = read_image(saved(Image.fromarray(GREY), tmp_path / "g.jpeg", quality=100))
    np.testing.assert_allclose(grey, GREY, atol=3)


def test_a_jpeg_is_turned_as_viewers_turn_it(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter to the right
    path = saved(Image.fromarray(GREY), tmp_path / "a.jpg", exif=exif, quality=100)
    np.testing.assert_allclose(read_image(path), np.rot90(GREY, -1), atol=3)


@pytest.mark.parametrize(("pixels", "mode"), [(GREY, "LA"), (COLOUR, "RGBA")])
def test_what_is_transparent_is_black(tmp_path: Path, pixels: npt.NDArray[np.uint8], mode: str) -> None:
    picture = Image.fromarray(pixels).convert(mode)
    opacity = np.full((6, 8), 255, np.uint8)
    opacity[:, :4] = 0
    picture.putalpha(Image.fromarray(opacity))
    read = read_image(saved(picture, tmp_path / "a.png"))
    assert not read[:, :4].any()
    np.testing.assert_array_equal(read[:, 4:], pixels[:, 4:])


def test_a_transparent_colour_of_a_palette_is_black(tmp_path: Path) -> None:
    picture = Image.fromarray(COLOUR).quantize(16)
    read = read_image(saved(picture, tmp_path / "a.png", transparency=3))
    transparent = np.array(picture) == 3
    assert not read[transparent].any()
    np.testing.assert_array_equal(read[~transparent], np.array(picture.convert("RGB"))[~transparent])


def test_a_palette_is_colour(tmp_path: Path) -> None:
    picture = Image.fromarray(COLOUR).quantize(16)
    np.testing.assert_array_equal(read_image(saved(picture, tmp_path / "a.png")), np.array(picture.convert("RGB")))


def test_black_and_white_is_grey(tmp_path: Path) -> None:
    read = read_image(saved(Image.fromarray(GREY > 100), tmp_path / "a.png"))
    np.testing.assert_array_equal(read, np.where(GREY > 100, 255, 0))


def test_16_bits_are_shown_through_a_window(tmp_path: Path) -> None:
    path = saved(Image.fromarray(GREY.astype(np.uint16) * 200 + 1000), tmp_path / "a.png")
    shown = read_image(path)
    assert shown.dtype == np.uint8
    assert shown[0, 0] == 0
    assert shown[-1, -1] == 255
    narrow = read_image(path, "1000:2000")
    np.testing.assert_array_equal(narrow, np.minimum(GREY.astype(int) * 200 * 255 // 1000, 255))


def test_an_image_of_one_value_is_black(tmp_path: Path) -> None:
    path = saved(Image.fromarray(np.full((6, 8), 700, np.uint16)), tmp_path / "a.png")
    assert not read_image(path).any()


def test_a_dicom_image_has_the_volumes_window(tmp_path: Path) -> None:
    path = dicom(tmp_path / "a.dcm", GREY.astype(np.int16) * 10 - 1000, _0008_0060="CT", _0028_1052="0", _0028_1053="1")
    abdomen = np.clip((GREY.astype(float) * 10 - 1000 + 160) / 400, 0, 1) * 255
    np.testing.assert_array_equal(read_image(path), abdomen.astype(np.uint8))


def test_dicom_whose_lowest_value_is_white_is_shown_so(tmp_path: Path) -> None:
    values = GREY.astype(np.uint16) * 10
    path = dicom(tmp_path / "a.dcm", values)
    plain = read_image(path)
    path.write_bytes(path.read_bytes().replace(b"MONOCHROME2", b"MONOCHROME1"))  # ITK writes no other
    np.testing.assert_allclose(read_image(path), 255.0 - plain, atol=6)  # windows leave out zeros, which are others now


def test_a_dicom_image_in_colour_stays_so(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_image(dicom(tmp_path / "a.dcm", COLOUR, colour=True)), COLOUR)


def test_a_mask_is_written_as_0_and_255(tmp_path: Path) -> None:
    write_mask_image(tmp_path / "m.png", GREY > 100)
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "m.png")), np.where(GREY > 100, 255, 0))


# ── folders ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_set_is_in_the_order_of_names_and_numbers(tmp_path: Path) -> None:
    for name in ("b10.png", "b9.png", "A1.PNG", "scan", "c.jpg"):
        if name == "scan":
            dicom(tmp_path / "scan.dcm", GREY.astype(np.uint16)).rename(tmp_path / "scan")
        else:
            saved(Image.fromarray(GREY if name != "c.jpg" else COLOUR[:4]), tmp_path / name, format=None)
    (tmp_path / ".DS_Store").write_text("litter")
    (tmp_path / "Thumbs.db").write_text("litter")
    (tmp_path / "masks").mkdir()
    images = read_image_set(tmp_path)
    assert [image.name for image in images] == ["A1.PNG", "b9.png", "b10.png", "c.jpg", "scan"]
    assert [image.shape for image in images] == [(6, 8), (6, 8), (6, 8), (4, 8), (6, 8)]


def test_a_file_is_a_set_of_one(tmp_path: Path) -> None:
    (image,) = read_image_set(saved(Image.fromarray(COLOUR), tmp_path / "a.png"))
    assert (image.name, image.shape) == ("a.png", (6, 8))


def text(folder: Path) -> None:
    (folder / "notes.txt").write_text("not an image")


def cut_png(folder: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (50, 50), dtype=np.uint8)
    path = saved(Image.fromarray(noise), folder / "cut.png")
    path.write_bytes(path.read_bytes()[:1500])


def not_a_jpeg(folder: Path) -> None:
    (folder / "fake.jpg").write_text("no picture")


def empty_png(folder: Path) -> None:
    (folder / "empty.png").touch()


def cut_dicom(folder: Path) -> None:
    path = dicom(folder / "cut.dcm", np.random.default_rng(0).integers(0, 999, (40, 40)).astype(np.uint16))
    path.write_bytes(path.read_bytes()[:300])


def frames(folder: Path) -> None:
    dicom(folder / "film.dcm", np.arange(3 * 48, dtype=np.uint16).reshape(3, 6, 8))


def one_pixel(folder: Path) -> None:
    Image.fromarray(GREY[:1, :1]).save(folder / "dot.png")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (text, "expected PNG, JPEG or DICOM images and nothing else, but there is also notes.txt"),
        (cut_png, "cut.png cannot be read"),
        (not_a_jpeg, "fake.jpg cannot be read"),
        (empty_png, "empty.png cannot be read"),
        (cut_dicom, "cut.dcm cannot be read"),
        (frames, "film.dcm: expected one image, but it holds 3 frames"),
        (one_pixel, "dot.png: expected an image, but it is 1 x 1 pixels"),
    ],
)
def test_a_folder_with_anything_else_is_refused(tmp_path: Path, spoil: Any, said: str) -> None:
    saved(Image.fromarray(GREY), tmp_path / "good.png")
    spoil(tmp_path)
    with pytest.raises(VolumeError) as refused:
        read_image_set(tmp_path)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".hidden").touch()
    with pytest.raises(VolumeError, match="expected PNG, JPEG or DICOM images, but there is none"):
        read_image_set(tmp_path)
    with pytest.raises(VolumeError, match="nowhere does not exist"):
        read_image_set(tmp_path / "nowhere")


def test_a_picture_of_a_billion_pixels_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(Image.fromarray(GREY), tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30)
    with pytest.raises(VolumeError, match="more pixels than a single image can be expected to have"):
        read_image(path)


def test_a_window_is_not_for_colour(tmp_path: Path) -> None:
    path = saved(Image.fromarray(COLOUR), tmp_path / "a.png")
    with pytest.raises(OptionError, match="is in colour; leave --window out"):
        read_image(path, "0:100")
