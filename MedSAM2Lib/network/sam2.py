"""SAM 2: the parts put together, without any state.

Each method is one step of segmenting a slice; who calls them in which order, and what is remembered between slices, is
`inference.tracker`'s and `memory`'s business. Ravi et al., arXiv 2408.00714.

Legend for shapes: B batch, S image side, C hidden width, h = w = S / 16, D memory channels, T tokens.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from MedSAM2Lib.network.config import NetworkConfig, TrunkConfig
from MedSAM2Lib.network.image_encoder import ImageEncoder
from MedSAM2Lib.network.layers import MLP
from MedSAM2Lib.network.linear import Linear
from MedSAM2Lib.network.mask_decoder import DecodedMasks, MaskDecoder
from MedSAM2Lib.network.memory_attention import MemoryAttention
from MedSAM2Lib.network.memory_encoder import MemoryEncoder
from MedSAM2Lib.network.positions import sine_encoding_1d, sine_encoding_2d
from MedSAM2Lib.network.prompt_encoder import PointLabel, PromptEncoder
from MedSAM2Lib.network.volume_unet import VolumeUNet

__all__ = [
    "MASK_PROMPT_LOGIT", "NO_OBJECT_LOGIT", "SAM2", "ImageFeatures", "MaskPrediction", "PointTensors", "SliceDepth", "padding",
    "unread",
]  # fmt: skip

NO_OBJECT_LOGIT = -1024.0  # every mask logit of a slice on which the object is predicted to be absent
MASK_PROMPT_LOGIT = 10.0  # a mask that the user gave becomes logits of + and - this


class ImageFeatures(NamedTuple):
    """What the encoder makes of a slice, before any prompt or memory."""

    stride16: Tensor  # (B, C, h, w)
    stride8: Tensor  # (B, C / 4, 2h, 2w), already projected for the mask decoder
    stride4: Tensor  # (B, C / 8, 4h, 4w), likewise
    # (B, 3, S, S), the slice itself, for a mask decoder that reads it instead, and a fourth channel once it is `recognised`.
    # Of what is not read, no channels.
    pixels: Tensor

    def for_memory(self) -> ImageFeatures:
        """Without the levels that only mask decoders read, which take three quarters of the room."""
        return self._replace(stride8=unread(self.stride8), stride4=unread(self.stride4))

    def row(self, index: int) -> ImageFeatures:
        """One slice of the batch, still with a batch dimension of 1."""
        return ImageFeatures(*(level[index : index + 1] for level in self))


class PointTensors(NamedTuple):
    """Clicks and box corners in pixels of the network's image, pixel centres at integers."""

    coordinates: Tensor  # (B, N, 2) as (x, y)
    labels: Tensor  # (B, N) of PointLabel


class SliceDepth(NamedTuple):
    """Where a tracked slice lies, (B,) each, in pixels of the network's image. A radius of 0: it is not known."""

    distance: Tensor  # from the nearest slice on which a person said or approved where the object is; above 0
    step: Tensor  # from the slice before
    radius: Tensor  # half the mean side of the object's box on that slice
    ahead: Tensor  # to the next slice in the direction of the pass that a person prompted or locked; 0: there is none
    ahead_shows: Tensor  # bool: whether the object is on that one

    def to(self, device: torch.device) -> SliceDepth:
        return SliceDepth(*(figure.to(device) for figure in self))


class MaskPrediction(NamedTuple):
    """The network's answer for one object on one slice. L is `NetworkConfig.logits_size`, S / 4 in SAM 2."""

    logits: Tensor  # (B, 1, L, L)
    iou: Tensor  # (B,), expected IoU 0..1
    object_score: Tensor  # (B,), logit: above 0 the object is on this slice
    pointer: Tensor  # (B, C), a summary of the object for later slices
    candidate_logits: Tensor  # (B, M, L, L): what `logits` was chosen from, before absence was applied
    candidate_iou: Tensor  # (B, M)


