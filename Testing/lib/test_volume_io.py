from __future__ import annotations

import logging
import math
import os
import struct
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its own convention

from MedSAM2Lib.errors import OptionError, OutputError, VolumeError
from MedSAM2Lib.geometry import Geometry
from MedSAM2Lib.volume_io.read import read_labels, read_volume
from MedSAM2Lib.volume_io.segments import merge_labels, segment_color
from MedSAM2Lib.volume_io.write import Segment, check_segmentation_path, write_segmentation

ROOT = Path(__file__).parents[2]
IMAGE_ENDINGS = [".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd"]
MASK_ENDINGS = [".nii", ".nii.gz", ".nrrd", ".mha", ".seg.nrrd"]
SHAPE = (3, 4, 5)


def rotated() -> np.ndarray:
    """A direction that is oblique to all three axes."""
    a, b = 0.3, -0.9
    about_x = np.array([[1, 0, 0], [0, math.cos(a), -math.sin(a)], [0, math.sin(a), math.cos(a)]])
    about_z = np.array([[math.cos(b), -math.sin(b), 0], [math.sin(b), math.cos(b), 0], [0, 0, 1]])
    return about_x @ about_z


DIRECTIONS = {
    "identity": np.eye(3),
    "flipped": np.diag([-1.0, -1.0, 1.0]),
    "mirrored": np.diag([1.0, -1.0, 1.0]),
    "permuted": np.eye(3)[[2, 0, 1]],
    "rotated": rotated(),
    "rotated, permuted and mirrored": rotated() @ np.eye(3)[[2, 0, 1]] @ np.diag([1.0, -1.0, 1.0]),
}


def grid(name: str = "identity") -> Geometry:
    return Geometry(SHAPE, (0.7, 1 / 3, 2.5), (-123.456, 1 / 7, 99.9), tuple(DIRECTIONS[name].ravel()))


def noise(dtype: type = np.int16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 200, SHAPE).astype(dtype)


def save(path: Path, array: np.ndarray, **geometry: tuple[float, ...]) -> Path:
    image = sitk.GetImageFromArray(array)
    for name, value in geometry.items():
        getattr(image, f"Set{name.capitalize()}")(value)
    sitk.WriteImage(image, str(path), useCompression=True)
    return path


def a_mask() -> np.ndarray:
    return noise() > 100


def assert_same_grid(got: Geometry, expected: Geometry, relative: float) -> None:
    assert got.shape == expected.shape
    np.testing.assert_allclose(got.spacing, expected.spacing, rtol=relative)
    np.testing.assert_allclose(got.origin, expected.origin, rtol=relative)
    np.testing.assert_allclose(got.direction, expected.direction, atol=relative)


# Reading


@pytest.mark.parametrize("ending", IMAGE_ENDINGS)
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float32])
def test_voxels_come_back_as_they_were(tmp_path: Path, ending: str, dtype: type) -> None:
    volume = read_volume(save(tmp_path / f"scan{ending}", noise(dtype)))
    assert volume.array.dtype == dtype
    np.testing.assert_array_equal(volume.array, noise(dtype))


@pytest.mark.parametrize("ending", IMAGE_ENDINGS)
def test_the_geometry_is_the_files(tmp_path: Path, ending: str) -> None:
    path = save(
        tmp_path / f"scan{ending}",
        noise(),
        spacing=(0.5, 0.75, 3.0),
        origin=(1.0, -2.0, 3.5),
        direction=(0, 0, 1, 1, 0, 0, 0, -1, 0),
    )
    expected = Geometry(SHAPE, (0.5, 0.75, 3.0), (1.0, -2.0, 3.5), (0, 0, 1, 1, 0, 0, 0, -1, 0))
    assert_same_grid(read_volume(path).geometry, expected, 1e-7)


def test_a_volume_is_read_only_and_knows_its_source(tmp_path: Path) -> None:
    path = save(tmp_path / "scan.nrrd", noise())
    volume = read_volume(path)
    assert not volume.array.flags.writeable
    assert volume.source == str(path)
    assert volume.modality is None


