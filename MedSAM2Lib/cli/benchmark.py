"""`medsam2 benchmark`: speed and memory on this machine, as ratios to other implementations."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedSAM2Lib.cli.engine import DEVICES, THREADS_HELP
from MedSAM2Lib.network.config import NETWORKS

if TYPE_CHECKING:
    from MedSAM2Lib.benchmark.compare import Comparison, Timing
    from MedSAM2Lib.benchmark.corrections import Corrections
    from MedSAM2Lib.benchmark.memory import PeakMemory
    from MedSAM2Lib.checkpoints.loading import LoadedModel

NAME = "benchmark"
HELP = "measure speed and memory, as ratios to Meta's and transformers' implementations where they are installed"

_MORE = """
All do every step in turns, on the same weights, slices, prompts and threads: this library in float32, which is exact, and in
bfloat16, its fastest; the references in float32. A ratio is the median over such turns, and above 1 where this library is
faster. Of several objects Meta's model takes one run each, as official scripts do it; transformers' takes all in one.
References are what of these is installed, which only this command and the tests use:
  pip install transformers==5.23.0
  pip install setuptools wheel hydra-core iopath tqdm
  SAM2_BUILD_CUDA=0 pip install --no-deps --no-build-isolation sam2==1.1.0

examples:
  medsam2 benchmark                            some four minutes on two processor cores
  medsam2 benchmark --memory --threads 2       also the peak memory of a 512 x 512 x 300 volume: some ten minutes more
  medsam2 benchmark --model nano --ct --locks --no-comparison
  medsam2 benchmark --roofline --no-comparison
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "medsam2 benchmark [options]"
    parser.epilog = _MORE
    parser.add_argument(
        "--size",
        type=int,
        metavar="PIXELS",
        help="side of a slice and of the network's image, with random weights; default: the network's own",
    )
    parser.add_argument("--slices", type=int, default=12, metavar="N", help="default 12")
    parser.add_argument(
        "--model",
        default="medsam2",
        metavar="ID|FILE",
        help="default medsam2; random weights of its network where it is not on this machine",
    )
    parser.add_argument("--network", choices=tuple(NETWORKS), metavar="NAME", help="what a FILE is for, where it fits several")
    parser.add_argument("--random-weights", action="store_true", help="random weights in any case: time does not depend on them")
    parser.add_argument("--device", default="cpu", choices=DEVICES, help="default cpu")
    parser.add_argument("--threads", type=int, metavar="N", help=THREADS_HELP)
    parser.add_argument("--no-reference", action="store_true", help="this library alone")
    parser.add_argument("--memory", action="store_true", help="also the peak memory of a large volume, in a process of its own")
    parser.add_argument("--memory-slices", type=int, default=300, metavar="N", help="slices of that volume; default 300")
    parser.add_argument("--ct", action="store_true", help="also from one box to the mask of a 512 x 512 x 200 CT, file to mask")
    parser.add_argument("--locks", action="store_true", help="also a correction in 200 slices between locked ones 20 apart")
    parser.add_argument("--roofline", action="store_true", help="also the work of a slice beside what this machine can do")
    parser.add_argument("--no-comparison", action="store_true", help="only what other options ask for")
    parser.add_argument(
        "--approximations", action="store_true", help="instead: what each --approximate is worth, in speed and in masks"
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="the same figures as JSON")


def run(args: argparse.Namespace) -> int:
    import torch

    from MedSAM2Lib.atomic import check_output
    from MedSAM2Lib.benchmark.compare import compare
    from MedSAM2Lib.benchmark.corrections import measure_corrections
    from MedSAM2Lib.benchmark.memory import measure_peak_memory
    from MedSAM2Lib.benchmark.plan import Plan
    from MedSAM2Lib.benchmark.reference import Reference, installed_references
    from MedSAM2Lib.benchmark.report import network_name, prepare, write_report
    from MedSAM2Lib.cli.benchmark_approximations import measure_approximations
    from MedSAM2Lib.cli.benchmark_parts import measure_parts
    from MedSAM2Lib.cli.console import tell

    # 1. What is asked for
    if args.json is not None:
        check_output(args.json, "A benchmark", ".json")
    plan = Plan(slices=args.slices)
    model = prepare(args.model, args.network, args.size, args.device, args.threads, random_weights=args.random_weights)
    references = installed_references() if not args.no_reference and Reference.can_run(model.network) else {}
    if args.approximations:
        rows = measure_approximations(model, plan.slices, references)
        if args.json is not None:
            write_report(args.json, model, {"approximations": rows})
            print(f"wrote {args.json}")
        return 0
    # 2. Measure
    figures: dict[str, Any] = {}
    status = 0
    if not args.no_comparison:
        comparison = compare(model, plan, references, lambda step: tell(f"measuring: {step}"))
        _print_comparison(model, comparison, torch.get_num_threads())
        for line in _left_out(model, references, asked_for=not args.no_reference):
            print(line)
        tell("measuring: a correction, and what can be undone")
        corrections = measure_corrections(model, plan)
        _print_corrections(corrections)
        figures["comparison"] = asdict(comparison)
        figures["corrections"] = {**asdict(corrections), "predicted": corrections.predicted}
        status = 0 if comparison.each_slice_encoded_once else 1
    figures |= measure_parts(model, ct=args.ct, locks=args.locks, roofline=args.roofline)
    if args.memory:
        tell(f"measuring: peak memory of {args.memory_slices} slices, which takes some minutes")
        size = model.network.config.image_size
        memory = measure_peak_memory(network_name(model), size, args.memory_slices, torch.get_num_threads())
        _print_memory(memory)
        figures["peak_memory"] = None if memory is None else asdict(memory)
    # 3. Keep
    if args.json is not None:
        write_report(args.json, model, figures)
        print(f"wrote {args.json}")
    return status


