"""Every wrong input of `medsam2 segment`: a line that helps, the right status, nothing written."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
import torch

from Testing.lib.cli.support import BOX, Command, Ended
from Testing.lib.dicom_support import write_series

USAGE, FAILURE = 2, 1


def assert_refused(ended: Ended, status: int, *said: str) -> None:
    assert ended.status == status, ended.err
    last = ended.err.splitlines()[-1]
    assert last.startswith("medsam2: error: ")
    assert ended.err.count("error:") == 1
    assert "Traceback" not in ended.err
    assert "unexpected" not in last
    for words in said:
        assert words in last
    assert not ended.out


@pytest.fixture(autouse=True)
def _nothing_is_written(tmp_path: Path, request: pytest.FixtureRequest) -> Any:
    """No test of this file leaves a mask, nor a temporary file of one."""
    yield
    written = {path.name for path in tmp_path.rglob("*") if path.name.endswith(("mask.nrrd", "mask.nii.gz"))}
    assert not written


def image_file(folder: Path, array: np.ndarray, name: str = "image.nrrd", **header: Any) -> Path:
    image = SimpleITK.GetImageFromArray(array, isVector=header.pop("vector", False))
    for key, value in header.items():
        getattr(image, f"Set{key.capitalize()}")(value)
    path = folder / name
    SimpleITK.WriteImage(image, str(path))
    return path


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 100, shape).astype(np.float32)


def with_header_line(path: Path, start: bytes, line: bytes) -> Path:
    """The NRRD with a line of its header replaced."""
    head, blank, data = path.read_bytes().partition(b"\n\n")
    lines = [line if one.startswith(start) else one for one in head.split(b"\n")]
    path.write_bytes(b"\n".join(lines) + blank + data)
    return path


def a_nan(folder: Path) -> Path:
    array = noise(4, 8, 8)
    array[1, 2, 3] = np.nan
    return image_file(folder, array)


def cut_short(folder: Path) -> Path:
    path = image_file(folder, noise(4, 32, 32))
    path.write_bytes(path.read_bytes()[:-2000])
    return path


def text_called_nifti(folder: Path) -> Path:
    path = folder / "image.nii.gz"
    path.write_text("this is no image")
    return path


def empty_file(folder: Path) -> Path:
    (folder / "image.nrrd").touch()
    return folder / "image.nrrd"


def empty_folder(folder: Path) -> Path:
    (folder / "dicom").mkdir()
    return folder / "dicom"


def no_slices(folder: Path) -> Path:
    return with_header_line(image_file(folder, noise(4, 8, 8)), b"sizes", b"sizes: 8 8 0")


def no_slices_of_a_challenge(folder: Path) -> Path:
    np.savez(folder / "image.npz", imgs=np.zeros((0, 8, 8), np.uint8), spacing=np.ones(3))
    return folder / "image.npz"


def a_cut_slice(folder: Path) -> Path:
    path = write_series(folder / "dicom") / "1.2.3-7.dcm"
    path.write_bytes(path.read_bytes()[:-60])
    return path.parent


def no_spacing(folder: Path) -> Path:
    return with_header_line(image_file(folder, noise(4, 8, 8)), b"space directions", b"space directions: (0,0,0) (0,1,0) (0,0,1)")


IMAGES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda folder: folder / "none.nrrd", "none.nrrd does not exist"),
    "empty": (empty_file, "is empty (0 bytes)"),
    "not an image": (text_called_nifti, "image.nii.gz"),
    "cut short": (cut_short, "cut short"),
    "a folder without DICOM": (empty_folder, "expected DICOM images, but there are none"),
    "zero slices": (no_slices, "axis 2 size is zero"),
    "zero slices in an .npz": (no_slices_of_a_challenge, "at least one voxel along k, j and i, but its size is (0, 8, 8)"),
    "DICOM with a damaged slice": (a_cut_slice, "1 DICOM file(s) cannot be read (1.2.3-7.dcm)"),
    "DICOM without one of its slices": (
        lambda folder: write_series(folder / "dicom", slices=[0, 1, 3, 4]),
        "slices may be missing",
    ),
    "DICOM with two images at one position": (
        lambda folder: write_series(folder / "dicom", step=(0.0, 0.0, 0.0)),
        "expected one image per position",
    ),
    "DICOM under a gantry tilt": (
        lambda folder: write_series(folder / "dicom", step=(0.0, 0.6, 2.5)),
        "shift sideways",
    ),
    "4D": (lambda folder: image_file(folder, noise(3, 4, 8, 8), "image.nii.gz"), "expected a 3D image, but it is 4D"),
    "RGB": (lambda folder: image_file(folder, noise(4, 8, 8, 3), vector=True), "expected one grey value per voxel, but it has 3"),
    "complex": (
        lambda folder: image_file(folder, (noise(4, 8, 8) * (1 + 1j)).astype(np.complex64), "image.nii"),
        "its voxels are complex",
    ),
    "NaN": (a_nan, "1 of 256 are NaN or infinite"),
    "constant": (lambda folder: image_file(folder, np.full((4, 8, 8), 7, np.int16)), "all 256 voxels are 7"),
    "huge spacing": (lambda folder: image_file(folder, noise(4, 8, 8), spacing=(1.0, 1.0, 1e6)), "at most 1000 mm"),
    "zero spacing": (no_spacing, "pacing"),
}


@pytest.mark.parametrize(("make", "said"), IMAGES.values(), ids=IMAGES)
def test_an_image_that_cannot_be_segmented_is_refused(
    segment: Command, tmp_path: Path, make: Callable[[Path], Path], said: str
) -> None:
    assert_refused(segment("--box", BOX, image=make(tmp_path)), FAILURE, said)


def test_a_folder_of_two_dicom_series_lists_them(segment: Command, tmp_path: Path) -> None:
    folder = write_series(tmp_path / "dicom")
    write_series(folder, uid="1.2.4", modality="MR", description="T2", slices=[0, 1])
    ended = segment("--box", BOX, image=folder)
    assert ended.status == FAILURE
    error, *listed = ended.err.splitlines()[1:]
    assert error.startswith(f"medsam2: error: {folder}: expected one DICOM series, but there are 2; choose one by its UID")
    assert listed == ["  1.2.3  CT  5 files  thin", "  1.2.4  MR  2 files  T2"]
    refused = segment("--box", BOX, "--series", "9", image=folder)
    assert refused.status == USAGE
    assert "holds no DICOM series 9" in refused.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "Say what to segment"),
        (["--box", "organ:3:100,11,136,29"], "organ: The box must lie on the slice"),
        (["--box", "organ:3:36,11,12,29"], "swap the corners"),
        (["--box", "organ:6:12,11,36,29"], "within 0..5"),
        (["--box", "organ:3:12,11,36"], 'is written "NAME:SLICE:X0,Y0,X1,Y1"'),
        (["--point", "organ:3:12,40:+"], "organ: The point must lie on the slice"),
        (["--box3d", "organ:3-9:12,11,36,29"], "within 0..5"),
        (["--recist", "organ:3:1,1,60,1"], "organ: The line must lie on the slice"),
        (["--mask", "organ=none.nrrd"], "none.nrrd does not exist"),
        (["--prompts", "none.json"], "none.json cannot be read"),
        (["--box", BOX, "--range", "4:5"], "is on slice 3, outside --range 4:5"),
        (["--box", BOX, "--range", "2:9"], "--range must lie within 0:5"),
        (["--box", BOX, "--range", "3"], "FIRST:LAST"),
        (["--box", BOX, "--window", "bones"], "Unknown window 'bones': use auto"),
        (["--box", BOX, "--window", "240:-160"], "from a lower to a higher"),
        (["--box", BOX, "--zoom", "0.5"], "--zoom is auto, off, or a number from 1"),
        (["--box", BOX, "--zoom", "much"], "--zoom is auto, off, or a number from 1"),
        (["--box", BOX, "--stop-after", "-1"], "--stop-after must be at least 0"),
        (["--box", BOX, "--threads", "0"], "--threads must be at least 1"),
        (["--box", BOX, "--series", "1.2.3"], "is not a folder; leave the series out"),
        (["--box", BOX, "--model", "nanoo"], "'nanoo' is neither a file nor a model: models are nano, medsam2"),
        (["--box", BOX, "--model", "."], "A checkpoint is a file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_request_that_cannot_be_met_is_refused(segment: Command, options: list[str], said: str) -> None:
    status = FAILURE if "--mask" in options else USAGE
    assert_refused(segment(*options), status, said)


def test_a_device_that_is_not_there_is_refused(segment: Command) -> None:
    missing = "mps" if torch.cuda.is_available() else "cuda"
    assert_refused(segment("--box", BOX, "--device", missing), USAGE, f"Device {missing} was asked for")


# Checkpoints


class RunsCode:
    """A pickle that makes a file when it is opened without care."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


