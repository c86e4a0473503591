"""Models as graphs of the Neuromorphic Intermediate Representation.

The graph computes the outputs of every step; its metadata say how the model pools them, and hold
the model's name and variables, by which `from_nir` gives back the same model.
"""

import json
import os
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from pspike_jax.export.cards import zoo_name
from pspike_jax.export.nir_graph import Graph
from pspike_jax.export.nir_neurons import add_network
from pspike_jax.export.nir_state_spaces import add_state_spaces
from pspike_jax.models.pspikessm import PSpikeSSM
from pspike_jax.models.sequence import SequenceModel
from pspike_jax.models.silif import SpikingNetwork

DT = 1e-3  # seconds of a step, written into the graph; decays do not depend on it


def to_nir(
    model: SequenceModel,
    variables: Mapping[str, Any],
    path: str | os.PathLike,
    *,
    dt: float = DT,
    noise: float | None = None,
    metadata: bool = False,
) -> None:
    """Write a network of neurons that reset, or of state spaces and thresholds.

    The graph's outputs are those of every step, before pooling: potentials of a leaky readout, or
    what a linear head makes of each step.

    Args:
      model: of the families of "silif" and "pspikessm"; settings are refused by name.
      variables: its parameters and batch statistics.
      path: of the .nir file.
      dt: seconds of a step; the graph's metadata have it.
      noise: a number in place of every draw of a model that draws.
      metadata: write what NIR has no word for into metadata of nodes: a Scale by 1 with the name
        of an operation ("gelu", "layer_norm", ...), a Threshold that is drawn. Tools that do not
        read them compute something else.

    Raises:
      ValueError: something of the model has no exact form in NIR; with the reason.
    """
    import nir

    nir.write(os.fspath(path), make_graph(model, variables, dt=dt, noise=noise, metadata=metadata))


def make_graph(
    model: SequenceModel,
    variables: Mapping[str, Any],
    *,
    dt: float,
    noise: float | None,
    metadata: bool,
) -> Any:
    """Return the graph that `to_nir` writes, of its arguments."""
    import nir

    config, kind = model.config, type(model).__name__
    variables = nn.meta.unbox(variables)
    if not isinstance(model, (SpikingNetwork, PSpikeSSM)):
        raise ValueError(
            f"{kind} is not written: SpikingNetwork (neurons that reset) and PSpikeSSM (diagonal "
            "state spaces between spikes) are"
        )
    if config.vocab_size is not None:
        raise ValueError("vocab_size is given: NIR's inputs are numbers, not tokens")
    if config.precision != "float32":
        raise ValueError(f"precision={config.precision!r} rounds every step; NIR's numbers do not")
    if noise is not None and not (model.stochastic and isinstance(model, PSpikeSSM)):
        raise ValueError(f"noise is {noise}, but {kind} draws no spikes")
    graph = Graph(nir, dt, metadata)
    parts = graph, config, variables["params"], variables.get("batch_stats", {})
    if isinstance(model, SpikingNetwork):
        source = add_network(*parts)
    else:
        source = add_state_spaces(*parts, noise)
    outputs = config.d_model if config.head == "none" else config.num_outputs
    graph.add("output", nir.Output(output_type=np.array([outputs])), source)
    about = {"pool": config.pool, "dt": dt, "written_by": "pspike_jax"}
    about |= _recipe(model, variables, noise, metadata)
    return nir.NIRGraph(graph.nodes, graph.edges, metadata=about)


def _recipe(model, variables, noise, metadata) -> dict[str, Any]:
    """Return what gives the model back; nothing of one that the zoo cannot name."""
    try:
        name, preset, fields = zoo_name(model)
    except ValueError:
        return {}
    how = {"noise": noise, "metadata": metadata}
    words = json.dumps({"name": name, "preset": preset, "fields": fields} | how)
    return {"model": words, "variables": jax.tree.map(np.asarray, dict(variables))}