def test_the_slope_of_a_nifti_is_applied(tmp_path: Path) -> None:
    path = save(tmp_path / "scan.nii", noise())
    content = bytearray(path.read_bytes())
    content[112:120] = struct.pack("<2f", 2.0, -1000.0)  # scl_slope, scl_inter
    path.write_bytes(content)
    np.testing.assert_allclose(read_volume(path).array, noise() * 2.0 - 1000.0)


def test_a_compressed_nifti_is_not_mixed_up_with_an_uncompressed_one_beside_it(tmp_path: Path) -> None:
    save(tmp_path / "scan.nii", noise())
    save(tmp_path / "scan.nii.gz", noise() + 1)
    np.testing.assert_array_equal(read_volume(tmp_path / "scan.nii").array, noise())
    np.testing.assert_array_equal(read_volume(tmp_path / "scan.nii.gz").array, noise() + 1)


def test_a_name_that_is_not_ascii_is_read_and_written(tmp_path: Path) -> None:
    path = tmp_path / "Schädel 頭 1.nii.gz"
    write_segmentation(path, [Segment("a", a_mask())], grid())
    np.testing.assert_array_equal(read_labels(path).array, a_mask())


@pytest.mark.parametrize("ending", [".png", ".nii.gz", ".mha"])
def test_a_2d_image_is_one_slice(tmp_path: Path, ending: str) -> None:
    volume = read_volume(save(tmp_path / f"scan{ending}", noise(np.uint8)[0]))
    assert volume.array.shape == (1, 4, 5)
    np.testing.assert_array_equal(volume.array[0], noise(np.uint8)[0])


def test_a_2d_image_keeps_its_spacing(tmp_path: Path) -> None:
    volume = read_volume(save(tmp_path / "scan.mha", noise()[0], spacing=(0.5, 0.75), origin=(4.0, 5.0)))
    assert volume.geometry == Geometry((1, 4, 5), (0.5, 0.75, 1.0), (4.0, 5.0, 0.0))


def test_a_4d_file_of_one_time_point_is_3d(tmp_path: Path) -> None:
    image = sitk.JoinSeries([sitk.GetImageFromArray(noise())])
    sitk.WriteImage(image, str(tmp_path / "scan.nii.gz"))
    np.testing.assert_array_equal(read_volume(tmp_path / "scan.nii.gz").array, noise())


# What is refused


def test_a_missing_file_names_what_can_be_read(tmp_path: Path) -> None:
    with pytest.raises(VolumeError, match=r"nothing\.nii does not exist; give NIfTI"):
        read_volume(tmp_path / "nothing.nii")


@pytest.mark.parametrize("ending", [*IMAGE_ENDINGS, ".npz", ".dcm", ""])
def test_an_empty_file_is_told(tmp_path: Path, ending: str) -> None:
    (tmp_path / f"scan{ending}").touch()
    with pytest.raises(VolumeError, match="0 bytes"):
        read_volume(tmp_path / f"scan{ending}")


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha", ".npz", ".dcm"])
def test_text_is_no_image(tmp_path: Path, ending: str) -> None:
    (tmp_path / f"scan{ending}").write_text("This is not an image.\n" * 40)
    with pytest.raises(VolumeError, match=r"scan.* (cannot be read|is damaged)"):
        read_volume(tmp_path / f"scan{ending}")


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha", ".npz"])
@pytest.mark.parametrize("kept", [10, 100, 0.3, 0.6, 0.9, -30])
def test_a_file_that_was_cut_short_is_refused_in_silence(
    tmp_path: Path, ending: str, kept: float, capfd: pytest.CaptureFixture[str]
) -> None:
    array = np.random.default_rng(0).integers(-1000, 1000, (4, 20, 30)).astype(np.int16)
    path = tmp_path / f"scan{ending}"
    if ending == ".npz":
        np.savez_compressed(path, imgs=array, spacing=np.ones(3))
    else:
        save(path, array)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept) if isinstance(kept, float) else kept])
    with pytest.raises(VolumeError, match=r"scan\.") as raised:
        read_volume(path)
    assert "0x" not in str(raised.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("lost", [1, 9])
def test_a_compressed_nifti_without_its_checksum_is_refused(tmp_path: Path, lost: int) -> None:
    path = save(tmp_path / "scan.nii.gz", noise())
    path.write_bytes(path.read_bytes()[:-lost])
    with pytest.raises(VolumeError, match="damaged or cut short"):
        read_volume(path)


def test_a_compressed_nifti_with_a_flipped_bit_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "scan.nii.gz", noise())
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    with pytest.raises(VolumeError, match=r"scan\.nii\.gz"):
        read_volume(path)


