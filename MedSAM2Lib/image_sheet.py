"""A contact sheet of single images with the contours of segments and the prompts: what became of a set, at a glance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from MedSAM2Lib import drawing
from MedSAM2Lib.drawing import GAP, PADDING, SMALL_TEXT, SUPERSAMPLING, Rgb
from MedSAM2Lib.prompts import Prompt
from MedSAM2Lib.volume_io.images import ImageOfSet
from MedSAM2Lib.volume_io.segments import segment_color

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

__all__ = ["SegmentedImage", "image_sheet"]

_MOST_IMAGES = 40  # evenly chosen ones, beside those with a prompt
_TILES = ((1, 720), (4, 480), (9, 360))  # up to so many images, the side of a tile in pixels
_TILE = 260  # of more images than that
_SHEET_SHAPE = 1.5  # width to height that the sheet comes close to
_CHARACTER = 7.5  # pixels that a character of a name takes, about


@dataclass(frozen=True)
class SegmentedImage:
    """An image, its masks (rows, columns) bool by the object's name, and the prompts on it."""

    image: ImageOfSet
    masks: Mapping[str, npt.NDArray[np.bool_]] = field(repr=False)
    prompts: Sequence[tuple[str, Prompt]] = ()


def image_sheet(images: Sequence[SegmentedImage], objects: Sequence[str], caption: str = "") -> Picture:
    """An RGB picture (PIL). Objects have the colours of segments in their order; prompted images are framed."""
    from PIL import Image, ImageDraw

    colors = {name: _color(place) for place, name in enumerate(objects)}
    shown = _chosen(images)
    side = next((side for most, side in _TILES if len(shown) <= most), _TILE)
    columns = min(len(shown), max(1, round(math.sqrt(len(shown) * _SHEET_SHAPE))))
    rows = math.ceil(len(shown) / columns)
    width = 2 * PADDING + columns * side + (columns - 1) * GAP
    header = drawing.legend(caption, list(colors.items()), width)
    sheet = Image.new("RGB", (width, header.height + PADDING + rows * side + (rows - 1) * GAP), drawing.BACKGROUND)
    sheet.paste(header, (0, 0))
    draw = ImageDraw.Draw(sheet)
    for place, one in enumerate(shown):
        x, y = PADDING + place % columns * (side + GAP), header.height + place // columns * (side + GAP)
        sheet.paste(_tile(one, side, colors), (x, y))
        frame = drawing.PROMPTED_FRAME if one.prompts else drawing.FRAME
        draw.rectangle((x - 1, y - 1, x + side, y + side), outline=frame)
    return sheet


def _color(place: int) -> Rgb:
    red, green, blue = (round(255 * part) for part in segment_color(place))
    return red, green, blue


def _chosen(images: Sequence[SegmentedImage]) -> list[SegmentedImage]:
    """Evenly, and those with a prompt in any case."""
    places = {int(place) for place in np.linspace(0, len(images) - 1, min(len(images), _MOST_IMAGES)).round()}
    return [one for place, one in enumerate(images) if place in places or one.prompts]


def _tile(one: SegmentedImage, side: int, colors: Mapping[str, Rgb]) -> Picture:
    """The image with everything on it, in the middle of a square."""
    from PIL import Image, ImageDraw

    rows, columns = one.image.shape
    scale = side / max(rows, columns)
    width, height = max(round(columns * scale), 1), max(round(rows * scale), 1)
    large = width * SUPERSAMPLING, height * SUPERSAMPLING
    picture = Image.fromarray(one.image.pixels).resize(large, Image.Resampling.BICUBIC).convert("RGB")
    for name, mask in one.masks.items():
        if mask.any():
            picture.paste(colors[name], (0, 0), drawing.contour(mask, large))
    draw = ImageDraw.Draw(picture)

    def place(x: float, y: float) -> tuple[float, float]:
        return (x + 0.5) * large[0] / columns, (y + 0.5) * large[1] / rows

    for name, prompt in one.prompts:
        drawing.draw_prompt(draw, place, prompt, colors.get(name, drawing.WORDS))
    tile = Image.new("RGB", (side, side))
    tile.paste(picture.resize((width, height), Image.Resampling.LANCZOS), ((side - width) // 2, (side - height) // 2))
    drawing.write_text(ImageDraw.Draw(tile), (6, 4), _short(one.image.name, int(side / _CHARACTER)), SMALL_TEXT, "lt")
    return tile


def _short(name: str, most: int) -> str:
    return name if len(name) <= most else f"...{name[3 - most :]}"
