"""What things are made of: some forty finishes with procedural textures, the same in every scene."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perpixel.synthesis.noise import smoothstep, tile_noise
from perpixel.synthesis.parts import Floats
from perpixel.synthesis.scene import Color, Material

__all__ = ["Finish", "finishes"]

_SIZE = 256  # texels of a texture's side
_WHITE: tuple[Color, ...] = ((1.0, 1.0, 1.0),)
_BRIGHT: tuple[Color, ...] = (
    *((0.75, 0.05, 0.04), (0.05, 0.16, 0.62), (0.06, 0.42, 0.10), (0.85, 0.55, 0.03), (0.82, 0.25, 0.03)),
    *((0.75, 0.75, 0.72), (0.04, 0.04, 0.045), (0.35, 0.06, 0.40), (0.05, 0.45, 0.48), (0.85, 0.35, 0.45)),
)
_CLOTH: tuple[Color, ...] = (
    *((0.55, 0.12, 0.10), (0.12, 0.20, 0.40), (0.20, 0.32, 0.16), (0.70, 0.58, 0.38), (0.30, 0.28, 0.27)),
    *((0.66, 0.60, 0.52), (0.45, 0.20, 0.35), (0.75, 0.50, 0.15)),
)


@dataclass(frozen=True)
class Finish:
    """A material, the metres that one tile of its texture spans, and the colours in which it comes."""

    material: Material
    tile: float = 1.0
    colors: tuple[Color, ...] = _WHITE


@cache
def finishes() -> tuple[Finish, ...]:
    """All finishes, always the same in the same order."""
    rng = np.random.default_rng(20240)
    return (*_clear(), *_metals(rng), *_woods(rng), *_fabrics(rng), *_plastics(rng), *_stones(rng), *_others(rng))


def _made(
    name: str,
    roughness: float,
    texture_hwc: NDArray[np.float32] | None = None,
    tile: float = 1.0,
    colors: tuple[Color, ...] = _WHITE,
    metallic: float = 0.0,
) -> Finish:
    """An opaque finish."""
    return Finish(Material(name, roughness, metallic, specular=0.5, texture_hwc=texture_hwc), tile, colors)


def _clear() -> list[Finish]:
    return [
        Finish(Material("glass", roughness=0.0, transmission=1.0), colors=((0.97, 0.98, 0.98),)),
        Finish(
            Material("colored_glass", roughness=0.02, transmission=1.0),
            colors=((0.35, 0.75, 0.45), (0.85, 0.50, 0.15), (0.30, 0.50, 0.90), (0.80, 0.20, 0.20)),
        ),
        Finish(Material("frosted_glass", roughness=0.35, transmission=0.95), colors=((0.90, 0.95, 0.95),)),
    ]


def _metals(rng: np.random.Generator) -> list[Finish]:
    brushed = _shades(1 + 0.10 * tile_noise(rng, _SIZE, slope=0.3, stretch=(12.0, 1.0)))
    hammered = _shades(1 + 0.16 * tile_noise(rng, _SIZE, slope=1.6, low_cut=12.0))
    stains = smoothstep(-0.7, 0.9, tile_noise(rng, _SIZE, slope=1.3, low_cut=2.0))
    grit = 0.18 * tile_noise(rng, _SIZE, slope=0.3, low_cut=20.0)
    rust = _mix((0.16, 0.055, 0.025), (0.52, 0.22, 0.075), stains + grit)
    patina = _mix((0.42, 0.24, 0.13), (0.22, 0.52, 0.42), smoothstep(0.0, 0.8, tile_noise(rng, _SIZE, slope=1.5)))
    return [
        _made("chrome", 0.03, metallic=1.0, colors=((0.80, 0.82, 0.84),)),
        _made("brushed_steel", 0.32, brushed, 0.5, ((0.60, 0.59, 0.57),), metallic=1.0),
        _made("aluminium", 0.45, metallic=1.0, colors=((0.84, 0.85, 0.86),)),
        _made("gold", 0.14, metallic=1.0, colors=((1.0, 0.68, 0.25),)),
        _made("copper", 0.22, metallic=1.0, colors=((0.93, 0.50, 0.33),)),
        _made("hammered_brass", 0.28, hammered, 0.4, ((0.82, 0.62, 0.25),), metallic=1.0),
        _made("cast_iron", 0.55, metallic=1.0, colors=((0.22, 0.22, 0.23),)),
        _made("rusty_iron", 0.9, rust, 0.5),
        _made("old_copper", 0.75, patina, 0.5),
        _made("painted_metal", 0.25, colors=_BRIGHT),
    ]


def _woods(rng: np.random.Generator) -> list[Finish]:
    looks: tuple[tuple[str, Color, Color, float, float], ...] = (
        ("pine", (0.72, 0.50, 0.27), (0.48, 0.26, 0.10), 5, 0.6),
        ("oak", (0.50, 0.32, 0.16), (0.29, 0.165, 0.075), 9, 0.6),
        ("walnut", (0.22, 0.125, 0.065), (0.085, 0.045, 0.025), 7, 0.5),
        ("mahogany", (0.36, 0.11, 0.055), (0.18, 0.045, 0.022), 6, 0.25),
        ("weathered_wood", (0.42, 0.39, 0.35), (0.17, 0.15, 0.13), 8, 0.9),
    )
    found = [_made(name, gloss, _mix(pale, dark, _grain(rng, rings)), 0.45) for name, pale, dark, rings, gloss in looks]
    parquet = _mix((0.50, 0.30, 0.13), (0.17, 0.085, 0.035), _boards(rng))
    return [*found, _made("parquet", 0.35, parquet, 1.0)]


def _fabrics(rng: np.random.Generator) -> list[Finish]:
    x, y = _grid()
    checks = 0.5 * (np.floor(8 * x) % 2) + 0.5 * (np.floor(8 * y) % 2)
    gingham = _mix((0.85, 0.84, 0.80), (0.62, 0.07, 0.07), checks.clip(0, 1) * (0.9 + 0.1 * _weave(64)))
    stripes = _mix((0.80, 0.77, 0.70), (0.07, 0.12, 0.30), smoothstep(0.45, 0.55, 0.5 + 0.5 * np.sin(12 * np.pi * x)))
    twill = 0.5 + 0.5 * np.sin(2 * np.pi * (48 * x + 48 * y))
    worn = 0.16 * tile_noise(rng, _SIZE, slope=1.3)
    denim = _mix((0.035, 0.06, 0.16), (0.28, 0.36, 0.50), 0.25 + 0.55 * twill * (0.8 + worn) + worn)
    stitch = np.abs((16 * x) % 1 - 0.5) * 2
    rows = 0.35 + 0.65 * np.abs(np.sin(np.pi * (24 * y + 0.8 * stitch)))
    knit = rows * (0.55 + 0.45 * np.sin(np.pi * stitch) ** 0.5)
    fluff = tile_noise(rng, _SIZE, slope=0.6, low_cut=8.0)
    pile = _shades(0.8 + 0.2 * tile_noise(rng, _SIZE, slope=0.3, low_cut=30.0))
    return [
        _made("linen", 0.95, _shades(0.55 + 0.45 * _weave(40)), 0.3, _CLOTH),
        _made("gingham", 0.9, gingham, 0.4),
        _made("striped_canvas", 0.9, stripes, 0.5),
        _made("denim", 0.95, denim, 0.3),
        _made("knitted_wool", 1.0, _shades(knit), 0.35, _CLOTH),
        _made("felt", 1.0, _shades(0.9 + 0.08 * fluff), 0.3, _CLOTH),
        _made("carpet", 1.0, pile, 0.4, _CLOTH),
    ]


def _plastics(rng: np.random.Generator) -> list[Finish]:
    specks = smoothstep(1.6, 1.9, tile_noise(rng, _SIZE, slope=0.8, low_cut=16.0))
    return [
        _made("glossy_plastic", 0.08, colors=_BRIGHT),
        _made("matt_plastic", 0.5, colors=_BRIGHT),
        _made("speckled_plastic", 0.3, _shades(1 - 0.75 * specks), 0.4, _BRIGHT[3:6]),
        _made("rubber", 0.75, colors=((0.025, 0.025, 0.028), (0.30, 0.05, 0.04))),
        _made("foam", 1.0, _pores(rng), 0.3, ((0.85, 0.72, 0.30), (0.20, 0.45, 0.60))),
    ]


def _stones(rng: np.random.Generator) -> list[Finish]:
    granite = 0.5 + 0.42 * tile_noise(rng, _SIZE, slope=0.5, low_cut=24.0)
    chips = smoothstep(0.5, 0.9, tile_noise(rng, _SIZE, slope=1.5, low_cut=14.0))
    layers = 0.5 + 0.25 * tile_noise(rng, _SIZE, slope=1.0, stretch=(1.0, 8.0))
    cement = 1 + 0.10 * tile_noise(rng, _SIZE, slope=1.2) + 0.04 * tile_noise(rng, _SIZE, slope=0.2, low_cut=40.0)
    slate = 0.5 + 0.3 * tile_noise(rng, _SIZE, slope=1.1, stretch=(1.0, 3.0))
    white, black = _veins(rng), _veins(rng)
    return [
        _made("white_marble", 0.12, _mix((0.84, 0.83, 0.81), (0.33, 0.34, 0.36), white), 0.7),
        _made("black_marble", 0.08, _mix((0.02, 0.025, 0.03), (0.62, 0.60, 0.55), black), 0.7),
        _made("granite", 0.3, _mix((0.06, 0.055, 0.06), (0.62, 0.52, 0.48), granite), 0.4),
        _made("terrazzo", 0.25, _mix((0.74, 0.71, 0.66), (0.36, 0.15, 0.10), chips), 0.5),
        _made("sandstone", 0.95, _mix((0.44, 0.29, 0.16), (0.72, 0.56, 0.36), layers), 0.5),
        _made("slate", 0.65, _mix((0.06, 0.07, 0.08), (0.17, 0.19, 0.21), slate), 0.6),
        _made("concrete", 0.95, _shades(cement), 0.8, ((0.42, 0.41, 0.39),)),
    ]


def _others(rng: np.random.Generator) -> list[Finish]:
    bricks, tone = _bricks(rng)
    joint = _tiles(6)
    hide = tile_noise(rng, _SIZE, slope=0.9, low_cut=12.0)
    leather = 0.95 + 0.1 * hide - 0.3 * smoothstep(0.25, 0.0, np.abs(tile_noise(rng, _SIZE, slope=1.2, low_cut=10.0)))
    crumbs = 0.5 + 0.3 * tile_noise(rng, _SIZE, slope=0.7, low_cut=14.0)
    flutes = 1 + 0.05 * np.sin(2 * np.pi * 40 * _grid()[0]) + 0.04 * tile_noise(rng, _SIZE, slope=0.5)
    clay = 1 + 0.08 * tile_noise(rng, _SIZE, slope=1.0)
    plaster = 1 + 0.03 * tile_noise(rng, _SIZE, slope=0.9)
    glazes: tuple[Color, ...] = ((0.05, 0.12, 0.38), (0.10, 0.32, 0.24), (0.50, 0.30, 0.08), (0.42, 0.10, 0.07))
    walls: tuple[Color, ...] = ((0.78, 0.76, 0.70), (0.55, 0.64, 0.66), (0.70, 0.60, 0.44), (0.60, 0.66, 0.52))
    return [
        _made("porcelain", 0.06, colors=((0.86, 0.86, 0.83),)),
        _made("glazed_ceramic", 0.1, colors=glazes),
        _made("terracotta", 0.9, _shades(clay), 0.5, ((0.55, 0.22, 0.11),)),
        _made("ceramic_tiles", 0.12, _mix((0.80, 0.82, 0.80), (0.24, 0.23, 0.21), joint), 0.6),
        _made("brick", 0.95, _mix((0.28, 0.075, 0.04), (0.62, 0.54, 0.46), bricks + tone), 0.6),
        _made("leather", 0.45, _shades(leather), 0.3, ((0.26, 0.11, 0.05), (0.05, 0.035, 0.03))),
        _made("cork", 0.95, _mix((0.24, 0.12, 0.055), (0.66, 0.44, 0.25), crumbs), 0.3),
        _made("cardboard", 0.95, _shades(flutes), 0.4, ((0.48, 0.33, 0.19),)),
        _made("plaster", 0.95, _shades(plaster), 1.0, walls),
        Finish(Material("wax", 0.35, translucency=0.3), colors=((0.90, 0.82, 0.62), (0.75, 0.15, 0.12))),
    ]


# ---------------------------------------------------------------- textures, seamless


def _grid() -> tuple[Floats, Floats]:
    """Coordinates from 0 to 1 of the texels: along a row, and down the rows."""
    line = (np.arange(_SIZE) + 0.5) / _SIZE
    return np.broadcast_to(line, (_SIZE, _SIZE)).copy(), np.broadcast_to(line[:, None], (_SIZE, _SIZE)).copy()


def _mix(low: ArrayLike, high: ArrayLike, share_hw: Floats) -> NDArray[np.float32]:
    low, high = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
    mixed_hwc: NDArray[np.float32] = (low + (high - low) * share_hw.clip(0, 1)[..., None]).astype(np.float32)
    return mixed_hwc


def _shades(factor_hw: Floats) -> NDArray[np.float32]:
    """Of a finish's colour: 1 is the colour itself."""
    return np.repeat(factor_hw.clip(0.05, 1.25)[..., None], 3, axis=2).astype(np.float32)