class SAM2(nn.Module):
    """The whole network. Attribute names are the published checkpoints' key names."""

    knows_depth = False  # whether `at_depth` tells it anything

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.volume_draft: VolumeUNet | None = None  # drafts objects in cubes of a volume
        dim, memory_dim = config.hidden_dim, config.memory_dim
        self.maskmem_tpos_enc = nn.Parameter(torch.zeros(config.memory_slots, 1, 1, memory_dim))
        self.no_mem_embed = nn.Parameter(torch.zeros(1, 1, dim))
        self.no_mem_pos_enc = nn.Parameter(torch.zeros(1, 1, dim))  # in every checkpoint, never used
        self.no_obj_ptr = nn.Parameter(torch.zeros(1, dim))
        if config.absent_object_embedding:
            self.no_obj_embed_spatial = nn.Parameter(torch.zeros(1, memory_dim))
        self._add_image_encoder(config)
        self.memory_attention = MemoryAttention(
            dim, memory_dim, config.feedforward_dim, config.memory_layers, pooled=config.pooled_memories
        )
        self.memory_encoder = MemoryEncoder(dim, memory_dim)
        self._add_mask_decoder(config)
        self.obj_ptr_proj = MLP(dim, dim, dim, dim)
        if config.pointer_positions:
            self.obj_ptr_tpos_proj = Linear(dim, memory_dim)
        self._sine_cache: dict[tuple[int, torch.device], Tensor] = {}

    def _add_image_encoder(self, config: NetworkConfig) -> None:
        assert isinstance(config.trunk, TrunkConfig), "build_network gives other networks to their own classes"
        self.image_encoder: nn.Module = ImageEncoder(config.trunk, config.hidden_dim)
        self.mask_downsample = nn.Conv2d(1, 1, kernel_size=4, stride=4)

    def _add_mask_decoder(self, config: NetworkConfig) -> None:
        self.sam_prompt_encoder = PromptEncoder(config.hidden_dim, config.image_size)
        self.sam_mask_decoder: nn.Module = MaskDecoder(config.hidden_dim, config.feedforward_dim)

    @property
    def costly_parts(self) -> tuple[nn.Module, ...]:
        """Where nearly all of the work is."""
        return self.image_encoder, self.memory_attention, self.memory_encoder

    @property
    def device(self) -> torch.device:
        return self.no_mem_embed.device

    # ── a slice ───────────────────────────────────────────────────────────────────────────────────────────────

    def encode_image(self, images: Tensor) -> ImageFeatures:
        """(B, 3, S, S) normalised pixels to the features that all objects and prompts on these slices share."""
        decoder = self.sam_mask_decoder
        stride4, stride8, stride16 = self.image_encoder(self._to_encoder(images), decoder.conv_s0, decoder.conv_s1)
        return ImageFeatures(stride16, stride8, stride4, unread(images))

    def without_memory(self, stride16: Tensor) -> Tensor:
        """Features of a slice that is segmented from its prompt alone, (B, C, h, w)."""
        return stride16 + self.no_mem_embed.view(1, -1, 1, 1)

    def with_memory(self, stride16: Tensor, memory: Tensor, memory_pos: Tensor, pointer_tokens: int) -> Tensor:
        """Features of a slice that looks at others, (B, C, h, w); tokens as in `MemoryAttention.forward`."""
        position = self._sine(self.config.hidden_dim, stride16.shape[-1])
        conditioned: Tensor = self.memory_attention(stride16, position, memory, memory_pos, pointer_tokens)
        return conditioned

    def at_depth(self, conditioned: Tensor, depth: SliceDepth) -> Tensor:
        """Features (B, C, h, w) of a slice that also know where it lies; SAM 2 counts slices alone."""
        return conditioned

    def grey_profile(self, features: ImageFeatures, logits: Tensor) -> Tensor | None:
        """What is remembered of an object (logits (B, 1, L, L)) besides the memory map: how much each of 64 grey values
        speaks for it, (B, 64). SAM 2 remembers no more than the map."""
        return None

    def recognised(self, features: ImageFeatures, profile: Tensor) -> ImageFeatures:
        """Features of another slice, in which what has that grey profile stands out."""
        return features

    # ── a prompt ──────────────────────────────────────────────────────────────────────────────────────────────

    def predict(
        self,
        conditioned: Tensor,
        features: ImageFeatures,
        points: PointTensors | None = None,
        mask: Tensor | None = None,
        doubt: float = 0.0,
    ) -> MaskPrediction:
        """The object's mask on a slice, from its prompt, its memories, or both.

        conditioned  (B, C, h, w) from `without_memory` or `with_memory`
        points       None on a slice without clicks or box
        mask         (B, 1, L, L) logits: the previous answer when a click corrects it
        doubt        subtracted from the object score: what speaks against the object being here, apart from the image
        """
        # One point is ambiguous, and for SAM 2 so is none: three candidates, of which the best is kept. A box (two
        # corners) is not.
        multimask = points is None or points.labels.shape[1] <= 1
        decoded = self._decode(conditioned, features, points, mask, multimask)
        row = torch.arange(len(conditioned), device=conditioned.device)
        best = decoded.iou.argmax(-1)
        object_score = decoded.object_score - doubt  # (B, 1)
        present = object_score > 0
        logits = torch.where(present[:, :, None], decoded.logits[row, best], NO_OBJECT_LOGIT)
        return MaskPrediction(
            logits=logits[:, None].float(),
            iou=decoded.iou[row, best],
            object_score=object_score[:, 0],
            pointer=self._pointer(decoded.tokens[row, best if decoded.tokens.shape[1] > 1 else 0], present),
            candidate_logits=decoded.logits,
            candidate_iou=decoded.iou,
        )

    def _decode(
        self,
        conditioned: Tensor,
        features: ImageFeatures,
        points: PointTensors | None,
        mask: Tensor | None,
        multimask: bool,
    ) -> DecodedMasks:
        points = padding(conditioned) if points is None else points
        conditioned, stride8, stride4 = map(self._full_precision, (conditioned, features.stride8, features.stride4))
        prompt = self.sam_prompt_encoder(points.coordinates, points.labels, mask)
        grid = self.sam_prompt_encoder.grid_encoding()
        decoded: DecodedMasks = self.sam_mask_decoder(conditioned, grid, prompt.sparse, prompt.dense, stride8, stride4, multimask)
        return decoded

    def _pointer(self, token: Tensor, present: Tensor) -> Tensor:
        """(B, C) token and (B, 1) presence to (B, C) object pointer."""
        return torch.where(present, self.obj_ptr_proj(token), self.no_obj_ptr)

    def adopt_mask(self, features: ImageFeatures, mask: Tensor) -> MaskPrediction:
        """A mask that the user gave, taken as the slice's answer; the decoder only makes the pointer.

        mask  (B, 1, S, S), 0 or 1
        """
        size = (self.config.logits_size, self.config.logits_size)
        full_logits = (2 * mask.float() - 1) * MASK_PROMPT_LOGIT
        logits = F.interpolate(full_logits, size=size, mode="bilinear", align_corners=False, antialias=True)
        # The raw features, without `no_mem_embed`: the semantics the published weights were trained with.
        decoded = self._decode(features.stride16, features, None, self._mask_prompt(mask), multimask=False)
        pointer = self._pointer(decoded.tokens[:, 0], decoded.object_score > 0)
        present = mask.flatten(1).any(-1)
        certain = torch.ones_like(decoded.iou)
        return MaskPrediction(
            logits=logits,
            iou=certain[:, 0],
            object_score=torch.where(present, MASK_PROMPT_LOGIT, -MASK_PROMPT_LOGIT),
            pointer=torch.where(present[:, None], pointer, self.no_obj_ptr),
            candidate_logits=logits,
            candidate_iou=certain,
        )

    def _mask_prompt(self, mask: Tensor) -> Tensor:
        """A person's mask (B, 1, S, S), 0 or 1, as a mask prompt."""
        prompt: Tensor = self.mask_downsample(mask.float())
        return prompt

    # ── a memory ──────────────────────────────────────────────────────────────────────────────────────────────

    def encode_memory(self, stride16: Tensor, logits: Tensor, object_score: Tensor, prompted: bool) -> Tensor:
        """A memory map (B, D, h, w) of a slice.

        stride16      (B, C, h, w), the encoder's own features, not conditioned
        logits        (B, 1, L, L) of the slice's mask
        object_score  (B,) logit
        prompted      the mask is from a person, so it enters as 0 or 1 instead of probabilities
        """
        size = (self.config.image_size, self.config.image_size)
        full = F.interpolate(logits.float(), size=size, mode="bilinear", align_corners=False)
        mask = (full > 0).float() if prompted and not self.training else full.sigmoid()
        mask = mask * self.config.mask_to_memory_scale + self.config.mask_to_memory_bias
        memory: Tensor = self.memory_encoder(stride16, mask.to(stride16.dtype))
        if self.config.absent_object_embedding:
            absent = (object_score <= 0).to(memory.dtype).view(-1, 1, 1, 1)
            memory = memory + absent * self.no_obj_embed_spatial[:, :, None, None]
        return memory

    def map_position(self, slot: int) -> Tensor:
        """(hw, D): where each token of a memory map is, and how far back its slice. Slot 0 is the nearest slice,
        the last slot a conditioning one."""
        where = self._sine(self.config.memory_dim, self.config.feature_size).flatten(1).T
        return where + self.maskmem_tpos_enc[slot, 0]

    def pointer_tokens(self, pointers: Tensor, distances: Tensor, furthest: int) -> tuple[Tensor, Tensor]:
        """Pointers (B, P, C) of slices at signed `distances` (P,) to tokens and positions, both (B, P * C / D, D).

        furthest  the distance that counts as 1: one less than the number of pointers a slice may look at
        """
        memory_dim = self.config.memory_dim
        per_pointer = self.config.hidden_dim // memory_dim
        tokens = pointers.unflatten(-1, (per_pointer, memory_dim)).flatten(1, 2)
        if not self.config.pointer_positions:
            return tokens, torch.zeros_like(tokens)
        position = self.obj_ptr_tpos_proj(sine_encoding_1d(distances / furthest, self.config.hidden_dim))  # (P, D)
        return tokens, position.repeat_interleave(per_pointer, dim=0).expand(len(tokens), -1, -1)

    def _to_encoder(self, images: Tensor) -> Tensor:
        return images.to(next(self.image_encoder.parameters()).dtype)

    def _full_precision(self, features: Tensor) -> Tensor:
        """In inference masks are answered in float32, whatever they were made in."""
        return features if self.training else features.float()

    def _sine(self, channels: int, side: int) -> Tensor:
        key = (channels, self.device)
        cached = self._sine_cache.get(key)
        if cached is None or cached.shape[-1] != side:
            cached = self._sine_cache[key] = sine_encoding_2d(channels, side, side, self.device)
        return cached


def padding(conditioned: Tensor) -> PointTensors:
    """In place of the points on a slice that has none."""
    batch, device = len(conditioned), conditioned.device
    return PointTensors(torch.zeros(batch, 1, 2, device=device), torch.full((batch, 1), PointLabel.PADDING, device=device))


def unread(images: Tensor) -> Tensor:
    """In place of a level that no mask decoder reads, (B, 0, 1, 1); not a view, which would keep the images' memory."""
    return images.new_empty(len(images), 0, 1, 1)
