"""A box drawn on a thing in the world gives a mask on that thing, however the voxels lie; a voxel's shift would show.

The thing is a function of world coordinates, and Slicer itself says where voxels are; the network's place is taken by a
threshold within the box, which makes no mistake of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import permutations, product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("slicer", reason="needs the slicer-core wheel")

from MedSAM2Lib.prompts import Box
from MedSAM2Lib.slice_stack import Region, SliceStack, resample
from MedSAM2SlicerLib.PromptBridge import PromptBridge
from MedSAM2SlicerLib.SegmentBridge import SegmentBridge
from MedSAM2SlicerLib.ViewBridge import ViewBridge
from MedSAM2SlicerLib.VolumeBridge import VolumeBridge
from Testing.mrml.support import add_roi, add_transform, add_volume, rotation, turn, view, world_of

SHAPE = (13, 15, 17)  # (k, j, i)
MIDDLE = np.array([12.0, -25.0, 40.0])  # RAS mm, of the thing
REACH = 9.0  # mm around it that hold it, in every direction
Array = npt.NDArray[Any]


def is_thing(ras: Array) -> npt.NDArray[np.bool_]:
    """No two directions look alike: an ellipsoid with a bump to one side."""
    x, y, z = np.moveaxis(ras - MIDDLE, -1, 0)
    body = (x / 4.6) ** 2 + (y / 5.4) ** 2 + (z / 6.3) ** 2 <= 1
    return body | ((x - 3.2) ** 2 + (y - 4.1) ** 2 + (z - 3.3) ** 2 <= 2.6**2)


def voxel_places(volume_node: Any) -> Array:
    """(k, j, i, 3) world RAS mm."""
    k, j, i = np.meshgrid(*(np.arange(size) for size in SHAPE), indexing="ij")
    origin, *steps = world_of(volume_node, np.array([(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]))
    return origin + np.stack((i, j, k), axis=-1) @ (np.asarray(steps) - origin)


def volume_of_the_thing(scene: Any, axes: Array, spacing: Sequence[float], parent: Array | None = None) -> Any:
    """A volume whose index axes i, j, k are the columns of `axes` in its own RAS, around the thing in the world."""
    matrix = np.eye(4)
    matrix[:3, :3] = axes * np.asarray(spacing)
    in_node = MIDDLE if parent is None else (np.linalg.inv(parent) @ [*MIDDLE, 1])[:3]
    matrix[:3, 3] = in_node - matrix[:3, :3] @ [(size - 1) / 2 for size in SHAPE[::-1]]
    node = add_volume(scene, np.zeros(SHAPE, dtype=np.int16), matrix)
    if parent is not None:
        node.SetAndObserveTransformNodeID(add_transform(scene, parent).GetID())
    inside = is_thing(voxel_places(node))
    assert 100 < inside.sum() < 0.6 * inside.size
    return _with_voxels(node, inside)


def _with_voxels(node: Any, inside: npt.NDArray[np.bool_]) -> Any:
    from vtk.util.numpy_support import vtk_to_numpy

    vtk_to_numpy(node.GetImageData().GetPointData().GetScalars())[:] = np.where(inside, 200, -100).ravel()
    node.GetImageData().Modified()
    return node


def thresholded(stack: SliceStack, volume_node: Any, prompt: Box) -> npt.NDArray[np.bool_]:
    """(rows, columns): bright pixels in the box, on the prompt's slice."""
    pixels = np.take(resample(VolumeBridge(volume_node).volume(), stack.geometry).array, prompt.slice_index, axis=stack.axis)
    rows, columns = np.ogrid[: pixels.shape[0], : pixels.shape[1]]
    inside = (columns >= prompt.x0) & (columns <= prompt.x1) & (rows >= prompt.y0) & (rows <= prompt.y1)
    return (pixels > 50) & inside


