"""Corrections: what they say, and how much of a volume is segmented again for them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from MedSAM2Lib.checkpoints.loading import LoadedModel
from MedSAM2Lib.depth_prior import DepthPrior
from MedSAM2Lib.errors import OptionError, PromptError
from MedSAM2Lib.geometry import Geometry
from MedSAM2Lib.inference.session import Session, SessionOptions
from MedSAM2Lib.network.sam2 import ImageFeatures, MaskPrediction, PointTensors
from MedSAM2Lib.phantom import make_phantom
from MedSAM2Lib.prompts import Box, Box3D, MaskPrompt, Points
from MedSAM2Lib.volume import Volume
from Testing.lib.inference.support import PLAIN, SHAPE, SeesBright, box_around, known, loaded, opened, volume_of

MIDDLE = 11
BOX = Box(MIDDLE, 12, 14, 30, 34)
AGREEING = replace(PLAIN, agreement=0.99)


def beside(index: int, *places: tuple[float, float]) -> Points:
    """Clicks beside the object."""
    xs, ys = zip(*places, strict=True)
    return Points(index, xs, ys, (False,) * len(places))


class ObeysClicks(SeesBright):
    """What is bright, without what is left of the first click beside the object; with nothing else than such, nothing."""

    def predict(
        self,
        conditioned: Tensor,
        features: ImageFeatures,
        points: PointTensors | None = None,
        mask: Tensor | None = None,
        doubt: float = 0.0,
    ) -> MaskPrediction:
        answer = super().predict(conditioned, features, points, mask, doubt)
        if points is None or not (points.labels == 0).any():
            return answer
        logits = answer.logits.clone()
        logits[..., : int(points.coordinates[0, int((points.labels[0] == 0).int().argmax()), 0] / 4) + 1] = -10
        return answer._replace(logits=logits)


@pytest.fixture(scope="module")
def an_obedient_model() -> LoadedModel:
    return loaded(ObeysClicks)


# ── how much is done again ────────────────────────────────────────────────────────────────────────────────────────────


def slices_done(session: Session, **options: Any) -> list[int]:
    return sorted(result.slice_index for result in session.propagate(**options))


@pytest.fixture
def a_session(a_model: LoadedModel, a_volume: Volume) -> Session:
    """Propagated, nothing to do."""
    session = opened(a_model, a_volume)
    session.add_prompt("organ", BOX)
    list(session.propagate())
    return session


def test_without_a_correction_there_is_nothing_to_do(a_session: Session) -> None:
    before = known(a_session)
    assert a_session.plan() == []
    assert slices_done(a_session) == []
    assert known(a_session) == before
    assert slices_done(a_session, redo=True) == [index for index in range(24) if index != MIDDLE]


def test_a_correction_reaches_to_the_nearest_prompts(a_session: Session) -> None:
    a_session.add_prompt("organ", replace(BOX, slice_index=5))
    list(a_session.propagate())
    a_session.add_prompt("organ", beside(8, (20, 20)))
    assert slices_done(a_session) == [6, 7, 9, 10]
    a_session.add_prompt("organ", beside(14, (20, 20)))
    assert slices_done(a_session) == [12, 13, *range(15, 24)]
    assert a_session.last_run is not None
    assert a_session.last_run.segmented == {"organ": 11}


def test_what_a_range_left_out_is_done_later(a_session: Session) -> None:
    a_session.add_prompt("organ", beside(14, (20, 20)))
    assert slices_done(a_session, first=13, last=16) == [13, 15, 16]
    assert slices_done(a_session) == [12, *range(17, 24)]
    assert slices_done(a_session) == []


def test_a_cancelled_propagation_goes_on_where_it_stopped(a_model: LoadedModel, a_volume: Volume, a_session: Session) -> None:
    session = opened(a_model, a_volume)
    session.add_prompt("organ", BOX)
    results = session.propagate()
    some = {next(results).slice_index for _ in range(7)}
    results.close()
    assert session.last_run is not None
    assert session.last_run.cancelled
    rest = slices_done(session)
    assert not some & set(rest)
    assert len(some) + len(rest) == 23
    assert np.array_equal(session.mask("organ"), a_session.mask("organ"))


@pytest.mark.parametrize("done", [1, 15, 17])
def test_where_a_pass_ends_does_not_depend_on_whether_it_was_cancelled(
    a_seeing_model: LoadedModel, a_volume: Volume, done: int
) -> None:
    """The ball is on slices 4..19; after two slices without it, a direction ends."""
    session, calm = (opened(a_seeing_model, a_volume, replace(PLAIN, stop_after=2)) for _ in range(2))
    for one in (session, calm):
        one.add_prompt("ball", BOX)
    results = session.propagate()
    for _ in range(done):
        next(results)
    results.close()
    list(session.propagate())
    list(calm.propagate())
    assert session.confidence("ball") == calm.confidence("ball")
    assert known(session)["ball"]["tracked"] == known(calm)["ball"]["tracked"]


def test_only_the_corrected_object_is_done_again(a_session: Session) -> None:
    a_session.add_prompt("tumour", BOX)
    list(a_session.propagate())
    before = known(a_session)["tumour"]
    a_session.add_prompt("organ", beside(14, (20, 20)))
    assert {result.object for result in a_session.propagate()} == {"organ"}
    assert known(a_session)["tumour"] == before


def test_a_pass_ends_after_three_slices_that_are_as_they_were(a_seeing_model: LoadedModel, a_volume: Volume) -> None:
    """This network sees the same on every slice, whatever is corrected elsewhere."""
    session = opened(a_seeing_model, a_volume, AGREEING)
    session.add_prompt("ball", BOX)
    list(session.propagate())
    before = known(session)["ball"]["tracked"]
    mask = session.mask("ball")
    session.add_prompt("ball", replace(BOX, slice_index=8))
    assert slices_done(session) == [5, 6, 7, 9, 10]
    assert session.last_run is not None
    assert session.last_run.planned == {"ball": 10}
    assert np.array_equal(session.mask("ball"), mask)
    after = known(session)["ball"]["tracked"]
    assert [one for one in after if one[1] < 5] == [one for one in before if one[1] < 5]  # the others are remembered as before
    assert slices_done(session) == []
    session.options = PLAIN
    session.add_prompt("ball", replace(BOX, slice_index=7))
    assert slices_done(session) == [*range(7)]


class SeesAhead(ObeysClicks):
    knows_depth = True


@pytest.mark.parametrize(("kind", "done"), [(ObeysClicks, [6, 7, 8]), (SeesAhead, [6, 7, 8, 9, 10])])
def test_a_pass_to_where_the_object_was_refused_goes_all_the_way_if_the_network_sees_ahead(
    a_volume: Volume, kind: type[SeesBright], done: list[int]
) -> None:
    session = opened(loaded(kind), a_volume, AGREEING)
    session.add_prompt("ball", replace(BOX, slice_index=5))
    list(session.propagate())
    session.add_prompt("ball", beside(11, (46, 20)))
    assert not session.mask("ball")[11].any()
    assert [index for index in slices_done(session) if index < 11] == done


class Boundless(SeesBright):
    """Answers a click by a hill that covers the slice, and two specks beside it."""

    def predict(
        self,
        conditioned: Tensor,
        features: ImageFeatures,
        points: PointTensors | None = None,
        mask: Tensor | None = None,
        doubt: float = 0.0,
    ) -> MaskPrediction:
        answer = super().predict(conditioned, features, points, mask, doubt)
        if points is None or points.labels[0, 0] != 1:
            return answer
        side = answer.logits.shape[-1]
        away = torch.arange(side) - (side - 1) / 2
        hill = side / 2 - torch.hypot(away[:, None], away[None])
        hill[0, 0] = hill[-1, -1] = 20
        return answer._replace(logits=hill[None, None])


class BoundlessAhead(Boundless):
    knows_depth = True


@pytest.mark.parametrize("kind", [Boundless, BoundlessAhead])
def test_a_click_on_what_was_missed_brings_no_more_than_the_next_slice_has(a_volume: Volume, kind: type[SeesBright]) -> None:
    session = opened(loaded(kind), a_volume, replace(PLAIN, depth_prior=DepthPrior(bias=1900.0, slope=1000.0)))
    session.add_prompt("ball", BOX)
    list(session.propagate())
    assert not session.mask("ball")[MIDDLE + 4].any()
    clicked = session.add_prompt("ball", Points(MIDDLE + 4, (24.0,), (24.0,), (True,))).mask
    assert clicked[24, 24]
    known_area = np.count_nonzero(session.mask("ball")[MIDDLE])
    if kind is Boundless:
        assert np.count_nonzero(clicked) > 1.5 * known_area
    else:
        assert 0.5 * known_area < np.count_nonzero(clicked) <= 1.25 * known_area
        assert not clicked[0, 0]


def test_a_click_on_what_was_missed_leaves_alone_what_was_found(a_volume: Volume) -> None:
    session = opened(loaded(Boundless), a_volume, replace(AGREEING, depth_prior=DepthPrior(bias=1900.0, slope=1000.0)))
    session.add_prompt("ball", BOX)
    list(session.propagate())
    found = np.flatnonzero(session.mask("ball").any((1, 2)))
    missed = int(found[-1]) + 3
    session.add_prompt("ball", Points(missed, (24.0,), (24.0,), (True,)))
    done = slices_done(session)
    assert {missed - 2, missed - 1, missed + 1} <= set(done)
    assert not set(done) & set(found)


def test_slices_that_no_pass_has_been_to_end_no_pass(a_seeing_model: LoadedModel, a_volume: Volume) -> None:
    session = opened(a_seeing_model, a_volume, AGREEING)
    session.add_prompt("ball", BOX)
    list(session.propagate(first=8, last=18))
    session.add_prompt("ball", replace(BOX, slice_index=12))
    assert slices_done(session) == [*range(8), 13, 14, 15, *range(19, 24)]


def test_a_correction_in_a_long_volume_touches_only_what_lies_between_locks() -> None:
    """Of the phantom's liver, in 200 thin slices."""
    phantom = make_phantom()
    thick = phantom.volume.array[:, 40:88, 20:68]
    array = np.repeat(thick, 4, axis=0)[20:220]
    model = loaded(ObeysClicks)
    session = Session(model, replace(PLAIN, stop_after=3))
    session.set_volume(volume_of_array(array), "k", "60:120")
    session.add_prompt("liver", Box(110, 5, 5, 40, 40))
    list(session.propagate(first=90, last=130))
    session.lock("liver", [95, 125])
    before = session.mask("liver")
    assert before[96:125].any((1, 2)).all()
    session.add_prompt("liver", beside(117, (12, 20)))
    assert slices_done(session, first=90, last=130) == [*range(111, 117), *range(118, 125)]
    changed = np.flatnonzero((session.mask("liver") != before).any((1, 2)))
    assert set(changed) <= set(range(111, 125))
    assert session.last_run is not None
    assert session.last_run.segmented == {"liver": 13}


