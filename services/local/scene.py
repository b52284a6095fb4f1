"""Draws the shapes that the pictures of the sample collection are made of."""

from __future__ import annotations

import colorsys
import math
import random
from typing import Final

from PIL import Image, ImageDraw, ImageFilter

W: Final = 720
H: Final = 540
"""Width and height of a scene, in pixels."""

Colour = tuple[int, int, int]


class Scene:
    """Draws a picture: a gradient, and shapes on it."""

    def __init__(self, chance: random.Random, top: Colour, bottom: Colour) -> None:
        self.chance = chance
        ramp = Image.linear_gradient("L").resize((W, H))
        self.image = Image.composite(
            Image.new("RGB", (W, H), bottom), Image.new("RGB", (W, H), top), ramp
        )
        self.pen = ImageDraw.Draw(self.image)

    def between(self, low: float, high: float) -> float:
        """Draw a number between the two."""
        return self.chance.uniform(low, high)

    def disc(self, x: float, y: float, radius: float, colour: Colour) -> None:
        """Draw a filled circle."""
        self.pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)

    def glow(self, x: float, y: float, radius: float, colour: Colour) -> None:
        """Draw a circle with a soft edge."""
        mask = Image.new("L", (W, H), 0)
        ImageDraw.Draw(mask).ellipse((x - radius, y - radius, x + radius, y + radius), fill=150)
        soft = mask.filter(ImageFilter.GaussianBlur(radius / 3))
        self.image.paste(colour, (0, 0), soft)

    def petal(self, x: float, y: float, length: float, angle: float, colour: Colour) -> None:
        """Draw a pointed leaf from (x, y), in radians."""
        points = []
        for step in range(25):
            turn = math.tau * step / 24
            along, across = length * (0.5 - 0.5 * math.cos(turn)), length * 0.2 * math.sin(turn)
            points.append(
                (
                    x + along * math.cos(angle) - across * math.sin(angle),
                    y + along * math.sin(angle) + across * math.cos(angle),
                )
            )
        self.pen.polygon(points, fill=colour)

    def ridge(self, level: float, height: float, colour: Colour, steps: int = 9) -> None:
        """Draw hills up to the bottom edge."""
        points = [(0.0, float(H))]
        for step in range(steps + 1):
            peak = height * (1.0 if step % 2 else 0.3) * self.between(0.6, 1.2)
            points.append((W * step / steps, level - peak))
        self.pen.polygon([*points, (float(W), float(H))], fill=colour)

    def ground(self, level: float, colour: Colour) -> None:
        """Fill everything below the level."""
        self.pen.rectangle((0, level, W, H), fill=colour)


def tint(angle: float, saturation: float, value: float) -> Colour:
    """Return a colour; all are fractions of 1, and the angle may be outside 0..1."""
    red, green, blue = colorsys.hsv_to_rgb(angle % 1.0, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)