def segment_places(bridge: SegmentBridge, segment_id: str) -> set[tuple[float, ...]]:
    """World RAS mm of the segment's voxels, by what Slicer stored and nothing of ours."""
    import slicer
    import vtk
    from vtk.util.numpy_support import vtk_to_numpy

    image, matrix = slicer.vtkOrientedImageData(), vtk.vtkMatrix4x4()
    bridge.node.GetBinaryLabelmapRepresentation(segment_id, image)
    image.GetImageToWorldMatrix(matrix)
    i0, i1, j0, j1, k0, k1 = image.GetExtent()
    voxels = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(k1 - k0 + 1, j1 - j0 + 1, i1 - i0 + 1)
    places = set()
    for k, j, i in np.argwhere(voxels):
        placed = [0.0, 0.0, 0.0]
        bridge.node.TransformPointToWorld(matrix.MultiplyPoint((i + i0, j + j0, k + k0, 1.0))[:3], placed)
        places.add(tuple(np.round(placed, 3) + 0.0))
    return places


def as_set(ras: Array) -> set[tuple[float, ...]]:
    return {tuple(np.round(place, 3) + 0.0) for place in ras}


def a_bridge(scene: Any, volume_node: Any) -> tuple[SegmentBridge, str]:
    bridge = SegmentBridge(
        scene, volume_node, SegmentBridge.createSegmentation(scene, volume_node), SegmentBridge.createEditor(scene)
    )
    return bridge, bridge.addSegment("thing", (1.0, 0.0, 0.0))


Tampering = Callable[[Region], Region]


def shifted(axis: int) -> Tampering:
    """A mistake of one voxel along an array axis."""

    def shift(region: Region) -> Region:
        box = list(region.box)
        box[axis] = slice(box[axis].start + 1, box[axis].stop + 1)
        return replace(region, box=(box[0], box[1], box[2]))

    return shift


def check_every_axis(scene: Any, volume_node: Any, tampering: Tampering | None = None) -> None:
    """In a view along each array axis: draws a box on the thing, and finds the mask on the thing, to the voxel."""
    places = voxel_places(volume_node)
    inside = is_thing(places)
    slice_node = view(scene)
    for axis in range(3):
        others = [one for one in range(3) if one != axis]
        origin, *steps = world_of(volume_node, np.array([(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)]))  # k, j, i
        units = [(step - origin) / np.linalg.norm(step - origin) for step in steps]
        axes = np.stack((units[others[1]], units[others[0]], units[axis]), axis=1)
        turn(slice_node, axes, MIDDLE)
        roi = add_roi(scene, _placed(axes, MIDDLE), (2 * REACH, 2 * REACH, 0))
        bridge, segment_id = a_bridge(scene, volume_node)

        stack = ViewBridge(slice_node).stack(VolumeBridge(volume_node).geometry)
        assert (stack.axis, stack.is_oblique) == (axis, False)
        index = ViewBridge(slice_node).sliceIndex(stack)
        assert index is not None
        prompt = PromptBridge(stack).box(roi, index)
        (region,) = stack.regions(prompt.slice_index, thresholded(stack, volume_node, prompt))
        bridge.write(segment_id, tampering(region) if tampering else region)

        here = [slice(None)] * 3
        here[axis] = slice(index, index + 1)
        on_slice = inside[tuple(here)]
        assert on_slice.any()
        assert segment_places(bridge, segment_id) == as_set(places[tuple(here)][on_slice])


def _placed(axes: Array, middle: Array) -> Array:
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = axes, middle
    return matrix


FLIPPED_AND_PERMUTED = [
    (order, signs) for order in permutations(range(3)) for signs in product((1, -1), repeat=3)
]  # all 48 ways in which voxels can lie along the body's axes


@pytest.mark.parametrize(("order", "signs"), FLIPPED_AND_PERMUTED)
def test_a_box_on_a_thing_gives_a_mask_on_it_in_all_48_orientations(
    scene: Any, order: tuple[int, int, int], signs: tuple[int, int, int]
) -> None:
    axes = np.eye(3)[:, order] * np.asarray(signs)
    check_every_axis(scene, volume_of_the_thing(scene, axes, (1.0, 1.0, 1.0)))


