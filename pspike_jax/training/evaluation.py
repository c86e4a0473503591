"""Evaluation of stochastic models: over noise draws, in the mean field, and at a threshold."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NotRequired, TypedDict

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from pspike_jax.data.batches import Split, Task, eval_batches
from pspike_jax.objectives import Objective, metrics
from pspike_jax.training.arguments import (
    check_key,
    check_model,
    check_task,
    check_variables,
    explained,
)
from pspike_jax.training.sharding import (
    AXES,
    check_batch_size,
    check_length,
    gathered_shardings,
    local_rows,
    place_parameters,
    replicated,
    shard_batch,
    share_batches,
)
from pspike_jax.training.state import call_options

THRESHOLD = 0.5  # a neuron fires where its probability is above it
MODES = {  # how a stochastic model can be run
    "sampled": {},
    "mean_field": {"sampling": "mean"},
    "threshold": {"noise": THRESHOLD},
}
SIZES = ("neurons", "fan_out")  # counts of a site that no batch adds to


@functools.partial(
    jax.jit, static_argnames=("model", "objective", "sampling", "noise", "mesh", "gathered")
)
def eval_step(
    model: nn.Module,
    variables: Any,
    batch: dict[str, jax.Array],
    key: jax.Array,
    *,
    objective: Objective | None,
    mesh: Mesh,
    sampling: str = "spikes",
    noise: float | None = None,
    gathered: tuple[NamedSharding, ...] | None = None,
) -> Any:
    """Run a model on one batch, of which "ids" key each example's noise, without changing it.

    Returns the metrics of the objective as sums, and the model's aux; or, without an objective, its
    outputs. `sampling` and `noise` are those of the model's call, `gathered` is from
    `pass_shardings`; the key is consumed.
    """
    leaves, structure = jax.tree.flatten(variables["params"])
    params = place_parameters(leaves, None if gathered is None else list(gathered))
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        outputs, aux = model.apply(
            variables | {"params": structure.unflatten(params)},
            batch["inputs"],
            batch["lengths"],
            train=False,
            noise=noise,
            sampling=sampling,
            rngs={"spikes": key},
            **call_options(batch),
        )
    found = outputs if objective is None else (objective(outputs, batch)[2], aux)
    return jax.lax.with_sharding_constraint(found, replicated(mesh))


def pass_shardings(variables: Any) -> tuple[NamedSharding, ...] | None:
    """Return where parameters, or shapes, are during a pass, as a constant of `eval_step`."""
    shardings = jax.tree.map(lambda leaf: getattr(leaf, "sharding", None), variables["params"])
    found = gathered_shardings(shardings)
    return None if found is None else tuple(jax.tree.leaves(found))


def run_batches(
    model: nn.Module,
    variables: Any,
    split: Split,
    use: Callable[[Any], None],
    *,
    key: jax.Array,
    objective: Objective | None,
    batch_size: int,
    mesh: Mesh,
    before_batch: Callable[[], None] = lambda: None,
    **mode: Any,
) -> None:
    """Run a model on every example of a split once, in order.

    `use` gets what `eval_step` returns, on the host, one batch late, so that the device is busy
    meanwhile; noise is keyed by row, so that results do not depend on B. What `before_batch` raises
    ends the pass. The key is consumed.
    """
    part, gathered = local_rows(batch_size, mesh), pass_shardings(variables)
    pending = None
    for number, batch in enumerate(eval_batches(split, batch_size, part)):
        before_batch()
        rows = np.int32(number * batch_size) + part.astype(np.int32)
        with explained():
            found = eval_step(
                model, variables, shard_batch({"ids": rows} | batch, mesh), key,
                objective=objective, mesh=mesh, gathered=gathered, **mode,
            )
        if pending is not None:
            use(jax.device_get(pending))
        pending = found
    use(jax.device_get(pending))


def run_split(
    model: nn.Module,
    variables: Any,
    split: Split,
    *,
    objective: Objective,
    key: jax.Array,
    batch_size: int,
    mesh: Mesh,
    **options: Any,
) -> tuple[metrics.Metrics, dict[str, Any]]:
    """Measure a model on a split, in memory that does not grow with it.

    Takes what `run_batches` takes, and consumes the key. Returns the objective's metrics as sums on
    the host, and {"sites", "macs"}, the activity and operation counts of the whole split.
    """
    measured, counts = None, None

    def use(found):
        nonlocal measured, counts
        measured, counts = metrics.merge(measured, found[0]), _add_counts(counts, found[1])

    run_batches(
        model, variables, split, use, objective=objective, key=key, batch_size=batch_size,
        mesh=mesh, **options,
    )
    return measured, counts


def _add_counts(total: Any, aux: Any) -> Any:
    """Add activity and operation counts of a batch, in float64."""
    aux = {name: aux.get(name, {}) for name in ("sites", "macs")}
    aux = jax.tree.map(lambda x: np.asarray(x, np.float64), aux)
    if total is None:
        return aux

    def add(path, first, second):
        return first if path[-1].key in SIZES else first + second

    return jax.tree.map_with_path(add, total, aux)


class Measured(TypedDict):
    """A metric: its mean, and the standard errors of draws and of examples."""

    mean: float
    sem: float
    sem_examples: float


class Score(Measured):
    """The merit of a way to run a model; all metrics beside it, see `evaluate`."""

    examples: int
    metrics: dict[str, Measured]
    draws: NotRequired[int]
    values: NotRequired[list[float]]


def evaluate(
    model: nn.Module,
    variables: Mapping[str, Any],
    task: Task,
    split: str = "test",
    *,
    key: jax.Array,
    draws: int = 8,
    batch_size: int = 128,
    mesh: Mesh | None = None,
) -> dict[str, Score]:
    """Measure a trained model in the three ways in which a stochastic model can be run.

    Args:
      model: the model.
      variables: its parameters and batch statistics.
      task: the examples, and the objective.
      split: "train", "validation" or "test".
      key: of the noise; consumed.
      draws: noise draws, at least 2; a deterministic model is run once.
      batch_size: B.
      mesh: the devices; None for those that the variables are on, or all of them as data.

    Returns:
      {"sampled"}, and for a stochastic model {"mean_field", "threshold"}. Each has "mean" and
      "sem", the merit and its standard error over noise draws; "sem_examples", the standard error
      that comes from the number of examples; "examples"; and "metrics", by name the same of each.
      "sampled" is the mean over draws of the single-draw result; "draws" is their number and
      "values" are the merits of each. "mean_field" passes probabilities in place of spikes; in
      "threshold" a neuron fires where its probability is above 0.5; both draw nothing, so their
      "sem" is 0, as that of a deterministic model.

    Raises:
      TypeError: `task` is no Task, or the model cannot be hashed.
      ValueError: the task has no such split, or there are too few draws.
    """
    check_model(model)
    check_variables(variables)
    check_task(task)
    check_key(key)
    examples, stochastic = task.split(split), getattr(model, "stochastic", True)
    if stochastic and draws < 2:
        raise ValueError(f"draws is {draws}, expected at least 2 for a standard error")
    mesh = choose_mesh(variables, batch_size) if mesh is None else mesh
    check_batch_size(batch_size, mesh, "batch_size")
    check_length(examples, mesh)
    run = functools.partial(
        run_split, model, variables, examples, objective=task.objective, batch_size=batch_size,
        mesh=mesh,
    )
    merit, key = task.objective.merit[0], free_key(key, mesh)
    with jax.set_mesh(mesh):  # whatever the caller's is
        if not stochastic:
            return {"sampled": _result([run(key=key)[0]], merit)}
        sampled = run_draws(run, key, draws)
        others = {name: [run(key=key, **how)[0]] for name, how in MODES.items() if how}
    first = _result(sampled, merit)
    first["draws"] = draws
    first["values"] = [float(metrics.mean(one[merit])) for one in sampled]
    return {"sampled": first} | {name: _result(one, merit) for name, one in others.items()}


def free_key(key: jax.Array, mesh: Mesh) -> jax.Array:
    """Return a key for a mesh: the caller's may have been made under another one."""
    words, kind = jax.device_get(jax.random.key_data(key)), jax.random.key_impl(key)
    with jax.set_mesh(mesh):
        return jax.random.wrap_key_data(words, impl=kind)