def test_a_model_whose_weights_are_elsewhere_says_where(segment: Command) -> None:
    assert_refused(
        segment("--box", BOX, "--model", "medsam2"),
        FAILURE,
        "are not on this machine: `medsam2 models download medsam2` fetches them",
        "get MedSAM2_latest.pt from huggingface.co/wanglab/MedSAM2 elsewhere",
    )


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.999])
def test_a_truncated_checkpoint_is_refused(segment: Command, an_untrained_model: Path, tmp_path: Path, kept: float) -> None:
    whole = an_untrained_model.read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: int(kept * len(whole))])
    assert_refused(segment("--box", BOX, "--model", tmp_path / "cut.pt"), FAILURE, "cut.pt")


@pytest.mark.parametrize("as_torch_file", [True, False], ids=["torch.save", "pickle"])
def test_code_in_a_checkpoint_is_not_run(segment: Command, tmp_path: Path, as_torch_file: bool) -> None:
    marker, path = tmp_path / "code-was-run", tmp_path / "evil.pt"
    if as_torch_file:
        torch.save({"model": RunsCode(marker)}, path)
    else:
        path.write_bytes(pickle.dumps(RunsCode(marker)))
    assert_refused(segment("--box", BOX, "--model", path), FAILURE, "evil.pt is not a plain file of weights")
    assert not marker.exists()


