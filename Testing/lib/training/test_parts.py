from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from MedSAM2Lib.errors import OptionError
from MedSAM2Lib.network.build import build_network
from MedSAM2Lib.network.config import NETWORKS
from MedSAM2Lib.training.clip_training import TrainingPlan, train
from MedSAM2Lib.training.parts import PARTS, part_of
from Testing.lib.training.joined import a_network
from Testing.lib.training.support import squares

PLAN = TrainingPlan(steps=2, slices_per_step=4, lengths=(2,), warmup_steps=1, workers=0)
OF_NANO = {"drafts", "prompted-decoder"}


@pytest.mark.parametrize("name", ["nano", "medsam2", "sam2.0-tiny"])
def test_every_weight_belongs_to_one_part(name: str) -> None:
    with torch.device("meta"):
        parameters = [key for key, _ in build_network(NETWORKS[name]).named_parameters()]
    for parameter in parameters:
        assert sum(parameter.startswith(beginnings) for beginnings in PARTS.values()) == 1, parameter
    absent = {"prompt-encoder"} if name == "nano" else OF_NANO  # its U-Net sees prompts as they are
    assert {part_of(parameter) for parameter in parameters} == set(PARTS) - absent


@pytest.mark.parametrize("part", [part for part in PARTS if part not in OF_NANO])
def test_a_frozen_part_stays_as_it_is_and_the_others_learn(part: str, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in a_network().named_parameters()}
    after = train(a_network(), squares, replace(PLAN, frozen=(part,)), tmp_path)
    changed = {part_of(name) for name, value in after.named_parameters() if not torch.equal(value, before[name])}
    assert changed == set(PARTS) - OF_NANO - {part}


def test_a_network_of_which_nothing_is_left_to_train_is_refused(tmp_path: Path) -> None:
    frozen = tuple(part for part in PARTS if part not in OF_NANO)
    with pytest.raises(OptionError, match="nothing would be trained"):
        train(a_network(), squares, replace(PLAN, frozen=frozen), tmp_path)


@pytest.mark.parametrize(
    ("frozen", "told"),
    [(("neck",), "Unknown part 'neck'"), (tuple(PARTS), "nothing would be"), (tuple(PARTS)[:-1], "nothing would be")],
)
def test_what_cannot_be_frozen_is_said(frozen: tuple[str, ...], told: str) -> None:
    with pytest.raises(OptionError, match=told):
        replace(PLAN, frozen=frozen)
