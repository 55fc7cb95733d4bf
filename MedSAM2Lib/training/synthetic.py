"""Synthetic patients: random label maps with images of any contrast, so that nano sees more anatomy than it has scans of.

Shapes follow the idea of SynthMorph (Hoffmann et al., IEEE TMI 2022: train on shapes that no scan has shown); intensities
are `rendering`'s. Everything is a pure function of the random generator that is handed in.

Arrays are (k, j, i). Lengths are in voxels of the plane (j, i); a slice is `thickness` of them apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from MedSAM2Lib.errors import TrainingError
from MedSAM2Lib.training.fields import log_uniform, smooth_field
from MedSAM2Lib.training.rendering import paint_tissue, render_labels, scan

__all__ = ["DEFAULT_SHAPE", "SyntheticPatient", "render_labels", "synthetic_patient", "synthetic_volume"]

FloatArray = npt.NDArray[np.float32]
LabelArray = npt.NDArray[np.uint8]
Window = tuple[slice, slice, slice]

DEFAULT_SHAPE = (40, 112, 112)
_SMALLEST_SHAPE = (4, 24, 24)
_MOST_LABELS = 80
_ENCLOSED_SHARE = 0.9  # an object lies in another if at least so much of it was drawn there


# --- shapes -----------------------------------------------------------------------------------------------------------


def _random_rotation(rng: np.random.Generator) -> FloatArray:
    """(3, 3) rotation, uniform over all directions."""
    matrix, triangle = np.linalg.qr(rng.standard_normal((3, 3)))
    rotation: FloatArray = (matrix * np.sign(np.diag(triangle))).astype(np.float32)
    return rotation


class _Canvas:
    """A label map under construction.

    `parent[label]` is the label that most of an object was drawn into; `enclosed[label]` says if nearly all of it was.
    """

    def __init__(self, rng: np.random.Generator, shape: tuple[int, int, int]) -> None:
        self.rng = rng
        self.shape = shape
        self.thickness = log_uniform(rng, 1.0, 4.0)
        self.extent = np.array([shape[0] * self.thickness, shape[1], shape[2]])
        self.scale = min(shape[1], shape[2]) / 112.0  # sizes below are meant for 112 voxels across
        self.label = np.zeros(shape, np.uint8)
        self.parent = [0]
        self.enclosed = [False]
        self._axes = [
            (np.arange(size, dtype=np.float32) * step).reshape([-1 if a == axis else 1 for a in range(3)])
            for axis, (size, step) in enumerate(zip(shape, (self.thickness, 1.0, 1.0), strict=True))
        ]
        self.warp_size = log_uniform(rng, 0.5, 6.0) * self.scale
        tilt = rng.uniform(-0.35, 0.35, 2) if rng.random() < 0.25 else np.zeros(2)  # gantry tilt: slices slide
        along = self._axes[0] - self.extent[0] / 2
        self._coordinates = np.empty((3, *shape), np.float32)
        for axis in range(3):
            drift = along * tilt[axis - 1] if axis else 0.0
            bend = smooth_field(rng, shape, (2, 4, 4)) * (self.warp_size / 2)
            self._coordinates[axis] = self._axes[axis] + bend + drift
        self._drift = float(np.abs(tilt).max() * self.extent[0] / 2)
        self._roughness = [smooth_field(rng, shape, cells) for cells in ((4, 6, 6), (6, 12, 12), (10, 20, 20))]

    def window(self, low: npt.ArrayLike, high: npt.ArrayLike) -> Window:
        """The index window that holds the lengths `low`..`high` (k, j, i), cut to the canvas."""
        steps = np.array([self.thickness, 1.0, 1.0])
        first = np.clip(np.floor(np.asarray(low) / steps), 0, self.shape).astype(int)
        last = np.clip(np.ceil(np.asarray(high) / steps) + 1, 0, self.shape).astype(int)
        return (slice(first[0], last[0]), slice(first[1], last[1]), slice(first[2], last[2]))

    def ellipsoid(self, centre: npt.ArrayLike, radii: npt.ArrayLike, *, rough: float, upright: bool = False) -> _Shape:
        """A bent, rough ellipsoid (or, one time in four, a rounded box); `upright` keeps its axes on k, j, i."""
        centre, radii = np.asarray(centre, np.float32), np.asarray(radii, np.float32)
        margin = (radii if upright else np.full(3, radii.max())) * (1 + 2 * rough) + 1.5 * self.warp_size + self._drift
        window = self.window(centre - margin, centre + margin)
        local = self._coordinates[(slice(None), *window)] - centre.reshape(3, 1, 1, 1)
        if not upright:
            local = np.tensordot(_random_rotation(self.rng), local, axes=1)
        local /= radii.reshape(3, 1, 1, 1)
        local *= local
        boxy = self.rng.random() < 0.25
        distance = np.sqrt(np.sqrt((local * local).sum(0))) if boxy else np.sqrt(local.sum(0))
        if rough > 0:
            noise = self._roughness[self.rng.integers(len(self._roughness))]
            distance += rough * noise[window]
        return _Shape(window, distance)

    def tube(self, points: npt.NDArray[np.float64], radii: npt.NDArray[np.float64]) -> _Shape:
        """Balls of `radii` (n,) along `points` (n, 3), as distance over radius, at most 2 outside."""
        reach = float(radii.max()) + 1
        window = self.window(points.min(0) - reach, points.max(0) + reach)
        origin = [part.start for part in window]
        distance = np.full([max(0, part.stop - part.start) for part in window], 2.0, np.float32)
        for point, radius in zip(points.astype(np.float32), radii, strict=True):
            part = self.window(point - radius, point + radius)
            if any(piece.stop <= piece.start for piece in part):
                continue
            squared = sum((self._axes[axis][_only(axis, part[axis])] - point[axis]) ** 2 for axis in range(3))
            here = tuple(slice(piece.start - start, piece.stop - start) for piece, start in zip(part, origin, strict=True))
            np.minimum(distance[here], np.asarray(squared) / np.float32(radius**2), out=distance[here])
        return _Shape(window, np.sqrt(distance))

    def regions(self, inside: int, count: int) -> None:
        """Divide the label `inside` into touching regions: the largest of `count` smooth fields wins."""
        cells = int(self.rng.integers(2, 6))
        flat = max(1, round(cells * self.extent[0] / self.extent[1]))
        fields = np.stack([smooth_field(self.rng, self.shape, (flat, cells, cells)) for _ in range(count)])
        winner, free = fields.argmax(0), self.label == inside
        for index in range(1, count):
            self._put(free & (winner == index), (slice(None),) * 3, inside, enclosed=False)

    def paint(self, shape: _Shape, *, size: float = 1.0, over: Sequence[int] | None = None) -> int:
        """Give the voxels with distance < size a new label, only over the labels `over` if given. 0: nothing was left."""
        inside = shape.distance < size
        current = self.label[shape.window]
        if over is not None:
            inside &= np.isin(current, over)
        if not inside.any():
            return 0
        covered = np.bincount(current[inside])
        parent = int(covered.argmax())
        return self._put(inside, shape.window, parent, enclosed=covered[parent] >= _ENCLOSED_SHARE * covered.sum())

    def _put(self, inside: npt.NDArray[np.bool_], window: Window, parent: int, *, enclosed: bool) -> int:
        if len(self.parent) > _MOST_LABELS or not inside.any():
            return 0
        self.label[window][inside] = len(self.parent)
        self.parent.append(parent)
        self.enclosed.append(bool(enclosed))
        return len(self.parent) - 1

    def nested(self) -> dict[int, tuple[int, ...]]:
        """label -> all labels that lie in it, and in those."""
        found: dict[int, tuple[int, ...]] = {}
        for label in range(len(self.parent) - 1, 0, -1):
            if self.enclosed[label] and self.parent[label]:
                found[self.parent[label]] = (*found.get(self.parent[label], ()), label, *found.get(label, ()))
        return found

    def place_in(self, labels: Sequence[int]) -> npt.NDArray[np.float64]:
        """A random point (3,) whose voxel carries one of `labels`; anywhere if none does."""
        for _ in range(40):
            index = self.rng.integers(self.shape)
            if self.label[tuple(index)] in labels:
                break
        point: npt.NDArray[np.float64] = index * np.array([self.thickness, 1.0, 1.0])
        return point


class _Shape:
    """Distance from an object's middle, 1 at its surface, inside one window of the canvas."""

    def __init__(self, window: Window, distance: FloatArray) -> None:
        self.window = window
        self.distance = distance


