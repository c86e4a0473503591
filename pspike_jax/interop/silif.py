"""Weights of the SiLIF family, to and from the authors' PyTorch program (arXiv 2506.06374).

Their state dict names layers "snn.0", "snn.1", ...; the last one is the readout. A product is
"W.weight" (H, F), transposed here; recurrent weights are "V.weight", multiplied from the right of
the spikes in both programs.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from pspike_jax.functional.neurons import (
    AdLIF,
    CSiLIF,
    LIF,
    Neuron,
    ResonateAndFire,
    SiLIF,
)
from pspike_jax.models.silif import NEURONS, SpikingNetwork
from pspike_jax.models.zoo import create_model

NORMS = {"batchnorm": "batch", "layernorm": "layer", "none": "none"}

# {neuron: {name here: name there}}
_PARAMETERS: dict[type[Neuron], dict[str, str]] = {
    LIF: {"alpha": "alpha"},
    AdLIF: {name: name for name in ("alpha", "beta", "a", "b")},
    SiLIF: {
        "log_dt": "dt", "log_rate_u": "alpha", "log_rate_w": "beta", "a": "a", "b": "b"
    },
    CSiLIF: {
        "log_damping": "log_log_alpha", "frequency": "alpha_img", "log_dt": "log_dt", "b": "b"
    },
    ResonateAndFire: {"damping": "alpha_real", "frequency": "alpha_im"},
}
_COUNTER = "norm.num_batches_tracked"  # of no effect with a fixed momentum


class Activity(NamedTuple):
    """Activity as the authors report it.

    Attributes:
      firing_rates: (F + sum of widths,) mean over examples and steps of each input channel, then
        of each hidden neuron.
      synops: synaptic operations per example: non-zero presynaptic values times the next layer's
        size, with the input as the first presynaptic layer. Recurrent synapses are not counted.
    """

    firing_rates: jax.Array
    synops: jax.Array


def load_silif(
    state_dict: Mapping[str, Any], *, neuron: str, normalization: str = "batchnorm"
) -> tuple[SpikingNetwork, dict[str, Any]]:
    """Build the network of a state dict.

    Args:
      state_dict: {name: array or CPU tensor}, as `interop.read_state_dict` returns it.
      neuron: name of the model in the zoo.
      normalization: "batchnorm", "layernorm" or "none".

    Returns:
      module: network with the sizes of the weights; its states start at rest unless given.
      variables: its "params", and "batch_stats" where normalization is "batchnorm".

    Raises:
      ValueError: an unknown neuron or normalization; missing or unexpected names; wrong shapes
        or types.
    """
    if neuron not in NEURONS:
        raise ValueError(f"neuron is {neuron!r}; expected one of {', '.join(NEURONS)}")
    if normalization not in NORMS:
        raise ValueError(
            f"normalization is {normalization!r}; expected one of {', '.join(NORMS)}"
        )
    arrays = {name: np.asarray(array) for name, array in state_dict.items()}
    count = sum(name.endswith(".W.weight") for name in arrays)
    products = [f"snn.{layer}.W.weight" for layer in range(count)]
    if count < 2 or not arrays.keys() >= set(products):
        raise ValueError(
            f"the state dict has {count} products; expected snn.0.W.weight, snn.1.W.weight, ..."
        )
    for name, array in arrays.items():
        if array.dtype.kind not in "fiu" or (name in products and array.ndim != 2):
            raise ValueError(
                f"state dict: {name} is {array.dtype} {array.shape}; expected numbers, and two "
                f"axes of a product"
            )
    *widths, num_classes = (len(arrays[name]) for name in products)
    module = create_model(
        neuron,
        num_classes=num_classes,
        widths=tuple(widths),
        norm=NORMS[normalization],
        dropout=0.0,
        bidirectional=arrays[products[-1]].shape[1] == 2 * widths[-1],
    )
    entries = list(_entries(module))
    _check_names(arrays, {there for _, _, there in entries})
    flat = {
        (collection, *here): arrays[there].T if here[-1] == "kernel" else arrays[there]
        for collection, here, there in entries
    }
    _check_shapes(module, flat, arrays[products[0]].shape[1])
    variables = jax.tree.map(lambda array: jnp.asarray(array, jnp.float32), flat)
    return module, flax.traverse_util.unflatten_dict(variables)


def export_silif(
    module: SpikingNetwork, params: Mapping[str, Any], batch_stats: Mapping[str, Any] | None = None
) -> dict[str, np.ndarray]:
    """Name parameters, or their gradients, as the authors do: renames and transposes only.

    Args:
      module: the network.
      params: its parameters, or anything of their structure.
      batch_stats: its running statistics, or None to leave them out.

    Returns:
      {name: array}.
    """
    trees = {"params": params} if batch_stats is None else {
        "params": params, "batch_stats": batch_stats
    }
    flat = flax.traverse_util.flatten_dict(trees)
    exported = {}
    for collection, here, there in _entries(module):
        if collection in trees:
            array = np.asarray(flat[(collection, *here)])
            exported[there] = array.T if here[-1] == "kernel" else array
    return exported


def authors_activity(
    module: SpikingNetwork, inputs: jax.Array, aux: Mapping[str, Mapping[str, jax.Array]]
) -> Activity:
    """Count activity as the authors' program reports it.

    Args:
      module: the network.
      inputs: (B, L, F) that it was given, all steps valid.
      aux: what it returned for them.

    Returns:
      Firing rates and synaptic operations.
    """
    batch, length, _ = inputs.shape
    hidden = [jnp.asarray(n) for site in aux.values() for n in site["neuron_spikes"]]
    # Their program takes any value above 0.9 for one spike, as behind dropout.
    rates = [jnp.mean(jnp.where(inputs > 0.9, 1, inputs), axis=(0, 1))]
    rates += [spikes / (batch * length) for spikes in hidden]
    sizes = (*module.widths, module.num_classes)
    counts = [jnp.sum(inputs != 0), *map(jnp.sum, hidden)]
    synops = sum(count * size for count, size in zip(counts, sizes)) / batch
    return Activity(jnp.concatenate(rates), synops)


def _entries(module) -> Iterator[tuple[str, tuple[str, ...], str]]:
    """Yield (collection, path here, name there) of every array of a network."""
    hidden = len(module.widths)
    for i in range(hidden + 1):
        layer, there = (f"layers_{i}" if i < hidden else "integrator"), f"snn.{i}"
        yield "params", (layer, "input", "kernel"), f"{there}.W.weight"
        if module.norm != "none":
            norm = (layer, "input", "norm")
            yield "params", (*norm, "scale"), f"{there}.norm.weight"
            yield "params", (*norm, "bias"), f"{there}.norm.bias"
        if module.norm == "batch":
            yield "batch_stats", (*norm, "mean"), f"{there}.norm.running_mean"
            yield "batch_stats", (*norm, "var"), f"{there}.norm.running_var"
        if i == hidden:
            yield "params", (layer, "alpha"), f"{there}.alpha"
            return
        for here, name in _PARAMETERS[type(module.neuron)].items():
            yield "params", (layer, "neuron", here), f"{there}.{name}"
        if module.neuron.recurrent:
            yield "params", (layer, "recurrent"), f"{there}.V.weight"


def _check_names(arrays, expected):
    found = {name for name in arrays if not name.endswith(_COUNTER)}
    missing, unexpected = sorted(expected - found), sorted(found - expected)
    if missing or unexpected:
        raise ValueError(f"state dict: missing {missing}, unexpected {unexpected}")


def _check_shapes(module, flat, features):
    inputs = jax.ShapeDtypeStruct((1, 1, features), jnp.float32)
    expected = jax.eval_shape(module.init, jax.random.key(0), inputs)
    for path, leaf in flax.traverse_util.flatten_dict(expected).items():
        if flat[path].shape != leaf.shape:
            raise ValueError(
                f"{'/'.join(path)} has shape {flat[path].shape}; expected {leaf.shape}"
            )
