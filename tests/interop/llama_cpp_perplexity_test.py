"""llama.cpp itself reads what we write, and finds the same perplexity."""

import pytest

import lowbit as lb
from lowbit.data import embedded, text
from lowbit.interop import gguf_export
from lowbit.models import decoder
from tests.interop import llama_cpp

pytestmark = pytest.mark.slow
SPECS = {
  'F32': '',
  'Q8_0': 'int8@g32:fp16',
  'Q5_0': 'int5@g32:fp16',
  'Q4_0': 'int4@g32:fp16',
  'Q5_1': 'int5z@g32:e5m5ieee',
  'Q4_1': 'int4z@g32:e5m6ieee',
  'MXFP4': 'mxfp4',
  'TQ1_0': 'ternary@g256:fp16',
}


@pytest.fixture(scope='module')
def embedded_model():
  config, params = embedded.load()
  return decoder.Decoder(config), params


@pytest.fixture(scope='module')
def tokens():
  """Two windows of held-out text, of ASCII alone."""
  rows = text.sample(text.load(), 'test', 16, 256)
  return rows[rows.max(axis=1) < 128][:2]


@pytest.mark.parametrize('kind', SPECS)
def test_perplexity_of_the_embedded_model(
  tmp_path, embedded_model, tokens, kind
):
  model, params = embedded_model
  if SPECS[kind]:
    # Rows of 640 are no multiple of a ternary block.
    keep = ('head/kernel', '.*/down/.*') if kind == 'TQ1_0' else ()
    recipe = lb.recipes.nearest(SPECS[kind], keep=('embed/embedding', *keep))
    params = lb.quantize_model(model, params, recipe, [tokens])
  kinds = gguf_export.save(tmp_path / 'm.gguf', model, params)
  assert kinds['blk.3.ffn_up.weight'] == kind
  # Of perplexities; it rounds activations to 8 bits where weights are coded.
  ratio = llama_cpp.ratio(tmp_path / 'm.gguf', model, params, tokens)
  assert abs(ratio - 1) < (0.003 if SPECS[kind] else 1e-4)