def test_a_detached_header_without_its_data_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "scan.mhd", noise())
    next(tmp_path.glob("*raw")).unlink()
    with pytest.raises(VolumeError, match=r"scan\.mhd cannot be read"):
        read_volume(path)


def test_a_4d_image_is_refused(tmp_path: Path) -> None:
    image = sitk.JoinSeries([sitk.GetImageFromArray(noise())] * 2)
    sitk.WriteImage(image, str(tmp_path / "scan.nii.gz"))
    with pytest.raises(VolumeError, match=r"it is 4D of size \(5, 4, 3, 2\); extract one time point"):
        read_volume(tmp_path / "scan.nii.gz")


@pytest.mark.parametrize("ending", [".nrrd", ".mha", ".nii.gz"])
def test_colour_is_refused(tmp_path: Path, ending: str) -> None:
    image = sitk.GetImageFromArray(np.stack([noise(np.uint8)] * 3, axis=-1), isVector=True)
    sitk.WriteImage(image, str(tmp_path / f"scan{ending}"))
    with pytest.raises(VolumeError, match="it has 3 "):
        read_volume(tmp_path / f"scan{ending}")


def test_complex_voxels_are_refused(tmp_path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(noise().astype(np.complex64)), str(tmp_path / "scan.nii.gz"))
    with pytest.raises(VolumeError, match="save the magnitude"):
        read_volume(tmp_path / "scan.nii.gz")


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nan_is_refused_with_its_number(tmp_path: Path, ending: str, dtype: type) -> None:
    array = noise(dtype)
    array[0, 0, :2] = (np.nan, np.inf)
    with pytest.raises(VolumeError, match="2 of 60 are NaN"):
        read_volume(save(tmp_path / f"scan{ending}", array))


def test_a_constant_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VolumeError, match="all 60 voxels are 0"):
        read_volume(save(tmp_path / "scan.nrrd", np.zeros(SHAPE, np.int16)))


@pytest.mark.parametrize("spacing", ["0", "nan", "5000"])
def test_a_spacing_that_cannot_be_is_refused(tmp_path: Path, spacing: str) -> None:
    path = save(tmp_path / "scan.mha", noise())
    content = path.read_bytes()
    assert b"ElementSpacing = 1 1 1" in content
    path.write_bytes(content.replace(b"ElementSpacing = 1 1 1", b"ElementSpacing = 1 1 " + spacing.encode()))
    with pytest.raises(VolumeError, match=r"(?i)spacing"):
        read_volume(path)


def test_a_negative_spacing_is_a_flipped_axis(tmp_path: Path) -> None:
    path = save(tmp_path / "scan.mha", noise())
    path.write_bytes(path.read_bytes().replace(b"ElementSpacing = 1 1 1", b"ElementSpacing = 1 1 -2"))
    assert read_volume(path).geometry == Geometry(SHAPE, (1.0, 1.0, 2.0), direction=(1, 0, 0, 0, 1, 0, 0, 0, -1))


def test_a_sheared_direction_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "scan.mha", noise())
    content = path.read_bytes()
    assert b"TransformMatrix = 1 0 0 0 1 0 0 0 1" in content
    path.write_bytes(content.replace(b"TransformMatrix = 1 0 0 0 1 0 0 0 1", b"TransformMatrix = 1 0 0 0 1 0 0 0.3 1"))
    with pytest.raises(VolumeError, match="orthonormal"):
        read_volume(path)


