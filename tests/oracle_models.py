"""P-SpikeSSM in the paper's block, its LIF baseline and S4D, whole models in float64.

NumPy loops over time, written from the equations. They read the parameter tree by its meaning:
poles -exp(A_real) + i A_imag, step sizes exp(log_dt), complex numbers as pairs, real parts doubled
for conjugate pairs, weights (in, out), layers stacked along the first axis.
"""

import math

import jax
import numpy as np
from oracles import double, linear_ssm

THRESHOLD = 0.5  # of the LIF baseline
ACTIVATIONS = {
    "gelu": np.vectorize(lambda x: 0.5 * x * (1 + math.erf(x / math.sqrt(2)))),
    "relu": lambda x: np.maximum(x, 0),
    "identity": lambda x: x,
}


class Oracle:
    """One pass of a model.

    Attributes:
      records: {site: [(spikes, probability, slope) of each layer]}, (B, L, H) each.
      statistics: the running statistics after the pass, in the order of the norms' use.
      margin: the least distance of a drive from where something jumps: a uniform, 0, 1.
      pooled: (B, H) features before the head.
    """

    def __init__(self, model, variables, lengths=None, noise=None, train=False):
        self.model, self.train = model, train
        self.tree = jax.tree.map(double, variables["params"])
        self.stats = jax.tree.map(double, variables.get("batch_stats", {}))
        self.lengths = None if lengths is None else np.asarray(lengths).reshape(-1)
        self.noise = None if noise is None else jax.tree.map(double, noise)
        self.records, self.statistics, self.margin = {}, [], np.inf

    def classify(self, inputs):
        """Return the logits of (B, L) tokens, (B, 2, L) for two documents, or (B, L, F) values."""
        model, tree, inputs = self.model, self.tree, np.asarray(inputs)
        if model.config.documents == 2:
            inputs = inputs.reshape(-1, *inputs.shape[2:])
        if model.config.vocab_size is None:
            x = dense(tree["encoder"]["linear"], double(inputs))
        else:
            x = tree["encoder"]["embed"]["embedding"][inputs]
        if self.lengths is None:
            self.lengths = np.full(len(x), x.shape[1])
        self.valid = np.arange(x.shape[1])[None, :] < self.lengths[:, None]
        backbone = tree["backbone"]
        block = self.s4d_block if type(model).__name__ == "S4D" else self.paper_block
        for layer in range(model.config.n_layers):
            pick = lambda a: a[layer]
            x = block(jax.tree.map(pick, backbone["blocks"]), layer, x)
        if model.config.prenorm:
            x = self.normalize(backbone["norm"], self.stats_of("norm"), x)
        self.pooled = pooled = self.pool(x)
        if model.config.documents == 2:
            first, second = pooled[::2], pooled[1::2]
            pair = np.concatenate([first, second, first - second, first * second], axis=-1)
            pooled = ACTIVATIONS["gelu"](dense(tree["head"]["compare"], pair))
        return dense(tree["head"]["linear"], pooled)

    def paper_block(self, weights, layer, x):
        """x + activation(W s' + c), s' = sample(clamp(a Re(C h) + b)), h driven by s."""
        model = self.model
        drive = self.normalize(weights["norm"], None, x) if model.config.prenorm else x
        branches = ("", "_reverse") if model.config.bidirectional else ("",)
        spikes = []
        for i, branch in enumerate(branches):
            s = self.fire("input" + branch, weights, layer, i, drive)
            s = np.where(self.valid[..., None], s, 0)
            y = ssm(weights["ssm" + branch], s[:, ::-1] if branch else s)
            y = y[:, ::-1] if branch else y
            spikes.append(self.fire("output" + branch, weights, layer, len(branches) + i, y))
        if model.config.mixer == "dense":
            mixed = dense(weights["mixer"]["linear"], np.concatenate(spikes, axis=-1))
        else:
            mixed = sum(spikes) / len(spikes)
        y = ACTIVATIONS[model.config.activation](mixed)
        y = x + y if model.config.residual else y
        if model.config.prenorm:
            return y
        stats = jax.tree.map(lambda a: a[layer], self.stats_of("blocks", "fuse", "norm"))
        return self.normalize(weights["fuse"]["norm"], stats, y)

    def s4d_block(self, weights, layer, x):
        """x + GLU(W GELU(SSM(u) + D u) + c), u = norm(x)."""
        u = np.where(self.valid[..., None], self.normalize(weights["norm"], None, x), 0)
        inner = weights["layer"]
        y = ACTIVATIONS["gelu"](ssm(inner["ssm"], u) + inner["ssm"]["D"] * u)
        value, gate = np.split(dense(inner["output_linear"], y), 2, axis=-1)
        return x + value / (1 + np.exp(-gate))

    def fire(self, site, weights, layer, sampler, drive):
        """Return spikes (B, L, H) of a site, or probabilities where there is no noise."""
        drive = weights[site]["scale"] * drive + weights[site]["shift"]
        if self.model.config.neuron == "lif":
            spikes, drive = integrate(weights[site]["neuron"]["alpha"], drive)
            edges, p = (0.0, THRESHOLD, 1.0), spikes
        else:
            edges, p = (0.0, 1.0), np.clip(drive, 0, 1)
            spikes = p
            if self.noise is not None:
                uniform = self.noise[layer][sampler]
                spikes = (p > uniform).astype(float)
                edges += (uniform,)
        for edge in edges:
            self.margin = min(self.margin, np.min(np.abs(drive - edge)))
        slope = (drive >= 0) & (drive <= 1)
        self.records.setdefault(site, []).append((spikes, p, slope))
        return spikes

    def normalize(self, weights, stats, x):
        """Layer norm over H, or batch norm over the valid steps or by running statistics."""
        if "layer" in weights:
            affine = weights["layer"]
            mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        elif self.train:
            affine, values = weights["batch"], x[self.valid]
            mean, var = values.mean(0), values.var(0)
            new = {"mean": mean, "var": values.var(0, ddof=1)}
            old = stats["batch"]
            self.statistics.append({name: 0.9 * old[name] + 0.1 * new[name] for name in old})
        else:
            affine, mean, var = weights["batch"], stats["batch"]["mean"], stats["batch"]["var"]
        return (x - mean) / np.sqrt(var + 1e-5) * affine["scale"] + affine["bias"]

    def stats_of(self, *names):
        found = self.stats.get("backbone", {})
        for name in names:
            found = found.get(name, {})
        return found

    def pool(self, x):
        """Mean over valid steps, the last of them, or every step."""
        if self.model.config.pool == "none":
            return x
        rows = zip(x, self.lengths)
        if self.model.config.pool == "last":
            return np.stack([row[length - 1] for row, length in rows])
        return np.stack([row[:length].mean(axis=0) for row, length in rows])

    def counts(self, site):
        """Return what `aux` counts over the valid steps of a site, stacked over layers."""
        spikes, p, slope = (np.stack(a) * self.valid[..., None] for a in zip(*self.records[site]))
        layers, _, _, features = spikes.shape
        return {
            "spikes": spikes.sum(axis=(1, 2, 3)),
            "probability": p.sum(axis=(1, 2, 3)),
            "steps": np.full(layers, self.valid.sum()),
            "neurons": np.full(layers, features),
            "neuron_spikes": spikes.sum(axis=(1, 2)),
            "surrogate": slope.sum(axis=(1, 2, 3)),
        }


