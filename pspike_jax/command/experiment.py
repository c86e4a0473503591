"""From a config to typed objects, once; a key that nobody knows is an error."""

import dataclasses
import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import flax.linen as nn
from jax.sharding import Mesh

import pspike_jax
from pspike_jax.data import TASKS, Task
from pspike_jax.training import OptimizerSettings, TrainSettings, make_mesh
from pspike_jax.training.sharding import AXES, share_batches

T = TypeVar("T")

# Where the published files are, by the beginning of a set's name.
ADDRESSES = {
    "shd": "https://zenkelab.org/datasets/",
    "ssc": "https://zenkelab.org/datasets/",
    "gsc": "https://storage.googleapis.com/download.tensorflow.org/data/",
    "sc": "https://storage.googleapis.com/download.tensorflow.org/data/",
    "smnist": "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "psmnist": "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "image": "https://www.cs.toronto.edu/~kriz/cifar.html",
    "text": "https://ai.stanford.edu/~amaas/data/sentiment/",
    "retrieval": "https://github.com/google-research/long-range-arena",
    "japanese_vowels": "https://www.timeseriesclassification.com/",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """The final evaluation on the test split.

    Attributes:
      draws: noise draws, at least 2.
      seed: of the noise.
    """

    draws: int
    seed: int

    def __post_init__(self):
        if self.draws < 2 or self.seed < 0:
            raise ValueError(
                f"draws is {self.draws} and seed {self.seed}, expected at least 2 and at least 0"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """Everything that a config says.

    Attributes:
      task: the data.
      model: the model, with the outputs and tokens that the task has.
      training: settings of the run.
      mesh: the devices.
      evaluation: settings of the final evaluation.
    """

    task: Task
    model: nn.Module
    training: TrainSettings
    mesh: Mesh
    evaluation: EvaluationSettings


def build(config: Mapping[str, Any]) -> Experiment:
    """Turn a config into typed objects.

    Args:
      config: sections "task", "model", "optimizer", "training", "mesh", "evaluation", as dicts.

    Returns:
      The experiment.

    Raises:
      ValueError: a key is unknown, with the nearest known one; a key is missing; a value is wrong.
    """
    sections = ("task", "model", "optimizer", "training", "mesh", "evaluation")
    check_keys(config, sections, sections, "config")
    named = {"task": dict(config["task"]), "model": dict(config["model"])}
    for section, fields in named.items():
        if "name" not in fields:
            raise ValueError(f"config.{section} has no key 'name'")
    task_name = named["task"].pop("name")
    check_keys([task_name], TASKS, (), "config.task.name")
    seed = named["task"].get("seed")
    if seed is not None and seed < 0:
        raise ValueError(f"config.task.seed is {seed}, expected at least 0")
    try:
        task = call(TASKS[task_name], named["task"], "config.task")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}{_where_to_get(named['task'], task_name)}") from error
    if task.test is None:
        raise ValueError(f"task {task_name!r} has no test split, which the final evaluation needs")
    derived = task.model_fields
    for name, value in derived.items():
        if named["model"].get(name, value) != value:
            given = named["model"][name]
            raise ValueError(f"config.model.{name} is {given}, of the task {value}: leave it out")
    optimizer = call(OptimizerSettings, config["optimizer"], "config.optimizer")
    training = dict(config["training"]) | {"optimizer": optimizer}
    settings = call(TrainSettings, training, "config.training")
    return Experiment(
        task=task,
        model=pspike_jax.create_model(**named["model"] | derived),
        training=settings,
        mesh=_mesh(config["mesh"], settings),
        evaluation=call(EvaluationSettings, config["evaluation"], "config.evaluation"),
    )


def _mesh(section: Mapping[str, Any], settings: TrainSettings) -> Mesh:
    """Return the mesh of a config; where it asks for none, the default one of `fit`."""
    sizes = {axis: 1 if size is None else size for axis, size in section.items()}
    if section.get("data") is None and set(sizes) <= set(AXES) and set(sizes.values()) <= {1}:
        return share_batches(settings.batch_size, settings.eval_batch_size)
    return call(make_mesh, section, "config.mesh")


def _where_to_get(section: Mapping[str, Any], task_name: str) -> str:
    """Return where the files of a set are published, where that is known."""
    dataset = section.get("dataset", task_name)
    fitting = [key for key in ADDRESSES if dataset.startswith(key)]
    # Of "sc10" and "ssc" the longest fits best.
    return f"\nIts files are at {ADDRESSES[max(fitting, key=len)]}" if fitting else ""


def call(function: Callable[..., T], section: Mapping[str, Any], where: str) -> T:
    """Call a function with the keys of a section.

    Args:
      function: a function or class.
      section: its keyword arguments.
      where: what messages call the section.

    Returns:
      What the function returns.

    Raises:
      ValueError: a key is not an argument of the function, or an argument has no key.
    """
    parameters = inspect.signature(function).parameters.values()
    needed = [p.name for p in parameters if p.default is inspect.Parameter.empty]
    check_keys(section, [p.name for p in parameters], needed, where)
    return function(**section)


def check_keys(
    found: Iterable[str], known: Iterable[str], needed: Iterable[str], where: str
) -> None:
    """Refuse unknown keys, naming the nearest known one, and missing ones.

    Args:
      found: the keys there are.
      known: the keys there may be.
      needed: the keys there must be.
      where: what messages call the place.

    Raises:
      ValueError: as said above.
    """
    found, known = list(found), sorted(known)
    for key in found:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            raise ValueError(f"{where}: unknown key {key!r}; {hint}")
    missing = [key for key in needed if key not in found]
    if missing:
        raise ValueError(f"{where}: missing {missing}")
