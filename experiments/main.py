"""The main job: `pspike train`, by the name that this repository's documents use.

  python -m experiments.main --config=experiments/configs/NAME.py[:VARIANT] --workdir=DIR
"""

import pathlib
from collections.abc import Sequence

from pspike_jax.command import huge_pages, job

CONFIGS = pathlib.Path(__file__).parent / "configs"
PROGRAM = "python -m experiments.main"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the experiment that the command line names; see `pspike_jax.command.job.main`."""
    job.main(arguments, PROGRAM, CONFIGS)


if __name__ == "__main__":
    huge_pages.start_again()
    main()
