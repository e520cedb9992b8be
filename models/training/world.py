"""The little world that the small model is trained on: scenes of one or two shapes, drawn on the fly.

A scene is a row of integers (see COLUMNS); a caption (captions.py) says exactly what differs from the defaults:
a big shape, in the middle, on grey. Every shape covers exactly 2x2 of the 4x4 image tokens.
"""
import hashlib

import numpy as np
import torch

SIZE = 64
WINDOW = 32  # pixels that one shape can touch: 2x2 image tokens
COLOURS = ["red", "green", "blue", "yellow", "purple", "orange", "white", "black"]
GREY = len(COLOURS)  # a background only
PALETTE = [(220, 40, 40), (40, 165, 60), (40, 80, 220), (245, 215, 40), (150, 55, 190), (250, 135, 20),
           (245, 245, 245), (20, 20, 20), (180, 180, 180)]
SHAPES = ["circle", "square", "triangle", "star", "ring", "cross"]
SIZES = ["big", "small"]
RADII = [14, 9]
CENTRES = [16, 32, 48]
POSITIONS = [(x, y) for y in CENTRES for x in CENTRES]  # index = 3 * row + column
MIDDLE, LEFT, RIGHT, TOP, BOTTOM = 4, 3, 5, 1, 7

# One scene: background, then colour, shape, size, position of the first and the second shape (-1: no second one).
COLUMNS = ["background", "colour", "shape", "size", "position", "colour2", "shape2", "size2", "position2"]
HELD_OUT_PARTS = 12  # one scene in so many is never trained on


def is_held_out(scene):
    """Decided by the whole attribute tuple, so that every single attribute value is trained on."""
    digest = hashlib.sha256(",".join(str(int(v)) for v in scene).encode()).digest()
    return digest[0] % HELD_OUT_PARTS == 0


def random_scene(rng, two_objects=0.6):
    """@param rng random.Random. Any scene, held out or not; the first shape is the left or the upper one."""
    background = GREY if rng.random() < 0.3 else rng.randrange(len(COLOURS))
    free = [c for c in range(len(COLOURS)) if c != background]

    def look():
        return [rng.choice(free), rng.randrange(len(SHAPES)), int(rng.random() < 0.5)]

    if rng.random() >= two_objects:
        position = MIDDLE if rng.random() < 0.3 else rng.randrange(9)
        return (background, *look(), position, -1, -1, -1, -1)
    first, second = (LEFT, RIGHT) if rng.random() < 0.5 else (TOP, BOTTOM)
    return (background, *look(), first, *look(), second)


def training_scene(rng, two_objects=0.6):
    while True:
        scene = random_scene(rng, two_objects)
        if not is_held_out(scene):
            return scene


def shape_mask(shape, radius, oversampling=8):
    """[WINDOW, WINDOW] coverage 0..1 of a shape in the middle of its window."""
    steps = (np.arange(WINDOW * oversampling) + 0.5) / oversampling - WINDOW / 2
    x, y = np.meshgrid(steps / radius, steps / radius)
    distance = np.hypot(x, y)
    if shape == "circle":
        inside = distance < 1
    elif shape == "square":
        inside = np.maximum(abs(x), abs(y)) < 0.86
    elif shape == "triangle":
        inside = (y < 0.78) & (abs(x) < (y + 1) * 0.56)
    elif shape == "star":
        inside = inside_star(x, y)
    elif shape == "ring":
        inside = (distance < 1) & (distance > 0.56)
    else:  # cross
        inside = (np.minimum(abs(x), abs(y)) < 0.3) & (np.maximum(abs(x), abs(y)) < 1)
    blocks = inside.reshape(WINDOW, oversampling, WINDOW, oversampling)
    return blocks.mean(axis=(1, 3)).astype(np.float32)


def inside_star(x, y, points=5, inner=0.42):
    """Five points, one up; `inner` is the radius of the notches where that of the points is 1.06."""
    outer = 1.06
    angle = np.arctan2(x, -y)
    folded = abs((angle + np.pi / points) % (2 * np.pi / points) - np.pi / points)
    distance = np.hypot(x, y)
    px, py = distance * np.cos(folded), distance * np.sin(folded)
    nx, ny = inner * np.cos(np.pi / points), inner * np.sin(np.pi / points)
    return (nx - outer) * py - ny * (px - outer) > 0


class Painter:
    """Draws batches of scenes as tensors in -1..1."""

    def __init__(self, device="cpu"):
        canvases = np.zeros((9, len(SHAPES), len(SIZES), SIZE, SIZE), np.float32)
        for p, (x, y) in enumerate(POSITIONS):
            for s, shape in enumerate(SHAPES):
                for r, radius in enumerate(RADII):
                    half = WINDOW // 2
                    canvases[p, s, r, y - half:y + half, x - half:x + half] = shape_mask(shape, radius)
        self.masks = torch.from_numpy(canvases).to(device)
        self.palette = torch.tensor(PALETTE, dtype=torch.float32, device=device)

    def shade(self, colour, amount=10.0, generator=None):
        """[n] colour indices -> [n, 3] of 0..255, each a little lighter or darker than the palette's."""
        n = len(colour)
        noise = torch.rand(n, 4, generator=generator).to(self.palette.device) * 2 - 1
        drift = noise[:, :1] * amount + noise[:, 1:] * (0.3 * amount)
        return (self.palette[colour.clamp(min=0)] + drift).clamp(0, 255)

    def draw(self, scenes, amount=10.0, generator=None):
        """scenes [n, 9] long -> [n, 3, 64, 64]; `amount` is the largest change of brightness of a colour."""
        scenes = scenes.to(self.masks.device)
        background = self.shade(scenes[:, 0], amount, generator)[:, :, None, None]
        picture = background.expand(-1, -1, SIZE, SIZE)
        for first in (1, 5):
            colour, shape, size, position = scenes[:, first:first + 4].clamp(min=0).unbind(1)
            mask = self.masks[position, shape, size] * (scenes[:, first] >= 0)[:, None, None]
            ink = self.shade(scenes[:, first], amount, generator)[:, :, None, None]
            picture = picture + mask[:, None] * (ink - picture)
        return picture / 127.5 - 1
