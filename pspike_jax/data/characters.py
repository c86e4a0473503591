"""Characters as tokens: a vocabulary counted on training texts, and texts cut to one length.

0 is <pad>, 1 is <unk>, 2 is <eos>; then the characters, the most frequent first. This is the
scheme of the S4 and P-SpikeSSM programs for the byte-level tasks of the Long Range Arena.
"""

from collections.abc import Iterable, Sequence

import numpy as np

PAD, UNK, EOS = range(3)
_SPECIAL = 3
_CODE_POINTS = 0x110000
_TEXTS_AT_ONCE = 500


class Vocabulary:
    """Which characters have a token.

    Attributes:
      characters: the characters, in the order of their tokens.
    """

    def __init__(self, characters: Sequence[str]):
        self.characters = tuple(characters)
        self._tokens = np.full(_CODE_POINTS, UNK, self.dtype)
        self._tokens[[ord(character) for character in self.characters]] = np.arange(
            _SPECIAL, len(self)
        )

    def __len__(self) -> int:
        return _SPECIAL + len(self.characters)

    @property
    def dtype(self) -> str:
        """The smallest unsigned type that holds every token."""
        return "uint8" if len(self) <= 256 else "uint32"

    def encode(self, texts: Sequence[str], length: int) -> tuple[np.ndarray, np.ndarray]:
        """Turn texts into tokens; what is longer is cut, and <eos> follows.

        Args:
          texts: B of them.
          length: L, at least 2.

        Returns:
          (B, L) tokens, padded with <pad>, and (B,) int32 lengths with <eos>.
        """
        tokens = np.full((len(texts), length), PAD, self.dtype)
        lengths = np.empty(len(texts), np.int32)
        for row, text in enumerate(texts):
            codes = _codes(text[: length - 1])
            tokens[row, : codes.size] = self._tokens[codes]
            tokens[row, codes.size] = EOS
            lengths[row] = codes.size + 1
        return tokens, lengths


def count_characters(texts: Iterable[str], length: int, min_frequency: int) -> Vocabulary:
    """Count characters of texts, cut as `Vocabulary.encode` cuts them.

    Args:
      texts: for training.
      length: L, as of `encode`.
      min_frequency: rarer characters become <unk>.

    Returns:
      The vocabulary, the most frequent character first, ties by code point.
    """
    counts = np.zeros(_CODE_POINTS, np.int64)
    waiting = []
    for text in texts:
        waiting.append(text[: length - 1])
        if len(waiting) == _TEXTS_AT_ONCE:
            counts += np.bincount(_codes("".join(waiting)), minlength=_CODE_POINTS)
            waiting = []
    counts += np.bincount(_codes("".join(waiting)), minlength=_CODE_POINTS)
    codes = np.flatnonzero(counts >= max(1, min_frequency))
    return Vocabulary([chr(code) for code in codes[np.argsort(-counts[codes], kind="stable")]])


def _codes(text):
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
