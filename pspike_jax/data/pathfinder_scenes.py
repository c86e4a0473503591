"""Where the dashes of a pathfinder-style image lie: snakes grown in many images at once.

Written from the published description (Linsley et al. 2018, arXiv 1805.08315, and its generator),
not from its code. A snake is a chain of joints `dash_length + 2 margin` apart; a dash of
`dash_length` lies in the middle of every link, so that dashes are 2 margin apart. The next link
turns by an angle D with weight cos^2(min(continuity |D|, pi/2)), among one candidate per pixel of
the circle on which the dash may end, and only where that end is free; where none is free, it may
turn further, up to a right angle. Each dash reserves the pixels within `margin` of it; a dash that
meets more than `overlap` reserved pixels is drawn again. Where the published generator starts an
image anew, a blocked snake first takes back some of its dashes: most images are lost to dead ends
otherwise. Coordinates are (row, column) in pixels; pixel centers are integers.
"""

import dataclasses
import math

import numpy as np

from pspike_jax.data.pathfinder_canvas import Canvas, distance_to_dashes, unit

# Weight of turns beyond the range: it tells only where no turn within the range is free.
_LAST_RESORT = 1e-9
# A marker keeps this many pixels from the dashes of other snakes, for the eye and for a program.
_MARKER_CLEARANCE = 1.0


@dataclasses.dataclass(frozen=True)
class SceneSettings:
    """Geometry of one image. Lengths are in pixels.

    Attributes:
      size: image height and width.
      contour_length: dashes of each of the two target snakes.
      num_distractors: further snakes.
      distractor_length: dashes of each of them.
      dash_length: length of a dash.
      dash_thickness: width of a dash.
      margins: half of the gap between dashes; one of these is drawn for each image.
      contrast: brightness of a fully covered pixel; what exceeds 1 is cut off.
      marker_radius: radius of the two discs.
      seed_distance: distance between the first joints of the two target snakes.
      continuity: how strongly a snake goes straight on; 0 turns freely.
      padding: border that stays empty.
      overlap: reserved pixels that a new dash may meet; the published bound is 1.8.
      dash_retrials: further tries for a dash that finds no room.
      retrials: times an image may take back dashes before it starts anew.
    """

    size: int
    contour_length: int
    num_distractors: int
    distractor_length: int
    dash_length: float
    dash_thickness: float
    margins: tuple[int, ...]
    contrast: float
    marker_radius: float
    seed_distance: float
    continuity: float
    padding: int
    overlap: int
    dash_retrials: int = 2
    retrials: int = 100


@dataclasses.dataclass(frozen=True)
class Scenes:
    """The geometry of B images.

    Attributes:
      targets: (B, 2, contour_length, 2, 2) float: snake, dash, tail and head, row and column.
      distractors: (B, num_distractors, distractor_length, 2, 2) float, as targets.
      markers: (B, 2, 2) float, centers of the discs: the first tip of one target snake, and the
        last tip of the same snake (label 1) or of the other (label 0).
      labels: (B,) int32, 1 where one snake joins the markers.
    """

    targets: np.ndarray
    distractors: np.ndarray
    markers: np.ndarray
    labels: np.ndarray

    def __getitem__(self, index):
        return Scenes(*(getattr(self, field.name)[index] for field in dataclasses.fields(self)))


def sample_scenes(rng: np.random.Generator, count: int, settings: SceneSettings) -> Scenes:
    """Draw the geometry of `count` images.

    Labels are drawn when all snakes lie: what is drawn besides the markers is independent of them.

    Args:
      rng: a NumPy generator; it is consumed.
      count: number of images.
      settings: a SceneSettings.

    Returns:
      Scenes of `count` images.
    """
    growth = _Growth(rng, count, settings)
    while growth.images.size:
        growth.advance()
    dashes = growth.dashes
    split = 2 * settings.contour_length
    targets = dashes[:, :split].reshape(count, settings.contour_length, 2, 2, 2).swapaxes(1, 2)
    shape = (count, settings.num_distractors, settings.distractor_length, 2, 2)
    image = np.arange(count)
    first, labels = _choose_markers(rng, targets, settings.size)
    last = np.where(labels == 1, first, 1 - first)
    markers = np.stack([targets[image, first, 0, 0], targets[image, last, -1, 1]], axis=1)
    return Scenes(targets, dashes[:, split:].reshape(shape), markers, labels)