def _grain(rng: np.random.Generator, rings: float) -> Floats:
    """Wood sawn along its fibres, which run down the rows: year rings, wavy, and fine pores."""
    x, _ = _grid()
    wave = tile_noise(rng, _SIZE, slope=1.8, low_cut=1.0, stretch=(5.0, 1.0))
    phase = (rings * x + 0.55 * wave) % 1
    ring = smoothstep(0.0, 0.75, phase) * (1 - smoothstep(0.86, 1.0, phase))
    pores = tile_noise(rng, _SIZE, slope=0.4, low_cut=8.0, stretch=(14.0, 1.0))
    return np.asarray(0.12 + 0.62 * ring + 0.14 * pores)


def _boards(rng: np.random.Generator) -> Floats:
    """Boards of five widths a tile, each of its own tone, with dark joints."""
    x, y = _grid()
    board = np.floor(5 * x).astype(np.int64)
    tone = rng.uniform(0.0, 0.4, (5, 2))
    half = (np.floor(2 * y + rng.uniform(0, 2, 5)[board]) % 2).astype(np.int64)
    end = np.abs((2 * y + 0.37 * board) % 1 - 0.5) > 0.497
    joint = (np.abs((5 * x) % 1 - 0.5) > 0.48) | (end & (half >= 0))
    return np.where(joint, 1.0, tone[board, half] + 0.45 * _grain(rng, 10))


