from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from MedSAM2Lib.checkpoints.loading import LoadedModel
from MedSAM2Lib.errors import OptionError
from MedSAM2Lib.evaluation.cases import LoadedCase, load_case
from MedSAM2Lib.evaluation.manifest import read_manifest
from MedSAM2Lib.evaluation.prompting import PROMPT_KINDS, PromptKind
from MedSAM2Lib.evaluation.rows import MODEL, Row, agreement, from_json, to_json
from MedSAM2Lib.evaluation.run import Protocol, StructureResult, Unscored, evaluate_case, window_of
from MedSAM2Lib.inference.orientations import Orientations
from MedSAM2Lib.inference.session import Session, SessionOptions
from MedSAM2Lib.prompts import Box
from Testing.lib.evaluation.support import SPACING, WriteManifest, labels, slice_entry


def results(model: LoadedModel, case: LoadedCase, protocol: Protocol, zoom: float | None = None) -> list[StructureResult]:
    session = Session(model, SessionOptions(zoom=zoom))
    found = [one for one in evaluate_case(session, case, protocol) if isinstance(one, StructureResult)]
    assert len(found) == len(case.targets)
    return found


def comparable(found: list[StructureResult]) -> list[Row]:
    return [replace(row, seconds=None) for result in found for row in result.rows]


# ── a mask against its reference ──────────────────────────────────────────────────────────────────────────────────────


def test_a_perfect_mask_has_perfect_scores() -> None:
    reference = labels() == 1
    scores = agreement(reference, reference, SPACING, (4,))
    assert (scores.slice_dice, scores.dice, scores.iou, scores.surface_dice) == (1, 1, 1, 1)
    assert (scores.hd95_mm, scores.volume_error_ml, scores.relative_volume_error) == (0, 0, 0)


def test_an_empty_mask_has_no_distance() -> None:
    reference = labels() == 1
    scores = agreement(np.zeros_like(reference), reference, SPACING, (4,))
    assert (scores.slice_dice, scores.dice, scores.iou, scores.surface_dice) == (0, 0, 0, 0)
    assert scores.hd95_mm is None
    assert scores.relative_volume_error == -1


def test_one_slice_has_a_slice_dice_only() -> None:
    reference = labels()[4:5] == 1
    scores = agreement(reference, reference, SPACING, (0,))
    assert (scores.slice_dice, scores.dice, scores.hd95_mm, scores.volume_error_ml) == (1, None, None, None)


def test_the_slice_dice_is_the_mean_over_prompted_slices() -> None:
    reference = labels() == 1
    mask = reference.copy()
    mask[3] = False
    assert agreement(mask, reference, SPACING, (3, 4)).slice_dice == 0.5


# ── a case through a session ──────────────────────────────────────────────────────────────────────────────────────────


def test_every_structure_has_the_model_and_both_baselines(a_model: LoadedModel, a_case: LoadedCase) -> None:
    ball, bar = results(a_model, a_case, Protocol())
    assert [row.method for row in ball.rows] == ["ellipsoid", "region grower", MODEL]
    assert {row.structure for row in bar.rows} == {"bar"}
    assert ball.rows[1].dice is not None
    assert ball.rows[1].dice > 0.9  # a bright ball is what a region grower is made for
    assert ball.prompts == (Box(4, 3, 6, 17, 18),)


def test_a_row_says_what_was_done(a_model: LoadedModel, a_case: LoadedCase) -> None:
    row = results(a_model, a_case, Protocol())[0].rows[-1]
    assert (row.case, row.modality, row.anatomy) == ("volume", "CT angiography", "block")
    assert (row.prompts, row.prompted_slices) == (1, (4,))
    assert row.reference_ml == pytest.approx(np.count_nonzero(labels() == 1) * 0.003)
    assert row.seconds is not None
    assert from_json(to_json(row)) == row


def test_each_slice_is_encoded_once_for_all_structures(a_model: LoadedModel, a_case: LoadedCase) -> None:
    session = Session(a_model, SessionOptions(zoom=None, stop_after=0))
    assert len(list(evaluate_case(session, a_case, Protocol(corrections=1)))) == 2
    assert session.embeddings.encoded == 8