def volume_of_array(array: Any) -> Volume:
    return Volume(np.ascontiguousarray(array), Geometry(array.shape))


@pytest.mark.parametrize("agreement", [-0.1, 1.1, math.nan])
def test_an_agreement_that_is_no_dice_is_refused(agreement: float) -> None:
    with pytest.raises(OptionError, match=r"agreement is a Dice within 0\.\.1"):
        SessionOptions(agreement=agreement)


# ── clicks beside the object ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_click_that_removes_everything_says_that_the_object_is_not_here(
    an_obedient_model: LoadedModel, a_volume: Volume
) -> None:
    session = opened(an_obedient_model, a_volume)
    session.add_prompt("ball", BOX)
    list(session.propagate())
    assert session.mask("ball")[15].any()
    result = session.add_prompt("ball", beside(15, (47, 24)))
    assert not result.mask.any()
    assert result.confidence.presence < 0.5
    list(session.propagate())
    memory = session._objects["ball"].tracker.bank.conditioning[15]
    assert float(memory.object_score) < 0
    assert (memory.pointer == an_obedient_model.network.no_obj_ptr).all()


def test_a_second_click_removes_what_the_network_holds_on_to(a_seeing_model: LoadedModel, a_volume: Volume) -> None:
    session = opened(a_seeing_model, a_volume)
    session.add_prompt("ball", BOX)
    list(session.propagate())
    assert session.add_prompt("ball", beside(15, (34, 24))).mask.any()
    assert not session.add_prompt("ball", beside(15, (35, 24))).mask.any()
    assert session.add_prompt("ball", Points(15, (24.0,), (24.0,), (True,))).mask.any()  # and a click on it brings it back


