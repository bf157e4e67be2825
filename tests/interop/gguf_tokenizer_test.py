"""Tokenizers from GGUF files; llama.cpp itself in llama_cpp_test.py."""

import itertools

import hypothesis
import pytest
from hypothesis import strategies

from lowbit.interop import (
  gguf_file,
  gguf_tokenizer,
  gguf_wordpiece,
  token_bytes,
)
from tests.interop import gguf_cases

T = 'tokenizer.ggml.'


def build(tmp_path, rows=None, **fields):
  """The tokenizer of a decoder's file with these fields."""
  tokens = fields.get(f'{T}tokens', gguf_cases.TOKENS)
  model, params = gguf_cases.model(vocab=rows or len(tokens))
  path = gguf_cases.write(tmp_path / 'm.gguf', model, params, **fields)
  return gguf_tokenizer.build(gguf_file.GgufFile(path))


def test_tokens_are_merged_and_come_back(tmp_path):
  found = build(tmp_path)
  text = 'the cat and the dog, 12 ünïts\n'
  encoded = found.encode(text)
  assert encoded.tokens[0] == 'the'
  assert 'Ġand' in encoded.tokens
  assert '12' not in encoded.tokens  # Digits stand alone.
  assert found.decode(encoded.ids) == text
  assert token_bytes.count(found, encoded.ids) == len(text.encode())
  assert found.encode('the<|endoftext|>').ids[-1] == 0


@pytest.mark.parametrize(
  'pre', ['gpt-2', 'llama-bpe', 'llama3', 'qwen2', 'default', 'smollm']
)
def test_other_cuts(tmp_path, pre):
  found = build(tmp_path, **{f'{T}pre': pre})
  tokens = found.encode('and the 12').tokens
  assert tokens[:2] == ['and', 'Ġthe']
  # Of these, only Qwen's rules and SmolLM's part digits.
  assert ('12' in tokens) == (pre not in ('qwen2', 'smollm'))


def cuts(tmp_path, pre, text):
  fields = {} if pre is None else {f'{T}pre': pre}
  cut = build(tmp_path, **fields).pre_tokenizer.pre_tokenize_str(text)
  return [piece.replace('Ġ', ' ') for piece, _ in cut]


def test_rules_differ_where_they_should(tmp_path):
  text = "a's 1234 x.y b,"
  assert cuts(tmp_path, 'gpt-2', text) == (
    ['a', "'s", ' 1234', ' x', '.', 'y', ' b', ',']
  )
  assert cuts(tmp_path, 'default', text) == (
    ['a', "'", 's', ' ', '123', '4', ' x', '.', 'y', ' b', ',']
  )
  assert cuts(tmp_path, 'llama-bpe', text) == (
    ['a', "'s", ' ', '123', '4', ' x', '.y', ' b', ',']
  )
  assert cuts(tmp_path, 'qwen2', text) == (
    ['a', "'s", ' ', *'1234', ' x', '.y', ' b', ',']
  )


def test_llama_3_takes_a_whole_word_that_no_merges_make(tmp_path):
  tokens = [*gguf_cases.TOKENS, 'dog']
  fields = {f'{T}tokens': tokens, f'{T}token_type': [1] * len(tokens)}
  whole = build(tmp_path, **fields, **{f'{T}pre': 'llama-bpe'})
  assert whole.encode('dog').tokens == ['dog']
  merged = build(tmp_path, **fields, **{f'{T}pre': 'gpt-2'})
  assert merged.encode('dog').tokens == ['d', 'o', 'g']


def sentencepiece(pieces, prefix=True):
  """Fields of pieces and their scores, behind unknown, <s> and bytes."""
  tokens = ['<unk>', '<s>', *(f'<0x{byte:02X}>' for byte in range(256))]
  kinds = [2, 3, *[6] * 256, *[1] * len(pieces)]
  return {
    f'{T}model': 'llama',
    f'{T}tokens': [*tokens, *pieces],
    f'{T}scores': [*[0.0] * len(tokens), *map(float, pieces.values())],
    f'{T}token_type': kinds,
    f'{T}add_space_prefix': prefix,
  }


