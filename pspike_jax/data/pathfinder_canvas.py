"""Pixels that dashes reserve, in many pathfinder-style images at once.

Coordinates are (row, column) in pixels; the center of a pixel has integer coordinates.
"""

import math

import numpy as np

FREE = 255


class Canvas:
    """Which dash of M images reserved each pixel first; a reserved border lies around each image.

    A pixel holds 1 + the step of that dash, 0 in the border, FREE where it is free: whatever was
    reserved from some step on can be given back.
    """

    def __init__(self, count, settings):
        self._length = settings.dash_length
        self._thickness = settings.dash_thickness
        # Half a pixel more, for the middle of a dash is rounded to a pixel.
        self._cover = window(math.ceil((self._length + max(self._thickness, 1)) / 2 + 0.5))
        reach = math.ceil((self._length + self._thickness) / 2 + max(settings.margins) + 0.5)
        self._near = window(reach)
        self._border = reach
        self._side = settings.size + 2 * reach
        grid = np.zeros((count, self._side, self._side), np.uint8)
        inside = slice(reach + settings.padding, -reach - settings.padding)
        grid[:, inside, inside] = FREE
        self._owner = grid.reshape(count, -1)

    def is_free(self, images, points):
        """Tell which points (n, K, 2) of the images (n,) lie on free pixels."""
        index = self._index(np.rint(points).astype(np.int64))
        return self._owner[images[:, None], index] == FREE

    def overlap(self, images, middle, direction):
        """Count the reserved pixels that dashes at `middle` (n, 2) would cover in part."""
        index, along, across = self._around(middle, direction, self._cover)
        covered = (along < (self._length + 1) / 2) & (across < (self._thickness + 1) / 2)
        return (covered & (self._owner[images[:, None], index] != FREE)).sum(axis=1)

    def reserve_dash(self, images, steps, middle, direction, margin):
        """Reserve the pixels within `margin` (n,) of dashes at `middle` (n, 2)."""
        index, along, across = self._around(middle, direction, self._near)
        distance = np.hypot(np.maximum(along - self._length / 2, 0), across)
        self._reserve(images, steps, index, distance <= margin[:, None] + self._thickness / 2)

    def reserve_disc(self, images, steps, center, radius):
        """Reserve the pixels within `radius` of `center` (n, 2)."""
        offsets = window(math.ceil(radius) + 1)
        index, along, across = self._around(center, np.array([[1.0, 0.0]]), offsets)
        self._reserve(images, steps, index, np.hypot(along, across) <= radius)

    def give_back(self, images, steps):
        """Free what the dashes from `steps` (n,) on reserved in the images (n,)."""
        owner = self._owner[images]
        owner[owner > steps[:, None]] = FREE
        self._owner[images] = owner

    def _reserve(self, images, steps, index, mask):
        before = self._owner[images[:, None], index]
        owner = np.where(mask, (steps + 1)[:, None], FREE)
        self._owner[images[:, None], index] = np.minimum(before, owner)

    def _around(self, middle, direction, offsets):
        """Find the pixels around `middle`: index, and distance along and across `direction`."""
        pixel = np.rint(middle).astype(np.int64)[:, None] + offsets
        along, across = local_axes(pixel - middle[:, None], direction)
        return self._index(pixel), along, across

    def _index(self, pixel):
        cell = np.clip(pixel + self._border, 0, self._side - 1)
        return cell[..., 0] * self._side + cell[..., 1]


def window(reach: int) -> np.ndarray:
    """List the pixel steps of a square of `2 reach + 1` pixels: (K, 2) integers."""
    steps = np.arange(-reach, reach + 1)
    return np.stack(np.meshgrid(steps, steps, indexing="ij"), axis=-1).reshape(-1, 2)


def local_axes(offset: np.ndarray, direction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Measure offsets (n, K, 2) along and across unit vectors (n, 2): two (n, K) magnitudes."""
    u, v = direction[:, None, 0], direction[:, None, 1]
    along = offset[..., 0] * u + offset[..., 1] * v
    across = offset[..., 0] * v - offset[..., 1] * u
    return np.abs(along), np.abs(across)


def distance_to_dashes(point: np.ndarray, dashes: np.ndarray) -> np.ndarray:
    """Measure the distance of points (n, 2) to each dash (n, K, 2, 2): (n, K)."""
    tail, head = dashes[:, :, 0], dashes[:, :, 1]
    along = head - tail
    share = ((point[:, None] - tail) * along).sum(-1) / (along * along).sum(-1)
    nearest = tail + np.clip(share, 0, 1)[..., None] * along
    return np.linalg.norm(point[:, None] - nearest, axis=-1)


def unit(angle: np.ndarray) -> np.ndarray:
    """Make unit vectors (..., 2), row and column, of angles (...,) in radians."""
    return np.stack([np.sin(angle), np.cos(angle)], axis=-1)
