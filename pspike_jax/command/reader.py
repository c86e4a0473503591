"""How every command reads its line: what is wrong is said in one line, with the nearest word."""

import argparse
import difflib
from collections.abc import Sequence
from typing import Any, NoReturn


class Reader(argparse.ArgumentParser):
    """A reader whose errors are one line; it takes no abbreviations."""

    def __init__(self, **options: Any):
        super().__init__(
            allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **options
        )

    def parse_args(self, args=None, namespace=None):
        """Read a command line; name what it has too much, and what was perhaps meant."""
        asked, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self.refuse(unknown)
        return asked

    def refuse(self, unknown: Sequence[str]) -> NoReturn:
        """Leave, with words that nobody knows and the flag that is nearest to the first."""
        word = unknown[0].partition("=")[0]
        near = difflib.get_close_matches(word, self._option_string_actions, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        self.error(f"unknown arguments {' '.join(unknown)}{hint}")

    def error(self, message: str) -> NoReturn:
        """Leave with one line."""
        self.exit(2, f"error: {message} ({self.prog} --help tells more)\n")
