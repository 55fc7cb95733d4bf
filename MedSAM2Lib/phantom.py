"""A synthetic patient with known truth: an abdomen as a CT in the portal venous phase shows it.

It exists so that the demonstration and the self-test run offline. Its shapes are put together from what anatomy books
say of sizes and places, independently of the volumes that train the bundled model (`training.synthetic`), and were not
changed to please it. Noise, partial volume and soft-tissue contrasts are of a CT's order; it is far easier than a
real scan all the same, and a Dice on it says that the software works, not how well it does on patients.

Space: LPS mm around the middle of the trunk, x to the patient's left, y to the back, z to the head.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from MedSAM2Lib.geometry import Geometry
from MedSAM2Lib.volume import Volume

__all__ = ["Phantom", "make_phantom"]

_Array = npt.NDArray[np.float32]
_Bool = npt.NDArray[np.bool_]
_Inside = Callable[[_Array, _Array, _Array], _Bool]  # whether points x, y, z (mm) lie in something
_Point = tuple[float, float, float]

_SHAPE_KJI = (64, 128, 128)
_SPACING_IJK = (2.9, 2.9, 4.0)
_SUBSAMPLES = 2  # per voxel and axis: each voxel is the mean of eight points
_NOISE_HU = 14.0
# CT numbers, HU, portal venous phase. Orders of magnitude from radiology textbooks; each patient varies by a few percent.
_HU = {
    "air": -1000.0,
    "fat": -100.0,
    "muscle": 55.0,
    "lung": -830.0,
    "heart": 130.0,
    "bowel": 35.0,
    "bowel gas": -850.0,
    "stomach": 15.0,
    "stomach wall": 75.0,
    "stomach gas": -850.0,
    "liver": 110.0,
    "liver vessels": 165.0,
    "tumour": 60.0,
    "gallbladder": 8.0,
    "spleen": 120.0,
    "kidney cortex": 190.0,
    "kidney medulla": 150.0,
    "aorta": 170.0,
    "vena cava": 150.0,
    "rib": 420.0,
    "vertebra": 210.0,
    "vertebra shell": 480.0,
    "disc": 85.0,
    "spinal canal": 20.0,
}
_TISSUES = tuple(_HU)
# What a person would call a structure: the tissues it is made of.
_STRUCTURES = {
    "liver": ("liver", "liver vessels", "tumour"),
    "tumour": ("tumour",),
    "spleen": ("spleen",),
    "left kidney": ("kidney cortex", "kidney medulla"),
    "right kidney": ("kidney cortex", "kidney medulla"),
    "stomach": ("stomach", "stomach wall", "stomach gas"),
    "aorta": ("aorta",),
    "vena cava": ("vena cava",),
}


@dataclass(frozen=True)
class _Shape:
    """A part of space, and a box (mm, from `low` to `high`) outside of which it surely is not."""

    inside: _Inside
    low: _Point = (-math.inf, -math.inf, -math.inf)
    high: _Point = (math.inf, math.inf, math.inf)


@dataclass(frozen=True)
class Phantom:
    """The image, and the truth as (k, j, i) bool by name of structure."""

    volume: Volume
    structures: dict[str, _Bool] = field(repr=False)


def make_phantom(seed: int = 0) -> Phantom:
    """The patient of a number: same number, same patient. Sizes, places and contrasts differ between numbers.

    64 x 128 x 128 voxels (k, j, i) of 4 x 2.9 x 2.9 mm, int16 HU, axial, LPS.
    """
    generator = np.random.default_rng(seed)
    painted = _painted_anatomy(generator)
    bend = _Bend.drawn(generator)
    values = np.asarray([_HU[name] * (generator.uniform(0.95, 1.05)) for name in _TISSUES], dtype=np.float32)
    image = np.empty(_SHAPE_KJI, dtype=np.float32)
    truth = {name: np.empty(_SHAPE_KJI, dtype=bool) for name in _STRUCTURES}
    for k in range(_SHAPE_KJI[0]):
        x, tissue = _tissue_at_slice(k, painted, bend)
        image[k] = _mean_of_subsamples(values[tissue])
        for name, parts in _STRUCTURES.items():
            there = np.isin(tissue, [_TISSUES.index(part) for part in parts])
            if name.endswith("kidney"):
                there &= (x > 0) == name.startswith("left")
            truth[name][k] = _mean_of_subsamples(there.astype(np.float32)) > 0.5
    image = _blurred_in_plane(image) + _NOISE_HU * _correlated_noise(generator)
    geometry = Geometry(
        _SHAPE_KJI,
        _SPACING_IJK,
        origin=(-0.5 * 127 * _SPACING_IJK[0], -0.5 * 127 * _SPACING_IJK[1], -0.5 * 63 * _SPACING_IJK[2]),
    )
    array = np.clip(np.round(image), -1024, 3071).astype(np.int16)
    return Phantom(Volume(array, geometry, modality="CT", source=f"phantom {seed}"), truth)


# ── sampling ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _tissue_at_slice(k: int, painted: list[tuple[str, _Shape]], bend: _Bend) -> tuple[_Array, npt.NDArray[np.uint8]]:
    """x (mm) and the index of the tissue at every sample point of a slice, (2, 256, 256) both."""
    places = [_sample_places(count, spacing) for count, spacing in zip(_SHAPE_KJI, reversed(_SPACING_IJK), strict=True)]
    places[0] = places[0][_SUBSAMPLES * k : _SUBSAMPLES * (k + 1)]
    z, y, x = np.meshgrid(*places, indexing="ij")
    bent_x, bent_y, bent_z = bend.apply(x, y, z)
    tissue = np.zeros(x.shape, dtype=np.uint8)
    for name, shape in painted:
        where = tuple(
            _between(along, low - bend.reach, high + bend.reach)
            for along, low, high in zip(places, reversed(shape.low), reversed(shape.high), strict=True)
        )
        # Only where the shape can be: most are small.
        tissue[where][shape.inside(bent_x[where], bent_y[where], bent_z[where])] = _TISSUES.index(name)
    return x, tissue


def _between(places: _Array, low: float, high: float) -> slice:
    first, last = np.searchsorted(places, (low, high))
    return slice(int(first), int(last))


def _sample_places(count: int, spacing: float) -> _Array:
    """mm from the middle, `_SUBSAMPLES` evenly within each voxel."""
    places = (np.arange(count * _SUBSAMPLES) + 0.5) / _SUBSAMPLES - count / 2
    return (places * spacing).astype(np.float32)


def _mean_of_subsamples(samples: _Array) -> _Array:
    """(2, rows * 2, columns * 2) to (rows, columns)."""
    depth, rows, columns = samples.shape
    cells = samples.reshape(depth, rows // _SUBSAMPLES, _SUBSAMPLES, columns // _SUBSAMPLES, _SUBSAMPLES)
    mean: _Array = cells.mean(axis=(0, 2, 4))
    return mean


def _blurred_in_plane(image: _Array) -> _Array:
    """A scanner's point spread, about a voxel wide: 1-4-1 along rows and columns."""
    for axis in (1, 2):
        padded = np.pad(image, [(1, 1) if one == axis else (0, 0) for one in range(3)], mode="edge")
        before, here, after = (np.take(padded, np.arange(image.shape[axis]) + step, axis=axis) for step in (0, 1, 2))
        image = ((before + 4 * here + after) / 6).astype(np.float32)
    return image


