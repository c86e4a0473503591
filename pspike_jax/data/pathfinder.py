"""Pathfinder-style images of 32 to 256 pixels, generated; and the published images, read.

Two discs stand at tips of dashed curves, and the question is whether one curve joins them (label 1)
or not (label 0). Sizes 32, 64 and 128 (Path-X) follow the parameters of the Long Range Arena (Tay
et al. 2021, arXiv 2011.04006) and the generator of Linsley et al. 2018 (arXiv 1805.08315). The
images generated here are like the published ones, not among them: results on them are results on
"pathfinder-style" data.
"""

import dataclasses
import functools
import itertools
import os
import pathlib

import numpy as np

from pspike_jax.data.pathfinder_drawing import draw_scenes
from pspike_jax.data.pathfinder_scenes import SceneSettings, sample_scenes
from pspike_jax.data.pictures import MOST_BYTES, decode_png
from pspike_jax.data.scaled import Scaling
from pspike_jax.data.source import Source, count_differences, held_out, in_order
from pspike_jax.data.untrusted import check_link, inside, list_files, read_bytes, read_text

BLOCK = 500
PUBLISHED_IMAGES = 200_000
_DISTRACTOR_DASHES = {32: 20, 64: 22, 128: 35, 256: 30}
# As published, but for the overlap at 32 pixels: small dashes that meet a pixel would merge.
_GEOMETRY = {
    32: dict(
        dash_length=2, dash_thickness=0.5, margins=(1,), contrast=1.5, marker_radius=1.5,
        seed_distance=7, continuity=1.0, padding=1, overlap=0,
    ),
    64: dict(
        dash_length=5, dash_thickness=1, margins=(1,), contrast=0.8, marker_radius=2.5,
        seed_distance=12, continuity=1.8, padding=1, overlap=1,
    ),
    128: dict(
        dash_length=5, dash_thickness=1.5, margins=(2, 3), contrast=0.9, marker_radius=3,
        seed_distance=20, continuity=1.8, padding=1, overlap=1,
    ),
    256: dict(
        dash_length=5, dash_thickness=2, margins=(3,), contrast=1.0, marker_radius=5,
        seed_distance=27, continuity=1.8, padding=22, overlap=1,
    ),
}


@dataclasses.dataclass(frozen=True)
class PathfinderSettings:
    """What to generate, or which published images to read.

    Attributes:
      size: 32, 64, 128 (Path-X) or 256 pixels.
      contour_length: dashes of a target curve: 14 (published as hard, the one of the benchmark), 9
        or 6.
      num_train: images for training; published files hold 160,000.
      num_validation: images for validation; 20,000.
      num_test: images for test; 20,000.
      seed: any non-negative integer; of the images, or of the split of published ones.
    """

    size: int = 32
    contour_length: int = 14
    num_train: int = 160_000
    num_validation: int = 20_000
    num_test: int = 20_000
    seed: int = 0

    def __post_init__(self):
        if self.size not in _GEOMETRY or not 3 <= self.contour_length <= 40:
            raise ValueError(
                f"size is {self.size} and contour_length {self.contour_length}, expected a size of "
                f"{sorted(_GEOMETRY)} and a contour_length of 3 to 40"
            )
        if min(self.num_train, self.num_validation, self.num_test) < 1 or self.seed < 0:
            raise ValueError(
                f"Pathfinder needs at least one image in every split and seed >= 0, got {self}"
            )

    @property
    def num_examples(self) -> int:
        """Images of all splits."""
        return self.num_train + self.num_validation + self.num_test

    def is_reduced(self) -> bool:
        """Tell whether images are fewer or easier than those published."""
        return self != PathfinderSettings(size=self.size, seed=self.seed)

    def scene(self) -> SceneSettings:
        """Look up the geometry of this size."""
        length = self.contour_length // 3
        return SceneSettings(
            size=self.size,
            contour_length=self.contour_length,
            num_distractors=_DISTRACTOR_DASHES[self.size] // length,
            distractor_length=length,
            **_GEOMETRY[self.size],
        )


