from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from MedSAM2Lib.geometry import Geometry
from MedSAM2Lib.intensity import Window
from MedSAM2Lib.preview import _chosen_slices, _Plane, contact_sheet, write_picture
from MedSAM2Lib.prompts import Box, Box3D, MaskPrompt, Points, Prompt, RecistLine
from MedSAM2Lib.volume import Volume
from MedSAM2Lib.volume_io.segments import Segment

WINDOW = Window(0, 255)
GREEN = (0.0, 1.0, 0.0)


def a_volume(shape: tuple[int, int, int] = (30, 64, 64), spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Volume:
    array = np.random.default_rng(0).integers(0, 100, shape).astype(np.int16)
    return Volume(array, Geometry(shape, spacing))


def a_ball(shape: tuple[int, int, int], radius: float) -> np.ndarray:
    k, j, i = np.ogrid[tuple(slice(size) for size in shape)]
    middle = [(size - 1) / 2 for size in shape]
    inside: np.ndarray = (k - middle[0]) ** 2 + (j - middle[1]) ** 2 + (i - middle[2]) ** 2 <= radius**2
    return inside


def green(picture: Image.Image) -> np.ndarray:
    """(height, width) bool: where the picture is as good as pure green."""
    red, bright, blue = np.moveaxis(np.asarray(picture).astype(int), -1, 0)
    shown: np.ndarray = (bright > 180) & (red < 100) & (blue < 100)
    return shown


def reoriented(volume: Volume, order: tuple[int, ...], flips: tuple[bool, ...]) -> Volume:
    """The same picture of the same patient, with array axes in another order and sense."""
    array = np.transpose(volume.array, order)
    grid = volume.geometry
    directions, spacing = grid.direction_matrix.T[::-1][list(order)], np.asarray(grid.spacing)[::-1][list(order)]
    first = np.zeros(3)  # (k, j, i) of the old array where the new one begins
    for axis, flip in enumerate(flips):
        if flip:
            array = np.flip(array, axis)
            directions[axis] *= -1
            first[order[axis]] = grid.shape[order[axis]] - 1
    i, j, k = (float(value) for value in spacing[::-1])
    x, y, z = (float(value) for value in grid.index_to_world(first[::-1]))
    direction = tuple(float(value) for value in directions[::-1].T.ravel())
    shape = (int(array.shape[0]), int(array.shape[1]), int(array.shape[2]))
    return Volume(np.ascontiguousarray(array), Geometry(shape, (i, j, k), (x, y, z), direction))


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("flips", list(itertools.product((False, True), repeat=3)))
def test_a_plane_hangs_the_same_way_whatever_the_files_order(plane: str, order: tuple[int, ...], flips: tuple[bool, ...]) -> None:
    standard = a_volume((4, 5, 6), (1.0, 2.0, 3.0))
    other = reoriented(standard, order, flips)
    pictures, planes = [], []
    for volume in (standard, other):
        axis = volume.geometry.array_axis(plane)
        planes.append(_Plane.of(volume.geometry, axis))
        pictures.append([planes[-1].show(one).tolist() for one in np.moveaxis(volume.array, axis, 0)])
    assert pictures[0] in (pictures[1], pictures[1][::-1])
    assert planes[0].letters == planes[1].letters
    assert (planes[0].spacing_x, planes[0].spacing_y) == (planes[1].spacing_x, planes[1].spacing_y)


def test_planes_hang_as_radiologists_hang_them() -> None:
    volume = a_volume((4, 5, 6))
    letters = {
        name: _Plane.of(volume.geometry, volume.geometry.array_axis(name)).letters for name in ("axial", "coronal", "sagittal")
    }
    assert letters == {"axial": ("R", "L", "A", "P"), "coronal": ("R", "L", "S", "I"), "sagittal": ("A", "P", "S", "I")}
    axial = _Plane.of(volume.geometry, 0).show(volume.array[0])
    np.testing.assert_array_equal(axial, volume.array[0])  # LPS: as stored
    coronal = _Plane.of(volume.geometry, 1).show(volume.array[:, 0])
    np.testing.assert_array_equal(coronal, volume.array[::-1, 0])  # the head up


@pytest.mark.parametrize("flips", list(itertools.product((False, True), repeat=3)))
def test_places_follow_the_pixels(flips: tuple[bool, ...]) -> None:
    volume = reoriented(a_volume((4, 5, 6)), (1, 2, 0), flips)
    for axis in range(3):
        plane = _Plane.of(volume.geometry, axis)
        pixels = np.moveaxis(volume.array, axis, 0)[0]
        x, y = plane.place(2, 1)
        assert plane.show(pixels)[int(y), int(x)] == pixels[1, 2]


def test_contours_and_legend_are_in_the_segments_colour() -> None:
    volume = a_volume()
    sheet = contact_sheet(volume, "k", WINDOW, [Segment("ball", a_ball(volume.geometry.shape, 12), GREEN)])
    assert sheet.mode == "RGB"
    assert green(sheet).sum() > 500
    assert not green(contact_sheet(volume, "k", WINDOW, [])).any()


def test_a_contour_lies_on_the_edge_of_the_mask() -> None:
    volume = a_volume((1, 64, 64))
    mask = np.zeros((1, 64, 64), dtype=bool)
    mask[0, 16:48, 16:48] = True
    sheet = contact_sheet(volume, "k", WINDOW, [Segment("square", mask, GREEN)])
    shown = green(sheet)[60:]  # without the legend
    rows, columns = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
    side = columns[-1] - columns[0] + 1
    assert rows[-1] - rows[0] + 1 == pytest.approx(side, abs=2)
    inner = shown[rows[0] + 6 : rows[-1] - 5, columns[0] + 6 : columns[-1] - 5]
    assert not inner.any()  # nothing is painted over


def test_the_slices_span_the_object_and_hold_the_prompted_ones() -> None:
    masks = np.zeros((200, 4, 4), dtype=bool)
    masks[40:160, 1, 1] = True
    chosen = _chosen_slices([masks], [101, 180], 200, 20)
    assert chosen[0] == 39
    assert {101, 180} <= set(chosen)
    assert chosen[-2] == 160  # one beyond the end: there one sees that it has ended
    assert 20 <= len(chosen) <= 22
    assert max(np.diff(chosen[:-1])) <= 7


def test_an_object_on_few_slices_shows_all_of_them() -> None:
    masks = np.zeros((200, 4, 4), dtype=bool)
    masks[40:45, 1, 1] = True
    assert _chosen_slices([masks], [42], 200, 20) == list(range(39, 46))


@pytest.mark.parametrize(("prompted", "expected"), [([7], [6, 7, 8]), ([], [9, 10, 11])])
def test_an_empty_mask_shows_where_it_was_looked_for(prompted: list[int], expected: list[int]) -> None:
    assert _chosen_slices([np.zeros((20, 4, 4), dtype=bool)], prompted, 20, 20) == expected


@pytest.mark.parametrize(
    ("shape", "spacing", "axis"),
    [
        ((1, 20, 20), (1.0, 1.0, 1.0), "k"),
        ((40, 512, 512), (0.7, 0.7, 5.0), "k"),
        ((5, 300, 300), (0.7, 0.7, 2.0), "j"),
        ((60, 64, 64), (1.0, 1.0, 1.0), "sagittal"),
        ((3, 8, 300), (1.0, 1.0, 1.0), "k"),
    ],
)
def test_tiles_can_be_read_and_the_sheet_stays_a_sheet(
    shape: tuple[int, int, int], spacing: tuple[float, float, float], axis: str
) -> None:
    volume = a_volume(shape, spacing)
    sheet = contact_sheet(volume, axis, WINDOW, [Segment("ball", a_ball(shape, 10), GREEN)], caption="a caption")
    assert min(sheet.size) >= 220
    assert max(sheet.size) < 4000


def test_a_voxels_shape_is_the_shape_of_its_picture() -> None:
    volume = a_volume((1, 100, 100), (1.0, 2.0, 1.0))
    mask = np.zeros((1, 100, 100), dtype=bool)
    mask[0, 30:70, 30:70] = True
    shown = green(contact_sheet(volume, "k", WINDOW, [Segment("square of voxels", mask, GREEN)]))[60:]
    rows, columns = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
    assert (rows[-1] - rows[0]) / (columns[-1] - columns[0]) == pytest.approx(2, rel=0.03)


@pytest.mark.parametrize(
    "prompt",
    [
        Box(5, 10, 12, 40, 42),
        RecistLine(5, 10, 12, 40, 42),
        Points(5, (20.0, 40.0), (20.0, 40.0), (True, False)),
        Box3D(2, 8, 10, 12, 40, 42),
    ],
    ids=lambda prompt: type(prompt).__name__,
)
def test_a_prompt_is_drawn_on_its_slice(prompt: Prompt) -> None:
    volume = a_volume()
    nothing = Segment("nothing", np.zeros(volume.geometry.shape, dtype=bool), GREEN)
    assert green(contact_sheet(volume, "k", WINDOW, [nothing], [("nothing", prompt)]))[60:].sum() > 100


def test_a_mask_prompt_is_marked_and_needs_no_drawing() -> None:
    volume = a_volume()
    painted = MaskPrompt(5, np.ones((64, 64), dtype=bool))
    assert contact_sheet(volume, "k", WINDOW, [Segment("a", a_ball((30, 64, 64), 9))], [("a", painted)]).size[0] > 220


def test_many_names_take_more_lines() -> None:
    volume = a_volume((1, 64, 64))
    empty = np.zeros((1, 64, 64), dtype=bool)
    few, many = (
        contact_sheet(volume, "k", WINDOW, [Segment(f"structure {n}", empty) for n in range(count)]) for count in (2, 30)
    )
    assert many.size[0] == few.size[0]
    assert many.size[1] > few.size[1] + 24


def test_the_same_input_gives_the_same_file(tmp_path: Path) -> None:
    volume = a_volume((6, 32, 32))
    for name in ("one.png", "two.png"):
        ball, box = Segment("ball", a_ball((6, 32, 32), 8)), Box(3, 8, 8, 24, 24)
        write_picture(tmp_path / name, contact_sheet(volume, "k", WINDOW, [ball], [("ball", box)], "a"))
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    with Image.open(tmp_path / "one.png") as picture:
        assert picture.format == "PNG"
    assert len(list(tmp_path.iterdir())) == 2
