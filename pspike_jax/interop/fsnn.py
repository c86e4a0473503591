"""Weights of the f-SNN program (spikeDE): names, transposes, nothing else."""

import re
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from pspike_jax.models.fsnn import FSNN
from pspike_jax.models.zoo import create_model

NEURONS = {"LIFNeuron": "lif", "IFNeuron": "if", "LIFNeuronFDE": "behind"}
RULES = {"gl": "gl", "l1": "l1", "trap": "l1", "pred": "pred", "euler": "gl"}


def load_fsnn(
    state_dict: Mapping[str, Any],
    *,
    method: str = "gl",
    memory: int = -1,
    neurons: tuple[str, ...] = ("LIFNeuron",),
    train_order: bool = True,
    **fields,
) -> tuple[FSNN, dict[str, Any]]:
    """Build a network of dense layers, each followed by neurons, from a state dict.

    Args:
      state_dict: {name: array or CPU tensor}; products are fc1, fc2, ...
      method: the program's name of the rule: gl, l1, trap, pred or euler.
      memory: the program's, which remembers one value less than it says; -1 for all.
      neurons: the program's classes, one or one for each layer.
      train_order: whether the program learns the orders.
      **fields: further fields of the model.

    Returns:
      module: whose outputs are the spikes of the last layer at every step; its variables.

    Raises:
      ValueError: an unknown method or neuron; a state dict that does not have the layers.
    """
    for name, value, known in (
        ("method", method, RULES),
        *(("neuron", n, NEURONS) for n in neurons),
    ):
        if value not in known:
            raise ValueError(f"{name} is {value!r}; expected one of {', '.join(known)}")
    arrays = {name: np.asarray(value, np.float32) for name, value in state_dict.items()}
    weights = [name for name in arrays if re.fullmatch(r"fc\d+\.weight", name)]
    if not weights:
        raise ValueError(
            f"the state dict has {sorted(arrays)}; expected fc1.weight, fc2.weight ..."
        )
    widths = tuple(len(arrays[f"fc{i + 1}.weight"]) for i in range(len(weights)))
    taus = _taus(arrays)
    orders = arrays.get("per_layer_alpha_params.0", np.ones(1))
    module = create_model(
        "fsnn",
        "program",
        num_outputs=widths[-1],
        widths=widths[:-1],
        pool="none",
        neurons=tuple(NEURONS[name] for name in neurons),
        rule=RULES[method],
        orders=tuple(float(order) for order in orders),
        coefficients=tuple(
            float(a) for a in arrays.get("per_layer_coefficient_params.0", np.ones(1))
        ),
        memory=None if memory < 0 else memory - 1,
        train_order=train_order,
        train_tau=bool(taus),
        **fields,
    )
    backbone = {}
    for i in range(len(widths)):
        site = {"order": arrays.get(f"per_layer_alpha_params.{i}", orders)}
        if len(orders) > 1:
            site["coefficient"] = arrays[f"per_layer_coefficient_params.{i}"]
        if taus:
            site["log_tau"] = arrays[taus[i]].reshape(1)
        product = {"kernel": arrays[f"fc{i + 1}.weight"].T, "bias": arrays[f"fc{i + 1}.bias"]}
        backbone[f"layers_{i}"] = {"input": product, "neurons": site}
    params = {"backbone": backbone}
    return module, {"params": _arrays(params)}


def export_fsnn(
    module: FSNN, params: Mapping[str, Any], tau_names: tuple[str, ...] = ()
) -> dict[str, np.ndarray]:
    """Name parameters, or their gradients, as the program does.

    Args:
      module: the network.
      params: its parameters, or anything of their structure.
      tau_names: names of the trained time constants; "neurons.0.tau_param", ... if none are given.

    Returns:
      {name: array}.
    """
    exported = {}
    for i in range(module.config.n_layers):
        layer = params["backbone"][f"layers_{i}"]
        exported[f"fc{i + 1}.weight"] = np.asarray(layer["input"]["kernel"]).T
        exported[f"fc{i + 1}.bias"] = np.asarray(layer["input"]["bias"])
        site = layer["neurons"]
        exported[f"per_layer_alpha_params.{i}"] = np.asarray(site["order"])
        if "coefficient" in site:
            exported[f"per_layer_coefficient_params.{i}"] = np.asarray(site["coefficient"])
        if "log_tau" in site:
            name = tau_names[i] if tau_names else f"neurons.{i}.tau_param"
            exported[name] = np.asarray(site["log_tau"]).reshape(())
    return exported


def _taus(arrays):
    """Return the names of trained time constants, in the order of the layers."""
    return tuple(sorted(name for name in arrays if name.endswith("tau_param")))


def _arrays(tree):
    if isinstance(tree, dict):
        return {name: _arrays(value) for name, value in tree.items()}
    return jnp.asarray(tree, jnp.float32)
