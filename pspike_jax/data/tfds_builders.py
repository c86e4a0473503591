"""The generated sets as TensorFlow datasets, for programs that read those.

    register_builders()
    builder = tfds.builder("pspike_listops", data_dir=DIR, file_format="array_record")
    builder.download_and_prepare()                      # generates; nothing is downloaded
    examples = builder.as_data_source("train")

pspike_listops     {"inputs": (2000,) uint8 tokens, "length", "label"}
pspike_pathfinder  {"image": (S, S, 1) uint8, "label"}; configs size32, size64, size128, size256

Examples are those that `pspike prepare` writes, in the same order.
"""

import functools
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from pspike_jax.data.listops import ListOpsSettings, listops_source
from pspike_jax.data.pathfinder import BLOCK, PathfinderSettings, generate_block
from pspike_jax.data.source import SPLITS

VERSION = "1.0.0"
SIZES = (32, 64, 128, 256)


def listops_rows(settings: ListOpsSettings, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Generate the ListOps examples of one split.

    Args:
      settings: what to generate.
      split: "train", "validation" or "test". The splits before it are generated on the way, for
        an expression that they hold is not repeated.

    Yields:
      Row in the split, and the example.
    """
    source = listops_source(settings)
    first, last = source.ranges()[split]
    rows = itertools.chain.from_iterable(zip(*block) for block in source.blocks)
    for row, (inputs, length, label) in enumerate(itertools.islice(rows, first, last)):
        yield row, {"inputs": inputs, "length": length, "label": int(label)}


def pathfinder_rows(
    settings: PathfinderSettings, split: str
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Generate the pathfinder-style images of one split.

    Args:
      settings: what to generate.
      split: "train", "validation" or "test".

    Yields:
      Row in the split, and the example.
    """
    counts = (settings.num_train, settings.num_validation, settings.num_test)
    end = np.cumsum(counts)[SPLITS.index(split)]
    first = end - counts[SPLITS.index(split)]
    shape = (settings.size, settings.size, 1)
    for block in range(first // BLOCK, -(-end // BLOCK)):
        # A block depends on how many images it holds; the last one of the set may hold fewer.
        count = min(BLOCK, settings.num_examples - block * BLOCK)
        images, _, labels = generate_block(settings, (block, count))
        for row, image, label in zip(itertools.count(block * BLOCK - first), images, labels):
            if 0 <= row < end - first:
                yield row, {"image": image.reshape(shape), "label": int(label)}


@functools.cache
def register_builders() -> tuple[type, ...]:
    """Register the builders, after which `tfds.builder` knows their names.

    Returns:
      The two classes.

    Raises:
      ImportError: tensorflow-datasets is not installed.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError("TensorFlow datasets need: pip install 'pspike_jax[data]'") from error

    class Generated(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """What both have in common: every split is generated from the builder's settings."""

        VERSION = tfds.core.Version(VERSION)

        def _split_generators(self, dl_manager):
            del dl_manager
            return {split: self._generate_examples(split) for split in SPLITS}

    class PspikeListops(Generated):
        """ListOps by the published rules."""

        name = "pspike_listops"
        settings = ListOpsSettings()

        def _info(self):
            features = {
                "inputs": tfds.features.Tensor(shape=(self.settings.max_length,), dtype=np.uint8),
                "length": np.int32,
                "label": tfds.features.ClassLabel(num_classes=10),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features), description=__doc__
            )

        def _generate_examples(self, split):
            return listops_rows(self.settings, split)

    class PspikePathfinder(Generated):
        """Pathfinder-style images; not the published ones."""

        name = "pspike_pathfinder"
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=f"size{size}") for size in SIZES]

        @property
        def settings(self):
            """Of the size that the configuration names."""
            return PathfinderSettings(size=int(self.builder_config.name.removeprefix("size")))

        def _info(self):
            size = self.settings.size
            features = {
                "image": tfds.features.Tensor(shape=(size, size, 1), dtype=np.uint8),
                "label": tfds.features.ClassLabel(num_classes=2),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features), description=__doc__
            )

        def _generate_examples(self, split):
            return pathfinder_rows(self.settings, split)

    return PspikeListops, PspikePathfinder
