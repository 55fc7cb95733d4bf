"""A volume segmented: prompts in, masks out. Views are in `test_session_views`, bad input in `test_session_door`."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from MedSAM2Lib.checkpoints.loading import LoadedModel
from MedSAM2Lib.depth_prior import DepthPrior
from MedSAM2Lib.errors import OptionError, UsageError
from MedSAM2Lib.geometry import AXIS_NAMES, Geometry
from MedSAM2Lib.inference.session import Session, SessionOptions
from MedSAM2Lib.network.sam2 import SAM2, ImageFeatures, MaskPrediction, PointTensors
from MedSAM2Lib.prompts import Box, Box3D, MaskPrompt, Points, Prompt, RecistLine
from MedSAM2Lib.volume import Volume
from Testing.lib.inference.support import PLAIN, SHAPE, Mask, box_around, dice, ellipsoid, known, opened, volume_of

COUNT = SHAPE[0]
MIDDLE = 11
BOX = Box(MIDDLE, 12, 14, 30, 34)
KINDS = ("box", "points", "mask", "recist", "box3d")
OBLIQUE = Geometry(
    (20, 24, 28),
    spacing=(0.8, 1.2, 3.0),
    origin=(-20.0, 13.0, 700.0),
    # Columns are where i, j and k point: i to the feet, j to the left, k to the back, all turned by 20 degrees.
    direction=(0.0, math.cos(0.35), -math.sin(0.35), 0.0, math.sin(0.35), math.cos(0.35), -1.0, 0.0, 0.0),
)


def prompt_of(kind: str, index: int) -> Prompt:
    """On about the same region of a slice, whatever the kind."""
    if kind == "points":
        return Points(index, (20.0, 25.0, 40.0), (22.0, 24.5, 40.0), (True, True, False))
    if kind == "mask":
        return MaskPrompt(index, painted())
    if kind == "recist":
        return RecistLine(index, 14.5, 16.0, 29.0, 31.25)
    if kind == "box3d":
        return Box3D(max(index - 2, 0), min(index + 3, COUNT - 1), 12, 14, 30, 34)
    return replace(BOX, slice_index=index)


def painted() -> Mask:
    mask = np.zeros(SHAPE[1:], dtype=bool)
    mask[15:30, 13:28] = True
    mask[20, 20] = False  # a hole that no one may fill
    mask[40, 5] = True  # a speck that no one may drop
    return mask


@pytest.fixture
def a_session(a_model: LoadedModel, a_volume: Volume) -> Session:
    return opened(a_model, a_volume)


@pytest.fixture
def a_seeing_session(a_seeing_model: LoadedModel, a_volume: Volume) -> Session:
    return opened(a_seeing_model, a_volume)


# ── prompts ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("index", [0, MIDDLE, COUNT - 1])
@pytest.mark.parametrize("kind", KINDS)
def test_a_prompt_gives_its_slice_at_once_and_the_others_follow(a_session: Session, kind: str, index: int) -> None:
    prompt = prompt_of(kind, index)
    first = a_session.add_prompt("organ", prompt)
    here = first.slice_index
    low, high = (prompt.first, prompt.last) if isinstance(prompt, Box3D) else (0, COUNT - 1)
    assert here == ((low + high) // 2 if kind == "box3d" else index)
    assert first.mask.shape == SHAPE[1:]
    assert first.confidence.prompted
    assert np.array_equal(a_session.mask("organ")[here], first.mask)
    assert not np.delete(a_session.mask("organ"), here, axis=0).any()

    results = list(a_session.propagate())
    assert sorted(result.slice_index for result in results) == [i for i in range(low, high + 1) if i != here]
    distances = [abs(result.slice_index - here) for result in results]
    assert distances == sorted(distances)
    assert not any(result.confidence.prompted for result in results)
    for result in (first, *results):
        assert np.array_equal(a_session.mask("organ")[result.slice_index], result.mask)
    assert not a_session.mask("organ")[:low].any()
    assert not a_session.mask("organ")[high + 1 :].any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("axis", AXIS_NAMES)
def test_an_object_is_found_along_every_axis_of_an_oblique_volume(a_seeing_model: LoadedModel, axis: str, kind: str) -> None:
    truth = ellipsoid(OBLIQUE.shape)
    session = opened(a_seeing_model, volume_of(truth, OBLIQUE), axis=axis)
    along = np.moveaxis(truth, OBLIQUE.array_axis(axis), 0)
    middle = len(along) // 2
    box = box_around(along[middle], middle)
    corners = (box.x0, box.y0, box.x1, box.y1)
    prompts: dict[str, Prompt] = {
        "box": box,
        "points": Points(middle, (box.x0 + 5,), (box.y0 + 5,), (True,)),
        "mask": MaskPrompt(middle, along[middle]),
        "recist": RecistLine(middle, box.x0 + 1, box.y0 + 4, box.x1 - 1, box.y1 - 4),
        "box3d": Box3D(0, len(along) - 1, *corners),
    }
    session.add_prompt("ball", prompts[kind])
    assert session.slice_shape == along.shape[1:]
    assert len(list(session.propagate())) == len(along) - 1
    assert session.mask("ball").shape == truth.shape
    assert dice(session.mask("ball"), truth) > 0.95


def test_a_box_and_clicks_reach_the_network_where_they_lie_on_its_image(
    a_model: LoadedModel, a_volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slices of 48 x 48 pixels fill an image of 64 x 64: pixel x covers network pixels 4/3 x to 4/3 (x + 1)."""
    seen = []
    network = a_model.network
    plain = network.predict

    def predict(conditioned: Tensor, features: ImageFeatures, points: PointTensors, *more: Any, **options: Any) -> MaskPrediction:
        seen.append(points)
        return plain(conditioned, features, points, *more, **options)

    monkeypatch.setattr(network, "predict", predict)
    session = opened(a_model, a_volume)
    session.add_prompt("organ", Box(MIDDLE, 9, 12, 23, 35))
    session.add_prompt("organ", Points(MIDDLE, (15.0,), (40.0,), (False,)))
    box, refined = seen
    np.testing.assert_allclose(box.coordinates[0], [[12, 16], [31, 47]], atol=1e-4)
    np.testing.assert_allclose(refined.coordinates[0], [[12, 16], [31, 47], [20.1667, 53.5]], atol=1e-3)
    assert refined.labels.tolist() == [[2, 3, 0]]


