"""GPT-2 in Hugging Face's layout, whose matrices are [in, out] already."""

import jax
import jax.numpy as jnp

from lowbit.interop import hugging_face, layout
from lowbit.models import gpt2

_NORMS = {'ln_1': 'attention_norm', 'ln_2': 'mlp_norm'}
_DENSE = {'attn.c_proj': 'out', 'mlp.c_fc': 'up', 'mlp.c_proj': 'down'}
_FUSED = ('query', 'key', 'value')  # Side by side in attn.c_attn.


def load(folder: hugging_face.Folder) -> tuple[gpt2.GPT2, dict]:
  """The model and its float32 params.

  Raises:
    ValueError: If config.json lacks sizes, asks for what the model lacks, or
      does not fit the tensors; before tensors are read.
  """
  model = gpt2.GPT2(config(folder))
  at = 'transformer.'
  prefix = at if any(n.startswith(at) for n in folder.shapes) else ''
  tied = r'|lm_head\.weight' if model.config.tied else ''
  return model, layout.assemble(
    folder.checkpoint,
    model,
    (jax.ShapeDtypeStruct((1, 1), jnp.int32),),
    sources(model.config, prefix),
    ignored=rf'.*\.attn\.(masked_)?bias{tied}',
  )


def config(folder: hugging_face.Folder) -> gpt2.GPT2Config:
  """The sizes of the model."""
  folder.expect('model_type', 'gpt2')
  folder.expect(
    'activation_function', 'gelu_new', 'gelu_pytorch_tanh', default='gelu_new'
  )
  folder.expect('scale_attn_weights', True, default=True)
  folder.expect('scale_attn_by_inverse_layer_idx', False, default=False)
  width = folder.number('n_embd')
  return gpt2.GPT2Config(
    vocab=folder.number('vocab_size'),
    width=width,
    layers=folder.layers('n_layer'),
    heads=folder.number('n_head'),
    hidden=folder.number('n_inner', 4 * width),
    positions=folder.number('n_positions'),
    norm_eps=folder.number('layer_norm_epsilon', 1e-5),
    tied=bool(folder.config.get('tie_word_embeddings', True)),
  )


def sources(c: gpt2.GPT2Config, prefix: str = '') -> dict[str, layout.Source]:
  """The layout of the model in Hugging Face's names."""
  found = {
    'embed/embedding': layout.Source(f'{prefix}wte.weight'),
    'positions/embedding': layout.Source(f'{prefix}wpe.weight'),
    **_pair(f'{prefix}ln_f', 'final_norm', 'scale'),
  }
  if not c.tied:
    found['head/kernel'] = layout.kernel('lm_head.weight')
  for i in range(c.layers):
    theirs, ours = f'{prefix}h.{i}', f'layers_{i}'
    for name, mine in _NORMS.items():
      found |= _pair(f'{theirs}.{name}', f'{ours}/{mine}', 'scale')
    for name, mine in _DENSE.items():
      found |= _pair(f'{theirs}.{name}', f'{ours}/{mine}', 'kernel')
    for part, mine in enumerate(_FUSED):
      third = lambda w, p=part: w[..., p * c.width : (p + 1) * c.width]
      fused = _pair(f'{theirs}.attn.c_attn', f'{ours}/{mine}', 'kernel')
      found |= {k: layout.Source(s.name, third) for k, s in fused.items()}
  return found


def _pair(theirs: str, ours: str, kind: str) -> dict[str, layout.Source]:
  return {
    f'{ours}/{kind}': layout.Source(f'{theirs}.weight'),
    f'{ours}/bias': layout.Source(f'{theirs}.bias'),
  }
