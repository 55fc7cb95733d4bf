"""What pictures for a person to look at are drawn with: contours, prompts, words, a legend. All sizes are pixels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from MedSAM2Lib.prompts import Box, Points, Prompt, RecistLine

if TYPE_CHECKING:
    from PIL.Image import Image as Picture
    from PIL.ImageDraw import ImageDraw

__all__ = [
    "BACKGROUND", "FRAME", "GAP", "PADDING", "PROMPTED_FRAME", "SMALL_TEXT", "SUPERSAMPLING", "TEXT", "WORDS", "Rgb", "contour",
    "draw_prompt", "legend", "write_text",
]  # fmt: skip

Rgb = tuple[int, int, int]

SUPERSAMPLING = 2  # drawn larger and reduced: smooth lines

GAP, PADDING = 6, 10  # pixels between tiles, around the sheet
TEXT, SMALL_TEXT = 15, 13  # pixels
_CONTOUR, _PROMPT_LINE, _DASH = 1.5, 1.5, 6.0  # pixels
BACKGROUND: Rgb = (24, 24, 28)
FRAME: Rgb = (60, 60, 66)
PROMPTED_FRAME: Rgb = (235, 235, 235)
WORDS: Rgb = (230, 230, 230)


def contour(mask: npt.NDArray[np.bool_], size: tuple[int, int]) -> Picture:
    """An L picture, 255 on the inner edge of a mask enlarged to `size`."""
    from PIL import Image, ImageChops, ImageFilter

    enlarged = Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BILINEAR)
    inside = enlarged.point([0] * 128 + [255] * 128)
    width = round(_CONTOUR * SUPERSAMPLING)
    return ImageChops.subtract(inside, inside.filter(ImageFilter.MinFilter(2 * width + 1)))


def draw_prompt(draw: ImageDraw, place: Callable[[float, float], tuple[float, float]], prompt: Prompt, color: Rgb) -> None:
    """A box, a line or clicks; `place` takes a column and a row of the slice to the picture, pixel centres at integers."""
    if isinstance(prompt, Box):
        # The outer edges of the corner pixels, which lie inside.
        (xa, ya), (xb, yb) = place(prompt.x0 - 0.5, prompt.y0 - 0.5), place(prompt.x1 + 0.5, prompt.y1 + 0.5)
        corners = [(xa, ya), (xb, ya), (xb, yb), (xa, yb)]
        for start, end in zip(corners, [*corners[1:], corners[0]], strict=True):
            _dashed(draw, start, end, color)
    elif isinstance(prompt, RecistLine):
        _dashed(draw, place(prompt.x0, prompt.y0), place(prompt.x1, prompt.y1), color)
    elif isinstance(prompt, Points):
        for x, y, positive in zip(prompt.xs, prompt.ys, prompt.labels, strict=True):
            _draw_click(draw, place(x, y), positive, color)


def _dashed(draw: ImageDraw, start: tuple[float, float], end: tuple[float, float], color: Rgb) -> None:
    length = math.dist(start, end)
    step = _DASH * SUPERSAMPLING
    for begin in np.arange(0, length, 2 * step):
        a, b = begin / length, min(begin + step, length) / length
        ends = [(start[0] + t * (end[0] - start[0]), start[1] + t * (end[1] - start[1])) for t in (a, b)]
        draw.line([*ends[0], *ends[1]], fill=color, width=round(_PROMPT_LINE * SUPERSAMPLING))


def _draw_click(draw: ImageDraw, at: tuple[float, float], positive: bool, color: Rgb) -> None:
    """A filled disc with a plus or a minus."""
    x, y = at
    radius = 6.0 * SUPERSAMPLING
    arm = 0.55 * radius
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color, outline=(0, 0, 0))
    draw.line((x - arm, y, x + arm, y), fill=(0, 0, 0), width=2 * SUPERSAMPLING)
    if positive:
        draw.line((x, y - arm, x, y + arm), fill=(0, 0, 0), width=2 * SUPERSAMPLING)


def legend(caption: str, entries: Sequence[tuple[str, Rgb]], width: int) -> Picture:
    """A caption, and names with their colours in as many lines as they need."""
    from PIL import Image, ImageDraw

    swatch, line = 14, 24
    probe = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    lines: list[list[tuple[str, Rgb, int]]] = [[]]
    x = PADDING
    for name, color in entries:
        needed = swatch + 6 + math.ceil(probe.textlength(name, font=_font(TEXT))) + 18
        if lines[-1] and x + needed > width - PADDING:
            lines.append([])
            x = PADDING
        lines[-1].append((name, color, x))
        x += needed
    top = PADDING + (line if caption else 0)
    header = Image.new("RGB", (width, top + line * len(lines)), BACKGROUND)
    draw = ImageDraw.Draw(header)
    if caption:
        write_text(draw, (PADDING, PADDING + line / 2 - 2), caption, TEXT, "lm")
    for row, named in enumerate(lines):
        middle = top + row * line + line / 2 - 2
        for name, color, left in named:
            draw.rectangle((left, middle - swatch / 2, left + swatch, middle + swatch / 2), fill=color)
            write_text(draw, (left + swatch + 6, middle), name, TEXT, "lm")
    return header


def write_text(draw: ImageDraw, at: tuple[float, float], text: str, size: int, anchor: str) -> None:
    draw.text(at, text, fill=WORDS, font=_font(size), anchor=anchor, stroke_width=1, stroke_fill=(0, 0, 0))


def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size=size)
