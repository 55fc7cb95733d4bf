"""What a run did, as numbers: per object for a person, as JSON for a record that can be repeated."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from MedSAM2Lib.atomic import atomic_path
from MedSAM2Lib.checkpoints.loading import LoadedModel, LoadedSAM
from MedSAM2Lib.geometry import Geometry
from MedSAM2Lib.inference.session import SessionOptions
from MedSAM2Lib.intensity import Window
from MedSAM2Lib.network.config import NETWORKS, SAM_NETWORKS, approximated
from MedSAM2Lib.prompt_files import PromptSet, to_json
from MedSAM2Lib.results import SliceConfidence
from MedSAM2Lib.simpleitk import import_simpleitk
from MedSAM2Lib.slice_stack import SliceStack
from MedSAM2Lib.version import __version__
from MedSAM2Lib.volume import Volume
from MedSAM2Lib.volume_io.segments import Segment

__all__ = ["REPORT_FORMAT", "ObjectSummary", "Run", "made_with", "summarise", "versions", "write_json", "write_report"]

REPORT_FORMAT = "medsam2-report/1"


@dataclass(frozen=True)
class ObjectSummary:
    """One object of a result."""

    name: str
    voxels: int
    volume_ml: float
    slices: tuple[int, int] | None  # first and last slice with a voxel, along the slicing axis; None: no voxel
    slice_count: int  # slices with a voxel
    confidence: float  # mean expected IoU over those slices, 0..1; 0 where there are none
    per_slice: list[dict[str, Any]] = field(repr=False)  # slice, pixels, iou, presence, prompted


@dataclass(frozen=True)
class Run:
    """What a mask was made from and how. `timings` are seconds by step."""

    image: Path
    volume: Volume
    stack: SliceStack
    model: LoadedModel | LoadedSAM
    axis: str  # k, j or i, of what is cut into slices
    window_asked: str
    window: Window
    options: SessionOptions
    prompts: PromptSet
    slices_encoded: int
    timings: dict[str, float]
    orientations: Mapping[str, Any]  # how many sequences, and how well they agree


def summarise(segment: Segment, array_axis: int, confidence: Mapping[int, SliceConfidence], geometry: Geometry) -> ObjectSummary:
    """Counts an object's mask (k, j, i), and puts the network's opinion of each slice beside it."""
    pixels = _pixels_per_slice(segment.mask, array_axis)
    occupied = [int(index) for index in np.flatnonzero(pixels)]
    ious = [confidence[index].iou for index in occupied if index in confidence]
    return ObjectSummary(
        name=segment.name,
        voxels=int(pixels.sum()),
        volume_ml=float(pixels.sum()) * geometry.voxel_volume_ml,
        slices=(occupied[0], occupied[-1]) if occupied else None,
        slice_count=len(occupied),
        confidence=float(np.mean(ious)) if ious else 0.0,
        per_slice=[
            {"slice": index, "pixels": int(pixels[index]), **{key: _rounded(value) for key, value in asdict(one).items()}}
            for index, one in confidence.items()
        ],
    )


def write_report(path: Path, run: Run, objects: Sequence[ObjectSummary], outputs: Mapping[str, Path | None]) -> None:
    """Writes the JSON, whole or not at all. Its "prompts" can be read by `prompt_files.read_prompts`."""
    write_json(path, _report(run, objects, outputs, path.parent))


def write_json(path: Path, report: Mapping[str, Any]) -> None:
    """Writes a report, whole or not at all."""
    content = json.dumps(report, indent=1, allow_nan=False)
    with atomic_path(path) as temporary:
        temporary.write_text(content + "\n", encoding="utf-8")


def made_with(model: LoadedModel | LoadedSAM, slices_encoded: int, timings: Mapping[str, float]) -> dict[str, Any]:
    """What a report says of the model, the machine, and how long it took (seconds by step)."""
    device = model.network.device
    return {
        "model": {
            "name": model.name,
            "network": _network_name(model),
            "file": model.path.name,
            "sha256": model.sha256,
            "approximations": list(model.approximations),
        },
        "precision": model.precision,
        "device": {"name": str(device), "processor": _processor(device), "threads": torch.get_num_threads()},
        "versions": versions(),
        "slices_encoded": slices_encoded,
        "timings_s": {name: round(seconds, 3) for name, seconds in timings.items()},
        "peak_memory_mb": _peak_memory_mb(),
        "peak_gpu_memory_mb": _peak_gpu_memory_mb(device),
    }


def versions() -> dict[str, str]:
    """Of everything that has a say in the numbers."""
    return {
        "medsam2": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "simpleitk": import_simpleitk().Version.VersionString(),
        "platform": platform.platform(),
    }


def _report(run: Run, objects: Sequence[ObjectSummary], outputs: Mapping[str, Path | None], folder: Path) -> dict[str, Any]:
    return {
        "format": REPORT_FORMAT,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "image": {
            "path": os.fspath(run.image),
            "modality": run.volume.modality,
            "voxel_type": str(run.volume.array.dtype),
            **_grid(run.volume.geometry),
        },
        "outputs": {what: os.fspath(path) for what, path in outputs.items() if path is not None},
        "prompts": to_json(run.prompts, folder),
        "axis": run.axis,
        "oblique_slices": _grid(run.stack.geometry) if run.stack.is_oblique else None,
        "orientations": dict(run.orientations),
        "window": {"asked": run.window_asked, "low": run.window.low, "high": run.window.high},
        "options": asdict(run.options),
        "objects": [{"label": label, **asdict(one)} for label, one in enumerate(objects, start=1)],
        **made_with(run.model, run.slices_encoded, run.timings),
    }


def _grid(geometry: Geometry) -> dict[str, Any]:
    return {
        "shape_kji": list(geometry.shape),
        "spacing_ijk_mm": list(geometry.spacing),
        "origin_lps_mm": list(geometry.origin),
        "direction": list(geometry.direction),
    }


def _pixels_per_slice(mask: npt.NDArray[np.bool_], array_axis: int) -> npt.NDArray[np.intp]:
    others = tuple(axis for axis in range(3) if axis != array_axis)
    counts: npt.NDArray[np.intp] = np.sum(mask, axis=others, dtype=np.intp)
    return counts


def _rounded(value: float | bool) -> float | bool:
    return value if isinstance(value, bool) else round(value, 4)


def _network_name(model: LoadedModel | LoadedSAM) -> str | None:
    with_memory = {name: approximated(config, model.approximations) for name, config in NETWORKS.items()}
    known = {**with_memory, **SAM_NETWORKS}
    return next((name for name, config in known.items() if config == model.network.config), None)


def _processor(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()


def _peak_memory_mb() -> float | None:
    """The most main memory that this process has held; None on Windows, where Python does not tell."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS, KiB elsewhere
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)


def _peak_gpu_memory_mb(device: torch.device) -> float | None:
    return round(torch.cuda.max_memory_allocated(device) / 2**20, 1) if device.type == "cuda" else None
