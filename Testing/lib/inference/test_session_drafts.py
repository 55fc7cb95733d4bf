"""Passes take drafts of the whole object along, where the network makes them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from MedSAM2Lib.checkpoints.loading import LoadedModel
from MedSAM2Lib.inference.session import Session
from MedSAM2Lib.network.sam2 import SAM2, ImageFeatures, MaskPrediction, PointTensors
from MedSAM2Lib.network.volume_unet import VolumeUNet
from MedSAM2Lib.prompts import MaskPrompt, Points
from Testing.lib.inference.support import PLAIN, dice, ellipsoid, known, loaded, opened, volume_of

INSIDE = ellipsoid()
MIDDLE = len(INSIDE) // 2


class DraftsBright(VolumeUNet):
    def forward(self, grey: Tensor, known: Tensor, told: Tensor, depth: Tensor) -> Tensor:
        return 60 * (grey - 0.5)


class BelievesHints(SAM2):
    """Its answer is the hint it gets, whatever the slice shows; surer, so that a hint between two masks is the smaller one."""

    def predict(
        self,
        conditioned: Tensor,
        features: ImageFeatures,
        points: PointTensors | None = None,
        mask: Tensor | None = None,
        doubt: float = 0.0,
    ) -> MaskPrediction:
        prediction = super().predict(conditioned, features, points, mask, doubt)
        if mask is None:
            return prediction
        logits = torch.nn.functional.interpolate(mask, size=prediction.logits.shape[-2:]) - 1
        return prediction._replace(logits=20 * logits, object_score=torch.full_like(prediction.object_score, 5.0))


@pytest.fixture
def a_drafting_model() -> LoadedModel:
    config = replace(loaded(SAM2).network.config, follow_mask=True)
    model = loaded(BelievesHints, config)
    model.network.volume_draft = DraftsBright()
    return model


def propagated(model: LoadedModel, *, drafts: bool = True) -> Session:
    session = opened(model, volume_of(INSIDE), replace(PLAIN, drafts=drafts))
    session.add_prompt("ball", MaskPrompt(MIDDLE, INSIDE[MIDDLE]))
    list(session.propagate())
    return session


@pytest.mark.parametrize(("drafts", "least", "most"), [(True, 0.9, 1.0), (False, 0.0, 0.8)])
def test_a_pass_is_led_by_the_draft_once_two_slices_are_known(
    a_drafting_model: LoadedModel, drafts: bool, least: float, most: float
) -> None:
    session = propagated(a_drafting_model, drafts=drafts)
    session.add_prompt("ball", MaskPrompt(MIDDLE + 1, INSIDE[MIDDLE + 1]))
    list(session.propagate(redo=True))
    assert least <= dice(session.mask("ball"), INSIDE) <= most


def test_a_network_that_makes_none_goes_without(a_drafting_model: LoadedModel) -> None:
    without = propagated(a_drafting_model, drafts=False).mask("ball")
    a_drafting_model.network.volume_draft = None
    assert (propagated(a_drafting_model).mask("ball") == without).all()


def test_a_restored_session_goes_on_alike(a_drafting_model: LoadedModel) -> None:
    session = propagated(a_drafting_model)
    restored = opened(a_drafting_model, volume_of(INSIDE))
    restored.restore(session.state())
    for one in (session, restored):
        one.add_prompt("ball", MaskPrompt(MIDDLE + 4, INSIDE[MIDDLE + 4]))
        list(one.propagate())
    assert known(session)["ball"]["records"] == known(restored)["ball"]["records"]


def test_a_correction_changes_the_draft(a_drafting_model: LoadedModel) -> None:
    seen: list[list[int]] = []

    class Notes(DraftsBright):
        def forward(self, grey: Tensor, known: Tensor, told: Tensor, depth: Tensor) -> Tensor:
            seen.append(known[0].nonzero()[:, 0].tolist())
            return super().forward(grey, known, told, depth)

    a_drafting_model.network.volume_draft = Notes()
    session = propagated(a_drafting_model)
    assert all(len(planes) == 1 for planes in seen[:1])
    session.add_prompt("ball", MaskPrompt(MIDDLE + 3, INSIDE[MIDDLE + 3]))
    list(session.propagate())
    assert len(seen[-1]) >= 2


@pytest.mark.parametrize(("drafts", "least", "most"), [(True, 0.9, 1.0), (False, 0.0, 0.8)])
def test_a_click_on_a_slice_without_a_mask_takes_up_the_draft(
    a_drafting_model: LoadedModel, drafts: bool, least: float, most: float
) -> None:
    session = opened(a_drafting_model, volume_of(INSIDE), replace(PLAIN, drafts=drafts))
    session.add_prompt("ball", MaskPrompt(MIDDLE, INSIDE[MIDDLE]))
    clicked = session.add_prompt("ball", Points(MIDDLE + 3, (24,), (24,), (True,)))
    assert least <= dice(clicked.mask[None], INSIDE[[MIDDLE + 3]]) <= most


def test_a_click_beside_the_draft_does_not(a_drafting_model: LoadedModel) -> None:
    session = opened(a_drafting_model, volume_of(INSIDE))
    session.add_prompt("ball", MaskPrompt(MIDDLE, INSIDE[MIDDLE]))
    clicked = session.add_prompt("ball", Points(MIDDLE + 3, (1,), (1,), (True,)))
    assert dice(clicked.mask[None], INSIDE[[MIDDLE + 3]]) < 0.8
