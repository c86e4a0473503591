"""Plain baselines, frozen: what a good first version computes, and nothing clever.

State space models by the Vandermonde kernel and rfft, by `lax.associative_scan` and by `lax.scan`,
selective ones by the two scans, differentiated by JAX; the two presets of P-SpikeSSM from the
parameters of `pspike_jax` models.
Nothing but a mistake may be changed here: every ratio in the records is to these programs.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

Uniforms = Callable[[int, int], jax.Array]  # (layer, sampler) -> (B, L, H)

gelu = functools.partial(jax.nn.gelu, approximate=False)


# Diagonal state space models: u (B, L, H); Lambda_bar, B_bar, C (H, N) complex; y (B, L, H).


def vandermonde_kernel(Lambda_bar, B_bar, C, length):
    """Return Re(sum_n C B_bar Lambda_bar^l), (H, L), from all powers (H, N, L)."""
    powers = jnp.exp(jnp.log(Lambda_bar)[..., None] * jnp.arange(length)[None, None])
    # One product, not a sum over an array of all of it: what a good first version writes.
    return jnp.einsum("hn,hnl->hl", C * B_bar, powers).real


def fft_ssm(u, Lambda_bar, B_bar, C):
    """Convolve with the kernel in Fourier space."""
    return fft_convolve(u, vandermonde_kernel(Lambda_bar, B_bar, C, u.shape[1]))


def fft_convolve(u, kernel):
    """Convolve (B, L, H) with a causal kernel (H, L), or one of both sides (H, 2L), circularly."""
    length = u.shape[1]
    spectrum = jnp.fft.rfft(kernel, n=2 * length, axis=-1)
    product = jnp.fft.rfft(u.swapaxes(1, 2), n=2 * length, axis=-1) * spectrum[None]
    return jnp.fft.irfft(product, n=2 * length, axis=-1)[..., :length].swapaxes(1, 2)


def associative_ssm(u, Lambda_bar, B_bar, C):
    """Scan pairs (decay, state) in parallel over time."""
    drive = B_bar[None, None] * u[..., None]  # (B, L, H, N)

    def combine(left, right):
        return left[0] * right[0], right[0] * left[1] + right[1]

    decays = jnp.broadcast_to(Lambda_bar[None, None], drive.shape)
    _, states = jax.lax.associative_scan(combine, (decays, drive), axis=1)
    return jnp.sum(C[None, None] * states, axis=-1).real


def scan_ssm(u, Lambda_bar, B_bar, C):
    """Step through time."""

    def step(state, u_t):
        state = Lambda_bar[None] * state + B_bar[None] * u_t[..., None]
        return state, jnp.sum(C[None] * state, axis=-1).real

    start = jnp.zeros((u.shape[0], *Lambda_bar.shape), jnp.complex64)
    return jax.lax.scan(step, start, u.swapaxes(0, 1))[1].swapaxes(0, 1)


# Selective state spaces: x, dt (B, L, D); A (D, N); b, c (B, L, N); y (B, L, D).


def associative_selective(x, dt, A, b, c):
    """Scan pairs (decay, state) in parallel over time."""
    decays = jnp.exp(dt[..., None] * A[None, None])
    drive = x[..., None] * b[:, :, None]

    def combine(left, right):
        return left[0] * right[0], right[0] * left[1] + right[1]

    _, states = jax.lax.associative_scan(combine, (decays, drive), axis=1)
    return jnp.sum(states * c[:, :, None], axis=-1)


def scan_selective(x, dt, A, b, c):
    """Step through time."""

    def step(state, inputs):
        x_t, dt_t, b_t, c_t = inputs
        state = jnp.exp(dt_t[..., None] * A[None]) * state + x_t[..., None] * b_t[:, None]
        return state, jnp.sum(state * c_t[:, None], axis=-1)

    start = jnp.zeros((x.shape[0], *A.shape))
    inputs = jax.tree.map(lambda array: array.swapaxes(0, 1), (x, dt, b, c))
    return jax.lax.scan(step, start, inputs)[1].swapaxes(0, 1)


# Parts of P-SpikeSSM.


def bulk_uniforms(key, batch, length, features):
    """Draw the uniforms of a pass as they are needed, an array at a time."""

    def draw(layer, sampler):
        number = jax.random.fold_in(jax.random.fold_in(key, layer), sampler)
        return jax.random.uniform(number, (batch, length, features))

    return draw


def spikes(drive, uniform):
    """Fire with probability clip(drive, 0, 1); straight through backward."""
    p = jnp.clip(drive, 0, 1)
    fired = (p > uniform).astype(jnp.float32)
    return p + jax.lax.stop_gradient(fired - p)


def affine(params, x):
    """Scale and shift each feature."""
    return params["scale"][None, None] * x + params["shift"][None, None]


def dense(params, x):
    """Map the last axis linearly."""
    return x @ params["kernel"] + jnp.expand_dims(params["bias"], range(x.ndim - 1))


def normalize(x, params, axes):
    """Normalize x (B, L, H) over some axes, by the mean and the mean square about it."""
    mean = jnp.mean(x, axes, keepdims=True)
    var = jnp.mean(jnp.square(x - mean), axes, keepdims=True)
    x = (x - mean) / jnp.sqrt(var + 1e-5)
    return x * params["scale"][None, None] + params["bias"][None, None]


def as_complex(pairs):
    """Return the complex numbers (...) of pairs (..., 2)."""
    return jax.lax.complex(pairs[..., 0], pairs[..., 1])


def classify(params, x):
    """Average over time and map to scores."""
    return dense(params["linear"], jnp.mean(x, axis=1))


def layers(params):
    """Yield the index and the parameters of each block."""
    for layer in range(params["input"]["scale"].shape[0]):
        yield layer, jax.tree.map(lambda leaf, layer=layer: leaf[layer], params)


# The preset `official`, in training: S4 kernels of both sides, two branches, batch norm.


def cauchy_kernel(params, length):
    """Return the kernels (2, H, L) of a diagonal-plus-low-rank SSM (S4, 2111.00396, appendix C).

    Sums over poles and their conjugates at all frequencies, corrected by the Woodbury identity.
    """
    both = lambda pairs: jnp.concatenate([pairs, pairs.conj()], axis=-1)
    poles = both(jax.lax.complex(-jnp.exp(params["A_real"]), -params["A_imag"]))
    P, B, C = (both(as_complex(params[name])) for name in ("P", "B", "C"))
    dt = jax.nn.softplus(params["inv_dt"])[:, None]  # (H, 1)
    w = np.exp(-2j * np.pi * np.arange(length // 2 + 1) / length)
    z, gain = jnp.complex64(2 * (1 - w) / (1 + w)), jnp.complex64(2 / (1 + w))
    cauchy = dt[..., None] / (z[None, None] - (dt * poles)[..., None])  # (H, 2N, frequencies)
    CB, CP = (jnp.einsum("chn,hnf->chf", C * b[None], cauchy) for b in (B, P))
    QB, QP = (jnp.einsum("hn,hnf->hf", jnp.broadcast_to(P.conj() * b, C.shape[1:]), cauchy)
              for b in (B, P))
    spectrum = gain[None, None] * (CB - CP * (QB / (1 + QP))[None])
    return jnp.fft.irfft(spectrum, n=length)


def official_branch(params, spikes, kernel_length):
    """Return GELU of the SSM: causal and anti-causal convolution, and the skip."""
    length = spikes.shape[1]
    causal, ahead = cauchy_kernel(params, kernel_length)[..., :length]
    kernel = jnp.concatenate([causal, ahead[:, ::-1]], axis=-1)
    return gelu(fft_convolve(spikes, kernel) + params["D"][None, None] * spikes)


def official_logits(params, tokens, uniforms: Uniforms, kernel_length):
    """Classify tokens (B, L); two uniforms of a layer serve its four samplers."""
    x = params["encoder"]["embed"]["embedding"][tokens]
    for layer, block in layers(params["backbone"]["blocks"]):
        first, second = uniforms(layer, 0), uniforms(layer, 1)
        s = spikes(affine(block["input"], x), first)
        y = official_branch(block["ssm"], s, kernel_length)
        s = spikes(affine(block["input_reverse"], x), second)
        y_second = official_branch(block["ssm_reverse"], s, kernel_length)
        branches = spikes(affine(block["output"], y), first), spikes(y_second, first)
        mixed = dense(block["mixer"]["linear"], jnp.concatenate(branches, axis=-1))
        x = x + gelu(mixed)
        x = normalize(x, block["fuse"]["norm"]["batch"], (0, 1))
    return classify(params["head"], x)


# The preset `paper`: causal diagonal SSMs by zero-order hold, layer norm in front.


def zero_order_hold(params):
    """Return Lambda_bar and B_bar, (H, N)."""
    poles = jax.lax.complex(-jnp.exp(params["A_real"]), params["A_imag"])
    z = jnp.exp(params["log_dt"])[:, None] * poles
    return jnp.exp(z), as_complex(params["B"]) * jnp.expm1(z) / poles


def paper_logits(params, inputs, uniforms: Uniforms, ssm=fft_ssm):
    """Classify real inputs (B, L, F)."""
    x = dense(params["encoder"]["linear"], inputs)
    for layer, block in layers(params["backbone"]["blocks"]):
        normalized = normalize(x, block["norm"]["layer"], -1)
        s = spikes(affine(block["input"], normalized), uniforms(layer, 0))
        y = ssm(s, *zero_order_hold(block["ssm"]), 2 * as_complex(block["ssm"]["C"][0]))
        s = spikes(affine(block["output"], y), uniforms(layer, 1))
        x = x + gelu(dense(block["mixer"]["linear"], s))
    return classify(params["head"], normalize(x, params["backbone"]["norm"]["layer"], -1))


# The baseline `lif_ssm`: leaky integrate-and-fire neurons instead of sampling, stepped in time.


def lif_step(params, membrane, spiked, drive):
    """Leak, reset, integrate; fire above 1/2, with a box of width 1 as surrogate."""
    alpha = jnp.clip(params["neuron"]["alpha"], 0.1, 0.9)[None]
    current = params["scale"][None] * drive + params["shift"][None]
    membrane = alpha * (membrane - spiked) + (1 - alpha) * current
    return membrane, spikes(membrane, 0.5)


def lif_layer(block, x):
    """Step neurons, SSM and neurons of a layer together through x (B, L, H)."""
    Lambda_bar, B_bar = zero_order_hold(block["ssm"])
    C = 2 * as_complex(block["ssm"]["C"][0])

    def step(carry, x_t):
        first, state, second = carry
        first = lif_step(block["input"], *first, x_t)
        state = Lambda_bar[None] * state + B_bar[None] * first[1][..., None]
        y = jnp.sum(C[None] * state, axis=-1).real
        second = lif_step(block["output"], *second, y)
        return (first, state, second), second[1]

    rest = (jnp.zeros(x[:, 0].shape),) * 2
    state = jnp.zeros((x.shape[0], *Lambda_bar.shape), jnp.complex64)
    _, fired = jax.lax.scan(step, (rest, state, rest), x.swapaxes(0, 1))
    return fired.swapaxes(0, 1)


def lif_logits(params, inputs):
    """Classify real inputs (B, L, F)."""
    x = dense(params["encoder"]["linear"], inputs)
    for _, block in layers(params["backbone"]["blocks"]):
        s = lif_layer(block, normalize(x, block["norm"]["layer"], -1))
        x = x + gelu(dense(block["mixer"]["linear"], s))
    return classify(params["head"], normalize(x, params["backbone"]["norm"]["layer"], -1))
