"""Weights of SpikingSSM and LongSpike, to and from the authors' PyTorch programs.

Their state dicts name layers "s4_layers.0" or "loongspike_layers.0", norms "norms.0", behind
"backbone." where an encoder and a decoder stand beside them. The kernel that trains B has poles
-exp(A_real) - i A_imag: signs of A_imag are changed on the way, and those of its gradients.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from pspike_jax.interop.sdn import NAMES as SDN_NAMES
from pspike_jax.interop.tensors import check_entries
from pspike_jax.models.spikingssm import SpikingSSM
from pspike_jax.models.zoo import create_model

# {form: (array there -> array here, array here -> array there)}
_FORMS = {
    "same": (lambda a: a, lambda a: a),
    "negative": (lambda a: -a, lambda a: -a),
    "row": (lambda a: a[0], lambda a: a[None]),
    "column": (lambda a: a[:, 0], lambda a: a[:, None]),
    "dense": (lambda a: a.T, lambda a: a.T),
    "pointwise": (lambda a: a[..., 0].T, lambda a: a.T[..., None]),
    "taps": (lambda a: a[:, 0], lambda a: a[:, None]),
    "channels": (lambda a: a[..., 0], lambda a: a[..., None]),
    "decoder": (lambda a: a[0, :, 0], lambda a: a[None, :, None]),
    "number": (lambda a: a[0], lambda a: a[None]),
}
_SDN_FORMS = {
    "taps": "taps",
    "channels": "channels",
    "decoder": "decoder",
    "decoder_bias": "number",
}
_FAMILIES = {"s4_layers": "spikingssm", "loongspike_layers": "longspike"}
_LAYER = re.compile(rf"(.*?)({'|'.join(_FAMILIES)})\.(\d+)\.")


class Entry(NamedTuple):
    """An array here and there.

    Attributes:
      collection: of the variables here.
      path: here.
      layer: index on the first axis here, or None where arrays are not stacked.
      there: its name in the state dict.
      form: key of `_FORMS`.
    """

    collection: str
    path: tuple[str, ...]
    layer: int | None
    there: str
    form: str


def load_spikingssm(
    state_dict: Mapping[str, Any], *, neuron: str | None = None, prenorm: bool = True
) -> tuple[SpikingSSM, dict[str, Any]]:
    """Build the network of a state dict, of SpikingSSM's program or of LongSpike's.

    Args:
      state_dict: {name: array or CPU tensor}, as `interop.read_state_dict` returns it.
      neuron: "sdn", "bptt" or "sltt"; None is "sdn" where a network is among the weights, else
        "bptt".
      prenorm: as the program was told; without it the program has no norm at all.

    Returns:
      module: with the sizes of the weights, padding seen as in the program; without encoder and
        decoder among them it maps features (B, L, H) to features.
      variables: its "params", and "batch_stats" with running statistics and surrogate networks.

    Raises:
      ValueError: no layer is found; or one error that lists every entry that is unknown, missing,
        misshapen or not real.
    """
    arrays = {str(name): np.asarray(array) for name, array in state_dict.items()}
    module, outer = _module(arrays, neuron, prenorm)
    entries = list(_entries(module, outer))
    _check(arrays, module, entries)
    found: dict[Any, Any] = {}
    for entry in entries:
        array = jnp.asarray(_FORMS[entry.form][0](arrays[entry.there]), jnp.float32)
        found.setdefault((entry.collection, *entry.path), []).append(array)
    stacked = {entry[:2]: entry.layer is not None for entry in entries}
    variables = {
        path: jnp.stack(parts) if stacked[path[0], path[1:]] else parts[0]
        for path, parts in found.items()
    }
    return module, flax.traverse_util.unflatten_dict(variables)


def export_spikingssm(
    module: SpikingSSM,
    params: Mapping[str, Any],
    batch_stats: Mapping[str, Any] | None = None,
    *,
    backbone: str | None = None,
) -> dict[str, np.ndarray]:
    """Name parameters, or their gradients, as the authors do: names, shapes and signs only.

    Args:
      module: the network.
      params: its parameters, or anything of their structure.
      batch_stats: its running statistics and surrogate networks, or None to leave them out.
      backbone: what stands before the names of layers; None is "backbone." beside an encoder.

    Returns:
      {name: array}.
    """
    trees = {"params": params} | ({} if batch_stats is None else {"batch_stats": batch_stats})
    flat = flax.traverse_util.flatten_dict(trees)
    exported = {}
    for entry in _entries(module, backbone):
        if entry.collection in trees:
            array = np.asarray(flat[(entry.collection, *entry.path)])
            array = array if entry.layer is None else array[entry.layer]
            exported[entry.there] = _FORMS[entry.form][1](array)
    return exported


def _module(arrays, neuron, prenorm):
    """Return the module that arrays fit, and what stands before the names of its layers."""
    layers = [match for match in map(_LAYER.match, arrays) if match]
    if not layers:
        raise ValueError(f"the state dict has no {' or '.join(_FAMILIES)}: {sorted(arrays)[:5]}")
    outer, family = layers[0][1], layers[0][2]
    first = f"{outer}{family}.0."
    C = arrays.get(f"{first}kernel.C", np.zeros((1, 1, 1, 2)))
    if C.ndim != 4:
        raise ValueError(f"{first}kernel.C has shape {C.shape}; expected (channels, H, N/2, 2)")
    threshold = arrays.get(f"{first}ln_vth")
    norm = "none"
    if prenorm and f"{outer}norms.0.weight" in arrays:
        norm = "batch" if f"{outer}norms.0.running_mean" in arrays else "layer"
    has_network = f"{first}neuron.model.conv1.weight" in arrays
    fields = {
        "d_model": C.shape[1],
        "d_state": 2 * C.shape[2],
        "n_layers": 1 + max(int(match[3]) for match in layers),
        "norm": norm,
        "causal": C.shape[0] == 1,
        "train_B": f"{first}kernel.B" in arrays,
        "neuron": neuron or ("sdn" if has_network else "bptt"),
        "threshold": (
            "fixed" if threshold is None else "shared" if threshold.size == 1 else "per_neuron"
        ),
        "mask_padding": False,
    }
    if _FAMILIES[family] == "longspike":
        fields["terms"] = arrays.get(f"{first}kernel.omega_logit", np.zeros(2)).size
    if "encoder.weight" not in arrays:
        fields |= {"encoder": "none", "head": "none", "pool": "none"}
    else:
        if "encoder.bias" not in arrays:
            fields["vocab_size"] = len(arrays["encoder.weight"])
        outputs = arrays.get("decoder.output_transform.bias", np.zeros(1))
        fields["num_outputs"] = outputs.size
    return create_model(_FAMILIES[family], **fields), outer


def _entries(module, outer) -> Iterator[Entry]:
    """Yield every array of a network."""
    config = module.config
    whole = config.encoder != "none"
    outer = ("backbone." if whole else "") if outer is None else outer
    family = "loongspike_layers" if hasattr(config, "terms") else "s4_layers"
    if whole and config.vocab_size is not None:
        yield Entry("params", ("encoder", "embed", "embedding"), None, "encoder.weight", "same")
    elif whole:
        encoder = ("encoder", "linear")
        yield Entry("params", (*encoder, "kernel"), None, "encoder.weight", "dense")
        yield Entry("params", (*encoder, "bias"), None, "encoder.bias", "same")
    for layer in range(config.n_layers):
        names = _layer_names(config, f"{outer}{family}.{layer}.", f"{outer}norms.{layer}.")
        for collection, path, there, form in names:
            yield Entry(collection, ("backbone", "blocks", *path), layer, there, form)
    if whole:
        decoder, head = "decoder.output_transform.", ("head", "linear")
        yield Entry("params", (*head, "kernel"), None, f"{decoder}weight", "dense")
        yield Entry("params", (*head, "bias"), None, f"{decoder}bias", "same")


def _layer_names(config, layer, norm):
    """Yield (collection, path here, name there, form) of a layer's arrays."""
    kernel, trains = f"{layer}kernel.", config.train_B
    yield "params", ("ssm", "A_real"), kernel + ("A_real" if trains else "log_A_real"), "same"
    yield "params", ("ssm", "A_imag"), kernel + "A_imag", "negative" if trains else "same"
    yield "params", ("ssm", "C"), f"{kernel}C", "same"
    if trains:
        yield "params", ("ssm", "B"), f"{kernel}B", "row"
        yield "params", ("ssm", "log_dt"), f"{kernel}inv_dt", "column"
    else:
        yield "params", ("ssm", "log_dt"), f"{kernel}log_dt", "same"
    if hasattr(config, "terms"):
        for name in ("omega_logit", "eta_logit"):
            yield "params", ("ssm", name), kernel + name, "same"
    yield "params", ("ssm", "D"), f"{layer}D", "row"
    if config.thresholds:
        form = "column" if config.threshold == "per_neuron" else "same"
        yield "params", ("log_threshold",), f"{layer}ln_vth", form
    yield "params", ("output_linear", "kernel"), f"{layer}output_linear.0.weight", "pointwise"
    yield "params", ("output_linear", "bias"), f"{layer}output_linear.0.bias", "same"
    if config.neuron == "sdn":
        for here, (there, _) in SDN_NAMES.items():
            path = ("neurons", "network", here)
            form = _SDN_FORMS.get(here, "same")
            yield "batch_stats", path, f"{layer}neuron.model.{there}", form
    if config.norm != "none":
        yield "params", ("norm", config.norm, "scale"), f"{norm}weight", "same"
        yield "params", ("norm", config.norm, "bias"), f"{norm}bias", "same"
    if config.norm == "batch":
        yield "batch_stats", ("norm", "batch", "mean"), f"{norm}running_mean", "same"
        yield "batch_stats", ("norm", "batch", "var"), f"{norm}running_var", "same"


def _check(arrays, module, entries):
    """Raise one error that lists every entry that does not fit the module."""
    config = module.config
    inputs = arrays["encoder.weight"].shape[-1] if config.encoder != "none" else config.d_model
    shape, dtype = ((1, 1), jnp.int32) if config.vocab_size else ((1, 1, inputs), jnp.float32)
    boxed = jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct(shape, dtype))
    flat = flax.traverse_util.flatten_dict(nn.meta.unbox(boxed))
    shapes = {}
    for entry in entries:
        shape = flat[(entry.collection, *entry.path)].shape
        shape = shape if entry.layer is None else shape[1:]
        shapes[entry.there] = _FORMS[entry.form][1](np.empty(shape, np.int8)).shape
    # What the program keeps and does not use: norms behind blocks, counters, other neurons' nets.
    unused = re.compile(r"(.*\.)?(norms\.\d+\.\w+|\w+_layers\.\d+\.neuron\..*)$")
    unknown = sorted(name for name in arrays if name not in shapes and not unused.match(name))
    check_entries(arrays, shapes, [f"{name} is unknown" for name in unknown])
