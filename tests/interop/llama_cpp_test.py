"""llama.cpp itself, on files that it and we read: tokens and logits."""

import json
import urllib.request

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

import lowbit as lb
from lowbit.data import text
from lowbit.interop import gguf_file, gguf_tokenizer
from tests.interop import gguf_cases, gguf_others_test, hf_cases

pytestmark = [
  pytest.mark.slow,
  pytest.mark.filterwarnings('ignore'),  # Of bindings to compiled code.
]
T = 'tokenizer.ggml.'
LLAMA = {'llama.context_length': 64, 'llama.rope.dimension_count': 8}
TEXTS = [
  'Hello world',
  '  two  spaces ',
  '12345 and 3.14, 1234567',
  'naïve café — “quotes” 日本語 🙂\n\ttab\r\n x',
  '\n\n\n a',
  "It's don't WE'LL I'M",
  '\u00e9 \ufb01 ½ Ⅷ ٣٤ ÀÉÎ Straße İstanbul',
  "a+b=c<d>$5 ^^ ~|~ don't!!! #hash _x_",
  'x=12.5%\n\n  y',
  'abc\u200bdef\u00a0ghi\x07j \U00020000x',
  'e\u0301',  # Not composed.
]


@pytest.fixture(scope='module')
def corpus():
  return text.load('')[0][:60_000].tobytes().decode(errors='ignore')


def serve(path, **options):
  import xllamacpp

  params = xllamacpp.CommonParams()
  params.model.path = str(path)
  params.n_parallel, params.n_gpu_layers, params.verbosity = 1, 0, 0
  params.n_ctx = hf_cases.POSITIONS
  params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
  params.warmup = params.fit_params = False
  kind = xllamacpp.ggml_type.GGML_TYPE_F32
  params.cache_type_k = params.cache_type_v = kind
  off = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
  params.flash_attn_type = off
  for name, value in options.items():
    setattr(params, name, value)
  return xllamacpp.Server(params)


def tokens_of(server, content):
  body = {'content': content, 'add_special': False, 'parse_special': True}
  request = urllib.request.Request(
    f'{server.listening_address}/tokenize',
    json.dumps(body).encode(),
    {'Content-Type': 'application/json'},
  )
  with urllib.request.urlopen(request) as reply:
    return json.load(reply)['tokens']


def decoder_file(path, fields):
  model, params = gguf_cases.model(vocab=len(fields[f'{T}tokens']))
  return gguf_cases.write(path, model, params, **fields, **LLAMA)


def compare(path, texts, **options):
  """Our tokens are those of llama.cpp."""
  ours = gguf_tokenizer.build(gguf_file.GgufFile(path))
  server = serve(path, **options)
  for content in texts:
    got = ours.encode(content, add_special_tokens=False).ids
    assert got == tokens_of(server, content), content
  return ours


@pytest.fixture(scope='module')
def pairs(corpus):
  """Fields of byte-level pairs that reach over words, so that cuts matter."""
  learner = Tokenizer(models.BPE())
  parts = [
    pre_tokenizers.Split(Regex(r'.{1,12}|\n'), 'isolated'),
    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
  ]
  learner.pre_tokenizer = pre_tokenizers.Sequence(parts)
  often = ' 12 123 1234 12345 !! ?! \n\n \n\n\n  a\n\n  b ... == <= $5' * 40
  alphabet = pre_tokenizers.ByteLevel.alphabet()
  learner.train_from_iterator(
    [corpus, often],
    trainers.BpeTrainer(
      vocab_size=900,
      special_tokens=['<|endoftext|>'],
      initial_alphabet=alphabet,
      show_progress=False,
    ),
  )
  model = json.loads(learner.to_str())['model']
  tokens = sorted(model['vocab'], key=model['vocab'].get)
  return {
    f'{T}tokens': tokens,
    f'{T}merges': [' '.join(merge) for merge in model['merges']],
    f'{T}token_type': [3] + [1] * (len(tokens) - 1),
    f'{T}bos_token_id': 0,
    f'{T}eos_token_id': 0,
  }


CUTS = ['gpt-2', 'smollm', 'llama-bpe', 'llama3', 'qwen2', 'default']


@pytest.mark.parametrize('pre', CUTS)
def test_byte_level_pairs(tmp_path, corpus, pairs, pre):
  path = decoder_file(tmp_path / 'm.gguf', pairs | {f'{T}pre': pre})
  # Qwen's own tokenizer composes letters and accents; llama.cpp does not.
  texts = [*TEXTS[: -1 if pre == 'qwen2' else None], corpus[9000:12_000]]
  compare(path, texts)