def foreign_network(path: Path) -> None:
    torch.save({"conv.weight": torch.zeros(2, 2)}, path)


def foreign_content(path: Path) -> None:
    torch.save([1, 2, 3], path)


def not_torch(path: Path) -> None:
    path.write_text("weights, honestly")


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (foreign_network, "fits no network. Compared with"),
        (foreign_content, "must hold a dictionary of tensors"),
        (not_torch, "is not a whole checkpoint (it has no zip archive)"),
    ],
)
def test_a_foreign_checkpoint_is_refused(segment: Command, tmp_path: Path, write: Callable[[Path], None], said: str) -> None:
    write(tmp_path / "foreign.pt")
    assert_refused(segment("--box", BOX, "--model", tmp_path / "foreign.pt"), FAILURE, "foreign.pt", said)


def test_a_checkpoint_of_another_network_names_the_difference(segment: Command) -> None:
    assert_refused(
        segment("--box", BOX, "--network", "sam2.1-tiny"), FAILURE, "is not for sam2.1-tiny. Compared with sam2.1-tiny it"
    )


def test_a_checkpoint_with_nan_is_refused(segment: Command, an_untrained_model: Path, tmp_path: Path) -> None:
    content = torch.load(io.BytesIO(an_untrained_model.read_bytes()), weights_only=True)
    next(iter(content["model"].values())).fill_(float("nan"))
    torch.save(content, tmp_path / "nan.pt")
    assert_refused(segment("--box", BOX, "--model", tmp_path / "nan.pt"), FAILURE, "NaN or infinite weights")


# Outputs: refused before anything is computed


@pytest.mark.parametrize(
    ("option", "name", "status", "said"),
    [
        ("-o", "mask.png", USAGE, "A segmentation is written as"),
        ("-o", "none/mask.nrrd", FAILURE, "folder must exist"),
        ("-o", "folder.nrrd", FAILURE, "is a folder"),
        ("--preview", "p.jpg", USAGE, "A preview is written as .png"),
        ("--preview", "none/p.png", FAILURE, "folder must exist"),
        ("--report", "r.txt", USAGE, "A report is written as .json"),
        ("--report", "none/r.json", FAILURE, "folder must exist"),
    ],
)
def test_an_output_that_cannot_be_is_refused_at_once(
    segment: Command, tmp_path: Path, option: str, name: str, status: int, said: str
) -> None:
    (tmp_path / "folder.nrrd").mkdir()
    ended = segment("--box", BOX, option, tmp_path / name)
    assert_refused(ended, status, said)
    assert ended.err.count("\n") == 1  # not even the image was read


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_refused(segment: Command, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    assert_refused(segment("--box", BOX, "-o", tmp_path / "locked" / "mask.nrrd"), FAILURE, "cannot be written")


def test_a_file_system_that_takes_no_files_is_refused(segment: Command) -> None:
    if not Path("/proc/self").is_dir():
        pytest.skip("needs a read-only file system; this machine has no /proc")
    assert_refused(segment("--box", BOX, "-o", "/proc/mask.nrrd"), FAILURE, "/proc/mask.nrrd cannot be written")


def test_the_image_is_never_the_output(segment: Command, a_scan: Path, tmp_path: Path) -> None:
    (tmp_path / "link.nrrd").symlink_to(a_scan)
    before = a_scan.read_bytes()
    for output in (a_scan, tmp_path / "link.nrrd"):
        assert_refused(segment("--box", BOX, "-o", output), USAGE, "would replace", "which is read")
    assert a_scan.read_bytes() == before


def test_two_outputs_need_two_names(segment: Command, tmp_path: Path) -> None:
    (tmp_path / "b.json").symlink_to(tmp_path / "a.json")
    (tmp_path / "a.json").write_text("{}")
    ended = segment("--box", BOX, "-o", tmp_path / "o.nrrd", "--preview", tmp_path / "o.nrrd")
    assert_refused(ended, USAGE, "--preview", "which --output writes")


def test_the_prompts_file_is_not_replaced_by_the_report(segment: Command, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.json"
    prompts.write_text('{"objects": [{"name": "a", "prompts": [{"type": "box", "slice": 3, "box": [12, 11, 36, 29]}]}]}')
    assert_refused(segment("--prompts", prompts, "--report", prompts), USAGE, "which is read")
