from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from MedSAM2Lib.checkpoints.loading import LoadedModel
from MedSAM2Lib.errors import OptionError
from MedSAM2Lib.inference.orientations import AGGREGATIONS, Aggregation, Orientations, OrientedMask
from MedSAM2Lib.inference.session import Session
from MedSAM2Lib.prompts import Box3D, MaskPrompt, Points, Prompt
from MedSAM2Lib.volume import Volume
from Testing.lib.inference.support import PLAIN, Mask, box_around, dice, ellipsoid, opened, volume_of

MIDDLE = 5
SHAPE = (10, 14, 16)


@pytest.fixture(scope="module")
def truth() -> Mask:
    return ellipsoid(SHAPE)


@pytest.fixture(scope="module")
def volume(truth: Mask) -> Volume:
    return volume_of(truth)


def propagated(model: LoadedModel, volume: Volume, *prompts: Prompt, keep_largest: bool = False) -> Session:
    session = opened(model, volume, replace(PLAIN, keep_largest=keep_largest))
    for prompt in prompts:
        session.add_prompt("ball", prompt)
    for _ in session.propagate():
        pass
    return session


def oriented(session: Session, volume: Volume, count: int, by: Aggregation = "mean") -> OrientedMask:
    return Orientations(session, volume, "k", "0:255", count, by).segment("ball")


@pytest.mark.parametrize("by", AGGREGATIONS)
def test_three_axes_from_one_box_agree_on_a_ball(
    a_seeing_model: LoadedModel, volume: Volume, truth: Mask, by: Aggregation
) -> None:
    session = propagated(a_seeing_model, volume, box_around(truth[MIDDLE], MIDDLE))
    found = oriented(session, volume, 3, by)
    assert found.sequences == ("k outwards", "j outwards", "i outwards")
    assert dice(found.mask, truth) > 0.9
    assert found.agreement > 0.9
    assert set(np.unique(found.support)) <= {np.float32(votes / 3) for votes in range(4)}


def test_six_sequences_go_outwards_and_inwards(a_seeing_model: LoadedModel, volume: Volume, truth: Mask) -> None:
    session = propagated(a_seeing_model, volume, box_around(truth[MIDDLE], MIDDLE))
    found = oriented(session, volume, 6)
    assert found.sequences == (
        "k outwards", "j outwards", "i outwards", "k inwards", "j inwards", "i inwards",
    )  # fmt: skip
    assert dice(found.mask, truth) > 0.9


def test_one_sequence_is_the_sessions_own(a_model: LoadedModel, volume: Volume, truth: Mask) -> None:
    session = propagated(a_model, volume, box_around(truth[MIDDLE], MIDDLE))
    found = oriented(session, volume, 1)
    np.testing.assert_array_equal(found.mask, session.mask("ball"))
    assert (found.sequences, found.agreement) == (("k outwards",), 1.0)
    assert not found.uncertainty.any()


def test_uncertainty_is_highest_where_half_the_sequences_disagree() -> None:
    support = np.array([0, 0.5, 1, 0.25], dtype=np.float32).reshape(1, 1, 4)
    found = OrientedMask(support > 0.5, support, ("k outwards",) * 4, 0.5)
    assert found.uncertainty.ravel().tolist() == [0, 1, 0, 0.5]


def test_a_painted_slice_stays_to_the_pixel(a_model: LoadedModel, volume: Volume, truth: Mask) -> None:
    session = propagated(a_model, volume, MaskPrompt(MIDDLE, truth[MIDDLE]))
    np.testing.assert_array_equal(oriented(session, volume, 3, "majority").mask[MIDDLE], truth[MIDDLE])


def test_a_3d_box_limits_all_sequences(a_seeing_model: LoadedModel, volume: Volume, truth: Mask) -> None:
    box = box_around(truth[MIDDLE], MIDDLE)
    session = propagated(a_seeing_model, volume, Box3D(4, 6, box.x0, box.y0, box.x1, box.y1))
    found = oriented(session, volume, 3)
    assert np.flatnonzero(found.mask.any((1, 2))).tolist() == [4, 5, 6]


def test_a_range_limits_what_other_axes_add(a_seeing_model: LoadedModel, volume: Volume, truth: Mask) -> None:
    session = propagated(a_seeing_model, volume, box_around(truth[MIDDLE], MIDDLE))
    found = Orientations(session, volume, "k", "0:255", 3).segment("ball", within=(5, 6))
    assert np.flatnonzero(found.mask.any((1, 2))).tolist() == [5, 6]


def test_an_object_that_was_not_found_has_no_other_sequences(a_seeing_model: LoadedModel, truth: Mask) -> None:
    dark = volume_of(np.zeros_like(truth))
    session = propagated(a_seeing_model, dark, box_around(truth[MIDDLE], MIDDLE))
    assert oriented(session, dark, 6).sequences == ("k outwards",)


def test_any_axis_can_be_the_first_and_the_session_stays_as_it_was(
    a_seeing_model: LoadedModel, volume: Volume, truth: Mask
) -> None:
    session = opened(a_seeing_model, volume, PLAIN, axis="i")
    session.add_prompt("ball", Points(8, (7.0,), (5.0,), (True,)))
    for _ in session.propagate():
        pass
    before = session.state()
    found = Orientations(session, volume, "i", "0:255", 3).segment("ball")
    assert found.sequences == ("i outwards", "k outwards", "j outwards")
    assert dice(found.mask, truth) > 0.9
    assert session.state() == before


def test_two_runs_are_equal(a_model: LoadedModel, volume: Volume, truth: Mask) -> None:
    session = propagated(a_model, volume, box_around(truth[MIDDLE], MIDDLE))
    first, second = (oriented(session, volume, 3) for _ in range(2))
    np.testing.assert_array_equal(first.mask, second.mask)
    np.testing.assert_array_equal(first.support, second.support)


@pytest.mark.parametrize(("count", "by"), [(2, "mean"), (3, "best")])
def test_what_cannot_be_done_is_refused(a_model: LoadedModel, volume: Volume, truth: Mask, count: int, by: str) -> None:
    session = propagated(a_model, volume, box_around(truth[MIDDLE], MIDDLE))
    with pytest.raises(OptionError):
        oriented(session, volume, count, by)  # type: ignore[arg-type]