def pathfinder_source(
    settings: PathfinderSettings,
    source_dir: str | os.PathLike | None = None,
    processes: int = 1,
) -> Source:
    """Generate images, or read the published ones where `source_dir` is given.

    Args:
      settings: what to make. The images depend on these alone.
      source_dir: folder that holds curv_contour_length_14 (imgs/, metadata/), or pathfinder32 with
        that folder inside.
      processes: how many processes share the work.

    Returns:
      A Source of inputs (n, size^2, 1) uint8 in row-major order, read as [0, 1].

    Raises:
      FileNotFoundError, ValueError: published files are missing or damaged; see `list_images`.
    """
    if source_dir is not None:
        return _published_source(settings, pathlib.Path(source_dir), processes)
    sizes = [BLOCK] * (settings.num_examples // BLOCK) + [settings.num_examples % BLOCK]
    jobs = [(block, count) for block, count in enumerate(sizes) if count]
    counts = (settings.num_train, settings.num_validation, settings.num_test)
    blocks = in_order(functools.partial(generate_block, settings), jobs, processes)
    name = f"pathfinder-style {settings.size}" + (" (reduced)" if settings.is_reduced() else "")
    return _source(settings, name, counts, blocks)


def generate_block(
    settings: PathfinderSettings, job: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Generate one block of images, a pure function of its arguments.

    Args:
      settings: what to make.
      job: number of the block, and how many images it holds.

    Returns:
      inputs (B, size^2, 1) uint8, lengths (B,) int32, labels (B,) int32.
    """
    block, count = job
    scene = settings.scene()
    rng = np.random.default_rng([settings.seed, settings.size, settings.contour_length, block])
    scenes = sample_scenes(rng, count, scene)
    return _block(draw_scenes(scenes, scene), scenes.labels)


def list_images(folder: str | os.PathLike) -> tuple[list[pathlib.Path], np.ndarray]:
    """List published images and their labels.

    Args:
      folder: curv_contour_length_14, with metadata/*.npy: text files, a line for each image, that
        begins with its folder, its file and its number, and then the label.

    Returns:
      Paths and labels (n,) int32.

    Raises:
      FileNotFoundError: there is no metadata.
      ValueError: a file is empty; a line cannot be read, or names no image of this folder.
    """
    folder = pathlib.Path(folder)
    names = list_files(folder / "metadata", ".npy", folder)
    if not names:
        raise FileNotFoundError(f"{folder / 'metadata'}: no .npy files that list the images")
    paths, labels = [], []
    listed = functools.cache(lambda part: set(list_files(inside(folder, part), ".png", folder)))
    for file in (folder / "metadata" / name for name in sorted(names, key=lambda n: (len(n), n))):
        lines = read_text(file, encoding="ascii").splitlines()
        if not lines:
            raise ValueError(f"{file}: lists no image")
        for number, line in enumerate(lines, 1):
            fields = line.split()
            if len(fields) < 4 or fields[3] not in ("0", "1"):
                raise ValueError(
                    f"{file}, line {number}: {line[:60]!r}, expected folder, file, number and a "
                    f"label of 0 or 1"
                )
            try:
                known = fields[1] in listed(fields[0])
            except ValueError as error:
                raise ValueError(f"{file}, line {number}: {error}") from error
            if not known:
                raise ValueError(f"{file}, line {number}: no image {fields[0]}/{fields[1]}")
            paths.append(folder / fields[0] / fields[1])
            labels.append(int(fields[3]))
    return paths, np.array(labels, np.int32)


def read_images(size: int, paths: list[pathlib.Path]) -> np.ndarray:
    """Read square gray images.

    Args:
      size: their height and width.
      paths: of the B files.

    Returns:
      (B, size, size) uint8.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: a file is damaged, of another size, or no PNG.
    """
    images = np.empty((len(paths), size, size), np.uint8)
    for image, path in zip(images, paths):
        image[:] = decode_png(read_bytes(path, MOST_BYTES), image.shape, path)
    return images


def _published_source(
    settings: PathfinderSettings, source_dir: pathlib.Path, processes: int
) -> Source:
    """Read the published images, split 80/10/10 by the seed."""
    level = f"curv_contour_length_{settings.contour_length}"
    inner = source_dir / f"pathfinder{settings.size}"
    folder = (inner if inner.is_dir() else source_dir) / level
    if not check_link(source_dir, folder).is_dir():
        raise FileNotFoundError(
            f"no published images: {folder} is missing. Put {level}/imgs and {level}/metadata of "
            f"pathfinder{settings.size} from the release of the Long Range Arena there"
        )
    paths, labels = list_images(folder)
    rest, test = held_out(labels, 0.1, seed=settings.seed)
    train, validation = held_out(labels[rest], len(test) / len(rest), seed=settings.seed)
    order = np.concatenate([rest[train], rest[validation], test])
    batches = [order[i : i + BLOCK] for i in range(0, len(order), BLOCK)]
    images = in_order(
        functools.partial(read_images, settings.size),
        ([paths[i] for i in batch] for batch in batches),
        processes,
    )
    blocks = itertools.starmap(_block, zip(images, (labels[batch] for batch in batches)))
    counts = (len(train), len(validation), len(test))
    source = _source(settings, f"pathfinder {settings.size}", counts, blocks)
    return dataclasses.replace(
        source,
        settings=source.settings | {"published_files": True},
        differences=count_differences({level: PUBLISHED_IMAGES}, {level: len(paths)}),
    )


def _block(images, labels):
    count, size, _ = images.shape
    return images.reshape(count, -1, 1), np.full(count, size * size, np.int32), labels


def _source(settings, name, counts, blocks):
    return Source(
        name=name,
        counts=dict(zip(("train", "validation", "test"), counts)),
        shape=(settings.size**2, 1),
        dtype="uint8",
        num_classes=2,
        vocab_size=None,
        blocks=blocks,
        settings=dataclasses.asdict(settings) | {"published_files": False},
        scaling=lambda images: Scaling(255.0),
    )