PIECES = dict.fromkeys('▁abcd', -100) | {
  'ab': -1,
  '▁a': -2,
  'bc': -3,
  'abc': -4,
  '▁ab': -5,
  'cd': -6,
  '▁abc': -7,
  'dd': -8,
  'ddd': -9,
}


def greedy(text):
  """Joins the best pair of neighbours, the leftmost of equals, until none."""
  symbols = list(('▁' + text if text else text).replace(' ', '▁'))
  while True:
    pairs = [
      (-PIECES[a + b], i)
      for i, (a, b) in enumerate(itertools.pairwise(symbols))
      if a + b in PIECES
    ]
    if not pairs:
      break
    _, i = min(pairs)
    symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]
  raw = lambda s: [f'<0x{byte:02X}>' for byte in s.encode()]
  return [t for s in symbols for t in ([s] if s in PIECES else raw(s))]


@pytest.fixture(scope='module')
def joined(tmp_path_factory):
  return build(tmp_path_factory.mktemp('file'), **sentencepiece(PIECES))


@hypothesis.given(strategies.text('abcd ½é🙂\n', max_size=24))
def test_the_best_pair_is_joined_first(joined, text):
  encoded = joined.encode(text)
  assert encoded.tokens == greedy(text)
  assert joined.decode(encoded.ids) == text
  size = len(text.encode()) + bool(text)  # A space stands before it.
  assert token_bytes.count(joined, encoded.ids) == size


def test_control_tokens_and_the_space_before_a_text(tmp_path, joined):
  assert joined.encode('ab<s>ab').tokens == ['▁ab', '<s>', '▁ab']
  bare = build(tmp_path, **sentencepiece(PIECES, prefix=False))
  assert bare.encode('ab ab').tokens == ['ab', '▁ab']
  assert bare.decode(bare.encode(' ab').ids) == ' ab'


def test_without_bytes_there_is_unknown(tmp_path):
  fields = {
    f'{T}model': 'llama',
    f'{T}tokens': ['<unk>', '▁', 'a'],
    f'{T}scores': [0.0, -1.0, -2.0],
    f'{T}token_type': [2, 1, 1],
  }
  assert build(tmp_path, **fields).encode('aé').tokens == ['▁', 'a', '<unk>']
  fields |= {f'{T}token_type': [1, 1, 1]}
  with pytest.raises(ValueError, match='neither a token for unknown'):
    build(tmp_path, **fields)


WORDS = [
  *('[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', '!', '1', '##2', '日', 'a'),
  *('un', '##believ', '##able', 'cafe', '##s', 'hello', 'hell', '##', '##o'),
]


def marked(tokens):
  """BERT's tokens as GGUF has them."""
  return [
    t if t[0] + t[-1] == '[]' else t[2:] if t[:2] == '##' else f'▁{t}'
    for t in tokens
  ]


def wordpiece(tokens):
  kinds = [3 if t[0] + t[-1] == '[]' else 1 for t in tokens]
  return {
    f'{T}model': 'bert',
    f'{T}tokens': marked(tokens),
    f'{T}token_type': kinds,
  }


TEXTS = [
  'Unbelievable cafés, hello!',
  'hello 12 1 日a日 [MASK] \t\n hello',
  'HELLO héllo he\u0301lls \u00a0 a\u200ba a\x07a zebra 🙂',
  '',
]