class _Growth:
    """Images under construction: each call of `advance` tries one more dash in every one.

    The steps of an image: the dashes of the two target snakes in turn, then each distractor. A dash
    that finds no room is drawn again. When that fails too, the target snakes take back their last
    2, 4, 8, ... dashes with probability 1/2, 1/4, 1/8, ..., and a distractor starts elsewhere;
    after `retrials` of these the image starts anew.

    Attributes:
      images: (n,) those that are not finished.
      dashes: (M, steps, 2, 2) tails and heads.
    """

    def __init__(self, rng, count, settings):
        self._rng = rng
        self._settings = settings
        self._canvas = Canvas(count, settings)
        self._margin = rng.choice(np.array(settings.margins, np.float64), count)
        self._contours = 2 * settings.contour_length
        self._steps = self._contours + settings.num_distractors * settings.distractor_length
        self._seeds = np.zeros((count, 2, 2))
        self._step = np.zeros(count, np.int64)
        self._misses = np.zeros(count, np.int64)
        self._retrials = np.zeros(count, np.int64)
        self.dashes = np.zeros((count, self._steps, 2, 2))
        self.images = np.arange(count)

    def advance(self):
        """Try the next dash of each unfinished image."""
        images = self.images
        self._sow(images[self._step[images] == 0])
        steps = self._step[images]
        joint, ahead, continuity = self._ends(images, steps)
        margin = self._margin[images]
        direction, possible = self._draw_direction(images, joint, ahead, margin, continuity)
        half = self._settings.dash_length / 2
        middle = joint + (margin[:, None] + half) * direction
        overlap = self._canvas.overlap(images, middle, direction)
        fits = possible & (overlap <= self._settings.overlap)
        dashes = np.stack([middle - half * direction, middle + half * direction], axis=1)
        self.dashes[images[fits], steps[fits]] = dashes[fits]
        fits[fits] = self._tips_stand_clear(images[fits], steps[fits])
        self._keep(images[fits], steps[fits], middle[fits], direction[fits], dashes[fits])
        self._take_back(images[~fits])
        self.images = images[self._step[images] < self._steps]

    def _sow(self, images):
        """Draw the first joints of both target snakes, `seed_distance` apart."""
        self._seeds[images, 0] = self._anywhere(images.size)
        direction = unit(self._rng.uniform(0, 2 * np.pi, images.size))
        apart = self._settings.seed_distance * direction
        self._seeds[images, 1] = self._seeds[images, 0] + apart

    def _anywhere(self, count):
        low = self._settings.padding
        return self._rng.uniform(low, self._settings.size - 1 - low, (count, 2))

    def _ends(self, images, steps):
        """Find joints and directions (n, 2) to go on from; continuity (n,), 0 for a new snake."""
        in_targets = steps < self._contours
        place = (steps - self._contours) % self._settings.distractor_length
        new = np.where(in_targets, steps < 2, place == 0)
        tail, head = np.moveaxis(self.dashes[images, steps - np.where(in_targets, 2, 1)], 1, 0)
        along = (head - tail) / self._settings.dash_length
        joint = head + self._margin[images, None] * along
        start = np.where(
            in_targets[:, None], self._seeds[images, steps % 2], self._anywhere(images.size)
        )
        joint = np.where(new[:, None], start, joint)
        ahead = np.where(new[:, None], np.array([0.0, 1.0]), along)
        return joint, ahead, np.where(new, 0.0, self._settings.continuity)

    def _draw_direction(self, images, joint, ahead, margin, continuity):
        """Draw directions (n, 2); tell also whether any candidate was possible (n,)."""
        settings = self._settings
        circle = settings.dash_length + margin
        count = math.ceil(2 * np.pi * (settings.dash_length + max(settings.margins)))
        turn = (np.arange(count) + self._rng.random((images.size, 1))) / count * 2 * np.pi - np.pi
        directions = _rotate(ahead[:, None], unit(turn))
        heads = joint[:, None] + circle[:, None, None] * directions
        weight = _squared_cosine(continuity[:, None] * turn)
        weight += _LAST_RESORT * _squared_cosine(np.minimum(continuity[:, None], 1) * turn)
        total = np.cumsum(weight * self._canvas.is_free(images, heads), axis=1)
        threshold = self._rng.random((images.size, 1)) * total[:, -1:]
        chosen = np.minimum((total <= threshold).sum(axis=1), count - 1)
        return directions[np.arange(images.size), chosen], total[:, -1] > 0

    def _tips_stand_clear(self, images, steps):
        """Look at the tips of the target snakes when their last dash is drawn."""
        clear = np.ones(images.size, bool)
        ready = np.flatnonzero(steps == self._contours - 1)
        targets = self.dashes[images[ready], : self._contours]
        clear[ready] = _markers_stand_clear(targets, self._settings)
        return clear

    def _keep(self, images, steps, middle, direction, dashes):
        """Reserve the room of new dashes, and of the markers that may stand at their tips."""
        self._canvas.reserve_dash(images, steps, middle, direction, self._margin[images])
        radius = self._settings.marker_radius + _MARKER_CLEARANCE
        last = (steps >= self._contours - 2) & (steps < self._contours)
        for at_tip, end in ((steps < 2, 0), (last, 1)):
            tip = dashes[at_tip, end]
            self._canvas.reserve_disc(images[at_tip], steps[at_tip], tip, radius)
        self._step[images] += 1
        self._misses[images] = 0

    def _take_back(self, images):
        """Count a miss; after too many, take dashes back."""
        settings = self._settings
        self._misses[images] += 1
        images = images[self._misses[images] > settings.dash_retrials]
        self._misses[images] = 0
        self._retrials[images] += 1
        steps = self._step[images]
        in_targets = steps < self._contours
        place = (steps - self._contours) % settings.distractor_length
        back = 2 ** np.minimum(self._rng.geometric(0.5, images.size), 10)
        back = np.where(in_targets, np.minimum(back, steps), place)
        anew = self._retrials[images] > settings.retrials
        steps = np.where(anew, 0, steps - back)
        self._retrials[images[anew]] = 0
        self._canvas.give_back(images, steps)
        self._step[images] = steps


