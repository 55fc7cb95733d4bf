"""What the tests of the model store share."""

from __future__ import annotations

import io

import torch


def a_checkpoint(value: float = 1.0) -> bytes:
    """A plain file of weights, which no network has."""
    buffer = io.BytesIO()
    torch.save({"weights": torch.full((30_000,), value)}, buffer)
    return buffer.getvalue()