@pytest.mark.filterwarnings('ignore')  # transformers warns of its own changes.
@pytest.mark.parametrize('capitals', [False, True])
def test_words_are_cut_as_by_transformers(tmp_path, capitals):
  import transformers

  tokens = WORDS + ['Hello', '##S'] * capitals
  file = tmp_path / 'vocab.txt'
  file.write_text('\n'.join(tokens))
  theirs = transformers.BertTokenizer(str(file), do_lower_case=not capitals)
  ours = build(tmp_path, **wordpiece(tokens))
  for text in TEXTS:
    assert ours.encode(text).ids == theirs(text)['input_ids'], text
  assert ours.encode('a', add_special_tokens=False).tokens == ['a']
  assert ours.decode(ours.encode('hello cafes').ids) == 'hello cafes'


def test_marks_of_words_are_turned():
  odd = ['##', '###', '##ing', '[', ']', '▁', '##▁', '▁x', '[unused1]']
  theirs = ['', '#', 'ing', '▁[', '▁]', '▁▁', '▁', '▁▁x', '[unused1]']
  assert gguf_wordpiece.as_bert(theirs) == odd


def test_special_tokens_are_found_by_their_ids(tmp_path):
  tokens = ['[unknown]', '[begin]', '[end]', *WORDS[5:]]
  ids = {f'{T}unknown_token_id': 0, f'{T}bos_token_id': 1}
  ids |= {f'{T}seperator_token_id': 2}
  found = build(tmp_path, **wordpiece(tokens), **ids)
  assert found.encode('hello?').tokens == (
    ['[begin]', 'hello', '[unknown]', '[end]']
  )
  with pytest.raises(ValueError, match=r'neither a token \[UNK\]'):
    build(tmp_path, **wordpiece(tokens))
  with pytest.raises(ValueError, match='has 17 tokens, and .* is 99'):
    build(tmp_path, **wordpiece(tokens), **ids | {f'{T}bos_token_id': 99})


BAD = {
  "of the kind 'rwkv'": {f'{T}model': 'rwkv'},
  "rules of 'odd'": {f'{T}pre': 'odd'},
  'two equal tokens': {f'{T}tokens': ['a', 'a']},
  'do not fit its tokens': {f'{T}merges': ['q zz']},
  'no list of strings tokenizer.ggml.merges': {f'{T}merges': 3},
  'no list of strings tokenizer.ggml.tokens': {f'{T}tokens': 3},
  'of no two': {f'{T}merges': ['a b c']},
  'kinds of the shape': {f'{T}token_type': [1, 1]},
  'scores are': sentencepiece(PIECES) | {f'{T}scores': [1.0, 2.0]},
  'scores are .* finite': {
    f'{T}model': 'llama',
    f'{T}tokens': ['<unk>', 'a'],
    f'{T}scores': [0.0, float('nan')],
    f'{T}token_type': [2, 1],
  },
  'has a token of 1025 letters': sentencepiece({'a' * 1025: -1}),
  'unknown_token_id is 999': (
    sentencepiece(PIECES) | {f'{T}unknown_token_id': 999}
  ),
  'no boolean': sentencepiece(PIECES) | {f'{T}add_space_prefix': 'yes'},
  'equal tokens, as BERT': {
    f'{T}model': 'bert',
    f'{T}tokens': [*marked(WORDS), 'ing', '▁##ing'],
    f'{T}token_type': [1] * (len(WORDS) + 2),
  },
}


@pytest.mark.parametrize('rule', BAD)
def test_tokenizers_that_do_not_fit_themselves(tmp_path, rule):
  with pytest.raises(ValueError, match=rule):
    build(tmp_path, rows=len(gguf_cases.TOKENS), **BAD[rule])


@pytest.mark.parametrize(
  'fields',
  [{}, sentencepiece(PIECES), wordpiece(WORDS)],
  ids=['gpt2', 'llama', 'bert'],
)
def test_tokenizers_that_do_not_fit_the_model(tmp_path, fields):
  tokens = fields.get(f'{T}tokens', gguf_cases.TOKENS)
  build(tmp_path, **fields)
  with pytest.raises(ValueError, match='does not fit the model'):
    build(tmp_path, rows=len(tokens) - 1, **fields)