def test_a_click_in_the_middle_of_a_piece_removes_it(a_seeing_model: LoadedModel) -> None:
    two = np.zeros(SHAPE, dtype=bool)
    two[:, 8:24, 8:24] = two[:, 30:40, 30:40] = True
    session = opened(a_seeing_model, volume_of(two))
    session.add_prompt("squares", Box(MIDDLE, 6, 6, 42, 42))
    list(session.propagate())
    left = session.add_prompt("squares", beside(15, (16, 16))).mask
    assert not left[4:27, 4:27].any()
    assert left[31:39, 31:39].all()
    assert session.add_prompt("squares", beside(16, (21, 16))).mask[9:23, 9:20].all()  # near its edge: the network's business


def test_clicks_beside_do_not_remove_what_a_box_or_a_person_drew(a_seeing_model: LoadedModel, a_volume: Volume) -> None:
    session = opened(a_seeing_model, a_volume)
    session.add_prompt("ball", BOX)
    assert session.add_prompt("ball", beside(MIDDLE, (24, 24), (25, 24))).mask.any()
    session.add_prompt("ball", MaskPrompt(12, a_volume.array[12] > 128))
    assert session.add_prompt("ball", beside(12, (24, 24), (25, 24))).mask.any()


def test_an_empty_slice_stays_empty_when_nothing_else_is_said(a_seeing_model: LoadedModel, a_volume: Volume) -> None:
    session = opened(a_seeing_model, a_volume)
    session.add_prompt("ball", BOX)
    assert not session.add_prompt("ball", beside(13, (24, 24))).mask.any()


