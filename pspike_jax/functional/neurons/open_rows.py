"""Run a function on some rows of a layer by themselves, in programs of fixed shapes."""

from typing import Any, Callable

import jax
import jax.numpy as jnp

from pspike_jax.functional.neurons.separate import Rows


def on_open_rows(
    function: Callable[[Rows, jax.Array], tuple[jax.Array, Any]],
    is_open: jax.Array,
    room: float,
    rows: Rows,
    spikes: jax.Array,
    count: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Replace the spikes of the rows that are open by what a function finds for them.

    The open rows go through one program in pieces, each `room` of all rows, one after the other.

    Args:
      function: (rows, spikes) -> (spikes, rounds), for rows in a batch of one.
      is_open: (B, H) bool.
      room: share of the rows in a piece.
      rows: of all neurons.
      spikes: (B, L, H), what there is.
      count: () int32 zero.

    Returns:
      The spikes, the most rounds that a piece took, and the share of rows that were open.
    """
    batch, length, features = spikes.shape
    number = batch * features
    open_rows = is_open.reshape(number)
    flat = lambda array: jnp.moveaxis(array, 1, 0).reshape(length, number)
    coefficients = tuple(
        jnp.broadcast_to(c, (batch, features)).reshape(number) for c in rows.coefficients
    )
    currents = flat(rows.currents)
    state = jax.tree.map(lambda part: part.reshape(number), rows.state)
    # A symbol of jax.export leaves nothing to compute a share of.
    piece = max(1, int(room * number)) if isinstance(number, int) else number
    order = jnp.argsort(~open_rows, stable=True)
    most = jnp.sum(open_rows, dtype=jnp.int32)

    def one_piece(carry):
        done, found, count = carry
        # The last piece may begin earlier and meet rows that are done: they are found again.
        chosen = jax.lax.dynamic_slice_in_dim(order, done, piece)
        few = Rows(
            tuple(c[chosen] for c in coefficients),
            currents[None, :, chosen],
            jax.tree.map(lambda part: part[None, chosen], state),
        )
        new, rounds = function(few, found[None, :, chosen])
        # A row that was not open keeps what it has.
        new = jnp.where(open_rows[chosen][None], new[0], found[:, chosen])
        return done + piece, found.at[:, chosen].set(new), jnp.maximum(count, rounds)

    start = (0 * most, flat(spikes), count)
    _, found, count = jax.lax.while_loop(lambda carry: carry[0] < most, one_piece, start)
    spikes = jnp.moveaxis(found.reshape(length, batch, features), 0, 1)
    return spikes, count, jnp.mean(open_rows.astype(jnp.float32))