def test_a_series_is_chosen_from_a_folder_only(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="not a folder"):
        read_volume(save(tmp_path / "scan.nrrd", noise()), series="1.2.3")


# The challenges' .npz


def test_an_npz_has_its_spacing_in_x_y_z(tmp_path: Path) -> None:
    np.savez_compressed(
        tmp_path / "scan.npz", imgs=noise(np.uint8), gts=noise(np.uint8) // 100, spacing=np.array([0.5, 0.6, 3.0])
    )
    volume = read_volume(tmp_path / "scan.npz")
    np.testing.assert_array_equal(volume.array, noise(np.uint8))
    assert volume.geometry == Geometry(SHAPE, (0.5, 0.6, 3.0))
    np.testing.assert_array_equal(read_labels(tmp_path / "scan.npz").array, noise(np.uint8) // 100)


def test_an_npz_without_spacing_is_read_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    np.savez(tmp_path / "scan.npz", imgs=noise())
    with caplog.at_level(logging.WARNING):
        assert read_volume(tmp_path / "scan.npz").geometry == Geometry(SHAPE)
    assert "holds no spacing" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"image": noise()}, "expected an array 'imgs' in the .npz, but it holds image"),
        ({"imgs": np.zeros((*SHAPE, 3), np.uint8)}, "convert a colour video to grey"),
        ({"imgs": np.zeros(5)}, r"it is \(5,\)"),
        ({"imgs": noise(), "spacing": np.ones(2)}, "a spacing of 3 numbers"),
        ({"imgs": noise(), "spacing": np.array([1.0, 0.0, 1.0])}, "must be positive"),
        ({"imgs": np.array([object()])}, "allow_pickle"),
    ],
)
def test_an_npz_of_another_kind_is_refused(tmp_path: Path, content: dict[str, np.ndarray], message: str) -> None:
    np.savez(tmp_path / "scan.npz", **content)
    with pytest.raises(VolumeError, match=message):
        read_volume(tmp_path / "scan.npz")


# Labels