def _correlated_noise(generator: np.random.Generator) -> _Array:
    """Unit variance; neighbouring pixels resemble each other, as a reconstruction kernel makes them."""
    noise = _blurred_in_plane(generator.standard_normal(_SHAPE_KJI, dtype=np.float32))
    scaled: _Array = noise / noise.std()
    return scaled


@dataclass(frozen=True)
class _Bend:
    """A smooth displacement of a few mm, so that nothing is a perfect ellipsoid: a sum of sine waves."""

    waves: npt.NDArray[np.float32]  # (waves, 3) radians per mm
    phases: npt.NDArray[np.float32]  # (waves, 3) per displaced axis
    heights: npt.NDArray[np.float32]  # (waves, 3) mm

    @property
    def reach(self) -> float:
        """mm that a point is displaced at most, along each axis."""
        return float(np.abs(self.heights).sum(axis=0).max())

    @classmethod
    def drawn(cls, generator: np.random.Generator) -> _Bend:
        lengths = np.asarray([160.0, 110.0, 75.0, 55.0, 40.0])  # mm
        directions = generator.standard_normal((len(lengths), 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        waves = 2 * np.pi * directions / lengths[:, None]
        heights = generator.uniform(-0.03, 0.03, (len(lengths), 3)) * lengths[:, None]
        return cls(
            waves.astype(np.float32),
            generator.uniform(0, 2 * np.pi, (len(lengths), 3)).astype(np.float32),
            heights.astype(np.float32),
        )

    def apply(self, x: _Array, y: _Array, z: _Array) -> tuple[_Array, _Array, _Array]:
        bent = [x.copy(), y.copy(), z.copy()]
        for wave, phase, height in zip(self.waves, self.phases, self.heights, strict=True):
            angle = wave[0] * x + wave[1] * y + wave[2] * z
            for axis in range(3):
                bent[axis] += height[axis] * np.sin(angle + phase[axis])
        return bent[0], bent[1], bent[2]


# ── anatomy ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _painted_anatomy(generator: np.random.Generator) -> list[tuple[str, _Shape]]:
    """Tissues and their shapes in the order of painting: a later one covers an earlier one."""

    def about(value: float, share: float = 0.08) -> float:
        return float(value * generator.uniform(1 - share, 1 + share))

    def near(x: float, y: float, z: float, by: float = 4.0) -> tuple[float, float, float]:
        dx, dy, dz = generator.uniform(-by, by, 3)
        return x + dx, y + dy, z + dz

    width, depth = about(158), about(112)
    fat = about(14, 0.3)
    trunk = _tube(0, 0, width, depth)
    wall = _tube(0, 2, width - fat, depth - fat)
    wide, deep = width - fat - 20, depth - fat - 22
    cavity = _tube(0, -6, wide, deep)
    top, drop = about(98, 0.04), about(72)  # of the diaphragm's dome, and how much lower it begins at the wall

    def above_the_diaphragm(x: _Array, y: _Array, z: _Array) -> _Bool:
        above: _Bool = z > top - drop * ((x / wide) ** 2 + ((y + 6) / deep) ** 2) ** 2
        return above

    chest = _both(cavity, _where(above_the_diaphragm))
    belly = _both(cavity, _where(lambda x, y, z: ~above_the_diaphragm(x, y, z)))
    spine = (0.0, about(52, 0.05))

    painted: list[tuple[str, _Shape]] = [("fat", trunk), ("muscle", wall), ("fat", cavity)]
    painted += [("lung", chest), ("heart", _both(_ellipsoid(near(22, -30, 118), (52, 42, 44)), chest))]
    painted += _ribs(wall, width - fat, depth - fat)
    painted += _muscles_of_the_back(spine)
    painted += _bowel(generator, belly)
    painted += _stomach(belly, near)
    painted += _liver(generator, belly, near, about)
    painted += _spleen(belly, near, about)
    painted += _kidneys(near, about)
    painted += _vessels_and_spine(spine, about)
    return painted


def _ribs(wall: _Shape, width: float, depth: float) -> list[tuple[str, _Shape]]:
    """Rings in the chest wall that slope down towards the front, cut between their spaces."""
    ring = _both(_tube(0, 2, width - 4, depth - 4), _not(_tube(0, 2, width - 12, depth - 12)))

    def in_a_rib(x: _Array, y: _Array, z: _Array) -> _Bool:
        height = z - 0.35 * y
        inside: _Bool = (np.mod(height, 27.0) < 10.0) & (z > -10) & ((y > -60) | (z > 70))
        return inside

    return [("rib", _both(_both(ring, _where(in_a_rib)), wall))]


def _muscles_of_the_back(spine: tuple[float, float]) -> list[tuple[str, _Shape]]:
    x, y = spine
    both_sides = [
        shape
        for side in (-1, 1)
        for shape in (
            _tube(x + side * 30, y + 32, 26, 17),  # erector spinae
            _both(_tube(x + side * 38, y + 4, 17, 19), _where(lambda x, y, z: z < -20)),  # psoas
        )
    ]
    return [("muscle", shape) for shape in both_sides]


def _bowel(generator: np.random.Generator, room: _Shape) -> list[tuple[str, _Shape]]:
    """Loops in the front of the belly, some with gas."""
    loops: list[tuple[str, _Shape]] = []
    for _ in range(22):
        centre = (generator.uniform(-95, 95), generator.uniform(-75, 5), generator.uniform(-125, 0))
        radii = generator.uniform(12, 22, 3)
        loops.append(("bowel", _both(_ellipsoid(centre, (radii[0], radii[1], radii[2])), room)))
        if generator.uniform() < 0.35:
            x, y, z = centre
            loops.append(("bowel gas", _both(_ellipsoid((x, y - 4, z), (0.6 * radii[0], 0.5 * radii[1], 0.6 * radii[2])), room)))
    return loops


_Near = Callable[..., tuple[float, float, float]]
_About = Callable[..., float]


def _stomach(room: _Shape, near: _Near) -> list[tuple[str, _Shape]]:
    """Filled with water, gas in front: the patient lies on the back."""
    x, y, z = near(52, -28, 30)
    wall = _both(_either(_ellipsoid((x, y, z), (42, 34, 44)), _ellipsoid((x - 42, y - 16, z - 34), (46, 24, 24))), room)
    lumen = _both(_either(_ellipsoid((x, y, z), (37, 29, 39)), _ellipsoid((x - 42, y - 16, z - 34), (41, 19, 19))), wall)
    return [("stomach wall", wall), ("stomach", lumen), ("stomach gas", _both(lumen, _where(lambda px, py, pz: py < y - 18)))]


def _liver(generator: np.random.Generator, room: _Shape, near: _Near, about: _About) -> list[tuple[str, _Shape]]:
    """A wedge: a large right lobe, a left lobe that thins out in front of the stomach; vessels, a tumour, the gallbladder."""
    x, y, z = near(-72, -4, 34)
    right = _ellipsoid((x, y, z), (about(68), about(80), about(88)))
    left = _ellipsoid((x + 62, y - 46, z + 14), (about(64), about(34), about(46)))

    def above_the_slanting_edge(px: _Array, py: _Array, pz: _Array) -> _Bool:
        edge: _Bool = pz > -62 + 0.42 * (px - x) - 0.12 * py
        return edge

    liver = _both(_both(_either(right, left), _where(above_the_slanting_edge)), room)
    trees = [
        _capsule((x + 50, y + 6, z - 12), (x + 8, y, z + 4), 7.0),
        _capsule((x + 8, y, z + 4), (x - 26, y - 22, z + 22), 4.5),
        _capsule((x + 8, y, z + 4), (x - 28, y + 26, z - 8), 4.5),
        _capsule((x + 26, y + 14, z + 52), (x - 22, y - 6, z + 36), 4.0),
    ]
    side = generator.uniform(-14, 14, 3)
    tumour = _either(
        _ellipsoid((x - 14 + side[0], y - 28 + side[1], z + side[2]), (about(19), about(16), about(18))),
        _ellipsoid((x - 6 + side[0], y - 20 + side[1], z + 8 + side[2]), (about(12), about(13), about(11))),
    )
    gallbladder = _ellipsoid((x + 34, y - 42, z - 52), (13, 21, 19))
    return [
        ("liver", liver),
        *(("liver vessels", _both(tree, liver)) for tree in trees),
        ("tumour", _both(tumour, liver)),
        ("gallbladder", gallbladder),
    ]


def _spleen(room: _Shape, near: _Near, about: _About) -> list[tuple[str, _Shape]]:
    """A crescent along the left flank: an ellipsoid without the hollow that faces the stomach."""
    x, y, z = near(92, 28, 34)
    hollow = _ellipsoid((x - 38, y - 20, z), (36, 44, 60))
    return [("spleen", _both(_both(_ellipsoid((x, y, z), (about(32), about(50), about(52))), _not(hollow)), room))]


def _kidneys(near: _Near, about: _About) -> list[tuple[str, _Shape]]:
    """Beans: an ellipsoid with a notch towards the spine, medullary pyramids inside. The right one lies lower."""
    painted: list[tuple[str, _Shape]] = []
    for side, height in ((1, -32.0), (-1, -46.0)):
        x, y, z = near(side * 62, 42, height)
        long = about(54)
        bean = _both(
            _ellipsoid((x, y, z), (about(27), about(27), long)), _not(_ellipsoid((x - side * 27, y - 6, z), (14, 13, 15)))
        )
        core = _both(
            _ellipsoid((x - side * 3, y - 1, z), (16, 16, long - 14)), _not(_ellipsoid((x - side * 20, y - 5, z), (17, 15, 22)))
        )
        painted += [
            ("kidney cortex", bean),
            ("kidney medulla", _both(core, bean)),
            ("fat", _ellipsoid((x - side * 14, y - 4, z), (8, 8, 13))),
        ]
    return painted


def _vessels_and_spine(spine: tuple[float, float], about: _About) -> list[tuple[str, _Shape]]:
    x, y = spine
    aorta, cava = about(11.5), about(12.5)
    vertebra, canal = _tube(x, y, 24, 19), _tube(x, y + 27, 11, 9)
    period, disc = 36.0, 8.0
    arch = _either(_tube(x, y + 30, 19, 15), _tube(x, y + 48, 5, 18))
    processes = _either(
        _both(_tube(x, y + 20, 44, 6), _where(lambda px, py, pz: np.mod(pz, period) > 20)),
        _both(arch, _where(lambda px, py, pz: np.mod(pz, period) > 6)),
    )

    return [
        ("vena cava", _curved_tube(lambda z: (-27 + 0.04 * z, y - 22 - 0.05 * z), cava)),
        ("vertebra", processes),
        ("vertebra shell", vertebra),
        ("vertebra", _tube(x, y, 21.5, 16.5)),
        ("disc", _both(vertebra, _where(lambda px, py, pz: np.mod(pz, period) < disc))),
        ("spinal canal", canal),
        ("aorta", _curved_tube(lambda z: (12 + 6 * np.sin(z / 60), y - 25 - 4 * np.sin(z / 45)), aorta)),
    ]


# ── shapes ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _ellipsoid(centre: _Point, radii: _Point) -> _Shape:
    (cx, cy, cz), (rx, ry, rz) = centre, radii
    return _Shape(
        lambda x, y, z: ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 + ((z - cz) / rz) ** 2 < 1,
        (cx - rx, cy - ry, cz - rz),
        (cx + rx, cy + ry, cz + rz),
    )


def _tube(cx: float, cy: float, rx: float, ry: float) -> _Shape:
    """Along z; a superellipse, as a trunk is flatter in front and behind than an ellipse."""
    return _Shape(
        lambda x, y, z: np.abs((x - cx) / rx) ** 2.5 + np.abs((y - cy) / ry) ** 2.5 < 1,
        (cx - rx, cy - ry, -math.inf),
        (cx + rx, cy + ry, math.inf),
    )


def _curved_tube(middle: Callable[[_Array], tuple[npt.NDArray[Any], npt.NDArray[Any]]], radius: float) -> _Shape:
    """Round, along z; `middle` gives its x and y at a height."""

    def inside(x: _Array, y: _Array, z: _Array) -> _Bool:
        cx, cy = middle(z)
        there: _Bool = (x - cx) ** 2 + (y - cy) ** 2 < radius**2
        return there

    return _Shape(inside)


def _capsule(start: _Point, end: _Point, radius: float) -> _Shape:
    """All points nearer than `radius` to the line from start to end."""
    dx, dy, dz = (b - a for a, b in zip(start, end, strict=True))
    squared = dx * dx + dy * dy + dz * dz

    def inside(x: _Array, y: _Array, z: _Array) -> _Bool:
        px, py, pz = x - start[0], y - start[1], z - start[2]
        along = np.clip((px * dx + py * dy + pz * dz) / squared, 0, 1)
        there: _Bool = (px - along * dx) ** 2 + (py - along * dy) ** 2 + (pz - along * dz) ** 2 < radius**2
        return there

    low = _pointwise(min, start, end)
    high = _pointwise(max, start, end)
    return _Shape(
        inside, (low[0] - radius, low[1] - radius, low[2] - radius), (high[0] + radius, high[1] + radius, high[2] + radius)
    )


def _both(one: _Shape, other: _Shape) -> _Shape:
    return _Shape(
        lambda x, y, z: one.inside(x, y, z) & other.inside(x, y, z),
        _pointwise(max, one.low, other.low),
        _pointwise(min, one.high, other.high),
    )


def _either(one: _Shape, other: _Shape) -> _Shape:
    return _Shape(
        lambda x, y, z: one.inside(x, y, z) | other.inside(x, y, z),
        _pointwise(min, one.low, other.low),
        _pointwise(max, one.high, other.high),
    )


def _not(shape: _Shape) -> _Shape:
    return _Shape(lambda x, y, z: ~shape.inside(x, y, z))


def _where(inside: _Inside) -> _Shape:
    """Any condition, anywhere."""
    return _Shape(inside)


def _pointwise(choose: Callable[[float, float], float], one: _Point, other: _Point) -> _Point:
    x, y, z = (choose(a, b) for a, b in zip(one, other, strict=True))
    return x, y, z
