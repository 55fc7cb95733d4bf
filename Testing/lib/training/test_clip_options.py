"""How clips are tracked: with a memory by worth, and with less room for what gradients need."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from MedSAM2Lib.benchmark.subject import random_network
from MedSAM2Lib.memory.options import SelfSorting
from MedSAM2Lib.network.sam2 import SAM2
from MedSAM2Lib.training.clip import ClipBatch
from MedSAM2Lib.training.losses import FROM_SCRATCH
from MedSAM2Lib.training.steps import PAPER_MIX, ClipOptions, clip_loss
from Testing.lib.training.joined import MASKS, a_network
from Testing.lib.training.support import PLAIN, squares

LENGTH = 8


def clips(count: int) -> ClipBatch:
    batch = squares(np.random.default_rng(0), count, 32, LENGTH, step=0)
    noise = torch.randn(batch.images.shape, generator=torch.Generator().manual_seed(1))
    return batch._replace(images=batch.images + 0.1 * noise)


def loss_of(network: SAM2, batch: ClipBatch, options: ClipOptions) -> Tensor:
    return clip_loss(network, batch, MASKS, FROM_SCRATCH, torch.Generator().manual_seed(0), options)


def test_with_a_memory_by_worth_clips_of_a_batch_do_not_know_of_each_other() -> None:
    network, batch = a_network(), clips(3)
    options = ClipOptions(memory=SelfSorting())
    with torch.no_grad():
        together = loss_of(network, batch, options)
        alone = [loss_of(network, batch.clip(n), options) for n in range(3)]
    torch.testing.assert_close(together, torch.stack(alone).mean())


def test_a_memory_by_worth_is_another_one_and_can_be_trained_through() -> None:
    network, batch = random_network(PLAIN).requires_grad_(), clips(2)
    loss = loss_of(network, batch, ClipOptions(memory=SelfSorting(capacity=1)))
    assert not torch.isclose(loss, loss_of(network, batch, ClipOptions()))
    loss.backward()
    gradient = network.memory_encoder.out_proj.weight.grad
    assert gradient is not None
    assert gradient.isfinite().all()
    assert gradient.any()


def test_gradient_checkpoints_change_neither_loss_nor_gradients() -> None:
    batch = clips(2)
    found = []
    for checkpoints in (False, True):
        network = a_network()
        loss = loss_of(network, batch, ClipOptions(checkpoints=checkpoints))
        loss.backward()
        found.append({"loss": loss.detach(), **{name: p.grad for name, p in network.named_parameters() if p.grad is not None}})
    plain, checkpointed = found
    assert plain.keys() == checkpointed.keys()
    for name, value in plain.items():
        torch.testing.assert_close(checkpointed[name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_the_papers_prompts_train() -> None:
    network, batch = a_network(), clips(2)
    for seed in range(4):  # mask, click, box; with clicks on one or two slices or none
        loss = clip_loss(network, batch, PAPER_MIX, FROM_SCRATCH, torch.Generator().manual_seed(seed))
        assert loss.isfinite()
