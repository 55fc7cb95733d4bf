"""The sizes of every network that this library builds. No torch here: the registry and `--help` read it.

Figures of SAM 2 and SAM 2.1: Ravi et al., arXiv 2408.00714, and the public configuration files of facebookresearch/sam2.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Literal, get_args

from MedSAM2Lib.errors import OptionError

__all__ = [
    "APPROXIMATIONS", "CROP_ZOOM", "NETWORKS", "PRECISIONS", "SAM_NETWORKS", "Approximation", "NetworkConfig", "Precision",
    "SAMConfig", "TrunkConfig", "ViTConfig", "approximated", "network_config",
]  # fmt: skip

Precision = Literal["float32", "bfloat16"]  # exact, or faster (`network.precision`)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

# Ways to be faster at the price of other masks than the network's own; docs/performance.md says of how other ones.
# crop: a square around the object, half as many pixels across. pooled-memories: memory maps in a quarter of their tokens.
Approximation = Literal["crop", "pooled-memories"]
APPROXIMATIONS: tuple[Approximation, ...] = get_args(Approximation)
CROP_ZOOM = 2.0  # side of the square in sides of the prompt


@dataclass(frozen=True)
class TrunkConfig:
    """Hiera (Ryali et al., arXiv 2306.00989) with SAM 2's windowed and global attention."""

    embed_dim: int  # channels of the first stage; every stage doubles them
    num_heads: int  # attention heads of the first stage; every stage doubles them
    stages: tuple[int, int, int, int]  # blocks per stage; the stages' strides are 4, 8, 16, 32
    global_attention_blocks: tuple[int, ...]  # indices of blocks that attend over the whole grid
    windows: tuple[int, int, int, int]  # side of the attention window per stage, tokens
    background_size: tuple[int, int]  # grid on which the global part of the position embedding is learned


@dataclass(frozen=True)
class ViTConfig:
    """A plain vision transformer of one stride (Li et al., arXiv 2203.16527). The defaults are SAM's ViT-B."""

    embed_dim: int = 768  # channels of the encoder's tokens
    depth: int = 12  # blocks of the encoder
    num_heads: int = 12
    window: int = 14  # side of the attention window, tokens
    global_attention_blocks: tuple[int, ...] = (2, 5, 8, 11)  # indices of blocks that attend over the whole grid
    patch_size: int = 16  # side of a token, pixels


@dataclass(frozen=True)
class NetworkConfig:
    """One network. The defaults are what all four sizes of SAM 2.1 share."""

    # Hiera; a plain transformer (network.efficient); or None: convolutions take the place of trunk and mask decoder
    # (network.convolutional).
    trunk: TrunkConfig | ViTConfig | None
    image_size: int = 1024  # side S of the square the network sees, pixels
    hidden_dim: int = 256  # channels after the neck, of prompt tokens and of object pointers
    memory_dim: int = 64  # channels of a memory map
    memory_layers: int = 4  # layers of memory attention
    feedforward_dim: int = 2048  # inside memory attention and the mask decoder
    memory_slots: int = 7  # a conditioning slot and six recent slices (SAM 2 calls it num_maskmem)
    max_object_pointers: int = 16  # object pointers that a slice may look at
    mask_to_memory_scale: float = 20.0  # mask probabilities enter the memory encoder as p * scale + bias
    mask_to_memory_bias: float = -10.0
    # False for SAM 2.0: object pointers carry no temporal position, absent objects no spatial embedding.
    pointer_positions: bool = True
    absent_object_embedding: bool = True
    # True: the mask of the slice before enters likewise, beside the memories, so that a small network need not find it.
    follow_mask: bool = False
    # True: the image's channels are the slice before (in the direction of the pass), the slice, and the slice after, so
    # that a small network sees depth where SAM 2 sees three times the same grey.
    neighbour_channels: bool = False
    # True: a second network drafts the object in a cube of the volume, and passes take its drafts along.
    drafts_volume: bool = False
    # True: an approximation. Memory maps are looked at in a quarter of their tokens, for which the weights were not trained.
    pooled_memories: bool = False

    def __post_init__(self) -> None:
        if self.image_size % 32:
            raise OptionError(f"The image size must be a multiple of 32 (the coarsest stride), but it is {self.image_size}.")

    @property
    def feature_size(self) -> int:
        """Side of the stride-16 grid that memories and prompts live on, tokens."""
        return self.image_size // 16

    @property
    def logits_size(self) -> int:
        """Side of the grid that masks are answered on."""
        return self.image_size if self.trunk is None else self.image_size // 4


