"""What a layer of neurons did, counted: the record that models return in `aux["sites"]`."""

import jax
import jax.numpy as jnp


def activity(
    spikes: jax.Array, p: jax.Array, active: jax.Array, mask: jax.Array | None, fan_out: int
) -> dict[str, jax.Array]:
    """Count what neurons did over the valid steps.

    Args:
      spikes: (B, L, H).
      p: (B, L, H) spike probabilities; the spikes themselves for neurons that fire by a threshold.
      active: (B, L, H), 1 where the surrogate derivative is not zero; or (B, L, 1), their number.
      mask: (B, L) bool, or None for all steps.
      fan_out: operations that one spike triggers.

    Returns:
      spikes: number of spikes; probability: sum of p; steps: number of valid (example, step)
      pairs; neurons: H; fan_out; neuron_spikes: (H,) spikes of each neuron; surrogate: number of
      elements with a non-zero surrogate derivative. All are float32: products of sizes overflow
      integers of 32 bits.
    """

    def per_neuron(values):
        values = values.astype(jnp.float32)
        values = values if mask is None else jnp.where(mask[..., None], values, 0)
        return jnp.sum(values, axis=(0, 1))

    neuron_spikes = per_neuron(jax.lax.stop_gradient(spikes))
    return {
        "spikes": jnp.sum(neuron_spikes),
        # The one count with a gradient: a penalty on firing acts through it.
        "probability": jnp.sum(per_neuron(p)),
        "steps": valid_steps(spikes, mask),
        "neurons": jnp.float32(spikes.shape[-1]),
        "fan_out": jnp.float32(fan_out),
        "neuron_spikes": neuron_spikes,
        "surrogate": jnp.sum(per_neuron(active)),
    }


def valid_steps(x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Return the number of valid steps of x (B, L, ...), float32."""
    if mask is None:
        # Not a product of sizes: under export they may be symbols.
        return jnp.asarray(x.shape[0], jnp.float32) * jnp.asarray(x.shape[1], jnp.float32)
    return jnp.sum(mask.astype(jnp.float32))


def valid_rows(x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Return the number of rows of x (B, L, ...) that have a valid step, float32."""
    if mask is None:
        return jnp.asarray(x.shape[0], jnp.float32)
    return jnp.sum(jnp.any(mask, axis=1).astype(jnp.float32))
