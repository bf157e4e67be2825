"""Random tensors of small GPT-2s and BERTs by Hugging Face's names."""

import json

import numpy as np
import safetensors.numpy

LAYERS, WIDTH, HIDDEN, POSITIONS = 2, 16, 24, 12
GPT2 = dict(
  model_type='gpt2',
  n_embd=WIDTH,
  n_layer=LAYERS,
  n_head=2,
  n_inner=HIDDEN,
  n_positions=POSITIONS,
)
BERT = dict(
  model_type='bert',
  hidden_size=WIDTH,
  num_hidden_layers=LAYERS,
  num_attention_heads=2,
  intermediate_size=HIDDEN,
  max_position_embeddings=POSITIONS,
)


def gpt2(vocab):
  """Its tensors; matrices are [in, out]."""
  shapes = {'wte.weight': (vocab, WIDTH), 'wpe.weight': (POSITIONS, WIDTH)}
  shapes |= _norm('ln_f')
  for i in range(LAYERS):
    at = f'h.{i}.'
    shapes |= _norm(f'{at}ln_1') | _norm(f'{at}ln_2')
    for name, inputs, outputs in (
      ('attn.c_attn', WIDTH, 3 * WIDTH),
      ('attn.c_proj', WIDTH, WIDTH),
      ('mlp.c_fc', WIDTH, HIDDEN),
      ('mlp.c_proj', HIDDEN, WIDTH),
    ):
      shapes[f'{at}{name}.weight'] = (inputs, outputs)
      shapes[f'{at}{name}.bias'] = (outputs,)
  return _draw(shapes)


def bert(vocab):
  """Its tensors; matrices are [out, in]."""
  at = 'embeddings.'
  shapes = {
    f'{at}word_embeddings.weight': (vocab, WIDTH),
    f'{at}position_embeddings.weight': (POSITIONS, WIDTH),
    f'{at}token_type_embeddings.weight': (2, WIDTH),
    **_norm(f'{at}LayerNorm'),
  }
  for i in range(LAYERS):
    at = f'encoder.layer.{i}.'
    shapes |= _norm(f'{at}attention.output.LayerNorm')
    shapes |= _norm(f'{at}output.LayerNorm')
    for name, outputs, inputs in (
      ('attention.self.query', WIDTH, WIDTH),
      ('attention.self.key', WIDTH, WIDTH),
      ('attention.self.value', WIDTH, WIDTH),
      ('attention.output.dense', WIDTH, WIDTH),
      ('intermediate.dense', HIDDEN, WIDTH),
      ('output.dense', WIDTH, HIDDEN),
    ):
      shapes[f'{at}{name}.weight'] = (outputs, inputs)
      shapes[f'{at}{name}.bias'] = (outputs,)
  return _draw(shapes)


def _norm(name):
  return {f'{name}.weight': (WIDTH,), f'{name}.bias': (WIDTH,)}


def _draw(shapes):
  rng = np.random.default_rng(0)
  draw = lambda shape: 0.3 * rng.standard_normal(shape, np.float32)
  return {name: draw(shape) for name, shape in shapes.items()}


def write(folder, tensors, config, **changes):
  """A folder without a tokenizer."""
  (folder / 'config.json').write_text(json.dumps(config | changes))
  safetensors.numpy.save_file(tensors, folder / 'model.safetensors')
  return folder