def test_corrections_are_clicks_one_at_a_time(a_model: LoadedModel, a_case: LoadedCase) -> None:
    result = results(a_model, a_case, Protocol(corrections=2))[0]
    steps = [row for row in result.rows if row.method == MODEL]
    assert [(row.corrections, row.prompts) for row in steps] == [(0, 1), (1, 2), (2, 3)]
    assert [type(prompt).__name__ for prompt in result.prompts] == ["Box", "Points", "Points"]
    assert {row.prompted_slices for row in steps} == {(4,)}


@pytest.mark.parametrize("kind", PROMPT_KINDS)
def test_every_prompt_runs_with_and_without_zoom(a_model: LoadedModel, a_case: LoadedCase, kind: PromptKind) -> None:
    for zoom in (None, 2.0):
        assert len(results(a_model, a_case, Protocol(prompt=kind), zoom)) == 2


def test_a_mask_prompt_stands_on_its_slice(a_model: LoadedModel, a_case: LoadedCase) -> None:
    session = Session(a_model, SessionOptions(zoom=None, keep_largest=False))
    for result in evaluate_case(session, a_case, Protocol(prompt="mask")):
        assert isinstance(result, StructureResult)
        assert result.rows[-1].slice_dice == 1


def test_a_share_of_slices_is_prompted(a_model: LoadedModel, a_case: LoadedCase) -> None:
    ball, bar = results(a_model, a_case, Protocol(every=0.5))
    assert (len(ball.prompts), len(bar.prompts)) == (3, 1)
    assert ball.rows[-1].prompts == 3


def test_two_runs_are_equal(a_model: LoadedModel, a_case: LoadedCase) -> None:
    protocol = Protocol(prompt="jittered-box", every=0.5, corrections=1)
    first, second = (comparable(results(a_model, a_case, protocol)) for _ in range(2))
    assert first == second


def test_one_slice_is_a_case_too(a_model: LoadedModel, write_manifest: WriteManifest) -> None:
    case = load_case(read_manifest(write_manifest(slice_entry()))[0])
    for result in results(a_model, case, Protocol(slice="centre", corrections=1)):
        assert all(row.dice is None for row in result.rows)


def test_a_box_outside_the_image_is_a_problem_of_its_structure(a_model: LoadedModel, write_manifest: WriteManifest) -> None:
    manifest: Path = write_manifest()
    manifest.write_text(manifest.read_text().replace("[3, 17]", "[3, 170]"))
    case = load_case(read_manifest(manifest)[0])
    ball, bar = evaluate_case(Session(a_model, SessionOptions()), case, Protocol())
    assert isinstance(ball, Unscored)
    assert ball.reason.startswith("Case 'volume', structure 'ball': The box must lie on the slice")
    assert isinstance(bar, StructureResult)


def test_the_display_window_is_the_manifests(a_case: LoadedCase) -> None:
    assert window_of(a_case.case, Protocol(window="display")) == "-100.0:200.0"
    assert window_of(replace(a_case.case, display_window=None), Protocol(window="display")) == "auto"
    assert window_of(a_case.case, Protocol(window="brain")) == "brain"


@pytest.mark.parametrize(
    "changes", [{"prompt": "star"}, {"slice": "first"}, {"every": 0.0}, {"every": 1.5}, {"corrections": -1}, {"worst": "hd95"}]
)
def test_a_protocol_that_cannot_be_followed_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        Protocol(**changes)


def test_orientations_are_put_together_and_prompted_slices_stay(a_model: LoadedModel, a_case: LoadedCase) -> None:
    one, three = (results(a_model, a_case, Protocol(orientations=count))[0] for count in (1, 3))
    session = Session(a_model, SessionOptions(zoom=None))
    session.set_volume(a_case.volume, axis="k")
    for prompt in three.prompts:
        session.add_prompt("ball", prompt)
        for _ in session.propagate(["ball"]):
            pass
    expected = Orientations(session, a_case.volume, "k", "auto", 3).segment("ball").mask
    np.testing.assert_array_equal(three.mask, expected)
    assert not np.array_equal(three.mask, one.mask)
    np.testing.assert_array_equal(three.mask[4], session.mask("ball")[4])


def test_an_image_of_one_slice_has_one_orientation(a_model: LoadedModel, write_manifest: WriteManifest) -> None:
    case = load_case(read_manifest(write_manifest(slice_entry()))[0])
    one, six = (results(a_model, case, Protocol(orientations=count)) for count in (1, 6))
    assert comparable(one) == comparable(six)
