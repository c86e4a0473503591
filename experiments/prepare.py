"""Prepare a data set: `pspike prepare`, by the name that this repository's documents use.

  python -m experiments.prepare --dataset=NAME --data_dir=DIR
"""

from pspike_jax.command.prepare import main

if __name__ == "__main__":
    main(prog="python -m experiments.prepare")
