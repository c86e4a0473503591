"""Weights of the SiLIF family, to and from the authors' PyTorch program (arXiv 2506.06374).

Their state dict names layers "snn.0", "snn.1", ...; the last one is the readout. A product is
"W.weight" (H, F), transposed here; recurrent weights are "V.weight", multiplied from the right of
the spikes in both programs.
"""

import itertools
import re
import statistics
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
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
from pspike_jax.interop.tensors import check_entries
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
      ValueError: an unknown neuron or normalization; or one error that lists every entry that is
        unknown, missing, misshapen or not real.
    """
    for name, value, known in (
        ("neuron", neuron, NEURONS), ("normalization", normalization, NORMS)
    ):
        if value not in known:
            raise ValueError(f"{name} is {value!r}; expected one of {', '.join(known)}")
    arrays = {name: np.asarray(array) for name, array in state_dict.items()}
    inputs, (*widths, num_classes), bidirectional = _read_sizes(arrays)
    module = create_model(
        neuron,
        "paper",
        random_state=False,
        num_outputs=num_classes,
        widths=tuple(widths),
        norm=NORMS[normalization],
        dropout=0.0,
        bidirectional=bidirectional,
    )
    entries = list(_entries(module))
    _check(arrays, module, entries, inputs)
    variables: dict[str, Any] = {}
    for collection, here, there in entries:
        array = arrays[there].T if here[-1] == "kernel" else arrays[there]
        variables[(collection, *here)] = jnp.asarray(array, jnp.float32)
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
    flat = flax.traverse_util.flatten_dict(nn.meta.unbox(trees))
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
    hidden = [jnp.asarray(n) for site in aux["sites"].values() for n in site["neuron_spikes"]]
    # Their program takes any value above 0.9 for one spike, as behind dropout.
    rates = [jnp.mean(jnp.where(inputs > 0.9, 1, inputs), axis=(0, 1))]
    rates += [spikes / (batch * length) for spikes in hidden]
    sizes = (*module.config.widths, module.config.num_outputs)
    counts = [jnp.sum(inputs != 0), *map(jnp.sum, hidden)]
    synops = sum(count * size for count, size in zip(counts, sizes)) / batch
    return Activity(jnp.concatenate(rates), synops)


def _entries(module) -> Iterator[tuple[str, tuple[str, ...], str]]:
    """Yield (collection, path here, name there) of every array of a network."""
    hidden = len(module.config.widths)
    for i in range(hidden + 1):
        layer, there = (("backbone", f"layers_{i}") if i < hidden else ("head",)), f"snn.{i}"
        yield "params", (*layer, "input", "kernel"), f"{there}.W.weight"
        if module.config.norm != "none":
            norm = (*layer, "input", "norm")
            yield "params", (*norm, "scale"), f"{there}.norm.weight"
            yield "params", (*norm, "bias"), f"{there}.norm.bias"
        if module.config.norm == "batch":
            yield "batch_stats", (*norm, "mean"), f"{there}.norm.running_mean"
            yield "batch_stats", (*norm, "var"), f"{there}.norm.running_var"
        if i == hidden:
            yield "params", (*layer, "alpha"), f"{there}.alpha"
            return
        for here, name in _PARAMETERS[type(module.config.neuron)].items():
            yield "params", (*layer, "neurons", "neuron", here), f"{there}.{name}"
        if module.config.neuron.recurrent:
            yield "params", (*layer, "neurons", "recurrent"), f"{there}.V.weight"


def _read_sizes(arrays):
    """Return the number of inputs, the neurons of each layer, and whether there are two passes."""
    lengths: dict[int, list[int]] = {}
    for name, array in arrays.items():
        numbered = re.match(r"snn\.(\d+)\.", str(name))
        if numbered and array.ndim:
            lengths.setdefault(int(numbered[1]), []).append(len(array))
    layers = list(itertools.takewhile(lengths.__contains__, itertools.count()))
    if len(layers) < 2:
        raise ValueError(
            f"the state dict has layers {sorted(lengths)}; expected snn.0, snn.1, ..."
        )
    # Every entry of a layer has the layer's neurons on its first axis: most of them are right.
    sizes = [statistics.mode(lengths[layer]) for layer in layers]
    products = [np.shape(arrays.get(f"snn.{layer}.W.weight", ())) for layer in layers]
    inputs = products[0][1] if len(products[0]) == 2 else 1
    twice = [(size, 2 * before) for before, size in zip(sizes, sizes[1:])]
    return inputs, sizes, any(a == b for a, b in zip(products[1:], twice))


def _check(arrays, module, entries, inputs):
    """Raise one error that lists every entry that does not fit the module."""
    x = jax.ShapeDtypeStruct((1, 1, inputs), jnp.float32)
    boxed = jax.eval_shape(module.init, jax.random.key(0), x)
    flat = flax.traverse_util.flatten_dict(nn.meta.unbox(boxed))
    shapes = {}
    for collection, here, there in entries:
        shape = flat[(collection, *here)].shape
        shapes[there] = shape[::-1] if here[-1] == "kernel" else shape
    unknown = sorted(str(n) for n in arrays if n not in shapes and not str(n).endswith(_COUNTER))
    check_entries(arrays, shapes, [f"{name} is unknown" for name in unknown])