def test_a_painted_mask_is_kept_to_the_pixel_whatever_is_cleaned(a_model: LoadedModel, a_volume: Volume) -> None:
    options = SessionOptions(keep_largest=True, fill_hole_cells=8, stop_after=0)
    session = opened(a_model, a_volume, options, axis="j")
    mask = np.zeros((24, 48), dtype=bool)
    mask[5:12, 10:30], mask[8, 20], mask[20, 2] = True, False, True
    given = mask.copy()
    result = session.add_prompt("organ", MaskPrompt(7, mask))
    mask[:] = False  # the one who painted goes on painting
    assert np.array_equal(session.mask("organ")[:, 7], given)
    list(session.propagate())
    assert np.array_equal(result.mask, given)
    assert np.array_equal(session.mask("organ")[:, 7], given)
    assert result.confidence.iou == 1


def test_a_box_takes_the_place_of_a_painted_mask(a_session: Session) -> None:
    a_session.add_prompt("organ", prompt_of("mask", MIDDLE))
    boxed = a_session.add_prompt("organ", BOX)
    assert np.array_equal(a_session.mask("organ")[MIDDLE], boxed.mask)
    assert not np.array_equal(boxed.mask, painted())


def test_clicks_add_up_and_a_box_starts_anew(a_session: Session, a_model: LoadedModel, a_volume: Volume) -> None:
    once = a_session.add_prompt("organ", BOX)
    click = Points(MIDDLE, (20.0,), (20.0,), (False,))
    clicked = a_session.add_prompt("organ", click)
    twice = a_session.add_prompt("organ", Points(MIDDLE, (24.0,), (30.0,), (True,)))
    anew = a_session.add_prompt("organ", BOX)
    assert not np.array_equal(once.mask, clicked.mask)
    assert not np.array_equal(clicked.mask, twice.mask)
    assert np.array_equal(anew.mask, once.mask)


def test_a_result_is_the_callers_own(a_session: Session) -> None:
    result = a_session.add_prompt("organ", BOX)
    before = a_session.mask("organ")
    result.mask[:] = True
    a_session.mask("organ")[:] = True
    assert np.array_equal(a_session.mask("organ"), before)