def _only(axis: int, part: slice) -> Window:
    whole = [slice(None)] * 3
    whole[axis] = part
    return (whole[0], whole[1], whole[2])


def _curve(
    rng: np.random.Generator, start: npt.ArrayLike, heading: npt.ArrayLike, length: float, bend: float
) -> npt.NDArray[np.float64]:
    """A smooth random path of points (n, 3), about one length unit apart; `bend` is its curvature per unit."""
    count = max(4, int(length))
    direction = np.asarray(heading, np.float64) / (np.linalg.norm(heading) + 1e-6)
    turn = np.stack([smooth_field(rng, (count,), (max(1, count // 15),)) for _ in range(3)], axis=1) * bend
    directions = direction + np.cumsum(turn, axis=0)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True) + 1e-6
    path: npt.NDArray[np.float64] = np.asarray(start, np.float64) + np.cumsum(directions, axis=0) * (length / count)
    return path


# --- scenes -----------------------------------------------------------------------------------------------------------


def _draw_body(canvas: _Canvas) -> list[int]:
    """An outline that runs through the slices, with a fat layer most of the time. Returns the labels to fill."""
    rng = canvas.rng
    centre = canvas.extent * rng.uniform(0.44, 0.56, 3)
    radii = canvas.extent * rng.uniform(0.33, 0.52, 3)
    radii[0] = canvas.extent[0] * (rng.uniform(0.5, 0.8) if rng.random() < 0.3 else 3.0)
    outline = canvas.ellipsoid(centre, radii, rough=rng.uniform(0, 0.06), upright=True)
    labels = [canvas.paint(outline)]
    for size in sorted(rng.uniform(0.72, 0.96, rng.integers(0, 3)))[::-1]:
        labels.append(canvas.paint(outline, size=float(size)))
    return [labels[-1]] if rng.random() < 0.7 else labels


def _draw_organs(canvas: _Canvas, room: Sequence[int], count: int, smallest: float, largest: float) -> None:
    """Ellipsoids in `room` that touch rather than overlap most of the time; some are hollow, some hold a smaller one."""
    rng = canvas.rng
    for _ in range(count):
        size = log_uniform(rng, smallest, largest) * canvas.scale
        radii = size * np.exp(rng.uniform(-0.5, 0.5, 3))
        shape = canvas.ellipsoid(canvas.place_in(room), radii, rough=rng.choice([0.0, 0.05, 0.12, 0.25]))
        organ = canvas.paint(shape, over=room if rng.random() < 0.75 else None)
        if organ and rng.random() < 0.3:  # wall and lumen, cortex and medulla
            canvas.paint(shape, size=rng.uniform(0.4, 0.88), over=[organ])
        if organ and rng.random() < 0.25:
            _draw_lesions(canvas, [organ], int(rng.integers(1, 4)), 0.5 * size)


def _draw_lesions(canvas: _Canvas, room: Sequence[int], count: int, largest: float) -> None:
    rng = canvas.rng
    for _ in range(count):
        size = log_uniform(rng, 1.5 * canvas.scale, max(2.0 * canvas.scale, largest))
        radii = size * np.exp(rng.uniform(-0.3, 0.3, 3))
        lesion = canvas.ellipsoid(canvas.place_in(room), radii, rough=rng.choice([0.05, 0.15, 0.3]))
        if canvas.paint(lesion) and rng.random() < 0.2:
            canvas.paint(lesion, size=rng.uniform(0.4, 0.75))


def _draw_vessels(canvas: _Canvas, room: Sequence[int], *, branches: int) -> None:
    """A trunk with branches under one label, or with a wall of its own."""
    rng = canvas.rng
    width = log_uniform(rng, 1.6, 8.0) * canvas.scale
    heading = rng.standard_normal(3) * (3.0 if rng.random() < 0.6 else 0.6, 1.0, 1.0)
    length = log_uniform(rng, 30.0, 130.0) * canvas.scale
    start = canvas.place_in(room) - heading / np.linalg.norm(heading) * length / 2
    paths, widths = (
        [_curve(rng, start, heading, length, rng.uniform(0.0, 0.15))],
        [np.linspace(width, width * rng.uniform(0.6, 1.1), 1)],
    )
    for _ in range(branches):
        origin = paths[0][rng.integers(len(paths[0]))]
        paths.append(_curve(rng, origin, rng.standard_normal(3) + heading / 2, length * rng.uniform(0.2, 0.6), 0.15))
        widths.append(np.full(1, max(1.2, width * rng.uniform(0.4, 0.8))))
    points = np.concatenate(paths)
    pulsing = 1 + 0.15 * smooth_field(rng, (len(points),), (max(1, len(points) // 12),))
    radii = np.concatenate([np.full(len(p), w[0]) for p, w in zip(paths, widths, strict=True)]) * np.clip(pulsing, 0.5, 1.5)
    shape = canvas.tube(points, radii)
    vessel = canvas.paint(shape)
    if vessel and rng.random() < 0.35:
        canvas.paint(shape, size=rng.uniform(0.5, 0.85), over=[vessel])


def _draw_bowel(canvas: _Canvas, room: Sequence[int]) -> None:
    """Loops: a wide tube that turns back on itself, with a wall and contents."""
    rng = canvas.rng
    width = log_uniform(rng, 4.0, 11.0) * canvas.scale
    points = _curve(rng, canvas.place_in(room), rng.standard_normal(3), 160 * canvas.scale, rng.uniform(0.15, 0.4))
    shape = canvas.tube(points, width * np.clip(1 + 0.2 * smooth_field(rng, (len(points),), (12,)), 0.5, 1.5))
    loop = canvas.paint(shape, over=room)
    if loop:
        canvas.paint(shape, size=rng.uniform(0.55, 0.85), over=[loop])


def _draw_spine(canvas: _Canvas) -> None:
    """A column along k behind the middle, a canal in it, and sometimes ribs as arcs."""
    rng = canvas.rng
    middle = canvas.extent * (0.5, rng.uniform(0.6, 0.8), rng.uniform(0.42, 0.58))
    width = rng.uniform(6, 12) * canvas.scale
    column = canvas.ellipsoid(middle, (canvas.extent[0] * 3, width, width * rng.uniform(0.9, 1.4)), rough=0.1, upright=True)
    canvas.paint(column)
    behind = middle + np.array([0, width * rng.uniform(0.6, 1.3), 0])
    canal = canvas.ellipsoid(behind, (canvas.extent[0] * 3, width / 2.2, width / 1.8), rough=0.02, upright=True)
    canvas.paint(canal)
    if rng.random() < 0.6:
        canvas.paint(canal, size=rng.uniform(0.45, 0.75))
    if rng.random() < 0.5:
        for height in np.arange(rng.uniform(0, 8), canvas.extent[0], rng.uniform(9, 18) * canvas.scale):
            angle = np.linspace(rng.uniform(-0.5, 0.3), rng.uniform(1.5, 3.0), 90) * rng.choice([-1, 1])
            across = canvas.extent[1:] * rng.uniform(0.34, 0.42)
            arc = np.stack(
                [
                    height - 12 * np.abs(angle) * canvas.scale,
                    middle[1] - across[0] * (1 - np.cos(angle)),
                    middle[2] + across[1] * np.sin(angle),
                ],
                1,
            )
            canvas.paint(canvas.tube(arc, np.full(len(arc), rng.uniform(1.6, 3.0) * canvas.scale)))


def _draw_head(canvas: _Canvas) -> list[int]:
    """Skin, skull, fluid, brain and ventricles as shells of one shape; lesions in the brain."""
    rng = canvas.rng
    centre = canvas.extent * rng.uniform(0.46, 0.54, 3)
    radii = canvas.extent * rng.uniform(0.36, 0.5, 3)
    radii[0] = max(radii[0], canvas.extent[1] * 0.4)
    shell = canvas.ellipsoid(centre, radii, rough=0.03, upright=True)
    labels = [
        canvas.paint(shell, size=float(size))
        for size in (1.0, rng.uniform(0.9, 0.96), rng.uniform(0.8, 0.88), rng.uniform(0.74, 0.79))
    ]
    brain = labels[-1]
    if rng.random() < 0.5:  # grey and white matter: a folded border
        fold = canvas.ellipsoid(centre, radii * 0.66, rough=0.2, upright=True)
        brain = canvas.paint(fold, over=[brain]) or brain
    for side in (-1, 1):
        offset = np.array([0, rng.uniform(-6, 6), side * rng.uniform(5, 9)]) * canvas.scale
        canvas.paint(
            canvas.ellipsoid(
                centre + offset, np.array([12, rng.uniform(8, 20), rng.uniform(2, 6)]) * canvas.scale, rough=0.1, upright=True
            )
        )
        nucleus = np.array([0, rng.uniform(-12, 12), side * rng.uniform(14, 22)]) * canvas.scale
        canvas.paint(canvas.ellipsoid(centre + nucleus, rng.uniform(4, 10, 3) * canvas.scale, rough=0.08))
    _draw_lesions(canvas, [brain], int(rng.integers(0, 6)), 9 * canvas.scale)
    return [brain]


def _draw_scene(canvas: _Canvas) -> None:
    rng = canvas.rng
    scene = rng.choice(["trunk", "head", "regions", "loose"], p=[0.45, 0.15, 0.2, 0.2])
    room = [0]
    if scene == "head":
        room = _draw_head(canvas)
    elif scene == "trunk" or rng.random() < 0.5:
        room = _draw_body(canvas)
    if scene == "regions":
        canvas.regions(room[-1], int(rng.integers(3, 8)))
        room = list(range(len(canvas.parent)))
    if scene == "trunk" and rng.random() < 0.6:
        _draw_spine(canvas)
    if scene in ("trunk", "loose"):
        _draw_organs(canvas, room, int(rng.integers(5, 18)), 4, 30)
        for _ in range(rng.integers(0, 3)):
            _draw_bowel(canvas, room)
    everywhere = list(range(1, len(canvas.parent))) or [0]
    for _ in range(rng.integers(0, 4)):
        _draw_vessels(canvas, everywhere, branches=int(rng.integers(0, 5)))
    _draw_lesions(canvas, everywhere, int(rng.integers(1, 6)), 10 * canvas.scale)


# --- patients ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SyntheticPatient:
    """Each label is one object (a few may be in pieces where others cover them); objects lie in, touch or cut each other."""

    image: FloatArray  # (k, j, i), 0..1
    label: LabelArray  # (k, j, i), 0 outside every object
    nested: Mapping[int, Sequence[int]]  # label -> the labels of the objects inside it


def synthetic_patient(rng: np.random.Generator, shape: tuple[int, int, int] = DEFAULT_SHAPE) -> SyntheticPatient:
    """A random patient of `shape` (k, j, i), seen by a random scanner."""
    _check_shape(shape)
    canvas = _Canvas(rng, shape)
    _draw_scene(canvas)
    count = len(canvas.parent)
    means = _nested_means(rng, canvas.parent)
    spreads = (rng.random(count) < 0.4) * rng.uniform(0.0, 0.08, count)
    textures = (rng.random(count) < 0.4) * rng.uniform(0.0, 0.08, count)
    spreads[0] = textures[0] = 0.0
    image = paint_tissue(rng, canvas.label, means, spreads.astype(np.float32), textures.astype(np.float32))
    return SyntheticPatient(scan(rng, image), canvas.label, canvas.nested())


def synthetic_volume(rng: np.random.Generator, shape: tuple[int, int, int] = DEFAULT_SHAPE) -> tuple[FloatArray, LabelArray]:
    """image (k, j, i) float32, 0..1, and label (k, j, i) uint8 of a `synthetic_patient`."""
    patient = synthetic_patient(rng, shape)
    return patient.image, patient.label


def _check_shape(shape: Sequence[int]) -> None:
    if len(shape) != 3 or any(size < smallest for size, smallest in zip(shape, _SMALLEST_SHAPE, strict=True)):
        raise TrainingError(f"A synthetic volume needs a shape (k, j, i) of at least {_SMALLEST_SHAPE}, but {tuple(shape)} came.")


def _nested_means(rng: np.random.Generator, parent: Sequence[int]) -> FloatArray:
    """A mean per label, 0..1: each stands out from what it lies in by 0.07 (barely visible) to 0.6."""
    means = np.zeros(len(parent), np.float32)
    means[0] = 0.0 if rng.random() < 0.75 else rng.uniform(0, 1)
    for label in range(1, len(parent)):
        base = means[parent[label]]
        step = log_uniform(rng, 0.07, 0.6) * rng.choice([-1, 1])
        if not 0.0 <= base + step <= 1.0:
            step = -step
        means[label] = np.clip(base + step, 0.0, 1.0)
    if len(parent) > 1 and means[0] == 0.0 and means[1] < 0.15:
        means[1] = rng.uniform(0.15, 0.7)
    return means
