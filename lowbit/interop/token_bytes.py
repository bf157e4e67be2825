"""How many bytes of text tokens stand for."""

import re
from collections.abc import Iterable

_BYTE = re.compile('<0x[0-9A-F]{2}>')


def count(tokenizer, tokens: Iterable[int]) -> int:
  """UTF-8 bytes of the tokens, also where they part a character.

  Args:
    tokenizer: A `tokenizers.Tokenizer` whose tokens are byte-level, one letter
      a byte, or SentencePiece's, '▁' a space and <0x00> to <0xFF> bytes.
    tokens: Ids. Special ones count as their names.
  """
  import tokenizers.decoders

  size = _spelled
  if isinstance(tokenizer.decoder, tokenizers.decoders.ByteLevel):
    size = len
  return sum(size(tokenizer.id_to_token(int(t))) for t in tokens)


def _spelled(token: str) -> int:
  return 1 if _BYTE.fullmatch(token) else len(token.replace('▁', ' ').encode())