@dataclass(frozen=True)
class SAMConfig(ViTConfig):
    """SAM, which has no memory (Kirillov et al., arXiv 2304.02643), around its encoder, the ViT-B that MedSAM fine-tuned."""

    image_size: int = 1024  # side S of the square the network sees, pixels
    hidden_dim: int = 256  # channels after the neck and of prompt tokens
    feedforward_dim: int = 2048  # inside the mask decoder

    @property
    def feature_size(self) -> int:
        """Side of the grid of tokens."""
        return self.image_size // self.patch_size


_TRUNKS = {
    "tiny": TrunkConfig(96, 1, (1, 2, 7, 2), (5, 7, 9), (8, 4, 14, 7), (7, 7)),
    "small": TrunkConfig(96, 1, (1, 2, 11, 2), (7, 10, 13), (8, 4, 14, 7), (7, 7)),
    "base-plus": TrunkConfig(112, 2, (2, 3, 16, 3), (12, 16, 20), (8, 4, 14, 7), (14, 14)),
    "large": TrunkConfig(144, 2, (2, 6, 36, 4), (23, 33, 43), (8, 4, 16, 8), (7, 7)),
}

NETWORKS: dict[str, NetworkConfig] = {
    # Trained by this project (MedSAM2Lib.training). Narrow, because one object in a zoomed crop is a small world.
    "nano": NetworkConfig(
        trunk=None,
        image_size=128,
        hidden_dim=128,
        memory_dim=64,
        memory_layers=2,
        feedforward_dim=512,
        max_object_pointers=8,  # as far as the clips it was trained on reach
        follow_mask=True,
        neighbour_channels=True,
        drafts_volume=True,
    ),
    "medsam2": NetworkConfig(trunk=_TRUNKS["tiny"], image_size=512),
    **{f"sam2.1-{size}": NetworkConfig(trunk=trunk) for size, trunk in _TRUNKS.items()},
    **{
        f"sam2.0-{size}": NetworkConfig(trunk=trunk, pointer_positions=False, absent_object_embedding=False)
        for size, trunk in _TRUNKS.items()
    },
    # EfficientTAM (Xiong et al., arXiv 2411.18933) at 512 pixels: SAM 2.0's memory behind a trunk of a third of the work, or
    # of as much. Figures of the public configuration files of yformer/EfficientTAM and bowang-lab/MedSAM2.
    **{
        f"efficienttam-{size}": NetworkConfig(trunk, image_size=512, pointer_positions=False, absent_object_embedding=False)
        for size, trunk in {"tiny": ViTConfig(192, num_heads=3), "small": ViTConfig(384, num_heads=6)}.items()
    },
}

# Networks that segment one slice from its own prompt, and know nothing of other slices.
SAM_NETWORKS: dict[str, SAMConfig] = {"medsam": SAMConfig()}


def network_config(name: str, image_size: int | None = None) -> NetworkConfig:
    """The named network, at another image size if one is given (any multiple of 32)."""
    if name not in NETWORKS:
        raise OptionError(f"Unknown network {name!r}: use one of {', '.join(NETWORKS)}.")
    config = NETWORKS[name]
    return config if image_size is None else replace(config, image_size=image_size)


def approximated(config: NetworkConfig, approximations: Collection[Approximation]) -> NetworkConfig:
    """What of some approximations changes a network's sizes. Raises OptionError for an unknown one."""
    if unknown := [name for name in approximations if name not in APPROXIMATIONS]:
        raise OptionError(f"Unknown approximation {unknown[0]!r}: use one of {', '.join(APPROXIMATIONS)}.")
    if "crop" in approximations:
        config = replace(config, image_size=config.image_size // 2)
    return replace(config, pooled_memories=config.pooled_memories or "pooled-memories" in approximations)
