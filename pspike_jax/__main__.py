"""`python -m pspike_jax` is the program `pspike`."""

from pspike_jax.command.cli import program

if __name__ == "__main__":
    program()