def choose_mesh(variables: Any, batch_size: int) -> Mesh:
    """Return the mesh that variables are on; without one, that of `share_batches`."""
    for leaf in jax.tree.leaves(variables):
        found = getattr(leaf, "sharding", None)
        if isinstance(found, NamedSharding) and set(AXES) <= set(found.mesh.axis_names):
            return found.mesh
    return share_batches(batch_size)


def run_draws(
    run: Callable[..., tuple[metrics.Metrics, Any]], key: jax.Array, draws: int
) -> list[metrics.Metrics]:
    """Return the sums of each noise draw: `run`, which takes a key, is called once for each."""
    return [run(key=jax.random.fold_in(key, draw))[0] for draw in range(draws)]


def average_draws(single: list[metrics.Metrics]) -> metrics.Metrics:
    """Average the sums of several draws of the same examples.

    Each example counts once: more draws do not shrink the error that comes from the number of
    examples.
    """
    return jax.tree.map(lambda *values: np.mean(values, axis=0), *single)


def _result(single: list[metrics.Metrics], merit: str) -> Score:
    """Return means and errors of all metrics, and beside them those of the merit."""
    together = average_draws(single)
    measured: dict[str, Measured] = {}
    for name, sums in together.items():
        values = np.array([metrics.mean(one[name]) for one in single])
        several = len(values) > 1
        measured[name] = {
            "mean": float(np.mean(values)),
            "sem": float(np.std(values, ddof=1) / np.sqrt(len(values))) if several else 0.0,
            "sem_examples": float(metrics.standard_error(sums)),
        }
    counted = together[merit]
    examples = int(counted.get("examples", counted["count"]))
    return {**measured[merit], "examples": examples, "metrics": measured}
