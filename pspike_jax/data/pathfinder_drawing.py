"""Draws pathfinder-style images from their geometry: dashes, two discs, and contact sheets."""

import math
import os

import numpy as np

from pspike_jax.data.pathfinder_canvas import local_axes, window
from pspike_jax.data.pathfinder_scenes import Scenes, SceneSettings


def draw_scenes(scenes: Scenes, settings: SceneSettings) -> np.ndarray:
    """Draw anti-aliased images; overlapping strokes are joined by their maximum.

    The share of a pixel that a dash covers is the product of the shares along and across it, each
    that of a box one pixel wide: exact for dashes along an axis. A dash thinner than a pixel is
    fainter in proportion.

    Args:
      scenes: Scenes of B images.
      settings: the SceneSettings they were made with.

    Returns:
      (B, size, size) uint8.
    """
    count, size = scenes.labels.size, settings.size
    reach = math.ceil(max(settings.dash_length, 2 * settings.marker_radius)) + 1
    canvas = _Padded(count, size, reach)
    dashes = [d.reshape(count, -1, 2, 2) for d in (scenes.targets, scenes.distractors)]
    for dash in np.moveaxis(np.concatenate(dashes, axis=1), 1, 0):
        middle = dash.mean(axis=1)
        direction = (dash[:, 1] - dash[:, 0]) / settings.dash_length
        along, across = canvas.local(middle, direction, settings.dash_length / 2)
        share = _share(along, settings.dash_length) * _share(across, settings.dash_thickness)
        canvas.lighten(np.minimum(settings.contrast * share, 1.0))
    for center in np.moveaxis(scenes.markers, 1, 0):
        along, across = canvas.local(center, np.array([[1.0, 0.0]]), settings.marker_radius)
        distance = np.hypot(along, across)
        canvas.lighten(np.clip(settings.marker_radius + 0.5 - distance, 0.0, 1.0))
    return np.rint(255 * canvas.inside()).astype(np.uint8)


def _share(distance, width):
    """Share of a unit interval at `distance` that an interval of `width` around 0 covers."""
    return np.clip((width + 1) / 2 - distance, 0.0, min(width, 1.0))


class _Padded:
    """B square images with a border, so that strokes near the edge need no clipping."""

    def __init__(self, count, size, border):
        self._size, self._border = size, border
        self._pixels = np.zeros((count, (size + 2 * border) ** 2), np.float32)
        self._images = np.arange(count)[:, None]
        self._index = None

    def local(self, middle, direction, half):
        """Select the pixels around `middle` (B, 2); return distances along and across."""
        pixel = np.rint(middle).astype(np.int64)[:, None] + window(math.ceil(half) + 1)
        cell = pixel + self._border
        self._index = cell[..., 0] * (self._size + 2 * self._border) + cell[..., 1]
        return local_axes(pixel - middle[:, None], direction)

    def lighten(self, light):
        """Raise the selected pixels to `light` where they are darker."""
        before = self._pixels[self._images, self._index]
        self._pixels[self._images, self._index] = np.maximum(before, light)

    def inside(self):
        """The images without their border: (B, size, size)."""
        side = self._size + 2 * self._border
        inner = slice(self._border, self._border + self._size)
        return self._pixels.reshape(-1, side, side)[:, inner, inner]


def write_contact_sheet(
    path: str | os.PathLike, images: np.ndarray, labels: np.ndarray, *, columns: int = 8,
    rows: int = 4,
) -> None:
    """Write a picture of images of both labels, for a person to check.

    Args:
      path: of the PNG file, whatever its name ends in.
      images: (n, size, size) uint8; the first ones of each label are shown.
      labels: (n,) integers, 0 or 1.
      columns: images in a row.
      rows: rows for each label.
    """
    from PIL import Image, ImageDraw

    size = images.shape[1]
    zoom = max(1, 128 // size)
    cell, caption = size * zoom + 6, 22
    half = rows * cell + caption
    sheet = Image.new("L", (columns * cell, 2 * half), 96)
    draw = ImageDraw.Draw(sheet)
    for part, label, words in (
        (0, 1, "label 1: one curve joins the discs"), (1, 0, "label 0: no curve joins them"),
    ):
        draw.text((6, part * half + 5), words, fill=255)
        for place, row in enumerate(np.flatnonzero(labels == label)[: rows * columns]):
            y, x = divmod(place, columns)
            tile = Image.fromarray(images[row]).resize((size * zoom,) * 2, Image.Resampling.NEAREST)
            sheet.paste(tile, (x * cell + 3, part * half + caption + y * cell + 3))
    sheet.save(path, format="PNG")
