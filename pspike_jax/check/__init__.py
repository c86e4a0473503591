"""Whether this device computes what it should, and which engines are fast on it.

  python -m pspike_jax.check

compares every engine with a stored float64 truth, noise with stored bits, gradients, streams and
bfloat16; then it times the engines and writes a table for this device into the user's cache, which
`engine="auto"` prefers to the one that comes with the package.
"""
