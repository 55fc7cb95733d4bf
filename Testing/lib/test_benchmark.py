"""What the benchmark does, on a tiny network. That it is fast enough is not for a test to say."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from MedSAM2Lib.benchmark import roofline as roofline_module
from MedSAM2Lib.benchmark.approximations import measure_approximations
from MedSAM2Lib.benchmark.box_to_mask import measure_box_to_mask
from MedSAM2Lib.benchmark.compare import compare
from MedSAM2Lib.benchmark.corrections import measure_corrections, measure_local_correction
from MedSAM2Lib.benchmark.memory import measure_peak_memory
from MedSAM2Lib.benchmark.plan import Plan
from MedSAM2Lib.benchmark.reference import REFERENCES, installed_references
from MedSAM2Lib.benchmark.report import network_name, prepare
from MedSAM2Lib.benchmark.roofline import count_work, measure_roofline
from MedSAM2Lib.benchmark.subject import abdominal_ct, object_boxes, random_network, random_volume
from MedSAM2Lib.checkpoints.loading import LoadedModel
from MedSAM2Lib.cli.main import main
from MedSAM2Lib.errors import OptionError
from MedSAM2Lib.network import linear
from MedSAM2Lib.network.config import network_config
from Testing.lib.network.parity.weights import SMALL

PLAN = Plan(slices=4, encoder_repeats=2, first_mask_repeats=2, prompt_repeats=3, objects=2, most_object_slices=2)

INSTALLED = installed_references()


@pytest.fixture(scope="module")
def a_model() -> LoadedModel:
    return LoadedModel(random_network(SMALL), "small", Path(), "", None)


def test_alone_it_measures_every_step_and_encodes_each_slice_once(a_model: LoadedModel) -> None:
    told: list[str] = []
    comparison = compare(a_model, PLAN, {}, told.append)
    assert [timing.name for timing in comparison.timings] == told
    assert [timing.repeats for timing in comparison.timings] == [2, 2, 3, 3, 2, 2]
    assert all(timing.ours > 0 and timing.fastest > 0 and not timing.beside for timing in comparison.timings)
    assert (comparison.encoder_runs, comparison.slices) == (4, 4)
    assert (comparison.object_encoder_runs, comparison.object_slices) == (3, 3)
    assert comparison.each_slice_encoded_once
    assert comparison.lowest_dice == {}


@pytest.mark.parametrize("name", REFERENCES)
def test_beside_a_reference_the_masks_are_the_same(a_model: LoadedModel, name: str) -> None:
    if name not in INSTALLED:
        pytest.skip(f"{name} model is a reference that is installed apart")
    comparison = compare(a_model, PLAN, {name: INSTALLED[name]})
    assert all(timing.beside[name].ratio > 0 and timing.beside[name].fastest_ratio > 0 for timing in comparison.timings)
    assert comparison.each_slice_encoded_once
    assert comparison.lowest_dice[name] >= 0.999
    assert comparison.fastest_dice >= 0.97  # a few pixels of a small random mask


def test_what_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for needed, *_ in REFERENCES.values():
        monkeypatch.setitem(sys.modules, needed, None)  # as if it could not be found
    assert installed_references() == {}
    assert main(["benchmark", "--size", "64", "--slices", "3", "--threads", "1"]) == 0
    said = capsys.readouterr().out
    assert all(f"ratios to {name} need its package" in said for name in REFERENCES)


def test_approximations_are_measured_beside_the_exact_engine(a_model: LoadedModel) -> None:
    rows = {row.name: row for row in measure_approximations(a_model, 3, INSTALLED)}
    same_network = ["exact", "--precision bfloat16", "pooled-memories", "pooled-memories, --precision bfloat16"]
    assert list(rows)[:5] == [*same_network, "crop"]
    assert (rows["exact"].to_exact, rows["exact"].lowest_dice) == ((1.0, 1.0), 1.0)
    assert set(rows["exact"].to_references) == set(INSTALLED)
    pooled = rows["pooled-memories"]
    assert pooled.lowest_dice is not None
    assert pooled.mean_dice is not None
    assert 0.5 < pooled.lowest_dice <= pooled.mean_dice < 1  # the second pass has two maps to pool
    # Random weights make something else of a crop, and another network of anything.
    assert all(row.mean_dice is None for name, row in rows.items() if name not in same_network)


def test_a_correction_redoes_what_lies_between_locked_slices(a_model: LoadedModel) -> None:
    cost = measure_corrections(a_model, Plan(slices=12))
    assert (cost.recomputed, cost.tracked) == (4, 11)
    assert cost.predicted == pytest.approx(4 / 11 * cost.whole_pass + cost.encode)
    assert min(cost.measured, cost.whole_pass, cost.encode) > 0
    assert cost.undo_bits > 1  # a float16 for 16 voxels alone is one


def test_three_slices_can_be_corrected_too(a_model: LoadedModel) -> None:
    cost = measure_corrections(a_model, Plan(slices=3))
    assert (cost.recomputed, cost.tracked) == (1, 2)


def test_the_same_seed_gives_the_same_subject() -> None:
    state = random_network(SMALL, seed=3).state_dict()
    assert all(torch.equal(value, state[key]) for key, value in random_network(SMALL, seed=3).state_dict().items())
    assert np.array_equal(random_volume(32, 3).array, random_volume(32, 3).array)
    assert not np.array_equal(random_volume(32, 3, seed=1).array, random_volume(32, 3).array)


def test_drawing_a_subject_leaves_the_global_generators_alone() -> None:
    before = torch.random.get_rng_state()
    random_network(SMALL)
    random_volume(32, 2)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("size", [64, 512])
def test_boxes_lie_on_the_slice(size: int) -> None:
    for box in object_boxes(size, 5):
        assert 0 <= box.x0 < box.x1 <= size - 1
        assert 0 <= box.y0 < box.y1 <= size - 1


def test_two_slices_are_too_few() -> None:
    with pytest.raises(OptionError, match="at least 3 slices"):
        Plan(slices=2)


def test_weights_that_are_not_here_are_random() -> None:
    model = prepare("medsam2", None, 64, "cpu", None, random_weights=False)
    assert model.name == "medsam2 with random weights"
    assert model.network.config.image_size == 64
    assert network_name(model) == "medsam2"


def test_threads_are_those_asked_for_or_those_that_suit_the_network() -> None:
    prepare("medsam2", None, 64, "cpu", 2, random_weights=False)
    assert torch.get_num_threads() == 2
    prepare("medsam2", None, 64, "cpu", None, random_weights=False)
    assert torch.get_num_threads() == 1


def test_a_file_is_loaded_or_its_network_must_be_named(an_untrained_model: Path) -> None:
    assert prepare(str(an_untrained_model), None, None, "cpu", None, random_weights=False).name == "untrained.pt"
    with pytest.raises(OptionError, match="give --network"):
        prepare(str(an_untrained_model), None, 64, "cpu", None, random_weights=False)


def test_the_memory_is_measured_in_a_process_of_its_own() -> None:
    memory = measure_peak_memory("nano", 64, 3, threads=1)
    assert memory is not None
    assert (memory.rows, memory.columns, memory.slices) == (64, 64, 3)
    assert 0 < memory.before_gib <= memory.peak_gib < 4


def test_the_command_prints_a_table_and_writes_its_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["benchmark", "--model", "nano", "--size", "64", "--slices", "3", "--threads", "1", "--json"]
    assert main([*arguments, str(tmp_path / "figures.json")]) == 0
    said = capsys.readouterr().out
    assert said.startswith("nano with random weights at 64 pixels, 3 slices, cpu, 1 thread\n")
    assert "encoder runs, each slice once" in said
    assert "no reference can run nano" in said
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert len(figures["comparison"]["timings"]) == 6
    assert "peak_memory" not in figures
    assert figures["corrections"]["predicted"] > 0
    assert "to undo a pass:" in said


def test_a_correction_between_locks_in_a_long_volume(a_model: LoadedModel) -> None:
    cost = measure_local_correction(a_model, slices=30, apart=8)
    assert cost.recomputed == 6  # between slices 11 and 19, without the one that is clicked
    assert 0 < cost.measured < cost.first_pass


def test_from_a_box_to_the_mask_of_a_ct(a_model: LoadedModel) -> None:
    measured = measure_box_to_mask(a_model, size=64, slices=10)
    assert measured.shape == (10, 64, 64)
    assert 1 <= measured.segmented <= 10
    assert min(measured.reading, measured.first_mask, measured.others, measured.assembly) > 0


def test_the_ct_is_an_abdomen_with_its_liver_in_the_box() -> None:
    volume, box = abdominal_ct(128, 32)
    assert volume.geometry.shape == (32, 128, 128)
    assert math.isclose(volume.geometry.spacing[0] * 128, 2.9 * 128)
    assert math.isclose(volume.geometry.spacing[2] * 32, 4.0 * 64)
    inside = volume.array[box.slice_index, int(box.y0) : int(box.y1), int(box.x0) : int(box.x1)]
    assert 60 < np.median(inside) < 160


def test_the_work_of_a_slice_is_counted() -> None:
    """A 3 x 3 convolution from 48 channels to 64 alone is 2 * 9 * 48 * 64 operations for each of 32 x 32 cells."""
    config = network_config("nano")
    work = count_work(config)
    assert list(work) == ["image encoder", "memory attention", "prompt and mask decoder", "memory encoder"]
    assert work["image encoder"].gflop > 2 * 9 * 48 * 64 * 32**2 / 1e9
    assert all(part.gflop > 0 and part.mbytes > 0 for part in work.values())
    doubled = count_work(replace(config, image_size=256))
    assert 3.9 < doubled["memory encoder"].gflop / work["memory encoder"].gflop < 4.1
    assert doubled["memory attention"].gflop > 4 * work["memory attention"].gflop


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="a build of torch without oneDNN")
def test_both_ways_of_multiplying_matrices_are_counted_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    config = network_config("nano")
    work = count_work(config)["image encoder"].gflop
    monkeypatch.setattr(linear, "_has_onednn", lambda dtype: False)
    assert count_work(config)["image encoder"].gflop == pytest.approx(work)


def test_the_roofline_sets_parts_beside_what_the_machine_can_do(a_model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline_module, "IMAGE_SIZES", (128,))
    roofline = measure_roofline(a_model.network)
    assert min(roofline.machine.gflops, roofline.machine.bfloat16_gflops, roofline.machine.gbytes_per_s) > 0
    assert all(part.measured_s > 0 and part.share > 0 for part in roofline.parts)
    assert set(roofline.growth) == {SMALL.image_size, 128}
    one, five = roofline.gflop(128, 1), roofline.gflop(128, 5)
    encoder = roofline.growth[128]["image encoder"].gflop
    assert five - encoder == pytest.approx(5 * (one - encoder))


def test_parts_come_without_the_comparison(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["benchmark", "--model", "nano", "--size", "32", "--threads", "1", "--no-comparison", "--locks"]
    assert main([*arguments, "--json", str(tmp_path / "figures.json")]) == 0
    said = capsys.readouterr().out
    assert said.startswith("a correction among 200 slices between locks 20 apart, 18 slices again")
    assert "goal: 5%" in said
    assert json.loads((tmp_path / "figures.json").read_text())["local_correction"]["recomputed"] == 18


def test_a_report_that_is_no_json_is_refused_before_the_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "--json", str(tmp_path / "figures.txt")]) == 2
    assert "written as .json" in capsys.readouterr().err
