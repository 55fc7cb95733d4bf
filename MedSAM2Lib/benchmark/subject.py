"""What is measured on: seeded random weights under which every part of a network works, and a seeded volume.

How long a network takes does not depend on what it has learned, so no download is needed to measure it. Freshly
initialised weights would not do: they find no object, and then whole branches are idle and every mask is empty.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from MedSAM2Lib.evaluation.prompting import reference_box
from MedSAM2Lib.geometry import Geometry
from MedSAM2Lib.network.build import build_network
from MedSAM2Lib.network.config import NetworkConfig
from MedSAM2Lib.network.layers import MLP, LayerNorm2d
from MedSAM2Lib.network.mask_decoder import MaskDecoder
from MedSAM2Lib.network.prompted_unet import PromptedUNet
from MedSAM2Lib.network.sam2 import SAM2
from MedSAM2Lib.phantom import make_phantom
from MedSAM2Lib.prompts import Box
from MedSAM2Lib.volume import Volume

__all__ = ["abdominal_ct", "last_layer", "object_boxes", "random_network", "random_volume"]

_OBJECT_SCORE = 6.0  # added to the object score, so that objects are found
_LOGIT_SCALE = 4.0  # of the hypernetworks' last layers: mask logits then spread over about +-10
_BLOB = 1 / 16  # of a slice's side: size of the volume's blobs
_NOISE = 20.0  # standard deviation, of 1000 from black to white
_NOISE_HU = 12.0  # of a CT, standard deviation


def random_network(config: NetworkConfig, seed: int = 0) -> SAM2:
    """A network in evaluation mode whose weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):  # layers draw from the global generator when they are made
        network = build_network(config)
    generator = torch.Generator().manual_seed(seed)

    def normal(tensor: Tensor, std: float, mean: float = 0.0) -> None:
        tensor.copy_(mean + std * torch.randn(tensor.shape, generator=generator))

    with torch.no_grad():
        for module in network.modules():
            _draw(module, normal)
        decoder = network.sam_mask_decoder
        if isinstance(decoder, PromptedUNet):
            decoder.object_head.bias.add_(_OBJECT_SCORE)
        elif isinstance(decoder, MaskDecoder):
            normal(network.sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix, 1.0)
            for mlp in decoder.output_hypernetworks_mlps:
                _balance(last_layer(mlp))
            last_layer(decoder.pred_obj_score_head).bias.add_(_OBJECT_SCORE)
    return network.requires_grad_(False)


def _draw(module: nn.Module, normal: Callable[..., None]) -> None:
    if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
        weight = module.weight
        fan_in = weight.shape[0] if isinstance(module, nn.ConvTranspose2d) else weight[0].numel()
        normal(weight, fan_in**-0.5)
        if module.bias is not None:
            normal(module.bias, 0.1)
    elif isinstance(module, (nn.LayerNorm, nn.GroupNorm, LayerNorm2d)):
        normal(module.weight, 0.1, mean=1.0)
        normal(module.bias, 0.1)
    else:  # embeddings, and what modules hold as bare parameters
        for name, parameter in module.named_parameters(recurse=False):
            if name == "gamma":
                normal(parameter, 0.1, mean=1.0)
            else:
                normal(parameter, 0.3 if name.startswith("pos_embed") else 1.0)


def last_layer(mlp: nn.Module) -> nn.Linear:
    assert isinstance(mlp, MLP)
    layer = mlp.layers[-1]
    assert isinstance(layer, nn.Linear)
    return layer


def _balance(layer: nn.Linear) -> None:
    """Sums over a hypernetwork's outputs become 0: the features that they weigh come out of a GELU, hence have a positive
    mean, and masks would have one sign."""
    layer.weight.sub_(layer.weight.mean(0, keepdim=True)).mul_(_LOGIT_SCALE)
    layer.bias.sub_(layer.bias.mean())


def random_volume(size: int, slices: int, seed: int = 0) -> Volume:
    """(slices, size, size) int16, noisy blobs that drift from slice to slice."""
    generator = np.random.default_rng(seed)
    side = max(round(size * _BLOB), 2)
    array = np.empty((slices, size, size), dtype=np.int16)
    blobs: npt.NDArray[np.float64] = generator.standard_normal((side, side))
    for k in range(slices):
        blobs = blobs + 0.3 * generator.standard_normal((side, side))
        smooth = F.interpolate(torch.from_numpy(blobs)[None, None], size=(size, size), mode="bicubic")[0, 0].numpy()
        noisy = 500 + 200 * smooth / smooth.std() + _NOISE * generator.standard_normal((size, size))
        array[k] = noisy.clip(0, 1000).astype(np.int16)
    return Volume(array, Geometry(array.shape, (0.7, 0.7, 1.5)), source="random volume")


def abdominal_ct(size: int, slices: int) -> tuple[Volume, Box]:
    """(slices, size, size) int16 HU: the phantom's abdomen as finely sampled as a scan, with its noise; and a box around the
    liver on the slice where it is largest."""
    phantom = make_phantom()
    coarse, truth = phantom.volume, phantom.structures["liver"]
    shape = (slices, size, size)
    array = _enlarged(coarse.array, shape)
    array += _NOISE_HU * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    spacing = [
        old * before / now
        for old, before, now in zip(coarse.geometry.spacing, coarse.array.shape[::-1], shape[::-1], strict=True)
    ]
    liver = _enlarged(truth, shape) > 0.5
    index = int(liver.sum((1, 2)).argmax())
    geometry = Geometry(shape, (spacing[0], spacing[1], spacing[2]))
    volume = Volume(array.round_().to(torch.int16).numpy(), geometry, "CT", "synthetic abdomen")
    return volume, reference_box(liver[index].numpy(), index)


def _enlarged(array: npt.NDArray[np.generic], shape: tuple[int, int, int]) -> Tensor:
    """A (k, j, i) array at another size, float32, linearly interpolated."""
    return F.interpolate(torch.from_numpy(array.astype(np.float32))[None, None], size=shape, mode="trilinear")[0, 0]


def object_boxes(size: int, count: int) -> list[Box]:
    """Boxes on slice 0, spread over it."""
    boxes = []
    for number in range(count):
        centre = size * (number + 1) / (count + 1)
        half = size * (0.08 + 0.02 * (number % 3))
        x0, y0 = round(centre - half), round(size / 2 - half)
        boxes.append(Box(0, x0, y0, round(centre + half), round(size / 2 + half)))
    return boxes