# ── propagation ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_object_is_found_on_its_slices_and_not_on_the_others(a_seeing_session: Session, the_truth: Mask) -> None:
    a_seeing_session.add_prompt("ball", box_around(the_truth[MIDDLE], MIDDLE))
    list(a_seeing_session.propagate())
    mask = a_seeing_session.mask("ball")
    assert dice(mask, the_truth) > 0.97
    assert np.array_equal(mask.any((1, 2)), the_truth.any((1, 2)))


def test_propagation_stays_within_a_range(a_session: Session) -> None:
    a_session.add_prompt("organ", BOX)
    done = [result.slice_index for result in a_session.propagate(first=9, last=14)]
    assert done == [12, 10, 13, 9, 14]
    assert np.flatnonzero(a_session.mask("organ").any((1, 2))).tolist() == [9, 10, 11, 12, 13, 14]


def test_a_range_beside_the_prompt_is_reached_from_its_nearer_end(a_session: Session) -> None:
    a_session.add_prompt("organ", BOX)
    assert [result.slice_index for result in a_session.propagate(first=15, last=17)] == [15, 16, 17]
    assert [result.slice_index for result in a_session.propagate(first=5, last=7)] == [7, 6, 5]


def test_slices_outside_a_range_keep_what_they_had(a_session: Session) -> None:
    a_session.add_prompt("organ", BOX)
    list(a_session.propagate())
    before = a_session.mask("organ")
    a_session.add_prompt("organ", Points(MIDDLE, (20.0,), (20.0,), (False,)))
    list(a_session.propagate(first=10, last=13))
    after = a_session.mask("organ")
    changed = {int(index) for index in np.flatnonzero((before != after).any((1, 2)))}
    assert changed <= {10, 11, 12, 13}
    assert len(changed) > 1


def test_a_3d_box_drops_what_was_found_outside_it_but_not_what_a_person_said(a_session: Session) -> None:
    a_session.add_prompt("organ", replace(BOX, slice_index=2))
    list(a_session.propagate())
    a_session.add_prompt("organ", Box3D(8, 12, 12, 14, 30, 34))
    assert np.flatnonzero(a_session.mask("organ").any((1, 2))).tolist() == [2, 8, 9, 10, 11, 12]
    assert {result.slice_index for result in a_session.propagate()} == {8, 9, 11, 12}
    assert list(a_session.confidence("organ")) == [2, 8, 9, 10, 11, 12]


def test_a_range_and_a_3d_box_hold_together(a_session: Session) -> None:
    a_session.add_prompt("organ", Box3D(8, 14, 12, 14, 30, 34))
    assert {result.slice_index for result in a_session.propagate(first=0, last=12)} == {8, 9, 10, 12}
    assert list(a_session.propagate(first=16, last=20)) == []


def test_a_direction_ends_after_the_object_has_been_gone_for_some_slices(
    a_seeing_model: LoadedModel, a_volume: Volume, the_truth: Mask
) -> None:
    session = opened(a_seeing_model, a_volume, replace(PLAIN, stop_after=2))
    session.add_prompt("ball", box_around(the_truth[MIDDLE], MIDDLE))
    done = sorted(result.slice_index for result in session.propagate())
    assert done == [i for i in range(2, 22) if i != MIDDLE]  # it is on slices 4..19
    assert session.embeddings.encoded == 20
    confidence = session.confidence("ball")
    assert confidence[3].presence < 0.01 < 0.99 < confidence[4].presence


def test_an_object_that_went_away_beyond_one_prompt_is_followed_from_the_next(a_seeing_model: LoadedModel) -> None:
    """Two balls far apart; between them there is nothing, and the passes from one must not end those from the other."""
    truth = np.zeros((40, 24, 24), dtype=bool)
    truth[4:10, 8:16, 8:16] = truth[30:36, 8:16, 8:16] = True
    session = opened(a_seeing_model, volume_of(truth), replace(PLAIN, stop_after=2))
    session.add_prompt("balls", Box(6, 7, 7, 16, 16))
    session.add_prompt("balls", Box(32, 7, 7, 16, 16))
    list(session.propagate())
    assert np.array_equal(session.mask("balls").any((1, 2)), truth.any((1, 2)))


