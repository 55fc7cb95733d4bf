"""A contact sheet: slices of a volume with the contours of segments, the prompts, a legend, as one picture.

Planes are shown as radiologists hang them, whatever the file's order: axial with anterior up and the patient's left on
the right, coronal with the head up, sagittal with the head up and anterior on the left. Letters at the edges say so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from MedSAM2Lib import drawing
from MedSAM2Lib.atomic import atomic_path
from MedSAM2Lib.drawing import BACKGROUND, GAP, PADDING, SMALL_TEXT, SUPERSAMPLING, WORDS, Rgb, write_text
from MedSAM2Lib.geometry import Geometry
from MedSAM2Lib.intensity import Window, apply_window
from MedSAM2Lib.prompts import Box3D, MaskPrompt, Points, Prompt
from MedSAM2Lib.volume import Volume
from MedSAM2Lib.volume_io.segments import Segment, segment_color

if TYPE_CHECKING:
    from PIL.Image import Image as Picture
    from PIL.ImageDraw import ImageDraw

__all__ = ["contact_sheet", "write_picture"]

_MOST_SLICES = 20  # evenly chosen ones
_MOST_PROMPTED = 20  # beyond that a sheet is no longer a sheet
_LEAST_TILE = 220  # pixels, of either side
_LONG_SIDES = ((1, 720), (4, 480), (9, 360))  # up to so many tiles, their longer side in pixels
_LONG_SIDE = 280  # of more tiles than that
_LONGEST_SIDE = 900  # of a tile whose shorter side had to grow to _LEAST_TILE
_SHEET_SHAPE = 1.5  # width to height that the sheet comes close to
_MARGIN_SHARE, _LEAST_MARGIN_MM = 0.3, 15.0  # shown around the objects
_WHOLE_SLICE_FROM = 0.8  # share of the slice from which all of it is shown
_SCALE_BARS_MM = (1, 2, 5, 10, 20, 50, 100, 200)
_SCALE_BAR_SHARE = 0.3  # of a tile's width, at most


def write_picture(path: Path, picture: Picture) -> None:
    """Writes a PNG, whole or not at all."""
    with atomic_path(path) as temporary:
        picture.save(temporary, format="PNG", optimize=True)


def contact_sheet(
    volume: Volume,
    axis: str,
    window: Window,
    segments: Sequence[Segment],
    prompts: Sequence[tuple[str, Prompt]] = (),
    caption: str = "",
    most_slices: int = _MOST_SLICES,
) -> Picture:
    """An RGB picture (PIL).

    axis         along which slices are cut and prompts are numbered, as `Geometry.array_axis` takes it
    segments     masks (k, j, i) on the volume's grid
    prompts      (segment's name, prompt); a slice with a prompt is always shown
    most_slices  evenly chosen ones, beside those with a prompt
    """
    from PIL import Image, ImageDraw

    array_axis = volume.geometry.array_axis(axis)
    plane = _Plane.of(volume.geometry, array_axis)
    stack = np.moveaxis(volume.array, array_axis, 0)
    marked = [_Marked(one.name, np.moveaxis(one.mask, array_axis, 0), _rgb(one, place)) for place, one in enumerate(segments)]
    by_slice = _prompts_by_slice(prompts)
    slices = _chosen_slices([one.masks for one in marked], sorted(by_slice), len(stack), most_slices)
    region = _region(plane, [one.masks for one in marked], [one for _, one in prompts])
    layout = _Layout.of(region, plane, len(slices))
    tiles = [
        _tile(plane, layout, region, apply_window(stack[index], window), index, marked, by_slice.get(index, []), place == 0)
        for place, index in enumerate(slices)
    ]
    header = drawing.legend(caption, [(one.name, one.color) for one in marked], layout.sheet_width)
    sheet = Image.new("RGB", (layout.sheet_width, header.height + layout.grid_height), BACKGROUND)
    sheet.paste(header, (0, 0))
    draw = ImageDraw.Draw(sheet)
    for place, (index, tile) in enumerate(zip(slices, tiles, strict=True)):
        x, y = layout.corner(place)
        y += header.height
        sheet.paste(tile, (x, y))
        frame = drawing.PROMPTED_FRAME if index in by_slice else drawing.FRAME
        draw.rectangle((x - 1, y - 1, x + layout.tile_width, y + layout.tile_height), outline=frame)
    return sheet


@dataclass(frozen=True)
class _Marked:
    """A segment along the slicing axis: masks (slices, rows, columns) bool."""

    name: str
    masks: npt.NDArray[np.bool_]
    color: Rgb


def _rgb(segment: Segment, place: int) -> Rgb:
    red, green, blue = (round(255 * part) for part in segment.color or segment_color(place))
    return red, green, blue


# ── how a plane hangs ─────────────────────────────────────────────────────────────────────────────────────────────

_PLANES = ("sagittal", "coronal", "axial")  # whose normals are the world's x, y, z
_LETTERS = (("R", "L"), ("A", "P"), ("I", "S"))  # towards lower and higher x, y, z (LPS)
# For each normal: world axis and sense that go to the right of the screen, and down.
_HANGING = {0: ((1, 1), (2, -1)), 1: ((0, 1), (2, -1)), 2: ((0, 1), (1, 1))}


@dataclass(frozen=True)
class _Plane:
    """From (rows, columns) of a slice to the screen: transposed first, then flipped."""

    rows: int
    columns: int
    transposed: bool
    flip_x: bool
    flip_y: bool
    spacing_x: float  # mm between screen columns
    spacing_y: float
    letters: tuple[str, str, str, str]  # left, right, top, bottom

    @classmethod
    def of(cls, geometry: Geometry, array_axis: int) -> _Plane:
        world_of = {geometry.array_axis(name): world for world, name in enumerate(_PLANES)}
        row_axis, column_axis = (axis for axis in range(3) if axis != array_axis)
        (right_world, right_sense), (down_world, down_sense) = _HANGING[world_of[array_axis]]
        transposed = world_of[column_axis] != right_world
        x_axis, y_axis = (row_axis, column_axis) if transposed else (column_axis, row_axis)
        matrix = geometry.direction_matrix
        flip_x = bool(matrix[right_world, 2 - x_axis] * right_sense < 0)
        flip_y = bool(matrix[down_world, 2 - y_axis] * down_sense < 0)
        left, right = _LETTERS[right_world][::right_sense]
        top, bottom = _LETTERS[down_world][::down_sense]
        shape = geometry.shape
        return cls(
            shape[row_axis], shape[column_axis], transposed, flip_x, flip_y,
            geometry.spacing_along(x_axis), geometry.spacing_along(y_axis), (left, right, top, bottom),
        )  # fmt: skip

    @property
    def width(self) -> int:
        """Of the screen's picture, in voxels."""
        return self.rows if self.transposed else self.columns

    @property
    def height(self) -> int:
        return self.columns if self.transposed else self.rows

    def show(self, pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """(rows, columns) to (height, width) as on the screen."""
        shown = pixels.T if self.transposed else pixels
        return shown[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1]

    def place(self, x: float, y: float) -> tuple[float, float]:
        """A column x and a row y of the slice to screen column and row; pixel centres at integers on both sides."""
        if self.transposed:
            x, y = y, x
        return (self.width - 1 - x if self.flip_x else x), (self.height - 1 - y if self.flip_y else y)


# ── what is shown ─────────────────────────────────────────────────────────────────────────────────────────────────


def _prompts_by_slice(prompts: Sequence[tuple[str, Prompt]]) -> dict[int, list[tuple[str, Prompt]]]:
    by_slice: dict[int, list[tuple[str, Prompt]]] = {}
    for name, prompt in prompts:
        flat = prompt.middle_box() if isinstance(prompt, Box3D) else prompt
        by_slice.setdefault(flat.slice_index, []).append((name, flat))
    return by_slice


def _chosen_slices(masks: Sequence[npt.NDArray[np.bool_]], prompted: Sequence[int], count: int, most: int) -> list[int]:
    """Evenly over the slices that have a mask and one beyond either end; the prompted ones in any case."""
    occupied = np.zeros(count, dtype=bool)
    for one in masks:
        occupied |= one.any(axis=(1, 2))
    indices = np.flatnonzero(occupied) if occupied.any() else np.asarray(prompted or [count // 2])
    first, last = max(int(indices[0]) - 1, 0), min(int(indices[-1]) + 1, count - 1)
    return sorted({*_evenly(range(first, last + 1), most), *_evenly(prompted, _MOST_PROMPTED)})


def _evenly(values: Sequence[int], most: int) -> list[int]:
    if len(values) <= most:
        return list(values)
    return [values[int(place)] for place in np.linspace(0, len(values) - 1, most).round()]


@dataclass(frozen=True)
class _Region:
    """The rectangle of the screen's picture that is shown: voxels left..right, top..bottom, both inside."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        return self.right - self.left + 1

    @property
    def height(self) -> int:
        return self.bottom - self.top + 1


def _region(plane: _Plane, masks: Sequence[npt.NDArray[np.bool_]], prompts: Sequence[Prompt]) -> _Region:
    """Around all objects and prompts, with a margin; the whole slice when that is not much more."""
    whole = _Region(0, 0, plane.width - 1, plane.height - 1)
    xs: list[float] = []
    ys: list[float] = []
    for one in masks:
        shown = plane.show(np.any(one, axis=0))
        columns, rows = np.flatnonzero(shown.any(0)), np.flatnonzero(shown.any(1))
        if columns.size:
            xs += [float(columns[0]), float(columns[-1])]
            ys += [float(rows[0]), float(rows[-1])]
    for prompt in prompts:
        for x, y in (plane.place(x, y) for x, y in _corners(prompt)):
            xs.append(x)
            ys.append(y)
    if not xs:
        return whole
    width_mm, height_mm = (max(xs) - min(xs) + 1) * plane.spacing_x, (max(ys) - min(ys) + 1) * plane.spacing_y
    margin = max(_MARGIN_SHARE * max(width_mm, height_mm), _LEAST_MARGIN_MM)
    # A long and narrow object gets as much room at its sides: what lies beside it is what one wants to see.
    side = max(width_mm, height_mm) / 2 + margin
    x_middle, y_middle = (min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2
    half_x, half_y = side / plane.spacing_x, side / plane.spacing_y
    region = _Region(
        max(math.floor(x_middle - half_x), 0),
        max(math.floor(y_middle - half_y), 0),
        min(math.ceil(x_middle + half_x), whole.right),
        min(math.ceil(y_middle + half_y), whole.bottom),
    )
    share = region.width * region.height / (whole.width * whole.height)
    return whole if share >= _WHOLE_SLICE_FROM else region


def _corners(prompt: Prompt) -> list[tuple[float, float]]:
    if isinstance(prompt, MaskPrompt):
        return []  # the segment holds it
    if isinstance(prompt, Points):
        return list(zip(prompt.xs, prompt.ys, strict=True))
    return [(prompt.x0, prompt.y0), (prompt.x1, prompt.y1)]


@dataclass(frozen=True)
class _Layout:
    """Sizes in pixels. A tile may be wider or higher than the picture in it, which is then in its middle."""

    columns: int
    rows: int
    tile_width: int
    tile_height: int
    picture_width: int
    picture_height: int

    @classmethod
    def of(cls, region: _Region, plane: _Plane, count: int) -> _Layout:
        width_mm, height_mm = region.width * plane.spacing_x, region.height * plane.spacing_y
        long_side = next((side for most, side in _LONG_SIDES if count <= most), _LONG_SIDE)
        scale = max(long_side / max(width_mm, height_mm), _LEAST_TILE / min(width_mm, height_mm))
        scale = min(scale, _LONGEST_SIDE / max(width_mm, height_mm))
        width, height = max(round(width_mm * scale), 1), max(round(height_mm * scale), 1)
        tile_width, tile_height = max(width, _LEAST_TILE), max(height, _LEAST_TILE)
        columns = min(count, max(1, round(math.sqrt(count * _SHEET_SHAPE * tile_height / tile_width))))
        return cls(columns, math.ceil(count / columns), tile_width, tile_height, width, height)

    @property
    def sheet_width(self) -> int:
        return 2 * PADDING + self.columns * self.tile_width + (self.columns - 1) * GAP

    @property
    def grid_height(self) -> int:
        return PADDING + self.rows * self.tile_height + (self.rows - 1) * GAP

    def corner(self, place: int) -> tuple[int, int]:
        """Of a tile, from the grid's top left."""
        row, column = divmod(place, self.columns)
        return PADDING + column * (self.tile_width + GAP), row * (self.tile_height + GAP)


# ── drawing ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _tile(
    plane: _Plane,
    layout: _Layout,
    region: _Region,
    grey: npt.NDArray[np.uint8],
    index: int,
    marked: Sequence[_Marked],
    prompts: Sequence[tuple[str, Prompt]],
    with_scale: bool,
) -> Picture:
    """One slice, `grey` (rows, columns) 0..255, with everything on it."""
    from PIL import Image, ImageDraw

    size = layout.picture_width * SUPERSAMPLING, layout.picture_height * SUPERSAMPLING
    cut = np.s_[region.top : region.bottom + 1, region.left : region.right + 1]
    pixels = Image.fromarray(np.ascontiguousarray(plane.show(grey)[cut])).resize(size, Image.Resampling.BICUBIC)
    picture = pixels.convert("RGB")
    for one in marked:
        if one.masks[index].any():
            picture.paste(one.color, (0, 0), drawing.contour(np.ascontiguousarray(plane.show(one.masks[index])[cut]), size))
    draw = ImageDraw.Draw(picture)
    colors = {one.name: one.color for one in marked}
    for name, prompt in prompts:
        drawing.draw_prompt(draw, _Screen(plane, region, size).place, prompt, colors.get(name, WORDS))
    reduced = picture.resize((layout.picture_width, layout.picture_height), Image.Resampling.LANCZOS)
    tile = Image.new("RGB", (layout.tile_width, layout.tile_height))
    tile.paste(reduced, ((layout.tile_width - reduced.width) // 2, (layout.tile_height - reduced.height) // 2))
    _write_words(ImageDraw.Draw(tile), tile.size, plane.letters, f"slice {index}{'  prompt' if prompts else ''}")
    if with_scale:
        _draw_scale_bar(ImageDraw.Draw(tile), tile.size, layout.picture_width / (region.width * plane.spacing_x))
    return tile


@dataclass(frozen=True)
class _Screen:
    """From voxels of a slice to pixels of its enlarged picture."""

    plane: _Plane
    region: _Region
    size: tuple[int, int]

    def place(self, x: float, y: float) -> tuple[float, float]:
        shown_x, shown_y = self.plane.place(x, y)
        return (
            (shown_x - self.region.left + 0.5) * self.size[0] / self.region.width,
            (shown_y - self.region.top + 0.5) * self.size[1] / self.region.height,
        )


def _write_words(draw: ImageDraw, size: tuple[int, int], letters: tuple[str, str, str, str], title: str) -> None:
    """The slice's number at the top left, the patient's sides at the edges."""
    width, height = size
    left, right, top, bottom = letters
    places = (
        (left, 4, height / 2, "lm"),
        (right, width - 4, height / 2, "rm"),
        (top, width / 2, 3, "mt"),
        (bottom, width / 2, height - 4, "mb"),
    )
    for letter, x, y, anchor in places:
        write_text(draw, (x, y), letter, SMALL_TEXT, anchor)
    write_text(draw, (6, 4), title, drawing.TEXT, "lt")


def _draw_scale_bar(draw: ImageDraw, size: tuple[int, int], pixels_per_mm: float) -> None:
    width, height = size
    fitting = [mm for mm in _SCALE_BARS_MM if mm * pixels_per_mm <= _SCALE_BAR_SHARE * width] or [_SCALE_BARS_MM[0]]
    length = fitting[-1] * pixels_per_mm
    y = height - 8
    draw.line((8, y, 8 + length, y), fill=WORDS, width=2)
    write_text(draw, (8, y - 5), f"{fitting[-1]} mm", SMALL_TEXT, "lb")
