"""WordPiece in GGUF ('bert'): the longest known start of each word, and so on.

Devlin et al., 2018 (arXiv:1810.04805). GGUF marks the start of a word, by '▁',
where BERT marks what goes on, by '##'.
"""

import re

from lowbit.interop import gguf_vocabulary

START = '▁'
_CASED = re.compile('[A-Z]')


def build(vocabulary: gguf_vocabulary.Vocabulary):
  """A `tokenizers.Tokenizer`, without added tokens.

  Its tokens are BERT's ('##ing'). It lowers text, and strips accents, unless
  tokens have capitals: GGUF does not say, and llama.cpp always does. `encode`
  puts [CLS] and [SEP] around a text, unless asked not to.

  Raises:
    ValueError: If special tokens are missing, or two tokens the same to BERT.
  """
  tokenizers = gguf_vocabulary.check_package()
  path, tokens = vocabulary.path, as_bert(vocabulary.tokens)
  if len(set(tokens)) != len(tokens):
    raise ValueError(f'`path` {path} has two equal tokens, as BERT has them.')
  unknown, first, last = (
    _special(vocabulary, tokens, name, keys)
    for name, keys in (
      ('[UNK]', ('unknown_token_id',)),
      ('[CLS]', ('cls_token_id', 'bos_token_id')),
      ('[SEP]', ('seperator_token_id', 'eos_token_id')),  # Spelt so in GGUF.
    )
  )
  ids = {token: i for i, token in enumerate(tokens)}
  found = tokenizers.Tokenizer(
    tokenizers.models.WordPiece(ids, unk_token=unknown)
  )
  words = (t for t in tokens if not _is_bracketed(t))
  found.normalizer = tokenizers.normalizers.BertNormalizer(
    lowercase=not any(map(_CASED.search, words))
  )
  found.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
  found.decoder = tokenizers.decoders.WordPiece()
  found.post_processor = tokenizers.processors.BertProcessing(
    (last, ids[last]), (first, ids[first])
  )
  return found


def as_bert(tokens: list[str]) -> list[str]:
  """Tokens with '##' before what goes on, in place of '▁' before a start."""
  return [
    token
    if _is_bracketed(token)
    else token[1:]
    if token.startswith(START) and token != START
    else f'##{token}'
    for token in tokens
  ]


def _is_bracketed(token: str) -> bool:
  return token.startswith('[') and token.endswith(']')


def _special(vocabulary, tokens, name: str, keys: tuple[str, ...]) -> str:
  """A special token by its id, or its usual name."""
  default = tokens.index(name) if name in tokens else None
  keys = tuple(f'tokenizer.ggml.{key}' for key in keys)
  found = vocabulary.token(keys, default)
  if found is None:
    raise ValueError(
      f'`path` {vocabulary.path} has neither a token {name} nor a field '
      f'{keys[0]}.'
    )
  return as_bert([found])[0]
