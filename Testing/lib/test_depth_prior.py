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


def test_what_has_kept_its_cross_section_is_expected_to_go_on() -> None:
    prior = DepthPrior(bias=0.7, slope=1.5)
    doubts = [prior.doubt(50, 10, seen_mm=49, share=share) for share in (0.0, 0.2, 0.4, 0.7)]
    assert doubts[0] == prior.doubt(50, 10)
    assert doubts == sorted(doubts, reverse=True)
    assert prior.doubt(50, 10, seen_mm=49, share=1.0) == pytest.approx(doubts[-1])
    assert doubts[-1] < prior.doubt(10, 10)


def test_a_ball_is_expected_to_be_as_deep_as_wide() -> None:
    prior = DepthPrior(bias=0.7, slope=1.5)
    assert prior.doubt(10, 10, seen_mm=9, share=1 - 0.9**2) == pytest.approx(prior.doubt(10, 10))


def test_what_has_grown_is_not_taken_for_a_cord() -> None:
    prior = DepthPrior(bias=0.7, slope=1.5)
    doubts = [prior.doubt(50, 10, seen_mm=49, share=share) for share in (1.2, 1.3, 1.4, 1.6)]
    assert doubts == sorted(doubts)
    assert doubts[-1] == prior.doubt(50, 10)