def test_sentencepiece(tmp_path, corpus):
  import sentencepiece

  (tmp_path / 'text.txt').write_text(corpus)
  sentencepiece.SentencePieceTrainer.train(
    input=str(tmp_path / 'text.txt'),
    model_prefix=str(tmp_path / 'm'),
    vocab_size=900,
    model_type='bpe',
    byte_fallback=True,
    normalization_rule_name='identity',
    remove_extra_whitespaces=False,
    minloglevel=2,
  )
  theirs = sentencepiece.SentencePieceProcessor(str(tmp_path / 'm.model'))
  every = range(theirs.vocab_size())
  kinds = {theirs.is_unknown: 2, theirs.is_control: 3, theirs.is_byte: 6}
  kind = lambda i: next((k for test, k in kinds.items() if test(i)), 1)
  fields = {
    f'{T}model': 'llama',
    f'{T}pre': 'default',
    f'{T}tokens': [theirs.id_to_piece(i) for i in every],
    f'{T}scores': [float(theirs.get_score(i)) for i in every],
    f'{T}token_type': [kind(i) for i in every],
    f'{T}bos_token_id': theirs.bos_id(),
    f'{T}eos_token_id': theirs.eos_id(),
    f'{T}unknown_token_id': theirs.unk_id(),
  }
  path = decoder_file(tmp_path / 'm.gguf', fields)
  texts = [*TEXTS, corpus[9000:12_000]]
  ours = compare(path, [*texts, '<s> hi</s> you'])
  for content in texts:
    assert ours.encode(content).ids == theirs.encode(content), content
    assert ours.decode(theirs.encode(content)) == content


def test_wordpiece(tmp_path, corpus):
  special = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]']
  words = sorted(set(corpus.lower().split()))[::3]
  letters = sorted({c for c in corpus.lower() if not c.isspace()})
  starts = [*words, *letters, 'cafe', '日', 'strasse', 'istanbul', 'e']
  starts = [f'▁{word}' for word in dict.fromkeys(starts)]
  tokens = [*special, *starts, *(c for c in letters if c not in '[]')]
  tensors = gguf_others_test.renamed(
    hf_cases.bert(len(tokens)), gguf_others_test.gguf.MODEL_ARCH.BERT
  )
  fields = {
    f'{T}model': 'bert',
    f'{T}tokens': tokens,
    f'{T}token_type': [3] * len(special) + [1] * (len(tokens) - len(special)),
    f'{T}unknown_token_id': 1,
    f'{T}bos_token_id': 2,
    f'{T}seperator_token_id': 3,
    f'{T}token_type_count': 2,
    'bert.attention.causal': False,
    'bert.pooling_type': 1,
  }
  path = gguf_others_test.write(tmp_path / 'm.gguf', 'bert', tensors, **fields)
  compare(path, [*TEXTS, corpus[9000:12_000]], embedding=True)


def test_gpt2(tmp_path):
  fields = {f'{T}pre': 'gpt-2', f'{T}bos_token_id': 0, f'{T}eos_token_id': 0}
  path = gguf_others_test.write(
    tmp_path / 'm.gguf', 'gpt2', gguf_others_test.gpt2(), **fields
  )
  check_next(path, [258, 262, 221, 263, 17, 99, 4])


SCALING = 'llama.rope.scaling.'
ROTARY = {
  'none': {},
  'linear': {f'{SCALING}type': 'linear', f'{SCALING}factor': 4.0},
  'yarn': {
    f'{SCALING}type': 'yarn',
    f'{SCALING}factor': 4.0,
    f'{SCALING}original_context_length': 16,
  },
  'yarn of other turns': {
    f'{SCALING}type': 'yarn',
    f'{SCALING}factor': 8.0,
    f'{SCALING}attn_factor': 0.7,
    f'{SCALING}yarn_beta_fast': 4.0,
    f'{SCALING}yarn_beta_slow': 0.5,
  },
  'scale': {f'{SCALING}attn_factor': 1.5},
}


@pytest.mark.parametrize('factors', [(), (1.0, 1.5, 3.0, 8.0)])
@pytest.mark.parametrize('case', ROTARY)
def test_rotary_scaling(tmp_path, case, factors):
  model, params = gguf_cases.model(rope_factors=factors)
  fields = {f'{T}bos_token_id': 0, f'{T}eos_token_id': 0}
  path = gguf_cases.write(
    tmp_path / 'm.gguf', model, params, **LLAMA, **fields, **ROTARY[case]
  )
  tokens = np.random.default_rng(0).integers(1, 260, 40).tolist()
  check_next(path, tokens, n_ctx=64)


def check_next(path, tokens, **options):
  """Log-probabilities of the most likely next tokens are llama.cpp's."""
  reply = serve(path, **options).handle_completions(
    dict(prompt=tokens, n_predict=1, n_probs=20, temperature=0)
  )
  best = reply['choices'][0]['logprobs']['content'][0]['top_logprobs']
  found = lb.interop.load(path)
  logits = found.model.apply({'params': found.params}, jnp.asarray([tokens]))
  ours = np.asarray(jax.nn.log_softmax(logits))[0, -1]
  assert len(best) == 20
  np.testing.assert_allclose(
    ours[[b['id'] for b in best]], [b['logprob'] for b in best], atol=5e-4
  )