def _print_comparison(model: LoadedModel, comparison: Comparison, threads: int) -> None:
    size = model.network.config.image_size
    where = f"{model.network.device}, {threads} {'thread' if threads == 1 else 'threads'}"
    print(f"{model.name} at {size} pixels, {comparison.slices} slices, {where}\n")
    titles = "".join(f"{name:>17}{'float32':>9}{'bfloat16':>10}" for name in comparison.lowest_dice)
    print(f"{'':44}{'float32':>12}{'bfloat16':>12}{titles}")
    for timing in comparison.timings:
        print(_line(timing))
    print(f"\n{'in units of one encoded slice':44}{'float32':>12}{'bfloat16':>12}")
    encode, first_mask, _, again, *_ = comparison.timings
    for timing in (first_mask, again):
        exact, fastest = timing.ours / encode.ours, timing.fastest / encode.fastest
        print(f"{timing.name:44}{exact:>12.3f}{fastest:>12.3f}")
    once = "each slice once" if comparison.each_slice_encoded_once else "NOT each slice once"
    print(f"\nencoder runs, {once}:")
    print(f"  {comparison.encoder_runs} for {comparison.slices} slices (a prompt, a pass, a correction, a second pass)")
    print(f"  {comparison.object_encoder_runs} for {comparison.object_slices} slices ({comparison.objects} objects)")
    for name, dice in comparison.lowest_dice.items():
        print(f"masks agree with {name}: Dice {dice:.5f} on the slice where they differ most")
    print(f"masks in bfloat16 agree with those in float32: Dice {comparison.fastest_dice:.4f} likewise")


def _line(timing: Timing) -> str:
    """References: how long they take, and how many times as long as ours in float32 and in bfloat16."""
    beside = "".join(f"{_ms(one.seconds):>17}{one.ratio:>7.2f} x{one.fastest_ratio:>8.2f} x" for one in timing.beside.values())
    return f"{timing.name:44}{_ms(timing.ours):>12}{_ms(timing.fastest):>12}{beside}"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def _left_out(model: LoadedModel, references: Collection[str], asked_for: bool) -> Iterator[str]:
    """Why references are missing from the table."""
    from MedSAM2Lib.benchmark.reference import REFERENCES, Reference

    if not asked_for:
        yield "no reference was asked for"
    elif not Reference.can_run(model.network):
        yield f"no reference can run {model.name}, whose image encoder is another; take --model medsam2"
    else:
        for name in REFERENCES:
            if name not in references:
                yield f"ratios to {name} need its package; medsam2 benchmark --help says how to install it"


def _print_corrections(corrections: Corrections) -> None:
    print(
        f"a correction, {corrections.recomputed} of {corrections.tracked} slices again: {corrections.measured * 1000:.0f} ms; "
        f"that share of a whole pass ({corrections.whole_pass * 1000:.0f} ms) and one slice encoded "
        f"({corrections.encode * 1000:.0f} ms) would be {corrections.predicted * 1000:.0f} ms"
    )
    print(f"to undo a pass: {corrections.undo_bits:.2f} bits per voxel of its slices (masks of noise: those of organs take less)")


def _print_memory(memory: PeakMemory | None) -> None:
    if memory is None:
        print("peak memory: this system does not tell")
        return
    print(
        f"peak memory of a {memory.rows} x {memory.columns} x {memory.slices} volume: {memory.peak_gib:.2f} GiB "
        f"({memory.before_gib:.2f} GiB before the volume)"
    )
