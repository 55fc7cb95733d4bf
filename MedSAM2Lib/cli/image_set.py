"""`medsam2 segment FOLDER -o FOLDER`: single images, prompts on some of them, a mask for each, a picture and a report."""

from __future__ import annotations

import argparse
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedSAM2Lib.cli.console import Progress, duration, tell, warn
from MedSAM2Lib.cli.engine import load_any_engine, session_options

if TYPE_CHECKING:
    from MedSAM2Lib.checkpoints.loading import LoadedModel, LoadedSAM
    from MedSAM2Lib.cli.image_set_inputs import ImageSetInputs, ImageSetRequest
    from MedSAM2Lib.inference.image_set import ImageSet
    from MedSAM2Lib.inference.single_slice import SingleSliceSession

__all__ = ["REPORT_FORMAT", "perform"]

REPORT_FORMAT = "medsam2-image-set-report/1"


def perform(args: argparse.Namespace) -> None:
    """Segments as the arguments say, writes the results, each file whole or not at all, and prints what came of it."""
    started = time.perf_counter()
    from MedSAM2Lib.cli.image_set_inputs import image_set_request, read_image_set_inputs

    # 1. What is asked
    request = image_set_request(args)
    inputs = read_image_set_inputs(request)
    timings = {"read_images": time.perf_counter() - started}
    tell(f"loading {request.engine.model}")
    # 2. The prompted images, and the others
    model = load_any_engine(request.engine)
    session = _open(model, request, inputs)
    begun = time.perf_counter()
    _add_prompts(session, inputs)
    _propagate(session, inputs)
    timings["segmentation"] = time.perf_counter() - begun
    # 3. The results
    written = _write_masks(request.output, session, inputs)
    _write_preview(request, model, session, inputs)
    timings["total"] = time.perf_counter() - started
    _write_report(request, model, session, inputs, written, timings)
    _print_outcome(request, session, inputs, written)
    tell(f"finished in {duration(timings['total'])}")


def _open(model: LoadedModel | LoadedSAM, request: ImageSetRequest, inputs: ImageSetInputs) -> ImageSet | SingleSliceSession:
    from dataclasses import replace

    from MedSAM2Lib.checkpoints.loading import LoadedSAM
    from MedSAM2Lib.inference.image_set import ImageSet, ImageSetOptions
    from MedSAM2Lib.inference.single_slice import SingleSliceSession

    options = replace(session_options(request.engine, model), keep_largest=request.keep_largest)
    if not request.fill_holes:
        options = replace(options, fill_hole_cells=0)
    if isinstance(model, LoadedSAM):
        session = SingleSliceSession(model, options)
        session.set_images(inputs.images)
        return session
    of_set = ImageSetOptions(options.zoom, request.memory, options.fill_hole_cells, options.keep_largest)
    return ImageSet(model, inputs.images, of_set)


def _add_prompts(session: ImageSet | SingleSliceSession, inputs: ImageSetInputs) -> None:
    from MedSAM2Lib.errors import PromptError

    for name, prompt in inputs.prompts:
        try:
            session.add_prompt(name, prompt)
        except PromptError as error:
            raise PromptError(f"{name}: {error}") from error


def _propagate(session: ImageSet | SingleSliceSession, inputs: ImageSetInputs) -> None:
    from MedSAM2Lib.inference.single_slice import SingleSliceSession

    if isinstance(session, SingleSliceSession):
        tell(f"{session.model.name} has no memory: only images with a box are segmented")
        return
    total = sum(len(inputs.images) - len(session.confidence(name)) for name in session.objects)
    with Progress("propagating", total, "images") as progress:
        for count, _ in enumerate(session.propagate(), start=1):
            progress.update(count, count)


# ── results ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _write_masks(output: Path, session: ImageSet | SingleSliceSession, inputs: ImageSetInputs) -> dict[str, dict[int, Path]]:
    """One PNG per object and image, 0 or 255, in a folder per object; by object and image, relative to the output."""
    from MedSAM2Lib.volume_io.images import write_mask_image

    output.mkdir(exist_ok=True)
    files = _mask_names([image.name for image in inputs.images])
    written: dict[str, dict[int, Path]] = {}
    for name, folder in _folders(session.objects).items():
        (output / folder).mkdir(exist_ok=True)
        written[name] = {}
        for index in session.confidence(name):
            mask = session.image_mask(name, index)
            assert mask is not None  # it has a confidence
            path = Path(folder) / files[index]
            write_mask_image(output / path, mask)
            written[name][index] = path
    return written


