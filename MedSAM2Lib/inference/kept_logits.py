"""The logits of a segmented slice as a session keeps them; in less room while only its history does."""

from __future__ import annotations

import zlib

import numpy as np
import torch
from torch import Tensor

__all__ = ["KeptLogits", "rounded"]

_LARGEST = 1023.5  # above it float16 steps reach what 16 bits of _STEPS do not; below -1024 nothing is looked for
_SMALLEST = -1024.0  # what an absent object has everywhere
_STEPS = 32  # to 1, of rounded logits: as fine as bfloat16, in which Meta runs SAM 2, is between 4 and 8
_MOST_BITS = 1.7  # per pixel, of float16 logits that are kept as they are: two with mask and object pointer
_MIDDLE = np.uint16(128)  # differences around 0 then share their high byte


def rounded(logits: Tensor, pixels: int) -> Tensor:
    """Logits (1, 1, g, g) as they can be packed, where there are too many for the slice's pixels to keep them as they are in
    the history; others as they are. Twice is as once."""
    if not _is_fine(logits, pixels):
        return logits
    return (logits.float() * _STEPS).round() / _STEPS + 0.0  # which makes 0 of -0


def _is_fine(logits: Tensor, pixels: int) -> bool:
    return 16 * logits.numel() > _MOST_BITS * pixels


class KeptLogits:
    """Logits of one slice, (1, 1, g, g) float16 on the CPU, rounded as above: what comes out of `pack` is what went in."""

    def __init__(self, logits: Tensor, pixels: int) -> None:
        """logits: (1, 1, g, g) float, anywhere; pixels: of the slice, rows times columns."""
        self._shape = logits.shape
        self._packs = _is_fine(logits, pixels)
        self._tensor: Tensor | None = rounded(logits.clamp(_SMALLEST, _LARGEST), pixels).half().cpu()
        self._packed = b""

    @property
    def tensor(self) -> Tensor:
        """(1, 1, g, g) float16 on the CPU."""
        if self._tensor is None:
            high_low = np.frombuffer(zlib.decompress(self._packed), dtype=np.uint8).astype(np.uint16).reshape(2, *self._shape)
            steps = (high_low[0] * np.uint16(256) + high_low[1] - _MIDDLE).cumsum(axis=-1, dtype=np.uint16).view(np.int16)
            self._tensor, self._packed = (torch.from_numpy(steps).float() / _STEPS).half(), b""
        return self._tensor

    @property
    def nbytes(self) -> int:
        return len(self._packed) if self._tensor is None else self._tensor.nbytes

    def pack(self) -> None:
        """Gives back room until the next look. Logits that are not rounded take little, and stay as they are."""
        if self._tensor is None or not self._packs:
            return
        steps = (self._tensor.float() * _STEPS).to(torch.int16).numpy()
        change = np.diff(steps, axis=-1, prepend=np.int16(0)).view(np.uint16) + _MIDDLE  # modulo 2^16, there and back
        high_low = np.stack((change >> 8, change & 255)).astype(np.uint8)
        self._packed, self._tensor = zlib.compress(high_low.tobytes()), None