def test_an_object_is_not_followed_from_where_it_is_not(an_obedient_model: LoadedModel, a_volume: Volume) -> None:
    """Between a slice that shows it and one that does not, all slices are reached from the former."""
    session = opened(an_obedient_model, a_volume)
    session.add_prompt("ball", BOX)
    session.add_prompt("ball", beside(17, (47, 24)))
    ways = {index: way for _, (index, way) in session.plan()}
    assert all(ways[index] == 1 for index in range(12, 24) if index != 17)


def test_an_object_ends_where_a_person_emptied_a_slice(an_obedient_model: LoadedModel, a_volume: Volume) -> None:
    session = opened(an_obedient_model, a_volume, replace(PLAIN, stop_after=3))
    session.add_prompt("ball", BOX)
    list(session.propagate())
    assert session.mask("ball")[15:19].any((1, 2)).all()
    session.add_prompt("ball", beside(15, (47, 24)))
    list(session.propagate())
    assert not session.mask("ball")[15:].any()
    assert session.mask("ball")[14].any()
    session.add_prompt("ball", Points(18, (24.0,), (24.0,), (True,)))  # unless it says that the object comes back
    list(session.propagate())
    assert session.mask("ball")[16:19].any((1, 2)).all()


# ── what a prompt says beside its mask ────────────────────────────────────────────────────────────────────────────────


def test_an_expected_depth_is_not_measured_from_clicks_beside_the_object(
    an_obedient_model: LoadedModel, a_volume: Volume
) -> None:
    """A click far away that says where the object is not must not say that it is expected near there."""
    session = opened(an_obedient_model, a_volume)
    session.add_prompt("ball", BOX)
    list(session.propagate())
    assert session.add_prompt("ball", beside(17, (14, 24))).mask.any()  # what lies to the right of the click is left
    prior = DepthPrior(bias=1900.0, slope=1000.0)  # rules out what is further away than 0.15 radii
    session.options = replace(PLAIN, depth_prior=prior)
    list(session.propagate(redo=True))
    assert np.flatnonzero(session.mask("ball").any((1, 2))).tolist() == [*range(9, 14), 17]


def test_a_plain_box_lifts_the_limits_of_a_3d_box(a_seeing_model: LoadedModel, a_volume: Volume) -> None:
    session = opened(a_seeing_model, a_volume)
    session.add_prompt("ball", Box3D(10, 12, 12, 14, 30, 34))
    list(session.propagate())
    session.add_prompt("ball", Points(11, (24.0,), (24.0,), (True,)))
    assert session.plan(redo=True) == [("ball", (12, 1)), ("ball", (10, -1))]
    session.add_prompt("ball", BOX)
    assert slices_done(session) == [index for index in range(24) if index != MIDDLE]


