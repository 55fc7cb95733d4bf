"""What is encoded while nobody waits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from MedSAM2Lib.checkpoints.loading import LoadedModel
from MedSAM2Lib.errors import MedSAM2Error
from MedSAM2Lib.inference.session import Session, SessionOptions
from MedSAM2Lib.prompts import Box
from MedSAM2Lib.volume import Volume
from Testing.lib.inference.support import PLAIN, opened

BOX = Box(12, 10, 10, 30, 30)


def ahead(session: Session, most: int = 1000) -> int:
    """Encodes ahead until there is nothing to do; how many slices."""
    return next(count for count in range(most) if not session.encode_ahead())


def test_the_slice_looked_at_is_there_when_its_prompt_comes(a_model: LoadedModel, a_volume: Volume) -> None:
    session = opened(a_model, a_volume, PLAIN)
    session.look_at(BOX.slice_index)
    assert session.encode_ahead()
    session.add_prompt("organ", BOX)
    assert session.embeddings.encoded == 1


def test_then_come_those_around_it_and_a_pass_encodes_none_again(a_model: LoadedModel, a_volume: Volume) -> None:
    session, waited = (opened(a_model, a_volume, PLAIN) for _ in range(2))
    session.look_at(5)
    assert ahead(session) == session.slice_count
    for one in (session, waited):
        one.add_prompt("organ", BOX)
        for _ in one.propagate():
            pass
    assert session.embeddings.encoded == session.slice_count
    np.testing.assert_array_equal(session.mask("organ"), waited.mask("organ"))


def test_nothing_is_let_go_for_it(a_model: LoadedModel, a_volume: Volume) -> None:
    session = opened(a_model, a_volume, PLAIN)
    session.add_prompt("organ", BOX)
    one = session.embeddings.kept_bytes
    session.embeddings.limit(3 * one + one // 2)
    session.look_at(2)
    assert ahead(session) == 2
    session.add_prompt("organ", BOX)
    assert session.embeddings.encoded == 3


def test_a_view_that_the_prompt_decides_is_not_guessed(a_model: LoadedModel, a_volume: Volume) -> None:
    session = opened(a_model, a_volume, replace(PLAIN, zoom=1.5))
    session.look_at(BOX.slice_index)
    assert ahead(session) == 0
    session.add_prompt("organ", BOX)
    assert ahead(session) == session.slice_count - 1


def test_without_a_person_who_looks_nothing_is_done(a_model: LoadedModel, a_volume: Volume) -> None:
    assert not Session(a_model, SessionOptions()).encode_ahead()
    assert not opened(a_model, a_volume, PLAIN).encode_ahead()


def test_a_slice_beyond_the_volume_is_refused(a_model: LoadedModel, a_volume: Volume) -> None:
    with pytest.raises(MedSAM2Error, match=r"0\.\.23, but 99"):
        opened(a_model, a_volume, PLAIN).look_at(99)
