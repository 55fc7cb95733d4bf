"""In bfloat16 a network says what it says in float32, within what eight bits can tell."""

from __future__ import annotations

import copy
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from MedSAM2Lib import metrics
from MedSAM2Lib.benchmark.compare import PLAIN
from MedSAM2Lib.benchmark.subject import object_boxes, random_network, random_volume
from MedSAM2Lib.checkpoints.loading import LoadedModel
from MedSAM2Lib.inference.session import Session
from MedSAM2Lib.network.precision import bfloat16_gain, precision_of, set_precision
from MedSAM2Lib.network.sam2 import SAM2
from Testing.lib.network.parity.weights import SMALL, random_slices


@pytest.fixture(scope="module")
def exact() -> SAM2:
    return random_network(SMALL)


@pytest.fixture(scope="module")
def fast(exact: SAM2) -> SAM2:
    return set_precision(copy.deepcopy(exact), "bfloat16")


def error(rough: Tensor, exact: Tensor) -> float:
    """Relative, root mean square."""
    return float((rough.float() - exact).norm() / exact.norm())


def test_a_network_tells_its_precision(exact: SAM2, fast: SAM2) -> None:
    assert (precision_of(exact), precision_of(fast)) == ("float32", "bfloat16")
    assert fast.sam_mask_decoder.conv_s0.weight.dtype == torch.float32


_PRODUCT = """
import torch
from MedSAM2Lib.network.linear import linear
from MedSAM2Lib.network.precision import bfloat16_gain
with torch.inference_mode():
    assert linear(torch.ones(512, 512).bfloat16(), torch.ones(512, 512).bfloat16())[0, 0] == 512
print(bfloat16_gain())
"""


def test_a_processor_without_bfloat16_computes_in_it_and_tells_that_it_is_slower() -> None:
    """As most laptops are, with AVX2 alone; processors that oneDNN does not know by that name just compute."""
    without = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
    ended = subprocess.run(
        [sys.executable, "-c", _PRODUCT], env={**os.environ, **without}, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert float(ended.stdout) < 1 or platform.machine().lower() not in ("x86_64", "amd64")


def test_the_gain_is_measured_once() -> None:
    assert bfloat16_gain() == bfloat16_gain() > 0


@torch.no_grad()
def test_features_are_alike_in_half_the_room(exact: SAM2, fast: SAM2) -> None:
    one_slice = random_slices(1, SMALL)
    for level, expected in zip(fast.encode_image(one_slice)[:3], exact.encode_image(one_slice)[:3], strict=True):
        assert level.nbytes * 2 == expected.nbytes
        assert error(level, expected) < 0.02


@torch.no_grad()
def test_a_slice_sees_the_same_in_its_memories(exact: SAM2, fast: SAM2) -> None:
    stride16 = exact.encode_image(random_slices(1, SMALL)).stride16
    memory = torch.randn(1, 3 * 64 + 4, 64, generator=torch.Generator().manual_seed(0))
    expected = exact.with_memory(stride16, memory, memory / 2, 4)
    got = fast.with_memory(stride16.bfloat16(), memory.bfloat16(), memory.bfloat16() / 2, 4)
    assert got.dtype == torch.bfloat16
    assert error(got, expected) < 0.02


@torch.no_grad()
def test_a_memory_is_alike(exact: SAM2, fast: SAM2) -> None:
    stride16 = exact.encode_image(random_slices(1, SMALL)).stride16
    logits = 10 * torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    expected = exact.encode_memory(stride16, logits, torch.tensor([1.0]), prompted=False)
    assert error(fast.encode_memory(stride16.bfloat16(), logits, torch.tensor([1.0]), prompted=False), expected) < 0.03


def masks(network: SAM2) -> list[np.ndarray]:
    session = Session(LoadedModel(network, "random", Path(), "", None), PLAIN)
    session.set_volume(random_volume(128, 4))
    first = session.add_prompt("object", object_boxes(128, 1)[0])
    return [first.mask, *(result.mask for result in session.propagate())]


def test_a_volume_gets_about_the_same_masks(exact: SAM2, fast: SAM2) -> None:
    agreement = [metrics.dice(one[None], other[None]) for one, other in zip(masks(fast), masks(exact), strict=True)]
    assert min(agreement) > 0.97