@pytest.mark.parametrize("seed", range(6))
def test_so_it_does_on_rotated_grids_of_unequal_spacing_under_transforms(scene: Any, seed: int) -> None:
    generator = np.random.default_rng(seed)
    axes = rotation(generator.normal(size=3), generator.uniform(0, 360)) * generator.choice((1, -1), 3)
    parent = np.eye(4)
    parent[:3, :3] = rotation(generator.normal(size=3), generator.uniform(0, 360)) * (1.0, 0.8, 1.2)[seed % 3]
    parent[:3, 3] = generator.uniform(-80, 80, 3)
    check_every_axis(scene, volume_of_the_thing(scene, axes, generator.uniform(0.8, 1.4, 3), parent))


@pytest.mark.parametrize("axis", range(3))
def test_a_shift_of_one_voxel_would_not_pass(scene: Any, axis: int) -> None:
    node = volume_of_the_thing(scene, rotation((1, 2, 3), 40), (1.0, 1.2, 0.9))
    check_every_axis(scene, node)
    with pytest.raises(AssertionError):
        check_every_axis(scene, node, shifted(axis))


def check_oblique(scene: Any, volume_node: Any, axes: Array, tampering: Tampering | None = None) -> None:
    """In a turned view: a box on each slice of the oblique stack; the masks, put back, are the thing."""
    places = voxel_places(volume_node)
    slice_node = view(scene)
    turn(slice_node, axes, MIDDLE)
    bridge, segment_id = a_bridge(scene, volume_node)
    stack = ViewBridge(slice_node).stack(VolumeBridge(volume_node).geometry)
    assert stack.is_oblique
    for index in range(stack.slice_count):
        middle = stack.to_world(((stack.slice_shape[1] - 1) / 2, (stack.slice_shape[0] - 1) / 2, index)) * (-1, -1, 1)
        turn(slice_node, axes, middle)
        assert ViewBridge(slice_node).sliceIndex(stack) == index
        in_plane = MIDDLE + axes[:, 2] * (axes[:, 2] @ (middle - MIDDLE))
        roi = add_roi(scene, _placed(axes, in_plane), (2 * REACH, 2 * REACH, 0))
        prompt = PromptBridge(stack).box(roi, index)
        for region in stack.regions(index, thresholded(stack, volume_node, prompt), bridge.box(segment_id)):
            if region.mask.any():
                bridge.write(segment_id, tampering(region) if tampering else region)
    found, truth = bridge.mask(segment_id), is_thing(places)
    spacing = min(VolumeBridge(volume_node).geometry.spacing)
    apart = np.linalg.norm(places[found].mean(0) - places[truth].mean(0))
    assert apart < 0.25 * spacing
    # The image is interpolated once, and the mask once more to the nearest voxel: its surface may be one voxel off.
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.93


@pytest.mark.parametrize("degrees", [3, 20, 45, 71])
@pytest.mark.parametrize("parent", [None, "moved"])
def test_masks_of_an_oblique_view_lie_on_the_thing(scene: Any, degrees: float, parent: str | None) -> None:
    moved = None
    if parent:
        moved = np.eye(4)
        moved[:3, :3], moved[:3, 3] = rotation((1, -1, 2), 33), (30, -20, 10)
    node = volume_of_the_thing(scene, rotation((3, 1, -2), 25), (1.0, 0.9, 1.3), moved)
    check_oblique(scene, node, rotation((1, 0.3, 0.5), degrees) @ _axes_of(node))


@pytest.mark.parametrize("axis", range(3))
def test_an_oblique_shift_of_one_voxel_would_not_pass(scene: Any, axis: int) -> None:
    node = volume_of_the_thing(scene, np.eye(3), (1.0, 0.9, 1.3))
    check_oblique(scene, node, rotation((1, 0.3, 0.5), 30))
    with pytest.raises(AssertionError):
        check_oblique(scene, node, rotation((1, 0.3, 0.5), 30), shifted(axis))


def _axes_of(volume_node: Any) -> Array:
    """The world directions of i, j, k, as the columns of a view that is parallel to them."""
    origin, *steps = world_of(volume_node, np.array([(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]))
    return np.stack([(step - origin) / np.linalg.norm(step - origin) for step in steps], axis=1)
