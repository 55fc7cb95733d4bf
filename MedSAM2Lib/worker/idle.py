"""Work that is given up when something else is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from MedSAM2Lib.network.sam2 import SAM2

__all__ = ["GivenUpError", "given_up_when"]


class GivenUpError(Exception):
    """Something else is to be done."""


@contextmanager
def given_up_when(is_asked: Callable[[], bool], network: SAM2) -> Iterator[None]:
    """Within it, an image that is being encoded is given up between two layers of the encoder, with a GivenUpError: a slice of a
    large network takes a second, one of its layers a twentieth of that."""

    def check(*_: object) -> None:
        if is_asked():
            raise GivenUpError

    layers = [module for module in network.image_encoder.modules() if next(module.children(), None) is None]
    hooks = [layer.register_forward_pre_hook(check) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
