"""The three deserts: relief, soil, plants and light of each, drawn anew for every scene within its bounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from perpixel.synthesis import desert_plants as plants
from perpixel.synthesis.desert_objects import litter, log, rock
from perpixel.synthesis.planting import Species
from perpixel.synthesis.plants import Levels
from perpixel.synthesis.terrain import Relief

Rng = np.random.Generator

CLASS_ID = {
    "Trees": 100,
    "Lush Bushes": 200,
    "Dry Grass": 300,
    "Dry Bushes": 500,
    "Ground Clutter": 550,
    "Flowers": 600,
    "Logs": 700,
    "Rocks": 800,
    "Landscape": 7100,
    "Sky": 10000,
}
"""Raw label value of each class."""


@dataclass(frozen=True)
class Place:
    """A desert. Colours are linear reflectances.

    Attributes:
        soil, stone: two colours between which the ground, and steep rock, change. bare: how much of it steep ground
            shows. cover, cover_color: share and colour of plants too far away to be drawn one by one.
        mesas: least and largest number of table mountains. pebbles: in a tile of the soil's texture.
        sun: least and largest elevation in degrees. visibility_km: least and largest. dust: 0 blue haze to 1 sand.
        species: what stands there, solid things first.
    """

    relief: Relief
    soil: tuple[ArrayLike, ArrayLike]
    wash_color: ArrayLike
    stone: tuple[ArrayLike, ArrayLike]
    bare: float
    cover: float
    cover_color: ArrayLike
    mesas: tuple[int, int]
    pebbles: int
    sun: tuple[float, float]
    turbidity: tuple[float, float]
    visibility_km: tuple[float, float]
    dust: float
    albedo: float
    species: tuple[Species, ...]


def _some(make: Callable[[], Levels], count: int) -> tuple[Levels, ...]:
    return tuple(make() for _ in range(count))


def _tree(prototypes: tuple[Levels, ...], density: float, size: float, *, clump: tuple[float, float]) -> Species:
    return Species(
        CLASS_ID["Trees"],
        prototypes,
        (260, 140, 70, 36, 14, 0),
        size,
        0.35 * size,
        density,
        700.0,
        clump,
        scale=(0.55, 1.3),
        sink=0.05,
        solid=0.15,
        tint=0.12,
        bed=0.1,
    )


def _bush(
    name: str, prototypes: tuple[Levels, ...], density: float, size: float, clump: tuple[float, float]
) -> Species:
    return Species(
        CLASS_ID[name],
        prototypes,
        (140, 70, 30, 12, 0),
        size,
        0.5 * size,
        density,
        420.0,
        clump,
        scale=(0.45, 1.45),
        skew=1.4,
        sink=0.04,
        tint=0.14,
    )


def _grass(prototypes: tuple[Levels, ...], density: float, size: float, clump: tuple[float, float]) -> Species:
    return Species(
        CLASS_ID["Dry Grass"],
        prototypes,
        (58, 27, 11, 0),
        size,
        0.4 * size,
        density,
        150.0,
        clump,
        scale=(0.45, 1.35),
        aligned=True,
        sink=0.02,
        tint=0.12,
    )


def _rocks(prototypes: tuple[Levels, ...], small: float, large: float, biggest: float, bed: float) -> list[Species]:
    boulders = Species(
        CLASS_ID["Rocks"],
        prototypes,
        (170, 60, 20, 7, 0),
        2.0,
        1.0,
        large,
        420.0,
        (55.0, 0.42),
        scale=(0.35, biggest),
        skew=3.5,
        sink=0.16,
        tilt=0.15,
        solid=0.8,
        bed=bed,
    )
    stones = replace(boulders, density=small, scale=(0.07, 0.34), reach=110.0, clump=(9.0, 0.45), solid=0.0, skew=2.0)
    return [boulders, stones]


def _logs(rng: Rng, density: float) -> Species:
    return Species(
        CLASS_ID["Logs"],
        _some(lambda: log(rng), 4),
        (100, 45, 18, 0),
        2.6,
        1.3,
        density,
        160.0,
        (40.0, 0.6),
        scale=(0.6, 1.35),
        aligned=True,
        sink=-0.07,
        tilt=0.03,
        solid=0.15,
        bed=1.0,
    )


def _litter(rng: Rng, stones: list[ArrayLike], density: float, *, twigs: int, bed: float) -> Species:
    def make() -> Levels:
        return litter(rng, stones, pebbles=int(rng.integers(14, 34)), twigs=twigs, leafs=26)

    return Species(
        CLASS_ID["Ground Clutter"],
        _some(make, 5),
        (150, 70, 30, 0),
        0.9,
        0.5,
        density,
        55.0,
        (7.0, 0.5),
        scale=(0.6, 1.4),
        aligned=True,
        sink=0.0,
        tilt=0.0,
        bed=bed,
    )


def _flowers(rng: Rng, kinds: list[str], density: float, clump: tuple[float, float], height: float) -> list[Species]:
    species = []
    for kind in kinds:
        prototypes = tuple(plants.flowers(rng, kind, height=height) for _ in range(3))
        species.append(
            Species(
                CLASS_ID["Flowers"],
                prototypes,
                (110, 45, 16, 0),
                0.5,
                0.3,
                density,
                150.0,
                clump,
                scale=(0.5, 1.3),
                sink=0.0,
                tint=0.08,
            )
        )
    return species


def _near(rng: Rng, color: ArrayLike, spread: float = 0.1) -> ArrayLike:
    """A colour close to another: no two scenes have quite the same soil."""
    base = np.asarray(color) * rng.normal(1.0, spread) * rng.normal(1.0, spread / 3, 3)
    return tuple(float(value) for value in np.clip(base, 0.02, 0.8))


def tan_plain(rng: Rng) -> Place:
    """Place A: a sandy plain, dry grass and dry bushes, scattered rocks, joshua trees, high sun."""
    stones: list[ArrayLike] = [(0.27, 0.21, 0.155), (0.36, 0.30, 0.23), (0.16, 0.13, 0.105), (0.30, 0.20, 0.14)]
    dune = float(rng.choice([0.0, 0.0, 3.5]))
    relief = Relief(
        swells=((160.0, 2.4), (38.0, 0.7), (6.0, 0.14), (1.3, 0.045), (0.35, 0.018)),
        far=(float(rng.uniform(1100, 1900)), float(rng.uniform(180, 420))),
        dunes=(75.0, dune),
    )
    rocks = _some(lambda: rock(rng, stones, facets=int(rng.integers(9, 22)), layered=0.25, flat=0.85), 5)
    creosote = _some(lambda: plants.lush_bush(rng, greens=plants.CREOSOTE_GREENS, leaf=0.035, dense=2600), 3)
    species = [
        *_rocks(rocks, 0.5, float(rng.uniform(0.003, 0.014)), 1.9, 1.0),
        _tree(_some(lambda: plants.joshua_tree(rng), 4), float(rng.uniform(0.0002, 0.0011)), 4.5, clump=(180.0, 0.6)),
        _logs(rng, 0.0014),
        _bush("Lush Bushes", creosote, float(rng.uniform(0.004, 0.014)), 1.2, (60.0, 0.55)),
        _bush("Dry Bushes", _some(lambda: plants.dry_bush(rng), 4), float(rng.uniform(0.03, 0.10)), 0.9, (35.0, 0.6)),
        _grass(_some(lambda: plants.dry_grass(rng), 5), float(rng.uniform(1.5, 5.0)), 0.45, (22.0, 0.5)),
        *_flowers(rng, [str(rng.choice(["yellow", "white"]))], 0.12, (26.0, 0.34), 0.28),
        _litter(rng, stones, 0.6, twigs=8, bed=1.0),
    ]
    return Place(
        relief=relief,
        soil=(_near(rng, (0.40, 0.285, 0.175)), _near(rng, (0.52, 0.40, 0.27))),
        wash_color=(0.5, 0.4, 0.3),
        stone=((0.30, 0.235, 0.18), (0.21, 0.165, 0.135)),
        bare=0.8,
        cover=0.55,
        cover_color=(0.20, 0.17, 0.095),
        mesas=(0, 0),
        pebbles=2200,
        sun=(32.0, 75.0),
        turbidity=(2.2, 3.6),
        visibility_km=(18.0, 60.0),
        dust=0.12,
        albedo=0.35,
        species=tuple(species),
    )


def red_mesas(rng: Rng) -> Place:
    """Place B: red soil and banded rock under mesas, junipers, fallen logs, flowers after rain."""
    stones: list[ArrayLike] = [(0.42, 0.18, 0.09), (0.50, 0.27, 0.155), (0.30, 0.115, 0.06), (0.56, 0.38, 0.26)]
    relief = Relief(
        swells=((190.0, 6.0), (45.0, 1.3), (8.0, 0.25), (1.5, 0.06), (0.35, 0.02)),
        hills=(420.0, 26.0),
        hills_from=(90.0, 600.0),
        far=(1700.0, float(rng.uniform(120, 260))),
    )
    slabs = _some(lambda: rock(rng, stones, facets=int(rng.integers(7, 14)), layered=1.0, flat=0.6), 6)
    sage = _some(lambda: plants.lush_bush(rng, greens=plants.SAGE_GREENS, leaf=0.05, dense=3400), 3)
    bush = _some(lambda: plants.dry_bush(rng, color=(0.23, 0.165, 0.125), leafy=0.5), 3)
    blossoms = [str(kind) for kind in rng.choice(["purple", "orange", "magenta", "yellow"], 2, replace=False)]
    species = [
        *_rocks(slabs, 0.7, float(rng.uniform(0.008, 0.024)), 3.0, 1.0),
        _tree(_some(lambda: plants.juniper(rng), 4), float(rng.uniform(0.0012, 0.005)), 3.8, clump=(90.0, 0.55)),
        _logs(rng, 0.0040),
        _bush("Lush Bushes", sage, float(rng.uniform(0.015, 0.045)), 1.1, (40.0, 0.5)),
        _bush("Dry Bushes", bush, float(rng.uniform(0.012, 0.04)), 0.9, (30.0, 0.5)),
        _grass(_some(lambda: plants.dry_grass(rng, height=0.32), 5), float(rng.uniform(0.8, 3.0)), 0.38, (20.0, 0.45)),
        *_flowers(rng, blossoms, 0.16, (22.0, 0.36), 0.34),
        _litter(rng, stones, 0.7, twigs=10, bed=1.0),
    ]
    return Place(
        relief=relief,
        soil=(_near(rng, (0.36, 0.155, 0.080)), _near(rng, (0.45, 0.235, 0.135))),
        wash_color=(0.5, 0.3, 0.2),
        stone=((0.40, 0.165, 0.085), (0.52, 0.31, 0.19)),
        bare=1.0,
        cover=0.5,
        cover_color=(0.14, 0.13, 0.07),
        mesas=(3, 8),
        pebbles=1500,
        sun=(18.0, 60.0),
        turbidity=(2.0, 3.5),
        visibility_km=(25.0, 80.0),
        dust=0.05,
        albedo=0.28,
        species=tuple(species),
    )


def pale_wash(rng: Rng) -> Place:
    """Place C: a stony pale wash between greenish hills, full bushes and trees, low sun in dusty air."""
    stones: list[ArrayLike] = [(0.42, 0.385, 0.33), (0.30, 0.275, 0.245), (0.55, 0.51, 0.45), (0.19, 0.17, 0.155)]
    relief = Relief(
        swells=((110.0, 5.0), (30.0, 1.1), (6.0, 0.2), (1.2, 0.055), (0.3, 0.022)),
        hills=(float(rng.uniform(300, 520)), float(rng.uniform(45, 95))),
        hills_from=(35.0, 420.0),
        far=(1400.0, float(rng.uniform(150, 380))),
        wash=float(rng.uniform(0.5, 1.1)),
        wash_width=float(rng.uniform(3.5, 8.0)),
    )
    rocks = _some(lambda: rock(rng, stones, facets=int(rng.integers(16, 40)), layered=0.15, flat=0.8), 6)
    lush = _some(lambda: plants.lush_bush(rng), 3) + _some(lambda: plants.lush_bush(rng, leaf=0.09, dense=3000), 2)
    trees = _some(lambda: plants.mesquite(rng), 2)
    trees += _some(lambda: plants.broadleaf(rng), 2) if rng.uniform() < 0.5 else _some(lambda: plants.palm(rng), 2)
    bush = _some(lambda: plants.dry_bush(rng, color=(0.33, 0.29, 0.235), leafy=0.4), 3)
    blossoms = [str(rng.choice(["yellow", "white", "purple"]))]
    species = [
        *_rocks(rocks, 0.9, float(rng.uniform(0.008, 0.022)), 1.6, 2.5),
        _tree(trees, float(rng.uniform(0.0012, 0.0045)), 4.6, clump=(70.0, 0.5)),
        _logs(rng, 0.0036),
        _bush("Lush Bushes", lush, float(rng.uniform(0.03, 0.08)), 1.2, (30.0, 0.55)),
        _bush("Dry Bushes", bush, float(rng.uniform(0.012, 0.045)), 0.9, (26.0, 0.5)),
        _grass(_some(lambda: plants.dry_grass(rng, height=0.5), 4), float(rng.uniform(0.6, 2.6)), 0.5, (14.0, 0.45)),
        *_flowers(rng, blossoms, 0.14, (20.0, 0.34), 0.36),
        _litter(rng, stones, 0.7, twigs=8, bed=1.0),
    ]
    return Place(
        relief=relief,
        soil=(_near(rng, (0.36, 0.305, 0.225)), _near(rng, (0.46, 0.415, 0.335))),
        wash_color=_near(rng, (0.56, 0.52, 0.45)),
        stone=((0.40, 0.37, 0.32), (0.30, 0.275, 0.24)),
        bare=0.6,
        cover=0.85,
        cover_color=(0.135, 0.15, 0.06),
        mesas=(0, 0),
        pebbles=4200,
        sun=(8.0, 38.0),
        turbidity=(3.0, 5.0),
        visibility_km=(8.0, 30.0),
        dust=0.25,
        albedo=0.35,
        species=tuple(species),
    )


PLACES: dict[str, Callable[[Rng], Place]] = {"A": tan_plain, "B": red_mesas, "C": pale_wash}
