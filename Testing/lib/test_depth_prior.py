"""Depth is doubted by its ratio to the width, at every size alike."""

from __future__ import annotations

import pytest

from MedSAM2Lib.depth_prior import DepthPrior


def test_at_a_depth_of_one_radius_only_the_bias_is_left() -> None:
    assert DepthPrior(bias=0.7, slope=1.5).doubt(12, 12) == pytest.approx(0.7)


def test_doubt_grows_with_depth_and_is_a_boost_close_to_the_prompt() -> None:
    prior = DepthPrior(bias=0, slope=1.5)
    assert prior.doubt(1, 10) < 0 < prior.doubt(20, 10) < prior.doubt(40, 10)


def test_doubt_does_not_depend_on_the_size_of_the_object() -> None:
    prior = DepthPrior(bias=0.7, slope=1.5)
    assert prior.doubt(3, 6) == pytest.approx(prior.doubt(30, 60))
