"""Uniforms keyed by (key, layer, sampler, example, step): the same however a model is run.

Threefry-2x32 (Salmon et al. 2011), the cipher behind JAX's default keys, maps a pair of 32-bit
words to another under a key of two words. Three of them, nested, name an element:

  sampler key = T20(key;         layer,        sampler)
  row key     = T20(sampler key; example,      step)
  word        = T13(row key;     feature // 2, 0), the half number feature % 2

so one element's draw depends on nothing else: not on the batch, the length, the chunking or the
mesh. Keys take the 20 rounds of JAX's own; words take 13, the fewest that the cipher's authors call
Crush-resistant (their program of Random123 that times Threefry), and a call serves two features.

The rounds are written out in elementwise operations: accelerators fuse them with the comparison
that uses the uniform, so that noise never lies in memory, and every device computes its own part.
Each element picks its half: 13 rounds for each cost less, on a CPU, than to interleave two arrays.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from pspike_jax.functional.cpu import barrier

_ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
_KEY_PARITY = np.uint32(0x1BD11BDA)
WORD_ROUNDS = 13

Words = tuple[jax.Array, jax.Array]


@functools.partial(jax.jit, static_argnames="rounds")  # traced once for each shape
def threefry_2x32(key: Words, block: Words, rounds: int = 20) -> Words:
    """Encrypt a block of two uint32 words under a key of two; shapes broadcast.

    Args:
      key: two uint32 arrays.
      block: two uint32 arrays.
      rounds: how often the words are mixed.

    Returns:
      Two uint32 arrays of the common shape, a bijection of `block` for each key.
    """
    schedule = (*key, key[0] ^ key[1] ^ _KEY_PARITY)
    x0, x1 = block[0] + schedule[0], block[1] + schedule[1]
    for number in range(1, rounds + 1):
        rotation = _ROTATIONS[(number - 1) % 8]
        x0 = x0 + x1
        x1 = (x1 << np.uint32(rotation)) | (x1 >> np.uint32(32 - rotation))
        x1 = x0 ^ x1
        if number % 4 == 0:
            group = number // 4
            x0 = x0 + schedule[group % 3]
            x1 = x1 + schedule[(group + 1) % 3] + np.uint32(group)
    return x0, x1


def uniform_from_bits(bits: jax.Array) -> jax.Array:
    """Return float32 uniforms k / 2^24 in [0, 1) from uint32 words.

    Casting all 32 bits would round the largest words up to 1; 24 bits are exact.
    """
    # By way of int32: the conversion from signed integers is the one that CPUs vectorise.
    return (bits >> 8).astype(jnp.int32).astype(jnp.float32) * np.float32(2.0**-24)


def uniforms(
    key: jax.Array,
    *,
    layer: jax.Array | int,
    sampler: jax.Array | int,
    example_ids: jax.Array,
    steps: jax.Array,
    features: int,
) -> jax.Array:
    """Draw uniforms that depend on (key, layer, sampler, example, step, feature) alone.

    Args:
      key: PRNG key, typed or raw uint32, consumed for this layer and sampler. Keys of other
        generators than threefry are turned into one by `threefry_key`.
      layer: index of the layer, >= 0; may be traced.
      sampler: index of the sampler within the layer, >= 0.
      example_ids: (B,) or (B, L) int, the example that each row (or element) belongs to.
      steps: (L,) or (B, L) int, time steps since the start of the example.
      features: H.

    Returns:
      (B, L, H) float32 in [0, 1), multiples of 2^-24.

    Raises:
      TypeError: example_ids or steps are not integers, or the key is not a key.
      ValueError: the key is not a single key, or shapes do not fit.
    """
    example_ids, steps = jnp.asarray(example_ids), jnp.asarray(steps)
    for name, numbers in (("example_ids", example_ids), ("steps", steps)):
        if not jnp.issubdtype(numbers.dtype, jnp.integer):
            raise TypeError(f"{name} must be integers, not {numbers.dtype}")
        if numbers.ndim not in (1, 2):
            raise ValueError(f"{name} must have one axis or (B, L), not shape {numbers.shape}")
    example_ids = example_ids[:, None] if example_ids.ndim == 1 else example_ids
    steps = steps[None, :] if steps.ndim == 1 else steps
    if any(a != b and 1 not in (a, b) for a, b in zip(example_ids.shape, steps.shape)):
        raise ValueError(f"example_ids {example_ids.shape} and steps {steps.shape} do not fit")
    sampler_key = threefry_2x32(_key_words(key), (_word(layer), _word(sampler)))
    row_key = threefry_2x32(sampler_key, (_word(example_ids), _word(steps)))
    feature = jnp.arange(features, dtype=jnp.uint32)[None, None, :]
    row_key = tuple(word[..., None] for word in row_key)

    def draw(key_0, key_1):
        block = feature >> 1, jnp.zeros_like(feature)
        even, odd = threefry_2x32((key_0, key_1), block, rounds=WORD_ROUNDS)
        return uniform_from_bits(jnp.where(feature & 1 == 1, odd, even))

    # Fused into a reader, the cipher would run once for each of its elements and readers.
    return barrier(draw, *row_key)


def _word(number: jax.Array | int) -> jax.Array:
    return jnp.asarray(number).astype(jnp.uint32)


def threefry_key(key: jax.Array) -> jax.Array:
    """Return the threefry key that stands for a key of any generator.

    A threefry key is returned as it is. Of another one, rbg's for example (the default where
    `jax_default_prng_impl` says so), the first two words are the key under which the next two are
    encrypted, the result is the key for the two after them, and so on. So the noise that is drawn
    with it is the same in every program, which rbg's own draws are not: they change with sharding.

    Args:
      key: one PRNG key, typed or raw uint32 words, an even number of them.

    Returns:
      A typed threefry key.

    Raises:
      TypeError: the key is not a key.
      ValueError: the key is not a single key.
    """
    return jax.random.wrap_key_data(jnp.stack(_key_words(key)), impl="threefry2x32")


def _key_words(key: jax.Array) -> Words:
    data = key
    if not hasattr(key, "dtype"):
        raise TypeError(f"spikes need a PRNG key, not {key!r}")
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        if key.shape:
            raise ValueError(f"spikes need one key, not keys of shape {key.shape}")
        data = jax.random.key_data(key)
    if data.dtype != jnp.uint32:
        raise TypeError(f"spikes need a key of uint32 words, not {data.dtype}")
    if data.ndim != 1 or data.size < 2 or data.size % 2:
        raise ValueError(f"spikes need one key of an even number of words, not shape {data.shape}")
    words = data[0], data[1]
    for i in range(2, data.size, 2):
        words = threefry_2x32(words, (data[i], data[i + 1]))
    return words
