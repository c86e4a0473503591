"""Losses and batches of class-incremental learning on frozen features, session by session."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pspike_jax.functional.simplex import alignment, root_energy

# {part of a branch: what it is called in the losses}
SELECTIVE = ("dt", "b", "c")


def class_sensitive(
    parts: Mapping[str, Mapping[str, jax.Array]],
    base: jax.Array,
    *,
    suppress: float,
    suppress_novel: float,
    separate: float,
    separate_new: float,
) -> dict[str, jax.Array]:
    """Return the losses that keep the new branch quiet on old classes and apart on new ones.

    Args:
      parts: {"base", "new"} of the model's aux; "new" may be missing.
      base: (B,) bool, examples of the base session's classes. A batch without both kinds has no
        such loss: weigh it by 0.
      suppress: of the gates' energy on base classes.
      suppress_novel: of the same on novel ones, which is rewarded.
      separate: of the likeness of the base branch's selective parameters between both kinds.
      separate_new: of the new branch's.

    Returns:
      {name: scalar}, weights included.
    """
    gate = parts.get("new", parts["base"])["gate"]
    losses = {
        "suppress_base": suppress * root_energy(gate, base),
        "suppress_novel": -suppress_novel * root_energy(gate, ~base),
    }
    for branch, weight in (("base", separate), ("new", separate_new)):
        for name in SELECTIVE:
            if branch in parts:
                value = weight * alignment(parts[branch][name], base)
                losses[f"separate_{name}_{branch}"] = value
    both = jnp.any(base) & jnp.any(~base)
    return {name: jnp.where(both, value, 0) for name, value in losses.items()}


def class_means(features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return one mean for each class, what remains of base classes in later sessions.

    Args:
      features: (n, ...).
      labels: (n,) integers.

    Returns:
      (classes, ...) means and (classes,) labels, ascending.
    """
    classes = np.unique(labels)
    means = [features[labels == one].mean(axis=0) for one in classes]
    return np.stack(means).astype(features.dtype), classes.astype(labels.dtype)


def few_shot_sessions(
    labels: np.ndarray, *, base_classes: int, ways: int, shots: int, seed: int
) -> list[np.ndarray]:
    """Choose the training rows of each session.

    Args:
      labels: (n,) integers in 0 .. K - 1.
      base_classes: of the first session, all of whose rows are its.
      ways: new classes of each later session.
      shots: rows of each of them.
      seed: of the choice.

    Returns:
      Row numbers of each session: those of its own classes alone.

    Raises:
      ValueError: a class has fewer rows than shots.
    """
    rng, count = np.random.default_rng(seed), int(labels.max()) + 1
    sessions = [np.flatnonzero(labels < base_classes)]
    for first in range(base_classes, count, ways):
        chosen = []
        for one in range(first, min(first + ways, count)):
            rows = np.flatnonzero(labels == one)
            if len(rows) < shots:
                raise ValueError(f"class {one} has {len(rows)} rows, expected {shots} or more")
            chosen.append(rng.choice(rows, shots, replace=False))
        sessions.append(np.concatenate(chosen))
    return sessions


def nearest_mean(
    features: np.ndarray, means: np.ndarray, classes: np.ndarray
) -> np.ndarray:
    """Return the class whose mean points most alike, the rival of every projector.

    Args:
      features: (n, d).
      means: (k, d).
      classes: (k,).

    Returns:
      (n,) labels.
    """
    unit: Any = lambda a: a / np.maximum(np.linalg.norm(a, axis=-1, keepdims=True), 1e-12)
    return classes[np.argmax(unit(features) @ unit(means).T, axis=1)]
