from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest

from MedSAM2Lib.checkpoints.loading import LoadedModel
from MedSAM2Lib.cli import ablation as ablation_command
from MedSAM2Lib.cli.main import main
from MedSAM2Lib.errors import UsageError
from MedSAM2Lib.evaluation.ablation import RECENT, STUDIES, Study, Variant, compare, evaluate_variants, variants_of
from MedSAM2Lib.evaluation.ablation_report import markdown, put_into_page
from MedSAM2Lib.evaluation.cases import LoadedCase
from MedSAM2Lib.evaluation.rows import Row
from MedSAM2Lib.evaluation.run import Protocol, evaluate_structure
from MedSAM2Lib.inference.session import Session, SessionOptions
from MedSAM2Lib.memory.options import SelfSorting
from Testing.lib.evaluation.support import WriteManifest, entry

SORTED = Variant("sorted", "self-sorting")
STUDY = Study("A question", (RECENT, SORTED), (RECENT, RECENT))
PAGE = "# Title\n\n<!-- ablation: written by medsam2 ablation -->\nstale words\n<!-- end of ablation -->\n\nThe end.\n"


def row(method: str, structure: str, dice: float | None) -> Row:
    return Row(
        slice_dice=1.0, dice=dice, iou=None, surface_dice=None, hd95_mm=None, volume_error_ml=None, relative_volume_error=None,
        case="case", structure=structure, modality="CT", anatomy="block", method=method, corrections=0, prompts=1,
        prompted_slices=(4,), reference_ml=1.0, seconds=2.0,
    )  # fmt: skip


def test_studies_are_those_that_help_lists() -> None:
    assert tuple(STUDIES) == ablation_command.STUDIES


def test_names_tell_variants_apart() -> None:
    names = [variant.name for variant in variants_of(list(STUDIES.values()))]
    assert len(names) == len(set(names))


def test_every_variant_of_a_study_has_one_to_compare_with_at_the_same_share() -> None:
    for study in STUDIES.values():
        assert [one.share for one in study.variants] == [other.share for other in study.against]
        assert {other.memory for other in study.against} == {"recent"}


def test_a_structure_is_segmented_under_every_variant_with_one_encoding(a_model: LoadedModel, a_case: LoadedCase) -> None:
    session = Session(a_model, SessionOptions(zoom=None, stop_after=0))
    variants = [RECENT, SORTED, replace(SORTED, name="half", share=0.5), replace(RECENT, name="axes", orientations=3)]
    ball, bar = evaluate_variants(session, a_case, Protocol(), variants)
    assert isinstance(ball, list)
    assert isinstance(bar, list)
    assert [(one.method, one.structure, one.prompts) for one in ball] == [
        (RECENT.name, "ball", 1), ("sorted", "ball", 1), ("half", "ball", 3), ("axes", "ball", 1),
    ]  # fmt: skip
    assert ball[3].dice != ball[0].dice
    assert session.embeddings.encoded == len(a_case.volume.array)
    assert session.options.memory == "recent"


def test_the_same_variant_under_another_name_is_not_run_twice(a_model: LoadedModel, a_case: LoadedCase) -> None:
    session = Session(a_model, SessionOptions(zoom=None))
    with mock.patch("MedSAM2Lib.evaluation.ablation.evaluate_structure", side_effect=evaluate_structure) as evaluated:
        ball, _ = evaluate_variants(session, a_case, Protocol(), [SORTED, Variant("by its rule", SelfSorting())])
    assert isinstance(ball, list)
    assert [one.method for one in ball] == ["sorted", "by its rule"]
    assert evaluated.call_count == 2  # structures


def test_differences_are_taken_structure_by_structure() -> None:
    rows = [row(RECENT.name, "a", 0.5), row(RECENT.name, "b", 0.7), row("sorted", "a", 0.8), row("sorted", "b", 0.6)]
    itself, other = compare(rows, STUDY)
    assert (itself.difference.mean, itself.better, itself.worse) == (0, 0, 0)
    assert other.dice.mean == pytest.approx(0.7)
    assert other.difference.mean == pytest.approx(0.1)
    assert (other.better, other.worse, other.structures, other.seconds) == (1, 1, 2, 2.0)


def test_an_image_of_one_slice_says_nothing_about_memory() -> None:
    rows = [row(name, "a", 0.5) for name in (RECENT.name, "sorted")] + [row("sorted", "slice", None)]
    assert compare(rows, STUDY)[1].structures == 1


def test_tables_go_between_the_marks_of_a_page(tmp_path: Path) -> None:
    rows = [row(name, "a", 0.5) for name in (RECENT.name, "sorted")]
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    for _ in range(2):
        put_into_page(page, markdown({"one": compare(rows, STUDY)}, {"one": STUDY}, "Told."))
    text = page.read_text()
    assert text.startswith("# Title\n")
    assert text.endswith("<!-- end of ablation -->\n\nThe end.\n")
    assert text.count("### A question") == 1
    assert "| sorted | 0.500 [0.500, 0.500] | +0.000 [+0.000, +0.000] | 0 | 0 | 2.0 |" in text
    assert "stale words" not in text


def test_a_page_without_marks_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Title\n")
    with pytest.raises(UsageError, match="must have the lines"):
        put_into_page(page, "tables")
    assert page.read_text() == "# Title\n"


# ── the command ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_command_writes_tables_a_plot_and_its_place_in_a_page(
    an_untrained_model: Path, write_manifest: WriteManifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = write_manifest(entry(structures=entry()["structures"][:1]))
    page, folder = tmp_path / "page.md", tmp_path / "results"
    page.write_text(PAGE)
    command = ["ablation", str(manifest), "-o", str(folder), "--model", str(an_untrained_model), "--device", "cpu"]
    command += ["--studies", "parts", "--likeness", "--page", str(page)]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert "1 structures of 1 volumes (volume)" in told
    assert (folder / "ablation.md").read_text(encoding="utf-8") in told
    assert "### The parts of the rule" in page.read_text(encoding="utf-8")
    assert "| self-sorting, before resampling | " in page.read_text(encoding="utf-8")
    assert (folder / "ablation.png").stat().st_size > 0
    with (folder / "ablation.csv").open(newline="") as stream:
        assert len(list(csv.DictReader(stream))) == len(STUDIES["parts"].variants)
    finished = (folder / "results.jsonl").read_text()
    assert main(command) == 0
    assert (folder / "results.jsonl").read_text() == finished  # nothing was done twice


@pytest.mark.parametrize(
    ("options", "said"),
    [(("--studies", "parts,luck"), "Unknown study luck"), (("--page", "nowhere.md"), "nowhere.md cannot be read")],
)
def test_a_wrong_option_is_one_line(
    an_untrained_model: Path, write_manifest: WriteManifest, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...], said: str,
) -> None:  # fmt: skip
    command = ["ablation", str(write_manifest()), "-o", str(tmp_path / "results"), "--model", str(an_untrained_model), *options]
    assert main(command) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "results").exists()