def _rotate(direction, turn):
    """Rotate unit vectors (..., 2) by others; no arc tangent, whose last bits differ by machine."""
    row = direction[..., 0] * turn[..., 1] + direction[..., 1] * turn[..., 0]
    column = direction[..., 1] * turn[..., 1] - direction[..., 0] * turn[..., 0]
    return np.stack([row, column], axis=-1)


def _squared_cosine(angle):
    """cos^2, and exactly 0 from a right angle on, where a rounded cosine would leave 1e-33."""
    return np.where(np.abs(angle) < np.pi / 2, np.cos(angle) ** 2, 0.0)


def _choose_markers(rng, targets, size):
    """Draw labels, and the snake that carries the first marker.

    Fair coins would let the distance between the markers tell a little: the tips of one snake lie
    closer together than those of two, or further apart. So each image takes the first of its four
    choices, in random order, that does not add to the surplus of one label among the distances
    so far; both labels then have the same distances, to one bin of a sixteenth of the image.

    Args:
      targets: (B, 2, contour_length, 2, 2).

    Returns:
      first (B,), 0 or 1, and labels (B,) int32.
    """
    count = len(targets)
    choices = rng.permuted(np.tile(np.arange(4), (count, 1)), axis=1)
    start, end = targets[:, :, 0, 0], targets[:, :, -1, 1]
    distance = np.linalg.norm(start[:, :, None] - end[:, None], axis=-1)
    bins = (distance * 16 / size).astype(np.int64)
    surplus = np.zeros(bins.max() + 1, np.int64)
    first, labels = choices // 2, choices % 2
    last = np.where(labels == 1, first, 1 - first)
    chosen = np.zeros(count, np.int64)
    for i in range(count):
        places = bins[i, first[i], last[i]]
        sign = 2 * labels[i] - 1
        harmless = surplus[places] * sign <= 0
        chosen[i] = np.argmax(harmless)
        surplus[places[chosen[i]]] += sign[chosen[i]]
    rows = np.arange(count)
    return first[rows, chosen], labels[rows, chosen].astype(np.int32)


def _markers_stand_clear(dashes, settings):
    """Tell where no marker would touch another marker or the other target snake.

    All four tips are looked at, whichever will carry markers, so that labels stay independent.

    Args:
      dashes: (n, 2 contour_length, 2, 2) of the target snakes in turn.

    Returns:
      (n,) bool.
    """
    first, last = dashes[:, :2, None, 0], dashes[:, None, -2:, 1]
    between = np.linalg.norm(first - last, axis=-1)
    clear = (between > 2 * settings.marker_radius + _MARKER_CLEARANCE).all(axis=(1, 2))
    room = settings.marker_radius + settings.dash_thickness / 2 + _MARKER_CLEARANCE
    for snake in range(2):
        other = dashes[:, 1 - snake :: 2]
        for tip in (dashes[:, snake, 0], dashes[:, snake - 2, 1]):
            clear &= (distance_to_dashes(tip, other) > room).all(axis=1)
    return clear
