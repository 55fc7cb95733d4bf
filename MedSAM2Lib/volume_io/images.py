"""Single images, grey or colour: PNG, JPEG and DICOM files, alone or a folder of them that belong together without order."""

from __future__ import annotations

import os
import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from MedSAM2Lib.atomic import atomic_path
from MedSAM2Lib.errors import OptionError, VolumeError
from MedSAM2Lib.geometry import Geometry
from MedSAM2Lib.intensity import apply_window, resolve_window
from MedSAM2Lib.volume import Volume
from MedSAM2Lib.volume_io.dicom import MODALITY_TAG
from MedSAM2Lib.volume_io.itk import quiet_itk, reason_of

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["ImageOfSet", "is_picture", "read_image", "read_image_set", "write_mask_image"]

_PICTURES = (".png", ".jpg", ".jpeg")
_READABLE = "PNG, JPEG or DICOM"
_DICOM_MAGIC_OFFSET, _DICOM_MAGIC = 128, b"DICM"
_LITTER = frozenset({"thumbs.db", "desktop.ini", "dicomdir"})  # what systems and DICOM media put beside images
_NAMES_SHOWN = 3


@dataclass(frozen=True)
class ImageOfSet:
    """One image as it is shown.

    name    of its file, without the folder
    pixels  (rows, columns) grey or (rows, columns, 3) red, green, blue, uint8
    """

    name: str
    pixels: npt.NDArray[np.uint8] = field(repr=False)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.pixels.shape[0], self.pixels.shape[1]


def is_picture(path: Path) -> bool:
    """Whether a file is a PNG or a JPEG by its name."""
    return path.suffix.lower() in _PICTURES


def read_image_set(path: Path, window: str = "auto") -> list[ImageOfSet]:
    """The images of a folder (not of its subfolders), in the order of their names, numbers by value; or the one of a file.

    window  see `read_image`

    Raises VolumeError where there is none, one cannot be read, or a file is there that is no image.
    """
    if not path.exists():
        raise VolumeError(f"{path} does not exist; give a folder of {_READABLE} images, or one of them.")
    files = _image_files(path) if path.is_dir() else [path]
    return [ImageOfSet(file.name, read_image(file, window)) for file in files]


def read_image(path: Path, window: str = "auto") -> npt.NDArray[np.uint8]:
    """(rows, columns) or (rows, columns, 3) as shown, 0 black.

    Turned as its EXIF orientation says, as viewers do. What is transparent is black. Grey images of more than 8 bits, and
    DICOM, are windowed; colour, and 8 bits of grey, are taken as they are, unless a window is named.

    window  as `intensity.resolve_window` takes it; `auto` is found for each image by itself

    Raises VolumeError; OptionError for a window on a colour image.
    """
    pixels = _read_dicom(path, window) if _is_dicom(path) else _read_picture(path, window)
    if min(pixels.shape[:2]) < 2:
        raise VolumeError(f"{path}: expected an image, but it is {pixels.shape[1]} x {pixels.shape[0]} pixels.")
    return pixels


def write_mask_image(path: Path, mask: npt.NDArray[np.bool_]) -> None:
    """Writes a mask (rows, columns) as 8-bit grey PNG, 0 or 255, whole or not at all. Raises OutputError."""
    from PIL import Image

    with atomic_path(path) as temporary:
        Image.fromarray(mask.astype(np.uint8) * 255).save(temporary, format="PNG", optimize=True)