def test_pieces_that_are_dropped_are_not_remembered() -> None:
    """Memories are made of the logits that are kept; a stray beside the ball on slice 12 is in neither."""
    config = replace(loaded(SeesBright).network.config, follow_mask=True)
    truth = np.zeros(SHAPE, dtype=bool)
    truth[8:16, 14:34, 14:34] = True
    truth[12, 2:8, 2:8] = True
    session = opened(loaded(SeesBright, config), volume_of(truth))
    session.add_prompt("ball", box_around(truth[11], 11))
    list(session.propagate(first=9, last=14))
    assert not session.mask("ball")[12, :10, :10].any()
    record = session._objects["ball"].records[12]
    assert (session._segmenter.logits_through(record, record.view)[0, 0, :4, :4] < 0).all()


def test_a_prompted_piece_is_kept_whatever_else_is_larger(a_seeing_model: LoadedModel) -> None:
    """A small ball on slices 2 and 3 is prompted, a larger one on slices 8..15 is found because it is bright as well."""
    truth = np.zeros((18, 32, 32), dtype=bool)
    truth[2:4, 4:12, 4:12] = truth[8:16, 10:30, 10:30] = True
    session = opened(a_seeing_model, volume_of(truth), SessionOptions(fill_hole_cells=0, stop_after=0))
    session.add_prompt("ball", box_around(truth[2], 2))
    list(session.propagate())
    assert np.flatnonzero(session.mask("ball").any((1, 2))).tolist() == [2, 3]
    session.add_prompt("ball", Points(12, (20.0,), (20.0,), (True,)))
    assert np.flatnonzero(session.mask("ball").any((1, 2))).tolist() == [2, 3, *range(8, 16)]


# ── taking prompts back ───────────────────────────────────────────────────────────────────────────────────────────────


def test_prompts_are_told_in_order_without_what_was_replaced(a_session: Session) -> None:
    clicks = [beside(14, (20, 20)), Points(MIDDLE, (21.0,), (20.0,), (True,))]
    for click in clicks:
        a_session.add_prompt("organ", click)
    assert a_session.prompts("organ") == [BOX, *clicks]
    again = replace(BOX, x1=31)
    a_session.add_prompt("organ", again)
    assert a_session.prompts("organ") == [clicks[0], again]
    mask = np.zeros(SHAPE[1:], dtype=bool)
    mask[4:9, 7:12] = True
    a_session.add_prompt("organ", MaskPrompt(14, mask))
    last = a_session.prompts("organ")[-1]
    assert isinstance(last, MaskPrompt)
    assert np.array_equal(last.mask, mask)


def test_a_removed_prompt_leaves_an_empty_slice_to_segment(a_session: Session) -> None:
    before = a_session.mask("organ")
    a_session.add_prompt("organ", beside(14, (20, 20)))
    list(a_session.propagate())
    a_session.remove_prompt("organ", 14)
    assert not a_session.mask("organ")[14].any()
    assert a_session.prompts("organ") == [BOX]
    assert set(slices_done(a_session)) >= {12, 13, 14, 15}
    assert np.array_equal(a_session.mask("organ"), before)


def test_what_has_no_prompt_has_none_to_remove(a_session: Session) -> None:
    with pytest.raises(PromptError, match="Slice 12 of 'organ' has no prompt to remove; prompts are on 11"):
        a_session.remove_prompt("organ", 12)


def test_an_object_keeps_its_place_under_another_name(a_session: Session) -> None:
    a_session.add_prompt("tumour", BOX)
    mask = a_session.mask("organ")
    a_session.rename_object("organ", "liver")
    assert a_session.objects == ["liver", "tumour"]
    assert np.array_equal(a_session.mask("liver"), mask)
    assert a_session.add_prompt("liver", beside(14, (20, 20))).object == "liver"
    for name, said in (("tumour", "already"), ("", "needs a name")):
        with pytest.raises((OptionError, PromptError), match=said):
            a_session.rename_object("liver", name)


def test_a_volume_is_told_in_millilitres(a_model: LoadedModel) -> None:
    array = np.zeros((4, 10, 10), dtype=np.int16)
    array[0, 0, 0] = 200
    session = opened(a_model, Volume(array, Geometry(array.shape, (0.5, 2.0, 3.0))))
    mask = np.zeros((10, 10), dtype=bool)
    mask[:4, :5] = True
    session.add_prompt("cube", MaskPrompt(1, mask))
    assert session.volume_ml("cube") == pytest.approx(20 * 3.0 / 1000)