def dense(weights, x):
    """Return x W + c."""
    return x @ weights["kernel"] + weights["bias"]


def pairs(array):
    """Return the complex numbers stored as pairs along the last axis."""
    return array[..., 0] + 1j * array[..., 1]


def ssm(weights, u):
    """Zero-order hold of a diagonal SSM, run in a loop; real parts doubled."""
    poles = -np.exp(weights["A_real"]) + 1j * weights["A_imag"]
    z = np.exp(weights["log_dt"])[:, None] * poles
    B = pairs(weights["B"]) if "B" in weights else 1.0
    C = 2 * pairs(weights["C"])
    return linear_ssm(u, np.exp(z), np.expm1(z) / poles * B, C if len(C) == 2 else C[0])[0]


def integrate(alpha, currents):
    """LIF with reset by subtraction: spikes and membranes (B, L, H)."""
    alpha = np.clip(alpha, 0.1, 0.9)
    u = np.zeros_like(currents[:, 0])
    spikes, membranes = [u], []
    for t in range(currents.shape[1]):
        u = alpha * (u - spikes[-1]) + (1 - alpha) * currents[:, t]
        membranes.append(u)
        spikes.append((u > THRESHOLD).astype(float))
    return np.stack(spikes[1:], axis=1), np.stack(membranes, axis=1)