def _mask_names(names: Sequence[str]) -> list[str]:
    """`a.png` for `a.jpg`; `a.jpg.png` where another image would get the same name."""
    stems = [_stem(name).lower() for name in names]
    return [f"{_stem(name) if stems.count(stem) == 1 else name}.png" for name, stem in zip(names, stems, strict=True)]


def _stem(name: str) -> str:
    return re.sub(r"\.(png|jpe?g|dcm|dicom)$", "", name, flags=re.IGNORECASE)


def _folders(objects: Sequence[str]) -> dict[str, str]:
    """A folder's name for each object: as the object's, without what a file system may not take."""
    folders: dict[str, str] = {}
    for place, name in enumerate(objects, start=1):
        plain = re.sub(r"[^\w .+-]", "_", name).strip(" .") or "object"
        taken = plain.lower() in {other.lower() for other in folders.values()}
        folders[name] = f"{plain}_{place}" if taken else plain
    return folders


def _write_preview(
    request: ImageSetRequest, model: LoadedModel | LoadedSAM, session: ImageSet | SingleSliceSession, inputs: ImageSetInputs
) -> None:
    from MedSAM2Lib.image_sheet import SegmentedImage, image_sheet
    from MedSAM2Lib.preview import write_picture
    from MedSAM2Lib.prompts import Box3D

    def shown(index: int) -> SegmentedImage:
        masks = {name: mask for name in session.objects if (mask := session.image_mask(name, index)) is not None}
        prompts = [(name, one) for name, one in inputs.prompts if not isinstance(one, Box3D) and one.slice_index == index]
        return SegmentedImage(inputs.images[index], masks, prompts)

    images = [shown(index) for index in range(len(inputs.images))]
    write_picture(request.preview, image_sheet(images, session.objects, f"{request.images.name}   {model.name}"))


def _write_report(
    request: ImageSetRequest,
    model: LoadedModel | LoadedSAM,
    session: ImageSet | SingleSliceSession,
    inputs: ImageSetInputs,
    written: Mapping[str, Mapping[int, Path]],
    timings: Mapping[str, float],
) -> None:
    from MedSAM2Lib.prompt_files import to_json
    from MedSAM2Lib.report import made_with, write_json

    images = [
        {"name": one.name, "rows": one.shape[0], "columns": one.shape[1], "colour": one.pixels.ndim == 3}
        for one in inputs.images
    ]
    report = {
        "format": REPORT_FORMAT,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "folder": os.fspath(request.images),
        "images": images,
        "prompts": to_json(inputs.asked, request.report.parent),
        "window": request.window,
        "options": asdict(session.options),
        "objects": [{"name": name, "images": _rows(session, name, inputs, files)} for name, files in written.items()],
        **made_with(model, session.embeddings.encoded, timings),
    }
    write_json(request.report, report)


def _rows(
    session: ImageSet | SingleSliceSession, name: str, inputs: ImageSetInputs, files: Mapping[int, Path]
) -> list[dict[str, Any]]:
    rows = []
    for index, confidence in session.confidence(name).items():
        mask = session.image_mask(name, index)
        pixels = 0 if mask is None else int(mask.sum())
        figures = {key: value if isinstance(value, bool) else round(value, 4) for key, value in asdict(confidence).items()}
        rows.append({"image": inputs.images[index].name, "mask": files[index].as_posix(), "pixels": pixels, **figures})
    return rows


def _print_outcome(
    request: ImageSetRequest,
    session: ImageSet | SingleSliceSession,
    inputs: ImageSetInputs,
    written: Mapping[str, Mapping[int, Path]],
) -> None:
    width = max(len(name) for name in written)
    for name, files in written.items():
        found = []
        for index in files:
            mask = session.image_mask(name, index)
            if mask is not None and mask.any():
                found.append(session.confidence(name)[index].iou)
        if not found:
            warn(f"nothing was found for {name!r}: all its masks are empty; try another prompt or --window.")
        mean = sum(found) / len(found) if found else 0.0
        print(f"{name:{width}}  found on {len(found)} of {len(inputs.images)} images  confidence {mean:.2f}")
    for name, files in written.items():
        folder = request.output / next(iter(files.values())).parent
        print(f"wrote {folder} ({len(files)} masks of {name}, 0 or 255)")
    print(f"wrote {request.preview}")
    print(f"wrote {request.report}")
