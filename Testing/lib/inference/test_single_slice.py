"""MedSAM's way: a box to a mask on one slice, or slice by slice from a 3D box."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from MedSAM2Lib.checkpoints.loading import LoadedSAM
from MedSAM2Lib.errors import OptionError, PromptError, UsageError
from MedSAM2Lib.inference.opening import open_session
from MedSAM2Lib.inference.options import SessionOptions
from MedSAM2Lib.inference.session import Session
from MedSAM2Lib.inference.single_slice import SingleSliceSession
from MedSAM2Lib.network.config import SAMConfig
from MedSAM2Lib.network.sam import SAM
from MedSAM2Lib.prompts import Box, Box3D, MaskPrompt, Points, RecistLine
from MedSAM2Lib.volume import Volume
from MedSAM2Lib.volume_io.images import ImageOfSet
from Testing.lib.network.parity.random_sam import random_sam

SMALL = SAMConfig(32, 2, 2, 3, (1,), image_size=64, hidden_dim=32, feedforward_dim=48)
PLAIN = SessionOptions(keep_largest=False, fill_hole_cells=0)
BOX = Box(10, 12, 10, 34, 30)
DEPTH = Box3D(6, 14, 12, 10, 34, 30)  # its middle is BOX


@pytest.fixture(scope="module")
def a_sam() -> LoadedSAM:
    return LoadedSAM(random_sam(SMALL), "random", Path("random.pt"), "")


@pytest.fixture
def a_session(a_sam: LoadedSAM, a_volume: Volume) -> SingleSliceSession:
    session = SingleSliceSession(a_sam, PLAIN)
    session.set_volume(a_volume, "k", "0:255")
    return session


def test_the_session_suits_the_network(a_sam: LoadedSAM, a_model: Any) -> None:
    assert isinstance(open_session(a_sam), SingleSliceSession)
    assert isinstance(open_session(a_model), Session)


def test_a_box_gives_a_mask_on_its_slice(a_session: SingleSliceSession, a_volume: Volume) -> None:
    result = a_session.add_prompt("organ", BOX)
    assert (result.slice_index, result.mask.shape) == (10, (48, 48))
    assert 0.02 < result.mask.mean() < 0.98
    assert result.confidence.prompted
    mask = a_session.mask("organ")
    assert mask.shape == a_volume.array.shape
    np.testing.assert_array_equal(mask[10], result.mask)
    assert np.flatnonzero(mask.any((1, 2))).tolist() == [10]


def test_a_line_counts_as_its_box(a_session: SingleSliceSession) -> None:
    line = RecistLine(10, 12, 20, 34, 20)
    np.testing.assert_array_equal(
        a_session.add_prompt("line", line).mask, a_session.add_prompt("box", line.to_box()).mask
    )


def test_a_3d_box_gives_each_slice_the_mask_of_its_own_box(a_session: SingleSliceSession) -> None:
    assert a_session.add_prompt("organ", DEPTH).slice_index == 10
    results = list(a_session.propagate())
    assert [result.slice_index for result in results] == [11, 9, 12, 8, 13, 7, 14, 6]
    for result in results:
        assert not result.confidence.prompted
        alone = a_session.add_prompt("alone", Box(result.slice_index, 12, 10, 34, 30))
        np.testing.assert_array_equal(result.mask, alone.mask)
    assert list(a_session.confidence("organ")) == list(range(6, 15))


def test_a_slice_with_a_box_of_its_own_keeps_its_mask(a_session: SingleSliceSession) -> None:
    own = a_session.add_prompt("organ", Box(8, 20, 20, 30, 30)).mask
    a_session.add_prompt("organ", DEPTH)
    assert 8 not in [result.slice_index for result in a_session.propagate()]
    np.testing.assert_array_equal(a_session.mask("organ")[8], own)


def test_another_3d_box_takes_the_place_of_the_first(a_session: SingleSliceSession) -> None:
    a_session.add_prompt("organ", DEPTH)
    list(a_session.propagate())
    a_session.add_prompt("organ", Box3D(9, 12, 12, 10, 34, 30))
    list(a_session.propagate(last=11))
    assert list(a_session.confidence("organ")) == [9, 10, 11]


def test_without_a_3d_box_there_is_nothing_to_propagate(a_session: SingleSliceSession) -> None:
    a_session.add_prompt("organ", BOX)
    for call in (a_session.propagate, a_session.plan):
        with pytest.raises(UsageError, match=r"remembers nothing .* give a 3D box \(on the command line --box3d\)"):
            call()


def test_stopping_keeps_what_was_yielded(a_session: SingleSliceSession) -> None:
    a_session.add_prompt("organ", DEPTH)
    list(islice(a_session.propagate(), 3))
    assert list(a_session.confidence("organ")) == [9, 10, 11, 12]
    running = a_session.propagate()
    next(running)
    a_session.reset()
    assert list(running) == []


def test_a_slice_is_encoded_once(a_session: SingleSliceSession) -> None:
    for name in ("one", "two"):
        a_session.add_prompt(name, DEPTH)
        list(a_session.propagate())
    assert a_session.embeddings.encoded == 9


def test_a_slice_is_shown_as_medsam_shows_it(a_sam: LoadedSAM, monkeypatch: pytest.MonkeyPatch) -> None:
    """64 x 64 pixels, the lowest as 0 and the highest as 1 over all channels; the box scaled with them."""
    shown: list[Tensor] = []
    given: list[Tensor] = []
    encode, predict = SAM.encode_image, SAM.predict
    monkeypatch.setattr(SAM, "encode_image", lambda self, images: shown.append(images) or encode(self, images))
    monkeypatch.setattr(SAM, "predict", lambda self, features, points: given.append(points[0]) or predict(self, features, points))
    ramp = np.linspace(40, 200, 32 * 16).reshape(32, 16).astype(np.uint8)
    session = SingleSliceSession(a_sam, PLAIN)
    session.set_images([ImageOfSet("grey", ramp), ImageOfSet("colour", np.stack((ramp, ramp // 2, ramp // 4), axis=-1))])
    for index in (0, 1):
        assert session.add_prompt("part", Box(index, 2, 4, 7, 15)).mask.shape == (32, 16)
    for picture in shown:
        assert picture.shape == (1, 3, 64, 64)
        assert (picture.min(), picture.max()) == (0, 1)
    assert torch.equal(shown[0][0, 0], shown[0][0, 2])
    assert shown[1][0, 1].max() < 0.6
    np.testing.assert_allclose(given[0][0], [[8, 8], [31, 31]])  # first and last of the pixels that the box covers


def test_an_image_of_one_value_is_black(a_sam: LoadedSAM) -> None:
    session = SingleSliceSession(a_sam, PLAIN)
    session.set_images([ImageOfSet("flat", np.full((20, 20), 99, np.uint8))])
    assert session.add_prompt("part", Box(0, 2, 4, 7, 15)).mask.shape == (20, 20)


BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "click": (lambda: Points(10, (20.0,), (20.0,), (True,)), "takes boxes, but Points came; draw a box"),
    "mask": (lambda: MaskPrompt(10, np.ones((48, 48), dtype=bool)), "takes boxes, but MaskPrompt came"),
    "box beside": (lambda: Box(10, 12, 10, 60, 30), "60,30 came"),
    "slice beyond": (lambda: Box(24, 12, 10, 34, 30), "0..23"),
    "3D box too deep": (lambda: Box3D(6, 30, 12, 10, 34, 30), "0..23"),
}


@pytest.mark.parametrize(("make", "said"), BAD.values(), ids=BAD)
def test_a_bad_prompt_is_refused_and_changes_nothing(a_session: SingleSliceSession, make: Callable[[], Any], said: str) -> None:
    a_session.add_prompt("organ", BOX)
    before = a_session._objects.copy()
    for name in ("organ", "new"):
        with pytest.raises(PromptError) as refused:
            a_session.add_prompt(name, make())
        assert said in str(refused.value)
        assert a_session._objects == before


def test_what_makes_no_sense_is_refused(a_sam: LoadedSAM, a_session: SingleSliceSession) -> None:
    with pytest.raises(UsageError, match="no volume yet"):
        SingleSliceSession(a_sam).add_prompt("organ", BOX)
    with pytest.raises(OptionError, match="always sees the whole slice"):
        SingleSliceSession(a_sam, SessionOptions(zoom=2))
    with pytest.raises(OptionError, match="no object 'kidney'"):
        a_session.mask("kidney")
    a_session.add_prompt("organ", DEPTH)
    with pytest.raises(OptionError, match="within 0:23, but 5:40 came"):
        a_session.propagate(first=5, last=40)