def _image_files(folder: Path) -> list[Path]:
    files = [file for file in folder.iterdir() if file.is_file() and not _is_litter(file)]
    if not files:
        raise VolumeError(f"{folder}: expected {_READABLE} images, but there is none (subfolders are not searched).")
    others = sorted(file.name for file in files if not (is_picture(file) or _is_dicom(file)))
    if others:
        rest = len(others) - _NAMES_SHOWN
        shown = ", ".join(others[:_NAMES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
        raise VolumeError(
            f"{folder}: expected {_READABLE} images and nothing else, but there is also {shown}; take it out, or convert it."
        )
    return sorted(files, key=lambda file: _natural(file.name))


def _is_litter(file: Path) -> bool:
    return file.name.startswith(".") or file.name.lower() in _LITTER


def _natural(name: str) -> list[tuple[int, int, str]]:
    """A key by which image2 comes before image10; names that differ only in case or leading zeros still differ."""
    parts = re.split(r"(\d+)", name.lower())
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts] + [(2, 0, name)]


# ── PNG and JPEG ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _read_picture(path: Path, window: str) -> npt.NDArray[np.uint8]:
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as opened:
                opened.load()
                picture = ImageOps.exif_transpose(opened)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise VolumeError(f"{path} has more pixels than a single image can be expected to have; reduce it first.") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # Pillow's readers raise any of them for damaged files
        reason = (str(error).splitlines() or [type(error).__name__])[0].replace(f" '{path}'", "")
        raise VolumeError(
            f"{path} cannot be read ({reason}). Expected {_READABLE}; the file may be damaged or cut short, copy it again."
        ) from error
    if picture.mode.startswith("I") or picture.mode == "F":
        return _shown(np.array(picture), None, path, window)
    flat = _without_transparency(picture)
    if flat.mode in ("1", "L"):
        grey = np.array(flat.convert("L"))
        return grey if window == "auto" else _shown(grey, None, path, window)
    return _colour(np.array(flat.convert("RGB")), path, window)


def _without_transparency(picture: Image) -> Image:
    """The picture on black where it is transparent: what a transparent pixel holds is not meant to be seen."""
    from PIL import Image

    if not (picture.mode in ("LA", "PA", "La", "RGBA", "RGBa") or "transparency" in picture.info):
        return picture
    opaque = "L" if picture.mode in ("L", "LA", "La") else "RGB"
    seen = picture.convert("RGBA")
    black = Image.new("RGBA", seen.size, (0, 0, 0, 255))
    return Image.alpha_composite(black, seen).convert(opaque)


# ── DICOM ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _is_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            head = stream.read(_DICOM_MAGIC_OFFSET + len(_DICOM_MAGIC))
    except OSError as error:
        raise VolumeError(f"{path} cannot be read ({error.strerror}); check its permissions.") from error
    return head[_DICOM_MAGIC_OFFSET:] == _DICOM_MAGIC


def _read_dicom(path: Path, window: str) -> npt.NDArray[np.uint8]:
    with quiet_itk() as sitk:
        reader = sitk.ImageFileReader()
        reader.SetFileName(os.fspath(path))
        try:
            reader.ReadImageInformation()
            frames = int(np.prod(reader.GetSize()[2:]))
            if frames != 1:
                raise VolumeError(f"{path}: expected one image, but it holds {frames} frames; segment it as a volume of its own.")
            image = reader.Execute()
        except RuntimeError as error:
            raise VolumeError(f"{path} cannot be read ({reason_of(error)}); the file may be damaged, copy it again.") from error
        modality = reader.GetMetaData(MODALITY_TAG).strip() if reader.HasMetaDataKey(MODALITY_TAG) else None
        columns, rows = image.GetSize()[:2]
        array: npt.NDArray[Any] = sitk.GetArrayFromImage(image).reshape(rows, columns, -1)
    if array.shape[2] == 1:
        return _shown(array[:, :, 0], modality or None, path, window)  # ITK has turned values whose lowest is white
    if array.shape[2] != 3 or array.dtype != np.uint8:
        raise VolumeError(
            f"{path}: expected grey, or colour of three times 8 bits, but it is {array.shape[2]} x {array.dtype}; convert it."
        )
    return _colour(array, path, window)


# ── to 8 bits ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _shown(grey: npt.NDArray[Any], modality: str | None, path: Path, window: str) -> npt.NDArray[np.uint8]:
    """Grey values (rows, columns) of any type through a window. An image of one value is black."""
    if np.isfinite(grey).all() and grey.min() == grey.max():
        return np.zeros(grey.shape, dtype=np.uint8)
    volume = Volume(grey[None], Geometry((1, *grey.shape)), modality, os.fspath(path))
    return apply_window(grey, resolve_window(window, volume))


def _colour(pixels: npt.NDArray[np.uint8], path: Path, window: str) -> npt.NDArray[np.uint8]:
    if window != "auto":
        raise OptionError(f"A window is for grey images, but {path} is in colour; leave --window out, or convert it to grey.")
    return pixels
