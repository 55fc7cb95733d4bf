"""The parts of `medsam2 benchmark` that are asked for by name: measured, and told in words beside their goals."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from MedSAM2Lib.benchmark.box_to_mask import BoxToMask, measure_box_to_mask
from MedSAM2Lib.benchmark.corrections import LocalCorrection, measure_local_correction
from MedSAM2Lib.benchmark.roofline import Roofline, measure_roofline
from MedSAM2Lib.checkpoints.loading import LoadedModel
from MedSAM2Lib.cli.console import tell

__all__ = ["measure_parts"]

# Goals on two cores of a processor of 2026.
_BOX_TO_MASK_S = 10
_CORRECTION_SHARE = 0.05
_OBJECTS = (1, 5)


def measure_parts(model: LoadedModel, *, ct: bool, locks: bool, roofline: bool) -> dict[str, Any]:
    """Measures what is asked for, prints it, and returns it as `json` can write it."""
    figures: dict[str, Any] = {}
    if ct:
        tell("measuring: from a box to the mask of a CT")
        box_to_mask = measure_box_to_mask(model)
        _print_box_to_mask(box_to_mask)
        figures["box_to_mask"] = {**asdict(box_to_mask), "total": box_to_mask.total}
    if locks:
        tell("measuring: a correction between locked slices of a long volume")
        correction = measure_local_correction(model)
        _print_local_correction(correction)
        figures["local_correction"] = {**asdict(correction), "share": correction.share}
    if roofline:
        tell("measuring: what the machine can do, and what each part of the network takes of it")
        measured = measure_roofline(model.network)
        _print_roofline(measured, model.network.config.image_size)
        figures["roofline"] = asdict(measured)
    return figures


def _print_box_to_mask(measured: BoxToMask) -> None:
    slices, rows, columns = measured.shape
    print(
        f"box to 3D mask on a {rows} x {columns} x {slices} CT, {measured.segmented} slices segmented: {measured.total:.1f} s "
        f"(goal for nano: {_BOX_TO_MASK_S} s); reading {measured.reading:.1f}, first mask {measured.first_mask:.2f}, "
        f"other slices {measured.others:.1f}, the whole mask {measured.assembly:.1f}"
    )


def _print_local_correction(measured: LocalCorrection) -> None:
    print(
        f"a correction among {measured.slices} slices between locks {measured.apart} apart, {measured.recomputed} slices again: "
        f"{1000 * measured.measured:.0f} ms, {measured.share:.1%} of the first pass ({measured.first_pass:.1f} s; "
        f"goal: {_CORRECTION_SHARE:.0%})"
    )


def _print_roofline(measured: Roofline, image_size: int) -> None:
    machine = measured.machine
    print(
        f"this machine: {machine.gflops:.0f} GFLOP/s in float32, {machine.bfloat16_gflops:.0f} in bfloat16, "
        f"{machine.gbytes_per_s:.0f} GB/s"
    )
    print(f"{'a slice at ' + str(image_size) + ' pixels':28}{'GFLOP':>9}{'MB':>8}{'arithmetic':>13}{'traffic':>10}{'takes':>10}")
    for part in measured.parts:
        print(
            f"{part.name:28}{part.work.gflop:>9.2f}{part.work.mbytes:>8.0f}{1000 * part.arithmetic_s:>10.1f} ms"
            f"{1000 * part.traffic_s:>7.1f} ms{1000 * part.measured_s:>7.1f} ms{part.share:>6.0%} of the arithmetic"
        )
    print(f"{'GFLOP a slice':28}{'encoder':>9}" + "".join(f"{_objects(count):>14}" for count in _OBJECTS))
    for size in measured.growth:
        encoder = measured.gflop(size, objects=0)
        print(f"{size:>6} pixels{'':15}{encoder:>9.1f}" + "".join(f"{measured.gflop(size, n):>14.1f}" for n in _OBJECTS))


def _objects(count: int) -> str:
    return f"{count} object" if count == 1 else f"{count} objects"
