"""`medsam2 selftest`: whether this installation works, step by step, with the reason where it does not."""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from MedSAM2Lib.cli.console import tell
from MedSAM2Lib.cli.engine import add_engine_arguments, engine_of, load_engine

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from MedSAM2Lib.checkpoints.loading import LoadedModel
    from MedSAM2Lib.volume import Volume

NAME = "selftest"
HELP = "check that the installation works: model, device, a small segmentation, files"

# A ball in noise, from a tight box: far below what a trained model reaches, far above what a broken one does.
_LEAST_DICE = 0.7


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_engine_arguments(parser)


def run(args: argparse.Namespace) -> int:
    state = _State(args)
    failures = 0
    for title, check in (
        ("versions", _check_versions),
        ("model", _check_model),
        ("segmentation", _check_segmentation),
        ("files", _check_files),
    ):
        try:
            print(f"ok    {title}: {check(state)}", flush=True)
        except Exception as error:
            if args.debug:
                raise
            failures += 1
            print(f"FAIL  {title}: {type(error).__name__}: {error}", flush=True)
    tell("selftest: this installation works" if not failures else f"selftest: {failures} of 4 checks failed")
    return 1 if failures else 0


@dataclass
class _State:
    """What one check leaves for the next."""

    args: argparse.Namespace
    model: LoadedModel | None = None
    volume: Volume | None = None
    mask: npt.NDArray[np.bool_] | None = field(default=None, repr=False)


def _check_versions(state: _State) -> str:
    from MedSAM2Lib.report import versions

    return ", ".join(f"{name} {version}" for name, version in versions().items())


def _check_model(state: _State) -> str:
    state.model = load_engine(engine_of(state.args))
    return f"{state.model.name} (sha256 {state.model.sha256[:12]}...) loads and runs on {state.model.network.device}"


def _check_segmentation(state: _State) -> str:
    from MedSAM2Lib.inference.session import Session
    from MedSAM2Lib.metrics import dice
    from MedSAM2Lib.prompts import Box

    state.volume, truth = _ball()
    if state.model is None:
        raise RuntimeError("not possible without the model")
    session = Session(state.model)
    session.set_volume(state.volume)
    session.add_prompt("ball", Box(8, 22, 26, 42, 46))
    slices = 1 + sum(1 for _ in session.propagate())
    state.mask = session.mask("ball")
    score = dice(state.mask, truth)
    if score < _LEAST_DICE:
        raise RuntimeError(
            f"the mask of a ball must agree with it, Dice {_LEAST_DICE} at least, but it is {score:.2f}; is the model trained?"
        )
    return f"a ball over {slices} slices, Dice {score:.2f}"


def _ball() -> tuple[Volume, npt.NDArray[np.bool_]]:
    """A ball of 120 HU in fat-like noise, 17 x 72 x 64 voxels (k, j, i) of 2.5 x 1 x 1 mm, and its mask."""
    import numpy as np

    from MedSAM2Lib.geometry import Geometry
    from MedSAM2Lib.volume import Volume

    k, j, i = np.ogrid[:17, :72, :64]
    inside = (2.5 * (k - 8)) ** 2 + (j - 36) ** 2 + (i - 32) ** 2 <= 10.5**2
    noise = np.random.default_rng(0).normal(0, 12, inside.shape)
    array = np.round(np.where(inside, 120, -80) + noise).astype(np.int16)
    return Volume(array, Geometry((17, 72, 64), (1.0, 1.0, 2.5)), modality="CT", source="selftest"), inside


def _check_files(state: _State) -> str:
    import numpy as np

    from MedSAM2Lib.intensity import Window
    from MedSAM2Lib.preview import contact_sheet, write_picture
    from MedSAM2Lib.volume_io.read import read_labels
    from MedSAM2Lib.volume_io.write import Segment, write_segmentation

    volume, truth = _ball()
    segments = [Segment("ball", truth if state.mask is None or not state.mask.any() else state.mask)]
    endings = (".nii.gz", ".nrrd", ".seg.nrrd", ".mha")
    with tempfile.TemporaryDirectory() as folder:
        for ending in endings:
            path = Path(folder) / f"mask{ending}"
            write_segmentation(path, segments, volume.geometry)
            if not np.array_equal(read_labels(path).array > 0, segments[0].mask):
                raise RuntimeError(f"a mask written as {ending} comes back changed")
        write_picture(Path(folder) / "preview.png", contact_sheet(volume, "k", Window(-160, 240), segments))
    return f"{', '.join(endings)} written and read back, a preview drawn"