def test_where_a_direction_ends_earlier_slices_beyond_become_empty(a_session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    a_session.add_prompt("organ", BOX)
    list(a_session.propagate())
    session_says_absent(a_session, monkeypatch)
    a_session.options = replace(PLAIN, stop_after=3)
    assert sorted(result.slice_index for result in a_session.propagate(redo=True)) == [8, 9, 10, 12, 13, 14]
    assert np.flatnonzero(a_session.mask("organ").any((1, 2))).tolist() == [MIDDLE]
    assert list(a_session.confidence("organ")) == [8, 9, 10, 11, 12, 13, 14]


def session_says_absent(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on, nothing is there on tracked slices."""
    network = session.model.network
    head = network.sam_mask_decoder.pred_obj_score_head
    plain = head.forward
    monkeypatch.setattr(head, "forward", lambda tokens: plain(tokens) - 100)


def test_an_absent_object_has_an_empty_mask_and_says_so(a_session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    session_says_absent(a_session, monkeypatch)
    result = a_session.add_prompt("organ", BOX)
    assert not result.mask.any()
    assert result.confidence.presence < 1e-6
    assert all(not result.mask.any() for result in a_session.propagate())
    assert not a_session.mask("organ").any()


def test_a_cancelled_propagation_keeps_what_was_yielded(a_session: Session) -> None:
    a_session.add_prompt("organ", BOX)
    results = a_session.propagate()
    some = [next(results) for _ in range(5)]
    before = known(a_session)
    results.close()
    assert known(a_session) == before
    assert sorted(a_session.confidence("organ")) == sorted([MIDDLE, *(result.slice_index for result in some)])


def test_after_a_cancelled_propagation_the_next_one_is_as_if_it_had_never_been(
    a_session: Session, a_model: LoadedModel, a_volume: Volume
) -> None:
    a_session.add_prompt("organ", BOX)
    for _ in zip(range(5), a_session.propagate(), strict=False):
        pass
    list(a_session.propagate())
    calm = opened(a_model, a_volume)
    calm.add_prompt("organ", BOX)
    list(calm.propagate())
    assert known(a_session)["organ"]["tracked"] == known(calm)["organ"]["tracked"]
    assert np.array_equal(a_session.mask("organ"), calm.mask("organ"))


def test_a_propagation_that_was_never_begun_changes_nothing(a_session: Session) -> None:
    a_session.add_prompt("organ", BOX)
    before = known(a_session)
    a_session.propagate()
    assert known(a_session) == before


def test_what_propagation_cannot_do_it_says_at_once(a_session: Session) -> None:
    with pytest.raises(UsageError, match="nothing to propagate"):
        a_session.propagate()
    a_session.add_prompt("organ", BOX)
    with pytest.raises(OptionError, match="no object 'tumour'; objects are: organ"):
        a_session.propagate(["tumour"])
    with pytest.raises(OptionError, match="within 0:23, but 5:24 came"):
        a_session.propagate(first=5, last=24)


def test_a_slice_prompted_while_propagation_goes_on_is_not_overwritten(a_session: Session) -> None:
    a_session.add_prompt("organ", BOX)
    results = a_session.propagate()
    next(results)
    a_session.add_prompt("organ", prompt_of("mask", 15))
    assert 15 not in {result.slice_index for result in results}
    assert np.array_equal(a_session.mask("organ")[15], painted())
    assert a_session.confidence("organ")[15].prompted
    assert a_session.plan()  # and the session is well


def test_a_3d_box_drawn_while_propagation_goes_on_is_kept_to(a_session: Session) -> None:
    a_session.add_prompt("organ", BOX)
    results = a_session.propagate()
    for _ in range(8):
        next(results)
    a_session.add_prompt("organ", Box3D(10, 12, 12, 14, 30, 34))
    assert list(results) == []
    assert np.flatnonzero(a_session.mask("organ").any((1, 2))).tolist() == [10, 11, 12]


@pytest.mark.parametrize("done", [0, 1])
def test_an_object_removed_while_propagation_goes_on_is_left_out(a_session: Session, done: int) -> None:
    for name in ("organ", "tumour"):
        a_session.add_prompt(name, BOX)
    results = a_session.propagate()
    for _ in range(done):
        next(results)
    a_session.remove_object("organ")
    assert {result.object for result in results} == {"tumour"}


@pytest.mark.parametrize("done", [0, 1])
@pytest.mark.parametrize("by", ["reset", "another volume"])
def test_a_propagation_ends_when_its_objects_are_gone(a_session: Session, a_volume: Volume, by: str, done: int) -> None:
    a_session.add_prompt("organ", BOX)
    results = a_session.propagate()
    for _ in range(done):
        next(results)
    if by == "reset":
        a_session.reset()
    else:
        a_session.set_volume(a_volume, "j", "0:255")
    a_session.add_prompt("organ", Box(3, 5, 5, 20, 20))
    assert list(results) == []
    assert list(a_session.confidence("organ")) == [3]


def test_a_pass_does_not_depend_on_an_earlier_one(a_model: LoadedModel, a_volume: Volume) -> None:
    """The range begins beside slice 14, whose mask only the earlier pass knows; this network would follow it."""
    network = SAM2(replace(a_model.network.config, follow_mask=True)).eval().requires_grad_(False)
    network.load_state_dict(a_model.network.state_dict())
    session = opened(replace(a_model, network=network), a_volume)
    session.add_prompt("organ", BOX)
    first = [result.mask for result in session.propagate(first=15, last=17)]
    whole = {result.slice_index: result.mask for result in session.propagate(redo=True)}
    again = [result.mask for result in session.propagate(first=15, last=17, redo=True)]
    assert np.array_equal(first, again)
    assert not np.array_equal(first[0], whole[15])


@pytest.mark.parametrize(
    ("prompts", "there"),
    [
        ([BOX], range(9, 14)),  # as deep as wide: the network sees it on 4..19, but the box was a small one
        ([Box3D(MIDDLE - 6, MIDDLE + 6, 12, 14, 30, 34)], range(MIDDLE - 6, MIDDLE + 7)),  # a person said how deep it is
        ([BOX, replace(BOX, slice_index=17)], range(9, 18)),  # it reaches that far, and is no deeper for that
    ],
    ids=["box", "3D box", "two boxes"],
)
def test_an_expected_depth_ends_an_object_that_a_person_did_not_follow_further(
    a_seeing_model: LoadedModel, a_volume: Volume, prompts: list[Prompt], there: range
) -> None:
    """The ball is 32 pixels of 1 mm wide; this prior rules out what is further away than 0.15 radii, whatever is seen."""
    session = opened(a_seeing_model, a_volume, replace(PLAIN, depth_prior=DepthPrior(bias=1900.0, slope=1000.0)))
    for prompt in prompts:
        session.add_prompt("ball", prompt)
    list(session.propagate())
    assert np.flatnonzero(session.mask("ball").any((1, 2))).tolist() == list(there)


# ── corrections ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_correction_is_kept_and_changes_what_follows(a_session: Session) -> None:
    a_session.add_prompt("organ", BOX)
    list(a_session.propagate())
    before = a_session.mask("organ")
    corrected = a_session.add_prompt("organ", Points(16, (20.0,), (20.0,), (False,)))
    done = [result.slice_index for result in a_session.propagate()]
    assert 16 not in done
    after = a_session.mask("organ")
    assert np.array_equal(after[16], corrected.mask)
    assert not np.array_equal(after[17], before[17])
    assert a_session.confidence("organ")[16].prompted


def test_a_correction_on_a_slice_that_was_forgotten_is_as_on_one_never_seen(
    a_session: Session, a_model: LoadedModel, a_volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    correction = Points(20, (20.0,), (20.0,), (True,))
    a_session.add_prompt("organ", BOX)
    list(a_session.propagate())
    with monkeypatch.context() as patched:
        session_says_absent(a_session, patched)
        a_session.options = replace(PLAIN, stop_after=1)
        list(a_session.propagate(redo=True))
    forgotten = a_session.add_prompt("organ", correction)
    fresh = opened(a_model, a_volume)
    fresh.add_prompt("organ", BOX)
    assert np.array_equal(forgotten.mask, fresh.add_prompt("organ", correction).mask)


def test_logits_beyond_half_precision_can_be_corrected(
    a_session: Session, a_model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = a_model.network.predict

    def confident(*args: Any, **options: Any) -> MaskPrediction:
        answer = plain(*args, **options)
        return answer._replace(logits=answer.logits * 1e6)

    monkeypatch.setattr(a_model.network, "predict", confident)
    a_session.add_prompt("organ", BOX)
    corrected = a_session.add_prompt("organ", Points(MIDDLE, (20.0,), (20.0,), (False,)))
    assert math.isfinite(corrected.confidence.iou)
    assert all(record.logits.isfinite().all() for record in a_session._objects["organ"].records.values())


# ── several objects ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_slice_is_encoded_once_whatever_is_asked(a_session: Session) -> None:
    a_session.add_prompt("organ", BOX)
    assert a_session.embeddings.encoded == 1
    a_session.add_prompt("tumour", Points(MIDDLE, (30.0,), (30.0,), (True,)))
    assert a_session.embeddings.encoded == 1
    list(a_session.propagate())
    assert a_session.embeddings.encoded == COUNT
    a_session.add_prompt("organ", Points(15, (20.0,), (20.0,), (False,)))  # a correction
    a_session.add_prompt("cyst", prompt_of("mask", 3))
    list(a_session.propagate())
    assert a_session.embeddings.encoded == COUNT


def test_objects_do_not_touch_each_other(a_session: Session, a_model: LoadedModel, a_volume: Volume) -> None:
    a_session.add_prompt("organ", BOX)
    a_session.add_prompt("tumour", prompt_of("points", 15))
    results = list(a_session.propagate())
    assert [result.object for result in results[:4]] == ["organ", "tumour", "organ", "tumour"]
    alone = opened(a_model, a_volume)
    alone.add_prompt("organ", BOX)
    list(alone.propagate())
    assert known(alone)["organ"] == known(a_session)["organ"]


def test_only_the_objects_asked_for_are_propagated(a_session: Session) -> None:
    a_session.add_prompt("organ", BOX)
    a_session.add_prompt("tumour", BOX)
    before = known(a_session)["tumour"]
    assert {result.object for result in a_session.propagate(["organ"], first=10, last=13)} == {"organ"}
    assert known(a_session)["tumour"] == before


def test_the_plan_is_what_happens(a_session: Session) -> None:
    a_session.add_prompt("organ", BOX)
    a_session.add_prompt("tumour", prompt_of("box3d", 5))
    plan = [(name, index) for name, (index, _) in a_session.plan(first=4, last=13)]
    assert plan == [(result.object, result.slice_index) for result in a_session.propagate(first=4, last=13)]


# ── what must not matter ──────────────────────────────────────────────────────────────────────────────────────────────


def story(session: Session) -> dict[str, object]:
    session.add_prompt("organ", BOX)
    session.add_prompt("tumour", prompt_of("points", 15))
    list(session.propagate())
    session.add_prompt("organ", Points(16, (20.0,), (20.0,), (False,)))
    list(session.propagate(["organ"]))
    return known(session)


@pytest.mark.parametrize("zoom", [None, 2.0])
def test_the_same_story_ends_the_same_bit_for_bit(a_model: LoadedModel, a_volume: Volume, zoom: float | None) -> None:
    options = replace(PLAIN, zoom=zoom)
    assert story(opened(a_model, a_volume, options)) == story(opened(a_model, a_volume, options))


@pytest.mark.parametrize("zoom", [None, 2.0])
def test_a_small_cache_only_takes_longer(a_model: LoadedModel, a_volume: Volume, zoom: float | None) -> None:
    ample, tight = (opened(a_model, a_volume, replace(PLAIN, zoom=zoom, cache_bytes=size)) for size in (2**30, 1))
    assert story(ample) == story(tight)
    assert tight.embeddings.encoded > ample.embeddings.encoded


def test_encoding_in_batches_gives_the_same_masks(a_seeing_model: LoadedModel, a_volume: Volume, the_truth: Mask) -> None:
    masks = []
    for batch in (1, 4):
        session = opened(a_seeing_model, a_volume, replace(PLAIN, encoder_batch=batch))
        session.add_prompt("ball", box_around(the_truth[MIDDLE], MIDDLE))
        list(session.propagate())
        assert session.embeddings.encoded == COUNT
        masks.append(session.mask("ball"))
    assert np.array_equal(*masks)


@pytest.mark.parametrize("axis", ["k", "i"])
def test_the_volume_is_not_changed_and_may_be_read_only(a_model: LoadedModel, the_truth: Mask, axis: str) -> None:
    voxels = volume_of(the_truth).array.copy()
    given = voxels.copy()
    voxels.flags.writeable = False
    session = opened(a_model, Volume(voxels, Geometry(SHAPE)), axis=axis)
    session.add_prompt("organ", Box(MIDDLE, 5, 6, 20, 20))
    list(session.propagate())
    session.mask("organ")
    assert np.array_equal(voxels, given)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float32, np.float64])
def test_voxels_of_any_type_give_the_same_masks(
    a_seeing_model: LoadedModel, a_volume: Volume, the_truth: Mask, dtype: type
) -> None:
    session = opened(a_seeing_model, Volume(a_volume.array.astype(dtype), Geometry(SHAPE)))
    session.add_prompt("ball", box_around(the_truth[MIDDLE], MIDDLE))
    list(session.propagate())
    assert dice(session.mask("ball"), the_truth) > 0.97


@pytest.mark.parametrize("shape", [(1, 40, 30), (2, 5, 60), (3, 60, 7), (3, 2, 2), (2, 1, 9)])
@pytest.mark.parametrize("zoom", [None, 1.0, 2.0])
def test_volumes_of_any_shape_can_be_segmented(a_model: LoadedModel, shape: tuple[int, int, int], zoom: float | None) -> None:
    rng = np.random.default_rng(0)
    volume = Volume(rng.integers(0, 255, shape).astype(np.uint8), Geometry(shape))
    session = opened(a_model, volume, replace(PLAIN, zoom=zoom))
    last_row, last_column = shape[1] - 1, shape[2] - 1
    session.add_prompt("organ", Box(0, 0, 0, last_column / 2, last_row / 2))
    session.add_prompt("organ", Points(shape[0] - 1, (last_column,), (last_row,), (True,)))
    session.add_prompt("other", Points(0, (0.0,), (last_row,), (True,)))
    list(session.propagate())
    assert session.mask("organ").shape == shape


# ── results ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_largest_piece_is_kept_unless_that_is_switched_off(a_seeing_model: LoadedModel, the_truth: Mask) -> None:
    apart = the_truth.copy()
    apart[8:14, 0:6, 0:6] = True
    for keep_largest, expected in ((True, the_truth), (False, apart)):
        session = opened(a_seeing_model, volume_of(apart), replace(PLAIN, keep_largest=keep_largest))
        result = session.add_prompt("ball", box_around(the_truth[MIDDLE], MIDDLE))
        assert result.mask[2, 2]  # a slice alone does not know which piece is the larger
        list(session.propagate())
        assert dice(session.mask("ball"), expected) > 0.97
        assert session.mask("ball")[10, 2, 2] == (not keep_largest)


def test_small_holes_are_filled_unless_that_is_switched_off(a_seeing_model: LoadedModel, the_truth: Mask) -> None:
    holed = the_truth.copy()
    holed[:, 21:27, 21:27] = False  # four cells of the 16 x 16 grid of logits, of 3 x 3 pixels each
    for cells in (0, 8):
        session = opened(a_seeing_model, volume_of(holed), replace(PLAIN, fill_hole_cells=cells))
        result = session.add_prompt("ball", box_around(the_truth[MIDDLE], MIDDLE))
        assert result.mask[23, 23] == bool(cells)


def test_confidence_is_known_for_every_segmented_slice(a_session: Session) -> None:
    a_session.add_prompt("organ", BOX)
    assert list(a_session.confidence("organ")) == [MIDDLE]
    results = {result.slice_index: result for result in a_session.propagate(first=9, last=14)}
    confidence = a_session.confidence("organ")
    assert list(confidence) == [9, 10, 11, 12, 13, 14]
    for index, one in confidence.items():
        assert 0 <= one.iou <= 1
        assert 0 <= one.presence <= 1
        assert one.prompted == (index == MIDDLE)
        assert index == MIDDLE or one == results[index].confidence


def test_objects_can_be_removed_and_named_anew(a_session: Session) -> None:
    first = a_session.add_prompt("organ", BOX)
    a_session.add_prompt("tumour", BOX)
    list(a_session.propagate())
    a_session.remove_object("organ")
    assert a_session.objects == ["tumour"]
    with pytest.raises(OptionError, match="no object 'organ'; objects are: tumour"):
        a_session.mask("organ")
    again = a_session.add_prompt("organ", BOX)
    assert np.array_equal(again.mask, first.mask)
    assert list(a_session.confidence("organ")) == [MIDDLE]


def test_a_reset_forgets_objects_but_not_image_features(a_session: Session) -> None:
    a_session.add_prompt("organ", BOX)
    a_session.reset()
    assert a_session.objects == []
    a_session.add_prompt("organ", BOX)
    assert a_session.embeddings.encoded == 1


def test_another_volume_forgets_everything(a_session: Session, the_truth: Mask) -> None:
    a_session.add_prompt("organ", BOX)
    a_session.set_volume(volume_of(the_truth[:, :20]), "k", "0:255")
    assert a_session.objects == []
    assert a_session.slice_shape == (20, 48)
    assert a_session.add_prompt("organ", Box(0, 1, 1, 9, 9)).mask.shape == (20, 48)