def test_labels_of_a_floating_point_file_become_integers(tmp_path: Path) -> None:
    labels = read_labels(save(tmp_path / "label.nii.gz", (noise() // 100).astype(np.float32)))
    assert labels.array.dtype == np.int32
    assert labels.values() == [1]


def test_fractions_are_no_labels(tmp_path: Path) -> None:
    with pytest.raises(VolumeError, match="give a label map"):
        read_labels(save(tmp_path / "label.nii.gz", noise().astype(np.float32) / 7))


# Writing


@pytest.mark.parametrize("ending", MASK_ENDINGS)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_mask_lies_where_its_image_does(tmp_path: Path, ending: str, direction: str) -> None:
    path = tmp_path / f"mask{ending}"
    write_segmentation(path, [Segment("a", a_mask())], grid(direction))
    labels = read_labels(path)
    np.testing.assert_array_equal(labels.array, a_mask())
    # NIfTI keeps float32; its direction is a unit quaternion of float32, from which about 4e-8 times a few is left.
    assert_same_grid(labels.geometry, grid(direction), 2e-7 if ".nii" in ending else 1e-15)


@pytest.mark.parametrize("ending", MASK_ENDINGS)
def test_a_mask_of_one_slice_stays_three_dimensional(tmp_path: Path, ending: str) -> None:
    geometry = Geometry((1, 4, 5), (1.0, 2.0, 3.0))
    write_segmentation(tmp_path / f"mask{ending}", [Segment("a", a_mask()[:1])], geometry)
    labels = read_labels(tmp_path / f"mask{ending}")
    np.testing.assert_array_equal(labels.array, a_mask()[:1])
    assert labels.geometry == geometry


def test_a_map_counts_segments_from_one_and_later_ones_cover_earlier_ones() -> None:
    first, second = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    first[0, 0, :3], second[0, 0, 2:] = True, True
    labels = merge_labels([Segment("a", first), Segment("b", second)], grid())
    assert labels[0, 0].tolist() == [1, 1, 2, 2, 2]
    assert labels.dtype == np.uint8


@pytest.mark.parametrize("ending", [".nii.gz", ".seg.nrrd"])
def test_more_segments_than_a_byte_holds_take_two(tmp_path: Path, ending: str) -> None:
    masks = np.eye(300, dtype=bool).reshape(300, 3, 10, 10)
    write_segmentation(tmp_path / f"mask{ending}", [Segment(str(n), mask) for n, mask in enumerate(masks)], Geometry((3, 10, 10)))
    np.testing.assert_array_equal(read_labels(tmp_path / f"mask{ending}").array.ravel(), np.arange(1, 301))


def test_the_same_segments_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.seg.nrrd", "b.seg.nrrd"):
        write_segmentation(tmp_path / name, [Segment("x", a_mask())], grid())
    assert (tmp_path / "a.seg.nrrd").read_bytes() == (tmp_path / "b.seg.nrrd").read_bytes()


@pytest.mark.parametrize("name", ["mask.png", "mask", "mask.nhdr", "mask.gz"])
def test_an_unknown_ending_lists_the_known_ones(tmp_path: Path, name: str) -> None:
    with pytest.raises(OptionError, match=r"\.seg\.nrrd, \.nii\.gz, \.nrrd, \.nii, \.mha"):
        check_segmentation_path(tmp_path / name)
    with pytest.raises(OptionError):
        write_segmentation(tmp_path / name, [Segment("a", a_mask())], grid())
    assert not list(tmp_path.iterdir())


def test_the_path_is_checked_before_the_work(tmp_path: Path) -> None:
    check_segmentation_path(tmp_path / "MASK.NII.GZ")
    with pytest.raises(OutputError, match="create it first"):
        check_segmentation_path(tmp_path / "nowhere" / "mask.nrrd")


def test_segments_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    for segments in ([], [Segment("a", a_mask()[:2])], [Segment("a", a_mask().astype(np.uint8))]):  # type: ignore[arg-type]
        with pytest.raises(OutputError):
            write_segmentation(tmp_path / "mask.nrrd", segments, grid())
    assert not list(tmp_path.iterdir())


def test_a_segment_needs_a_name_and_a_real_colour() -> None:
    with pytest.raises(OptionError, match="needs a name"):
        Segment(" ", a_mask())
    with pytest.raises(OptionError, match="from 0 to 1"):
        Segment("a", a_mask(), (255, 0, 0))


def test_twelve_default_colours_are_far_apart() -> None:
    colors = np.array([segment_color(index) for index in range(12)])
    distances = np.linalg.norm(colors[:, None] - colors[None], axis=-1) + 10 * np.eye(12)
    assert distances.min() > 0.24
    assert segment_color(12) == segment_color(0)


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of a file as Linux does")
@pytest.mark.parametrize("ending", MASK_ENDINGS)
def test_a_full_disk_leaves_the_old_file(tmp_path: Path, ending: str) -> None:
    target = tmp_path / f"mask{ending}"
    target.write_text("old")
    script = """
        import resource, signal, sys
        import numpy as np
        from MedSAM2Lib.errors import OutputError
        from MedSAM2Lib.geometry import Geometry
        from MedSAM2Lib.volume_io.write import Segment, write_segmentation

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        mask = np.random.default_rng(0).random((20, 100, 100)) > 0.5
        resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
        try:
            write_segmentation(sys.argv[1], [Segment("a", mask)], Geometry(mask.shape))
        except OutputError as error:
            sys.exit(f"refused: {error}")
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(target)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stderr.startswith("refused: ")
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == [target.name]


# Imports


def test_neither_torch_nor_simpleitk_is_imported_before_it_is_needed() -> None:
    modules = [
        "volume",
        "atomic",
        "intensity",
        "postprocess",
        "metrics",
        "volume_io.read",
        "volume_io.write",
        "volume_io.seg_nrrd",
    ]
    script = (
        f"import sys, {', '.join('MedSAM2Lib.' + name for name in modules)}; print({{'torch', 'SimpleITK'}} & set(sys.modules))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "set()"
