"""Prefixes of a sequence under any aggregator, associative or not, in one fixed bracketing.

Leaves x_0, x_1, ... are cut into the largest aligned blocks of 2^k leaves, from the first on: seven
into four, two and one. A block is a balanced tree, T = agg(T(first half), T(second half)), and a
prefix folds its blocks from the left, agg(agg(T(0..3), T(4..5)), x_6). `tree_prefixes` finds all
prefixes of a whole sequence, in parallel, with 2 log2(n) calls of the aggregator; `push` finds the
next one of a stream, with as many blocks as the count of leaves has binary digits. Both bracket
alike, so that they agree, whatever the aggregator is (arXiv:2506.10918, section 3).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Aggregate = Callable[[Any, Any], Any]


def tree_prefixes(aggregate: Aggregate, leaves: Any) -> Any:
    """Return all prefixes of a sequence.

    Args:
      aggregate: maps two pytrees of m earlier and m later values, arrays (m, ...), to m values of
        the same shapes and types; for each of the m by itself.
      leaves: pytree of arrays (n, ...), n at least 1.

    Returns:
      Pytree of arrays (n, ...): entry i is the aggregate of leaves 0 to i. There is no empty
      prefix: `aggregate` sees values alone.

    Raises:
      ValueError: there are no leaves.
    """
    arrays = jax.tree.leaves(leaves)
    count = len(arrays[0]) if arrays else 0
    if not count:
        raise ValueError("there are no leaves; expected arrays (n, ...) with n of 1 or more")
    part = lambda tree, cut: jax.tree.map(lambda a: a[cut], tree)
    trees = [leaves]  # level k: full blocks of 2^k leaves
    while count >> len(trees):
        pairs = count >> len(trees)
        earlier, later = slice(0, 2 * pairs, 2), slice(1, 2 * pairs, 2)
        trees.append(aggregate(part(trees[-1], earlier), part(trees[-1], later)))
    prefixes = trees.pop()  # of 1, 2, ... blocks of a level, here of the one at the top
    while trees:
        blocks = trees.pop()
        size = len(jax.tree.leaves(blocks)[0])
        # Prefixes of 2, 4, ... blocks are those of the level above; one of 3, 5, ... adds a block.
        added = (size - 1) // 2
        longer = [part(blocks, slice(0, 1))]
        if added:
            odd = slice(2, 2 * added + 1, 2)
            longer.append(aggregate(part(prefixes, slice(0, added)), part(blocks, odd)))
        order = np.empty(size, np.int32)
        order[0::2], order[1::2] = np.arange(added + 1), np.arange(added + 1, size)
        join = lambda *parts, order=order: jnp.concatenate(parts)[order]
        prefixes = jax.tree.map(join, *longer, prefixes)
    return prefixes


class Counter(NamedTuple):
    """A stream of leaves: a binary counter whose digits hold blocks.

    Attributes:
      count: () int32, leaves so far.
      blocks: pytree of arrays (S, ...): digit k of the count is 1 where entry k holds the
        aggregate of 2^k leaves.
      prefixes: the same for the fold of that block and all before it; at the lowest digit that
        is 1 it is the prefix of all leaves.
    """

    count: jax.Array
    blocks: Any
    prefixes: Any


def empty_counter(leaf: Any, most: int) -> Counter:
    """Return a counter without leaves.

    Args:
      leaf: pytree of arrays, or of their shapes and types.
      most: leaves that it will have to count.
    """
    digits = max(int(most), 1).bit_length()
    zeros = lambda: jax.tree.map(lambda a: jnp.zeros((digits, *a.shape), a.dtype), leaf)
    return Counter(jnp.zeros((), jnp.int32), zeros(), zeros())


def push(aggregate: Aggregate, counter: Counter, leaf: Any) -> tuple[Counter, Any]:
    """Add a leaf to a stream: one call of the aggregator for each carry, and one for the prefix.

    Args:
      aggregate: maps two values to one of the same shapes and types.
      counter: before the leaf; it has a free digit.
      leaf: pytree of arrays.

    Returns:
      counter: with the leaf.
      prefix: of all leaves up to this one, as `tree_prefixes` gives it.
    """
    entry = lambda tree, k: jax.tree.map(
        lambda a: jax.lax.dynamic_index_in_dim(a, k, keepdims=False), tree
    )
    put = lambda tree, value, k: jax.tree.map(
        lambda a, one: jax.lax.dynamic_update_index_in_dim(a, one, k, 0), tree, value
    )
    count = counter.count
    is_one = lambda k: (jnp.right_shift(count, k) & 1) == 1

    def carry(digit_and_block):
        digit, block = digit_and_block
        return digit + 1, aggregate(entry(counter.blocks, digit), block)

    digit, block = jax.lax.while_loop(
        lambda pair: is_one(pair[0]), carry, (jnp.zeros_like(count), leaf)
    )
    above = jnp.left_shift(jnp.right_shift(count, digit), digit)
    lowest = jax.lax.population_count((above & -above) - 1)
    prefix = jax.lax.cond(
        above > 0,
        lambda: aggregate(entry(counter.prefixes, lowest), block),
        lambda: block,
    )
    blocks, prefixes = put(counter.blocks, block, digit), put(counter.prefixes, prefix, digit)
    return Counter(count + 1, blocks, prefixes), prefix
