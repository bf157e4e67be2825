"""SentencePiece's pairs in GGUF ('llama'): Llama 1 and 2, Mistral.

Of all neighbours that together are a piece, those of the best score are joined
first, the leftmost of equals: Kudo and Richardson, 2018 (arXiv:1808.06226).
Characters that are no piece become their UTF-8 bytes.
"""

import numpy as np

from lowbit.interop import gguf_vocabulary

SPACE = '▁'  # Stands for a space in pieces.
LONGEST = 1024  # Letters; the parts of a piece are tried one by one.


def build(vocabulary: gguf_vocabulary.Vocabulary):
  """A `tokenizers.Tokenizer`, without added tokens.

  Raises:
    ValueError: If scores are missing, a piece is too long, or there is neither
      a token for unknown text nor one for each byte.
  """
  tokenizers = gguf_vocabulary.check_package()
  tokens = vocabulary.tokens
  unknown = _unknown(vocabulary)
  has_bytes = set(tokens) >= {f'<0x{byte:02X}>' for byte in range(256)}
  if unknown is None and not has_bytes:
    raise ValueError(
      f'`path` {vocabulary.path} has neither a token for unknown text nor one '
      'for each byte, <0x00> to <0xFF>.'
    )
  found = tokenizers.Tokenizer(
    tokenizers.models.BPE(
      {t: i for i, t in enumerate(tokens)},
      _merges(vocabulary),
      unk_token=unknown,
      byte_fallback=has_bytes,
    )
  )
  replace = tokenizers.normalizers.Replace(' ', SPACE)
  steps = tokenizers.decoders
  decoders = [steps.Replace(SPACE, ' '), steps.ByteFallback(), steps.Fuse()]
  if vocabulary.flag('tokenizer.ggml.add_space_prefix', True):
    prepend = tokenizers.normalizers.Prepend(SPACE)
    replace = tokenizers.normalizers.Sequence([prepend, replace])
    decoders.append(steps.Strip(' ', 1, 0))
  found.normalizer, found.decoder = replace, steps.Sequence(decoders)
  return found


def _unknown(vocabulary) -> str | None:
  """The token for unknown text, by id or by kind."""
  kinds = np.flatnonzero(vocabulary.kinds == gguf_vocabulary.UNKNOWN)
  default = int(kinds[0]) if len(kinds) else None
  return vocabulary.token(('tokenizer.ggml.unknown_token_id',), default)


def _merges(vocabulary) -> list[tuple[str, str]]:
  """Pairs of pieces that are one together, best first."""
  scores = vocabulary.fields.get('tokenizer.ggml.scores')
  tokens = vocabulary.tokens
  if np.shape(scores) != (len(tokens),) or not np.isfinite(scores).all():
    raise ValueError(
      f'`path` {vocabulary.path} has {len(tokens)} tokens, and '
      f'tokenizer.ggml.scores are {np.shape(scores)} finite numbers.'
    )
  pieces = {
    token: score
    for token, score, kind in zip(tokens, scores.tolist(), vocabulary.kinds)
    if kind == gguf_vocabulary.NORMAL
  }
  longest = max(map(len, pieces), default=0)
  if longest > LONGEST:
    raise ValueError(
      f'`path` {vocabulary.path} has a token of {longest} letters; more than '
      f'{LONGEST} are not supported.'
    )
  pairs = [
    (-score, whole[:i], whole[i:])
    for whole, score in pieces.items()
    for i in range(1, len(whole))
    if whole[:i] in pieces and whole[i:] in pieces
  ]
  pairs.sort(key=lambda pair: pair[0])
  return [pair[1:] for pair in pairs]
