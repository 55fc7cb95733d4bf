"""What messages say: every value that a session takes or gives comes back as it was, and nothing else can be sent."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from MedSAM2Lib.errors import MedSAM2Error, PromptError, ProtocolError
from MedSAM2Lib.geometry import Geometry
from MedSAM2Lib.intensity import Window
from MedSAM2Lib.prompts import Box, Box3D, MaskPrompt, Points, RecistLine
from MedSAM2Lib.results import SliceConfidence, SliceResult
from MedSAM2Lib.volume import Volume
from MedSAM2Lib.worker.values import pack, unpack
from Testing.lib.damage import changed


def there_and_back(value: Any) -> Any:
    arrays: list[Any] = []
    return unpack(pack(value, arrays), arrays)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=10,
)


@given(plain)
def test_plain_values_come_back(value: Any) -> None:
    assert there_and_back(value) == value


@given(hnp.arrays(bool, hnp.array_shapes(max_dims=3)))
def test_masks_come_back(mask: np.ndarray) -> None:
    assert np.array_equal(there_and_back(mask), mask)


def test_a_mask_takes_a_bit_per_voxel_of_its_bounding_box() -> None:
    mask = np.zeros((100, 200, 300), dtype=bool)
    mask[40:44, 10:30, 50:66] = True
    arrays: list[Any] = []
    pack(mask, arrays)
    assert sum(array.nbytes for array in arrays) == 4 * 20 * 16 // 8


def test_long_texts_come_back() -> None:
    text = "Bauchspeicheldrüse " * 1000
    arrays: list[Any] = []
    packed = pack({"a": text}, arrays)
    assert len(str(packed)) < 100
    assert unpack(packed, arrays) == {"a": text}


@pytest.mark.parametrize(
    "record",
    [
        Box(3, 1.5, 2, 8, 9),
        Points(0, (1.0, 2.5), (3.0, 4.0), (True, False)),
        RecistLine(1, 0, 0, 5, 5),
        Box3D(1, 4, 2, 2, 8, 8),
        Window(-160, 240),
        Geometry((2, 3, 4), (1.0, 1.0, 2.5), (-10.0, 5.0, 7.0)),
        SliceConfidence(0.9, 0.8, True),
    ],
)
def test_records_come_back_equal(record: object) -> None:
    assert there_and_back(record) == record
    assert there_and_back([{"name": record}]) == [{"name": record}]


def test_records_with_arrays_come_back() -> None:
    mask = np.eye(5, dtype=bool)
    volume = Volume(np.arange(60, dtype=np.int16).reshape(3, 4, 5), Geometry((3, 4, 5)), modality="CT", source="a.nrrd")
    result = SliceResult("liver", 2, mask, SliceConfidence(0.5, 0.5, False))
    assert np.array_equal(there_and_back(MaskPrompt(2, mask)).mask, mask)
    assert np.array_equal(there_and_back(result).mask, mask)
    back = there_and_back(volume)
    assert np.array_equal(back.array, volume.array)
    assert (back.geometry, back.modality, back.source) == (volume.geometry, "CT", "a.nrrd")


@pytest.mark.parametrize("value", [object(), {1, 2}, 1j, float("inf"), ProtocolError, len, [object()]])
def test_nothing_else_can_be_sent(value: object) -> None:
    with pytest.raises(ProtocolError):
        pack(value, [])


@pytest.mark.parametrize(
    "packed",
    [
        {"$record": "Popen", "args": "true"}, {"$record": ["Box"]}, {"$record": "Box"}, {"$code": "1"}, {"$array": 1},
        {"$record": "Box", "slice_index": "3", "x0": 0, "y0": 0, "x1": 1, "y1": 1}, {"$record": "Points", "xs": 3},
        {"$record": "Geometry", "shape": ["a", "b", "c"]}, {"$record": "Volume", "array": 3, "geometry": 4},
        {"$array": True}, {"$array": 0, "$mask": 0}, {"$pairs": 3}, {"$pairs": [[1]]}, {"$pairs": [[[], 2]]},
        {"$mask": 0}, {"$mask": 0, "shape": [4], "crop": [[0, 5]]}, {"$mask": 0, "shape": [4], "crop": [[3, 1]]},
        {"$mask": 0, "shape": [2**40, 2**40], "crop": [[0, 0], [0, 0]]}, {"$mask": 0, "shape": [40], "crop": [[0, 32]]},
        {"$text": 7}, {"$text": 0},
    ],
)  # fmt: skip
def test_what_cannot_have_been_packed_is_refused(packed: Any) -> None:
    with pytest.raises(ProtocolError):
        unpack(packed, [np.array([255, 254], dtype=np.uint8)])


def test_a_prompt_is_checked_as_everywhere() -> None:
    with pytest.raises(PromptError, match="swap the corners"):
        unpack({"$record": "Box", "slice_index": 3, "x0": 9, "y0": 0, "x1": 1, "y1": 1}, [])


def test_values_changed_at_random_are_refused_or_plain() -> None:
    """Whatever a field is replaced by, the answer is a value or an error of ours."""
    chance = random.Random(1)
    arrays: list[Any] = []
    whole = pack([Points(0, (1.0,), (3.0,), (True,)), np.eye(3, dtype=bool), {7: Box(1, 2, 3, 4, 5)}, "x" * 2000], arrays)
    refused = 0
    for _ in range(500):
        try:
            unpack(changed(whole, chance), arrays)
        except MedSAM2Error:
            refused += 1
    assert refused > 100
