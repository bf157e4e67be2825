"""Byte-level pairs in GGUF ('gpt2'): GPT-2, Llama 3, Qwen, SmolLM2.

Text is cut by one of several rules, which llama.cpp names, before its bytes are
merged: Radford et al., 2019.
"""

import numpy as np

from lowbit.interop import gguf_vocabulary

_SUFFIXES = "'s|'t|'re|'ve|'m|'ll|'d"
_GPT2 = (
  rf'{_SUFFIXES}| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|\s+(?!\S)|\s+'
)
_REST = r' ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+'
_WORDS = rf'(?i:{_SUFFIXES})|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+'
_LLAMA3 = (rf'{_WORDS}|\p{{N}}{{1,3}}|{_REST}',)
_QWEN2 = (rf'{_WORDS}|\p{{N}}|{_REST}',)
# What stands alone, rule after rule. A file that names none has the default.
_CUTS = {
  'default': (
    r'[\p{P}\$\+<=>\^~\|]+',
    _GPT2,
    r'\p{N}+',
    r'[0-9][0-9][0-9]',
  ),
  'gpt-2': (_GPT2,),
  'smollm': (r'\p{N}', _GPT2),
  'llama-bpe': _LLAMA3,
  'llama-v3': _LLAMA3,
  'llama3': _LLAMA3,
  'qwen2': _QWEN2,
  'deepseek-r1-qwen': _QWEN2,
}


def build(vocabulary: gguf_vocabulary.Vocabulary):
  """A `tokenizers.Tokenizer`, without added tokens.

  Raises:
    ValueError: If merges are missing or do not fit the tokens, or the rules
      of cutting are not known.
  """
  tokenizers = gguf_vocabulary.check_package()
  path, merges = vocabulary.path, _merges(vocabulary)
  name = vocabulary.fields.get('tokenizer.ggml.pre', 'default')
  if name not in _CUTS:
    raise ValueError(
      f'`path` {path} cuts text by the rules of {name!r}; those of '
      f'{", ".join(_CUTS)} are supported.'
    )
  try:
    model = tokenizers.models.BPE(
      {t: i for i, t in enumerate(vocabulary.tokens)},
      merges,
      byte_fallback=False,
      ignore_merges=_CUTS[name] is _LLAMA3,  # A whole word is one token.
    )
  except Exception as error:  # The package raises no other class.
    raise ValueError(
      f'`path` {path}: its merges do not fit its tokens: {error}.'
    ) from error
  found = tokenizers.Tokenizer(model)
  found.pre_tokenizer = _cut(tokenizers, _CUTS[name])
  found.decoder = tokenizers.decoders.ByteLevel()
  if _CUTS[name] is _QWEN2:
    found.normalizer = tokenizers.normalizers.NFC()
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
    'tokenizer.ggml.token_type': np.full(256, gguf_vocabulary.NORMAL, np.int32),
    'tokenizer.ggml.bos_token_id': 0,  # NUL, which is in no text.
    'tokenizer.ggml.eos_token_id': 0,
    'tokenizer.ggml.add_bos_token': False,
  }


def _merges(vocabulary) -> list[tuple[str, str]]:
  merges = vocabulary.strings('tokenizer.ggml.merges')
  pairs = [tuple(merge.split(' ')) for merge in merges if merge]
  odd = [pair for pair in pairs if len(pair) != 2]
  if odd:
    raise ValueError(
      f'`path` {vocabulary.path} has the merge {odd[0]} of no two.'
    )
  return pairs


def _cut(tokenizers, patterns: tuple[str, ...]):
  """The pre-tokenizer."""
  parts = tokenizers.pre_tokenizers
  return parts.Sequence(
    [
      *(parts.Split(tokenizers.Regex(p), 'isolated') for p in patterns),
      parts.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
  )
