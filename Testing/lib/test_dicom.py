from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np
import pytest

from MedSAM2Lib.errors import OptionError, VolumeError
from MedSAM2Lib.geometry import Geometry
from MedSAM2Lib.volume_io.dicom import list_series
from MedSAM2Lib.volume_io.read import read_volume
from Testing.lib.dicom_support import ARRAY, ORIGIN, SPACING, write_series


def write_structure_set(path: Path) -> None:
    """A DICOM file without a picture: explicit VR little endian, the few elements that GDCM looks at."""

    def element(group: int, number: int, kind: bytes, value: bytes) -> bytes:
        value += (b"\0" if kind == b"UI" else b" ") * (len(value) % 2)
        return struct.pack("<HH2sH", group, number, kind, len(value)) + value

    meta = element(2, 2, b"UI", b"1.2.840.10008.5.1.4.1.1.481.3") + element(2, 0x10, b"UI", b"1.2.840.10008.1.2.1")
    head = element(2, 0, b"UL", struct.pack("<I", len(meta))) + meta
    body = (
        element(8, 0x16, b"UI", b"1.2.840.10008.5.1.4.1.1.481.3")
        + element(8, 0x18, b"UI", b"1.2.7.1")
        + element(8, 0x60, b"CS", b"RTSTRUCT")
        + element(0x20, 0xD, b"UI", b"1.2.9")
        + element(0x20, 0xE, b"UI", b"1.2.7")
    )
    path.write_bytes(b"\0" * 128 + b"DICM" + head + body)


def test_a_series_is_a_volume_in_hounsfield_units(tmp_path: Path) -> None:
    volume = read_volume(write_series(tmp_path))
    np.testing.assert_array_equal(volume.array, ARRAY)
    assert volume.geometry == Geometry((5, 8, 9), SPACING, ORIGIN)
    assert volume.modality == "CT"


def test_an_oblique_series_keeps_its_direction(tmp_path: Path) -> None:
    a, b = 0.3, 0.5
    direction = np.array([[math.cos(a), -math.sin(a), 0], [math.sin(a), math.cos(a), 0], [0, 0, 1]]) @ np.array(
        [[1, 0, 0], [0, math.cos(b), -math.sin(b)], [0, math.sin(b), math.cos(b)]]
    )
    volume = read_volume(write_series(tmp_path, direction=direction))
    np.testing.assert_array_equal(volume.array, ARRAY)
    np.testing.assert_allclose(volume.geometry.direction_matrix, direction, atol=1e-7)
    np.testing.assert_allclose(volume.geometry.spacing, SPACING, rtol=1e-7)
    np.testing.assert_allclose(volume.geometry.origin, ORIGIN)


def test_one_slice_is_as_thick_as_its_header_says(tmp_path: Path) -> None:
    folder = write_series(tmp_path, slices=[0])
    assert read_volume(folder).geometry.spacing == SPACING
    assert read_volume(folder / "1.2.3-9.dcm").geometry.spacing == SPACING
    assert read_volume(folder / "1.2.3-9.dcm").modality == "CT"


def test_several_series_are_listed_with_the_way_to_choose(tmp_path: Path) -> None:
    write_series(tmp_path)
    write_series(tmp_path, uid="1.2.4", modality="MR", description="T2", slices=[0, 1])
    with pytest.raises(VolumeError) as raised:
        read_volume(tmp_path)
    assert "there are 2; choose one by its UID (series=UID, --series UID)" in str(raised.value)
    assert "\n  1.2.3  CT  5 files  thin\n  1.2.4  MR  2 files  T2" in str(raised.value)


def test_one_series_of_several_is_read_by_its_uid(tmp_path: Path) -> None:
    write_series(tmp_path)
    write_series(tmp_path, uid="1.2.4", modality="MR", slices=[0, 1])
    volume = read_volume(tmp_path, series="1.2.4")
    np.testing.assert_array_equal(volume.array, ARRAY[:2])
    assert volume.modality == "MR"


def test_an_unknown_series_lists_those_that_are_there(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"no DICOM series 9; it holds:\n  1\.2\.3  CT"):
        read_volume(write_series(tmp_path), series="9")


def test_other_files_in_the_folder_do_not_matter(tmp_path: Path) -> None:
    folder = write_series(tmp_path)
    (folder / "README.txt").write_text("notes " * 100)
    (folder / "masks").mkdir()
    np.testing.assert_array_equal(read_volume(folder).array, ARRAY)


def test_a_structure_set_beside_the_images_is_no_second_series(tmp_path: Path) -> None:
    folder = write_series(tmp_path)
    write_structure_set(folder / "structures.dcm")
    assert [series.uid for series in list_series(folder)] == ["1.2.3"]
    np.testing.assert_array_equal(read_volume(folder).array, ARRAY)


@pytest.mark.parametrize("content", [None, "README.txt"])
def test_a_folder_without_images_is_refused(tmp_path: Path, content: str | None) -> None:
    if content:
        (tmp_path / content).write_text("notes")
    with pytest.raises(VolumeError, match="expected DICOM images, but there are none"):
        read_volume(tmp_path)


def test_a_missing_slice_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(VolumeError, match="slices may be missing"):
        read_volume(write_series(tmp_path, slices=[0, 1, 3, 4]))


def test_a_gantry_tilt_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VolumeError, match=r"shift sideways by up to 2\.4 mm"):
        read_volume(write_series(tmp_path, step=(0.0, 0.6, 2.5)))


def test_several_images_at_one_position_are_refused(tmp_path: Path) -> None:
    with pytest.raises(VolumeError, match="one image per position"):
        read_volume(write_series(tmp_path, step=(0.0, 0.0, 0.0)))


@pytest.mark.parametrize("damaged", [0, 2, 4])
@pytest.mark.parametrize("kept", [0.3, -60])
def test_a_damaged_slice_is_named_in_silence(
    tmp_path: Path, damaged: int, kept: float, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_series(tmp_path) / f"1.2.3-{9 - damaged}.dcm"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept) if isinstance(kept, float) else kept])
    with pytest.raises(VolumeError, match=f"1 DICOM file.* cannot be read .{path.name}"):
        read_volume(tmp_path)
    assert capfd.readouterr() == ("", "")
