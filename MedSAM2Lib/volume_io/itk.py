"""SimpleITK on the library's terms: silent on stderr, geometry in and out."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import tempfile
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from MedSAM2Lib.geometry import Geometry
from MedSAM2Lib.simpleitk import import_simpleitk

__all__ = ["geometry_of", "image_from_array", "quiet_itk", "reason_of"]

_LOGGER = logging.getLogger(__name__)
_STDERR = 2
_ONE_AT_A_TIME = threading.RLock()


@contextlib.contextmanager
def quiet_itk() -> Iterator[Any]:
    """Yields the SimpleITK module; what its C++ readers print on stderr goes to this module's debug log instead.

    ITK, GDCM and the format libraries write to file descriptor 2 itself, so that is what is redirected, for the
    length of the block and for one thread at a time. Both it and ITK's warning switch are put back.
    """
    sitk = import_simpleitk()
    with _ONE_AT_A_TIME, _captured_stderr():
        shown = sitk.ProcessObject.GetGlobalWarningDisplay()
        sitk.ProcessObject.SetGlobalWarningDisplay(False)
        try:
            yield sitk
        finally:
            sitk.ProcessObject.SetGlobalWarningDisplay(shown)


@contextlib.contextmanager
def _captured_stderr() -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        try:
            log = stack.enter_context(tempfile.TemporaryFile())
            kept = os.dup(_STDERR)
        except OSError:  # no place for the log; or, in a Windows program without a console, nothing to keep quiet
            yield
            return
        os.dup2(log.fileno(), _STDERR)
        try:
            yield
        finally:
            os.dup2(kept, _STDERR)
            os.close(kept)
            log.seek(0)
            for line in log.read().decode(errors="replace").splitlines():
                _LOGGER.debug("%s", line)


def reason_of(error: BaseException) -> str:
    """ITK's exceptions are several lines with source file names and addresses; this is the part that a person needs."""
    text = " ".join(str(error).split())
    text = text.rsplit("ERROR:", maxsplit=1)[-1].strip()
    text = re.sub(r"^\w+\(0x[0-9a-f]+\): ", "", text)
    text = text.rsplit("[nrrd]", maxsplit=1)[-1].strip()  # the NRRD library tells a chain of causes, the first one last
    return text.rstrip(". ") or type(error).__name__


def geometry_of(image: Any) -> Geometry:
    """The grid of a SimpleITK image, or of a reader that has read its header, of 2 to 5 dimensions.

    A 2D image is one slice, 1 mm thick, in the plane z = 0; dimensions after the third are left out.
    """
    dimension: int = image.GetDimension()
    matrix = np.eye(3)
    kept = min(dimension, 3)
    matrix[:kept, :kept] = np.reshape(image.GetDirection(), (dimension, dimension))[:kept, :kept]
    i, j, k = _three(image.GetSize(), 1)
    si, sj, sk = _three(image.GetSpacing(), 1.0)
    x, y, z = _three(image.GetOrigin(), 0.0)
    return Geometry(
        shape=(int(k), int(j), int(i)),
        spacing=(si, sj, sk),
        origin=(x, y, z),
        direction=tuple(float(value) for value in matrix.ravel()),
    )


def _three(values: Sequence[float], filler: float) -> tuple[float, float, float]:
    first, second, third = (*values, filler)[:3]
    return first, second, third


def image_from_array(array: npt.NDArray[Any], geometry: Geometry) -> Any:
    """A SimpleITK image of a (k, j, i) array."""
    image = import_simpleitk().GetImageFromArray(array)
    image.SetSpacing(geometry.spacing)
    image.SetOrigin(geometry.origin)
    image.SetDirection(geometry.direction)
    return image