def _weave(threads: int) -> Floats:
    """Plain weave: each thread goes over one and under the next."""
    x, y = _grid()
    over = (np.floor(threads * x) + np.floor(threads * y)) % 2
    along = np.abs(np.sin(np.pi * threads * np.where(over > 0, x, y)))
    across = np.abs(np.sin(np.pi * threads * np.where(over > 0, y, x)))
    return np.asarray(0.25 * over + 0.75 * along**0.6 * (0.5 + 0.5 * across))


def _veins(rng: np.random.Generator) -> Floats:
    """Marble: thin lines where slow noise passes 0, and cloudy ground."""
    lines = [np.abs(tile_noise(rng, _SIZE, slope=1.9, low_cut=1.0)) for _ in range(2)]
    clouds = tile_noise(rng, _SIZE, slope=1.6, low_cut=1.0)
    strong, faint = (np.exp(-line / width) for line, width in zip(lines, (0.05, 0.12), strict=True))
    fade = smoothstep(-0.8, 0.8, clouds)
    return np.asarray(0.08 + 0.07 * clouds + 0.75 * strong * fade + 0.3 * faint * (1 - fade))


def _bricks(rng: np.random.Generator) -> tuple[Floats, Floats]:
    """1 in the mortar of a running bond and 0 in the bricks; and the bricks' tones."""
    x, y = _grid()
    row = np.floor(8 * y).astype(np.int64)
    along = (3 * x + 0.5 * (row % 2)) % 3
    gap_x, gap_y = 0.5 - np.abs(along % 1 - 0.5), 0.5 - np.abs((8 * y) % 1 - 0.5)
    mortar = 1 - smoothstep(0.03, 0.05, gap_x) * smoothstep(0.08, 0.12, gap_y)
    tones = rng.uniform(0.0, 0.28, (8, 3))
    rough = 0.06 * tile_noise(rng, _SIZE, slope=0.6, low_cut=10.0)
    return mortar, (1 - mortar) * tones[row, along.astype(np.int64)] + rough


def _tiles(count: int) -> Floats:
    """1 in the joints of square tiles."""
    gaps = [0.5 - np.abs((count * line) % 1 - 0.5) for line in _grid()]
    return np.asarray(1 - smoothstep(0.02, 0.04, np.minimum(*gaps)))


def _pores(rng: np.random.Generator) -> NDArray[np.float32]:
    holes = smoothstep(0.9, 1.5, tile_noise(rng, _SIZE, slope=1.2, low_cut=16.0))
    return _shades(1 - 0.65 * holes + 0.04 * tile_noise(rng, _SIZE, slope=0.3, low_cut=30.0))
