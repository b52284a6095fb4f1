"""Draws a small collection of pictures by code, so that a first start has something to search."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw, ImageFilter

from services.local.scene import H, Scene, W, tint

WIDTH: Final = 360
HEIGHT: Final = 270
_PER_CLASS: Final = 25


def draw_sample(
    folder: Path,
    *,
    per_class: int = _PER_CLASS,
    seed: int = 7,
    on_drawn: Callable[[], None] = lambda: None,
) -> int:
    """Draw `per_class` JPEG pictures of each class into a sub-folder; return how many.

    `on_drawn` is called after each. The same seed draws the same pictures. The folder appears
    as a whole, or not at all.
    """
    staging = folder.with_name(f"{folder.name}.drawing")
    for name, draw in CLASSES.items():
        (staging / name).mkdir(parents=True, exist_ok=True)
        for number in range(per_class):
            picture = draw(random.Random(f"{seed}/{name}/{number}"))  # noqa: S311 (a picture)
            small = picture.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
            small.save(staging / name / f"{number + 1:03}.jpg", quality=88)
            on_drawn()
    staging.replace(folder)
    return per_class * len(CLASSES)


def _sunset(chance: random.Random) -> Image.Image:
    hue = chance.uniform(0.0, 0.08)
    scene = Scene(chance, tint(hue + 0.75, 0.45, 0.55), tint(hue + 0.06, 0.75, 0.98))
    horizon, x = scene.between(0.55, 0.68) * H, scene.between(0.2, 0.8) * W
    radius = scene.between(45, 80)
    scene.glow(x, horizon - 20, radius * 2.4, tint(hue + 0.1, 0.5, 1.0))
    scene.disc(x, horizon - scene.between(0, 40), radius, tint(hue + 0.12, 0.35, 1.0))
    scene.ground(horizon, tint(hue + 0.68, 0.55, 0.35))
    for _ in range(26):
        y = scene.between(horizon + 6, H)
        half = scene.between(8, 34) * (1 + (y - horizon) / 160)
        middle = x + scene.between(-60, 60)
        scene.pen.line((middle - half, y, middle + half, y), tint(hue + 0.1, 0.45, 0.95), 4)
    return scene.image


def _mountains(chance: random.Random) -> Image.Image:
    hue = chance.uniform(0.56, 0.64)
    scene = Scene(chance, tint(hue, 0.45, 0.95), tint(hue, 0.12, 1.0))
    for layer in range(4):
        value, level = 0.8 - 0.17 * layer, H * (0.62 + 0.12 * layer)
        scene.ridge(level, 190 - 35 * layer, tint(hue + 0.02 * layer, 0.25 + 0.1 * layer, value))
    return scene.image


def _city(chance: random.Random) -> Image.Image:
    scene = Scene(chance, (10, 14, 40), tint(chance.uniform(0.6, 0.85), 0.5, 0.45))
    for _ in range(40):
        scene.disc(scene.between(0, W), scene.between(0, H * 0.5), 2, (240, 240, 255))
    x = -10.0
    while x < W:
        width, top = scene.between(50, 95), scene.between(0.25, 0.7) * H
        shade = chance.randint(18, 42)
        scene.pen.rectangle((x, top, x + width, H), fill=(shade, shade, shade + 14))
        for row in range(int(top) + 14, H - 10, 26):
            for column in range(int(x) + 9, int(x + width) - 12, 22):
                if chance.random() < 0.55:  # noqa: PLR2004 (a little more than half are lit)
                    light = (255, chance.randint(190, 235), chance.randint(90, 150))
                    scene.pen.rectangle((column, row, column + 9, row + 13), fill=light)
        x += width + scene.between(0, 8)
    return scene.image


def _flower(chance: random.Random) -> Image.Image:
    green = chance.uniform(0.25, 0.38)
    scene = Scene(chance, tint(green, 0.35, 0.75), tint(green, 0.6, 0.45))
    hue, petals = chance.choice((0.0, 0.08, 0.13, 0.8, 0.9, 0.72)), chance.randint(7, 13)
    x, y = scene.between(0.38, 0.62) * W, scene.between(0.38, 0.55) * H
    length = scene.between(120, 190)
    scene.pen.line((x, y, x + scene.between(-60, 60), H), tint(green, 0.8, 0.35), 16)
    for side in (-1, 1):
        leaf = math.pi / 2 - side * scene.between(0.5, 0.9)
        scene.petal(x, y + 150, 130, leaf, tint(green, 0.75, 0.5))
    for petal in range(petals):
        angle = math.tau * petal / petals + scene.between(-0.08, 0.08)
        scene.petal(x, y, length, angle, tint(hue, scene.between(0.55, 0.85), 0.95))
    scene.disc(x, y, length * 0.24, tint(0.13, 0.85, 0.85))
    scene.disc(x, y, length * 0.12, tint(0.08, 0.8, 0.5))
    return scene.image


def _fish(chance: random.Random) -> Image.Image:
    scene = Scene(chance, tint(0.52, 0.6, 0.85), tint(0.6, 0.85, 0.4))
    for _ in range(14):
        x, y, radius = scene.between(0, W), scene.between(0, H), scene.between(4, 14)
        scene.pen.ellipse((x, y, x + radius, y + radius), outline=(220, 245, 255), width=2)
    hue, facing = chance.choice((0.05, 0.1, 0.14, 0.95)), chance.choice((-1, 1))
    x, y = scene.between(0.42, 0.58) * W, scene.between(0.38, 0.62) * H
    long, high = scene.between(140, 190), scene.between(70, 100)
    body, fin = tint(hue, 0.85, 0.98), tint(hue + 0.03, 0.9, 0.75)
    tail = x - facing * long * 0.85
    scene.pen.polygon(
        [(tail, y), (tail - facing * 95, y - 80), (tail - facing * 95, y + 80)], fill=fin
    )
    scene.pen.polygon([(x - 60, y - high * 0.7), (x + 10, y - high - 55), (x + 60, y - 50)], fin)
    scene.pen.ellipse((x - long, y - high, x + long, y + high), fill=body)
    for stripe in (-0.35, 0.0, 0.35):
        middle = x + stripe * long * 1.2
        scene.pen.ellipse(
            (middle - 12, y - high * 0.8, middle + 12, y + high * 0.8), (250, 250, 245)
        )
    scene.disc(x + facing * long * 0.68, y - high * 0.22, 17, (255, 255, 255))
    scene.disc(x + facing * long * 0.7, y - high * 0.22, 8, (20, 20, 30))
    return scene.image


def _balloon(chance: random.Random) -> Image.Image:
    hue = chance.uniform(0.53, 0.6)
    scene = Scene(chance, tint(hue, 0.5, 0.95), tint(hue, 0.12, 1.0))
    for _ in range(4):
        x, y = scene.between(0, W), scene.between(0.55, 0.95) * H
        for puff in range(4):
            scene.disc(x + 44 * puff, y + scene.between(-14, 14), 42, (250, 252, 255))
    x, y, radius = scene.between(0.35, 0.65) * W, scene.between(0.32, 0.42) * H, 130.0
    radius *= scene.between(0.8, 1.15)
    base = chance.random()
    scene.pen.polygon(
        [(x - radius * 0.86, y + radius * 0.5), (x + radius * 0.86, y + radius * 0.5),
         (x + 20, y + radius * 1.6), (x - 20, y + radius * 1.6)], fill=tint(base, 0.8, 0.9)
    )  # fmt: skip
    for band in range(5):
        half = radius * (1 - band / 5)
        colour = tint(base + 0.12 * (band % 2), 0.8, 0.95)
        scene.pen.ellipse((x - half, y - radius, x + half, y + radius), fill=colour)
    top = y + radius * 1.75
    scene.pen.line((x - 18, y + radius * 1.55, x - 16, top), (90, 60, 40), 4)
    scene.pen.line((x + 18, y + radius * 1.55, x + 16, top), (90, 60, 40), 4)
    scene.pen.rectangle((x - 24, top, x + 24, top + 36), fill=(140, 95, 55))
    return scene.image


def _boat(chance: random.Random) -> Image.Image:
    scene = Scene(chance, tint(0.55, 0.35, 1.0), tint(0.53, 0.08, 1.0))
    level, x = scene.between(0.66, 0.74) * H, scene.between(0.4, 0.6) * W
    scene.ground(level, tint(chance.uniform(0.53, 0.6), 0.7, 0.65))
    mast, hull = scene.between(240, 320), tint(chance.random(), 0.7, 0.6)
    scene.pen.line((x, level - mast, x, level), (70, 50, 40), 9)
    sail = tint(chance.random(), chance.choice((0.05, 0.1, 0.6)), 0.98)
    scene.pen.polygon([(x + 9, level - mast), (x + 9, level - 30), (x + 150, level - 30)], sail)
    scene.pen.polygon(
        [(x - 9, level - mast + 40), (x - 9, level - 30), (x - 110, level - 30)], sail
    )
    scene.pen.polygon(
        [
            (x - 150, level - 14),
            (x + 170, level - 14),
            (x + 115, level + 44),
            (x - 105, level + 44),
        ],
        fill=hull,
    )
    for _ in range(22):
        left, y = scene.between(0, W), scene.between(level + 50, H)
        scene.pen.arc((left, y, left + 44, y + 14), 180, 360, (225, 240, 250), 3)
    return scene.image


def _butterfly(chance: random.Random) -> Image.Image:
    back = chance.uniform(0.2, 0.3)
    scene = Scene(chance, tint(back, 0.25, 0.98), tint(back + 0.05, 0.4, 0.85))
    hue, x, y = chance.random(), W / 2, H * scene.between(0.45, 0.55)
    size, tilt = scene.between(150, 200), scene.between(-0.25, 0.25)
    for side in (-1, 1):
        middle = 0.0 if side > 0 else math.pi
        for spread, reach in ((-0.6, 1.0), (-0.35, 0.95), (0.45, 0.75), (0.7, 0.65)):
            angle = middle + side * spread + tilt
            scene.petal(x, y, size * reach * 1.15, angle, (35, 25, 30))
            scene.petal(x, y, size * reach, angle, tint(hue + spread / 9, 0.8, 0.95))
            scene.disc(
                x + size * reach * 0.62 * math.cos(angle),
                y + size * reach * 0.62 * math.sin(angle), 13, (255, 250, 235),
            )  # fmt: skip
    scene.pen.ellipse((x - 12, y - 80, x + 12, y + 90), fill=(35, 25, 30))
    for side in (-1, 1):
        scene.pen.line((x, y - 74, x + side * 46, y - 140), (35, 25, 30), 5)
    return scene.image


def _planet(chance: random.Random) -> Image.Image:
    scene = Scene(chance, (6, 6, 18), (16, 10, 34))
    for _ in range(130):
        shine = chance.randint(120, 255)
        scene.disc(scene.between(0, W), scene.between(0, H), scene.between(1, 3), (shine,) * 3)
    x, y = scene.between(0.4, 0.6) * W, scene.between(0.42, 0.58) * H
    radius, hue = scene.between(105, 160), chance.random()
    mask = Image.new("L", (W, H), 0)
    ImageDraw.Draw(mask).ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    bands = Image.new("RGB", (W, H), tint(hue, 0.5, 0.8))
    pen = ImageDraw.Draw(bands)
    for _ in range(11):
        top = scene.between(y - radius, y + radius)
        colour = tint(hue + scene.between(-0.05, 0.05), scene.between(0.3, 0.7), 0.85)
        pen.rectangle((0, top, W, top + scene.between(8, 26)), fill=colour)
    scene.image.paste(bands.filter(ImageFilter.GaussianBlur(5)), (0, 0), mask)
    if chance.random() < 0.6:  # noqa: PLR2004 (more with a ring than without)
        ring = (x - radius * 1.8, y - radius * 0.4, x + radius * 1.8, y + radius * 0.4)
        scene.pen.arc(ring, -20, 200, tint(hue + 0.1, 0.3, 0.9), 14)
    return scene.image


def _snow(chance: random.Random) -> Image.Image:
    scene = Scene(chance, tint(0.6, 0.3, 0.75), tint(0.6, 0.08, 0.95))
    scene.ground(H * 0.7, (238, 243, 250))
    for _ in range(chance.randint(4, 7)):
        x, base = scene.between(0, W), scene.between(0.72, 0.95) * H
        size = scene.between(70, 125)
        scene.pen.rectangle((x - 9, base - 30, x + 9, base), fill=(85, 60, 45))
        for tier in range(3):
            top, half = base - size * (1.9 - 0.55 * tier), size * (0.42 + 0.16 * tier)
            foot = top + size * 0.85
            colour = tint(0.4, 0.55, 0.3 + 0.05 * tier)
            scene.pen.polygon([(x, top), (x - half, foot), (x + half, foot)], fill=colour)
            edge = top + size * 0.34
            tip = [(x, top), (x - half * 0.4, edge), (x + half * 0.4, edge)]
            scene.pen.polygon(tip, fill=(245, 248, 252))
    for _ in range(120):
        scene.disc(scene.between(0, W), scene.between(0, H), scene.between(2, 5), (255, 255, 255))
    return scene.image


def _cactus(chance: random.Random) -> Image.Image:
    scene = Scene(chance, tint(chance.uniform(0.5, 0.56), 0.35, 1.0), tint(0.1, 0.25, 1.0))
    scene.disc(scene.between(0.1, 0.9) * W, scene.between(0.12, 0.25) * H, 42, (255, 240, 190))
    scene.ridge(H * 0.8, 60, tint(0.07, 0.5, 0.8), steps=5)
    scene.ground(H * 0.8, tint(0.09, 0.5, 0.9))
    for _ in range(chance.randint(1, 3)):
        x, foot, tall = scene.between(0.15, 0.85) * W, H * 0.88, scene.between(190, 300)
        green = tint(chance.uniform(0.3, 0.38), 0.65, scene.between(0.4, 0.6))
        scene.pen.rounded_rectangle((x - 30, foot - tall, x + 30, foot), 30, fill=green)
        for side in (-1, 1):
            elbow, reach = foot - tall * scene.between(0.35, 0.6), side * scene.between(70, 95)
            low, high = sorted((x, x + reach))
            scene.pen.rounded_rectangle((low, elbow - 20, high, elbow + 20), 18, fill=green)
            arm = (x + reach - 20, elbow - scene.between(70, 110), x + reach + 20, elbow + 20)
            scene.pen.rounded_rectangle(arm, 20, fill=green)
    return scene.image


def _mushroom(chance: random.Random) -> Image.Image:
    scene = Scene(chance, tint(0.3, 0.4, 0.55), tint(0.27, 0.65, 0.25))
    scene.ground(H * 0.82, tint(0.25, 0.65, 0.35))
    for _ in range(chance.randint(1, 3)):
        x, cap = scene.between(0.25, 0.75) * W, scene.between(110, 165)
        top = H * 0.84 - cap * 1.5
        stem = (x - cap * 0.28, top + cap * 0.4, x + cap * 0.28, H * 0.88)
        scene.pen.rounded_rectangle(stem, 24, fill=(245, 235, 215))
        red = tint(chance.choice((0.0, 0.02, 0.97)), 0.85, scene.between(0.75, 0.92))
        scene.pen.pieslice((x - cap, top - cap * 0.3, x + cap, top + cap * 1.3), 180, 360, fill=red)
        for _ in range(8):
            angle, out = scene.between(math.pi * 1.1, math.pi * 1.9), scene.between(0.2, 0.75)
            across, down = cap * out * math.cos(angle), cap * (0.5 + 0.8 * out * math.sin(angle))
            scene.disc(x + across, top + down, scene.between(9, 18), (255, 250, 240))
    return scene.image


CLASSES: Final[Mapping[str, Callable[[random.Random], Image.Image]]] = {
    "balloon": _balloon,
    "boat": _boat,
    "butterfly": _butterfly,
    "cactus": _cactus,
    "city": _city,
    "fish": _fish,
    "flower": _flower,
    "mountains": _mountains,
    "mushroom": _mushroom,
    "planet": _planet,
    "snow": _snow,
    "sunset": _sunset,
}
"""Every class by its label, with the function that draws a picture of it."""

COUNT: Final = _PER_CLASS * len(CLASSES)
"""The number of pictures in a sample."""
