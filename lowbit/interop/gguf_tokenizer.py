"""Tokenizers, built from a GGUF file's vocabulary and merges."""

import numpy as np

from lowbit.interop import gguf_file

NORMAL, CONTROL, DEFINED = 1, 3, 4  # Kinds of tokens in GGUF.
_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r' ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+'
_WORDS = rf'{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+'
# How text is cut before merges, by the names that llama.cpp gives.
_CUTS = {
  'gpt-2': '',
  'smollm': 'digits',
  'llama-bpe': rf'{_WORDS}|\p{{N}}{{1,3}}|{_REST}',
  'qwen2': rf'{_WORDS}|\p{{N}}|{_REST}',
}


def build(file: gguf_file.GgufFile):
  """The `tokenizers.Tokenizer` of a file.

  It adds no token of its own to a text: a model that wants one at the start
  says so in `file.fields['tokenizer.ggml.add_bos_token']`.

  Raises:
    ValueError: If the vocabulary is missing, has two equal tokens, does not fit
      the merges or the rows of the embedding, or its kind is not supported.
    ImportError: Without the package `tokenizers`.
  """
  tokenizers = check_package()
  tokens, merges, kinds = _parts(file)
  cut = _cut(file)
  try:
    model = tokenizers.models.BPE(
      {t: i for i, t in enumerate(tokens)}, merges, byte_fallback=False
    )
  except Exception as error:  # The package raises no other class.
    raise ValueError(
      f'`path` {file.path}: its merges do not fit its tokens: {error}.'
    ) from error
  found = tokenizers.Tokenizer(model)
  found.pre_tokenizer = cut
  found.decoder = tokenizers.decoders.ByteLevel()
  if file.fields.get('tokenizer.ggml.pre') == 'qwen2':
    found.normalizer = tokenizers.normalizers.NFC()
  added = lambda kind: [
    tokenizers.AddedToken(t, special=kind == CONTROL, normalized=False)
    for t, k in zip(tokens, kinds)
    if k == kind
  ]
  found.add_special_tokens(added(CONTROL))
  found.add_tokens(added(DEFINED))
  check_size(found, file.shape('token_embd.weight', 2)[0], file.path)
  return found


def of_bytes() -> dict[str, object]:
  """Metadata of a tokenizer whose ids are the bytes of UTF-8.

  Each byte is written as the character that GPT-2 gives it; there are no
  merges, for which an empty one stands, since writers refuse empty arrays.
  """
  plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
  others = (b for b in range(256) if b not in plain)
  signs = {b: chr(b) for b in plain}
  signs |= {b: chr(256 + i) for i, b in enumerate(others)}
  return {
    'tokenizer.ggml.model': 'gpt2',
    'tokenizer.ggml.pre': 'gpt-2',
    'tokenizer.ggml.tokens': [signs[b] for b in range(256)],
    'tokenizer.ggml.merges': [''],
    'tokenizer.ggml.token_type': np.full(256, NORMAL, np.int32),
    'tokenizer.ggml.bos_token_id': 0,  # NUL, which is in no text.
    'tokenizer.ggml.eos_token_id': 0,
    'tokenizer.ggml.add_bos_token': False,
  }


def check_package():
  """The package `tokenizers`; ImportError, with the way out, without it."""
  try:
    import tokenizers
    import tokenizers.decoders
    import tokenizers.models
    import tokenizers.normalizers
    import tokenizers.pre_tokenizers
  except ImportError as error:
    raise ImportError(
      "Tokenizers need the package tokenizers: pip install 'lowbit[interop]'."
    ) from error
  return tokenizers


def _parts(file):
  """(tokens, merges as pairs, kinds), checked."""
  kind = file.fields.get('tokenizer.ggml.model')
  if kind != 'gpt2':
    raise ValueError(
      f'`path` {file.path} has a tokenizer of the kind {kind!r}; byte-level '
      "pairs ('gpt2') are supported."
    )
  tokens = _strings(file, 'tokenizer.ggml.tokens')
  if len(set(tokens)) != len(tokens):
    raise ValueError(f'`path` {file.path} has two equal tokens.')
  merges = filter(None, _strings(file, 'tokenizer.ggml.merges'))
  merges = [m.split(' ') for m in merges]
  odd = [m for m in merges if len(m) != 2]
  if odd:
    raise ValueError(f'`path` {file.path} has the merge {odd[0]} of no two.')
  kinds = file.fields.get('tokenizer.ggml.token_type')
  kinds = [NORMAL] * len(tokens) if kinds is None else np.asarray(kinds)
  if np.shape(kinds) != (len(tokens),):
    raise ValueError(
      f'`path` {file.path} has {len(tokens)} tokens and kinds of the shape '
      f'{np.shape(kinds)}.'
    )
  return tokens, [tuple(m) for m in merges], kinds


def _strings(file, key: str) -> list[str]:
  found = file.fields.get(key)
  if not isinstance(found, list):
    raise ValueError(f'`path` {file.path} has no list of strings {key}.')
  return found


def _cut(file):
  """The pre-tokenizer."""
  import tokenizers
  from tokenizers import pre_tokenizers

  name = file.fields.get('tokenizer.ggml.pre', 'gpt-2')
  if name not in _CUTS:
    raise ValueError(
      f'`path` {file.path} cuts text by the rules of {name!r}; those of '
      f'{", ".join(_CUTS)} are supported.'
    )
  if name == 'gpt-2':
    return pre_tokenizers.ByteLevel(add_prefix_space=False)
  if name == 'smollm':
    parts = [
      pre_tokenizers.Digits(individual_digits=True),
      pre_tokenizers.ByteLevel(add_prefix_space=False),
    ]
  else:
    pattern = tokenizers.Regex(_CUTS[name])
    parts = [
      pre_tokenizers.Split(pattern, 'isolated'),
      pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
  return pre_tokenizers.Sequence(parts)


def check_size(tokenizer, vocab: int, path) -> None:
  """Raises ValueError if the tokenizer has ids that the model has not."""
  size = tokenizer.get_vocab_size()
  largest = max(tokenizer.get_vocab().values(), default=-1)
  if largest >= vocab:
    raise ValueError(
      f'The tokenizer of `path` {path} does not fit the model: it has {size} '
      f'tokens, the last of id {largest}, and the embedding {vocab} rows.'
    )
