"""Tokenizers, built from a GGUF file's vocabulary."""

from lowbit.interop import (
  gguf_bpe,
  gguf_file,
  gguf_sentencepiece,
  gguf_vocabulary,
  gguf_wordpiece,
)

_BUILDERS = {
  'gpt2': gguf_bpe.build,
  'llama': gguf_sentencepiece.build,
  'bert': gguf_wordpiece.build,
}


def build(file: gguf_file.GgufFile):
  """The `tokenizers.Tokenizer` of a file.

  It adds no token of its own to a text, but for BERT's [CLS] and [SEP]: a model
  that wants one at the start says so in
  `file.fields['tokenizer.ggml.add_bos_token']`.

  Raises:
    ValueError: If the vocabulary is missing, has two equal tokens, does not fit
      the merges, scores or the rows of the embedding, or its kind is not
      supported.
    ImportError: Without the package `tokenizers`.
  """
  gguf_vocabulary.check_package()
  kind = file.fields.get('tokenizer.ggml.model')
  if kind not in _BUILDERS:
    raise ValueError(
      f'`path` {file.path} has a tokenizer of the kind {kind!r}; byte-level '
      "pairs ('gpt2'), SentencePiece's ('llama') and WordPiece ('bert') are "
      'supported.'
    )
  vocabulary = gguf_vocabulary.read(file)
  found = _BUILDERS[kind](vocabulary)
  _add(found, vocabulary)
  rows = file.shape('token_embd.weight', 2)[0]
  gguf_vocabulary.check_size(found, rows, file.path)
  return found


def _add(found, vocabulary: gguf_vocabulary.Vocabulary) -> None:
  """Tokens that are found in a text before all others."""
  import tokenizers

  added = lambda kind: [
    tokenizers.AddedToken(
      found.id_to_token(i),
      special=kind != gguf_vocabulary.DEFINED,
      normalized=False,
    )
    for i, k in enumerate(vocabulary.kinds)
    if k == kind
  ]
  found.add_special_tokens(added(gguf_vocabulary.CONTROL))
  found.add_tokens(added(gguf_vocabulary.DEFINED))
