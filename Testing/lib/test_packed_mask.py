from __future__ import annotations

import base64
import json
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import array_shapes, arrays

from MedSAM2Lib.packed_mask import PackedMask


@settings(derandomize=True, deadline=None, database=None)
@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=20)))
def test_a_mask_comes_back_from_packing_and_from_a_file(mask: np.ndarray) -> None:
    packed = PackedMask.of(mask)
    assert np.array_equal(packed.unpacked(), mask)
    assert packed.empty == (not mask.any())
    assert packed.pixels == mask.sum()
    read = PackedMask.from_json(json.loads(json.dumps(packed.to_json())))
    assert read == packed
    assert np.array_equal(read.unpacked(), mask)


def test_an_unpacked_mask_is_the_callers_own() -> None:
    packed = PackedMask.of(np.ones((3, 4), dtype=bool))
    packed.unpacked()[:] = False
    assert packed.unpacked().all()


def test_a_disc_takes_a_hundredth_of_its_pixels() -> None:
    rows, columns = np.ogrid[:512, :512]
    disc = (rows - 200) ** 2 + (columns - 300) ** 2 < 90**2
    assert len(PackedMask.of(disc).bits) < disc.sum() / 25


GOOD = PackedMask.of(np.eye(5, dtype=bool)).to_json()


@pytest.mark.parametrize(
    "wrong",
    [
        {"shape": [5]}, {"shape": [0, 5]}, {"shape": [5, 2**40]}, {"shape": None}, {"box": [0, 5, 0, 6]}, {"box": [3, 2, 0, 5]},
        {"box": [0, 0, 0, 0]}, {"box": [0, 4, 0, 5], "bits": ""}, {"bits": "AAAA"}, {"bits": "é"}, {"bits": 3},
        {"bits": "eJwDAAAAAAE="}, {"box": "abcd"},
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_no_packed_mask_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        PackedMask.from_json({**GOOD, **wrong})


def test_bits_that_would_fill_the_memory_are_read_no_further_than_the_box() -> None:

    bomb = base64.b64encode(zlib.compress(bytes(2**24))).decode()
    assert not PackedMask.from_json({**GOOD, "bits": bomb}).unpacked().any()
