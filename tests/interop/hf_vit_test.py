"""Vision transformers in folders; transformers itself in oracle_test.py."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

import lowbit as lb
from lowbit.models import vit

SIZES = dict(
  image_size=[12, 8],
  patch_size=4,
  num_channels=2,
  hidden_size=16,
  num_hidden_layers=2,
  num_attention_heads=2,
  intermediate_size=24,
  layer_norm_eps=1e-6,
)
AT = 'vit.encoder.layer.1.'
UP = f'{AT}intermediate.dense.weight'


def tensors(classes=5, bias=True):
  """Random tensors by their names."""
  rng = np.random.default_rng(0)
  shapes = {
    'embeddings.cls_token': (1, 1, 16),
    'embeddings.position_embeddings': (1, 7, 16),
    'embeddings.patch_embeddings.projection.weight': (16, 2, 4, 4),
    'embeddings.patch_embeddings.projection.bias': (16,),
    'layernorm.weight': (16,),
    'layernorm.bias': (16,),
  }
  for at in ('encoder.layer.0.', 'encoder.layer.1.'):
    for name in ('layernorm_before', 'layernorm_after'):
      shapes |= {f'{at}{name}.weight': (16,), f'{at}{name}.bias': (16,)}
    for name, (rows, columns) in {
      'attention.attention.query': (16, 16),
      'attention.attention.key': (16, 16),
      'attention.attention.value': (16, 16),
      'attention.output.dense': (16, 16),
      'intermediate.dense': (24, 16),
      'output.dense': (16, 24),
    }.items():
      shapes[f'{at}{name}.weight'] = (rows, columns)
      if bias or 'attention.attention' not in name:
        shapes[f'{at}{name}.bias'] = (rows,)
  shapes = {f'vit.{name}': shape for name, shape in shapes.items()}
  if classes:
    shapes |= {
      'classifier.weight': (classes, 16),
      'classifier.bias': (classes,),
    }
  draw = lambda shape: 0.3 * rng.standard_normal(shape, np.float32)
  return {name: draw(shape) for name, shape in shapes.items()}


def write(folder, found, **changes):
  config = {'model_type': 'vit'} | SIZES | changes
  (folder / 'config.json').write_text(json.dumps(config))
  safetensors.numpy.save_file(found, folder / 'model.safetensors')
  return folder


def images(count=3):
  return jax.random.normal(jax.random.key(0), (count, 12, 8, 2))


def test_a_patch_is_a_product_and_the_class_stands_first(tmp_path):
  """Without layers to mix them, states are those of patches, row by row."""
  theirs = tensors(classes=0)
  for name in theirs:
    if 'output.dense' in name:
      theirs[name] *= 0
  found = lb.interop.load(write(tmp_path, theirs))
  states = found.model.apply({'params': found.params}, images())
  kernel, bias, places, first = (
    theirs[f'vit.embeddings.{n}'].astype(np.float64)
    for n in (
      'patch_embeddings.projection.weight',
      'patch_embeddings.projection.bias',
      'position_embeddings',
      'cls_token',
    )
  )
  x = np.asarray(images(), np.float64).reshape(3, 3, 4, 2, 4, 2)
  x = np.einsum('brhcwi,oihw->brco', x, kernel).reshape(3, 6, 16) + bias
  x = np.concatenate([np.tile(first, (3, 1, 1)), x], 1) + places
  x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
  want = x * theirs['vit.layernorm.weight'] + theirs['vit.layernorm.bias']
  np.testing.assert_allclose(states, want, atol=1e-5)


def test_the_head_sees_the_state_of_the_class(tmp_path):
  theirs = tensors()
  logits, states = (
    lb.interop.load(write(tmp_path, t))
    for t in (theirs, {k: v for k, v in theirs.items() if 'class' not in k})
  )
  run = lambda f: np.asarray(f.model.apply({'params': f.params}, images()))
  assert states.model.config.classes == 0
  want = run(states)[:, 0] @ theirs['classifier.weight'].T
  np.testing.assert_allclose(
    run(logits), want + theirs['classifier.bias'], atol=1e-5
  )


def test_tensors_beside_the_model_and_none_for_biases(tmp_path):
  bare = {k.removeprefix('vit.'): v for k, v in tensors(0).items()}
  bare |= {
    'pooler.dense.weight': np.ones((16, 16), np.float32),
    'embeddings.mask_token': np.ones((1, 1, 16), np.float32),
  }
  found = lb.interop.load(write(tmp_path, bare))
  assert 'bias' in found.params['layers_0']['query']
  found = lb.interop.load(write(tmp_path, tensors(bias=False), qkv_bias=False))
  assert 'bias' not in found.params['layers_0']['query']


def test_it_quantizes(tmp_path):
  found = lb.interop.load(write(tmp_path, tensors()))
  recipe = lb.recipes.nearest('int8@channel', 'int8@token', keep=())
  held = lb.quantize_model(found.model, found.params, recipe, [images()])
  want = found.model.apply({'params': found.params}, images())
  got = lb.apply(found.model, held, images())
  change = jnp.linalg.norm(got - want) / jnp.linalg.norm(want)
  assert 1e-5 < change < 0.03


REFUSED = {
  rf"missing \['{UP}'\]": (UP, None),
  r"unknown \['odd'\]": ('odd', np.ones(3, np.float32)),
  f'{UP} .* has the shape': (UP, np.ones((24, 8), np.float32)),
  'classifier.bias .* has the shape': (
    'classifier.bias',
    np.ones(4, np.float32),
  ),
}


@pytest.mark.parametrize('rule', REFUSED)
def test_tensors_that_do_not_fit_are_refused(tmp_path, rule):
  name, value = REFUSED[rule]
  theirs = {k: v for k, v in tensors().items() if k != name}
  if value is not None:
    theirs[name] = value
  with pytest.raises(ValueError, match=rule):
    lb.interop.load(write(tmp_path, theirs))


CONFIGS = {
  'position_embeddings .* has the shape': dict(image_size=16),
  'image_size .* a number, or two': dict(image_size=[8, 8, 8]),
  'patch_size .* at least 0': dict(patch_size=[4, 'x']),
  'at least one `patch`': dict(patch_size=16),
  'must be positive': dict(patch_size=0),
  "hidden_act 'relu'": dict(hidden_act='relu'),
  'claims 999 layers': dict(num_hidden_layers=999),
  '`heads` must divide': dict(num_attention_heads=3),
}


@pytest.mark.parametrize('rule', CONFIGS)
def test_sizes_that_do_not_fit_are_refused(tmp_path, rule):
  with pytest.raises(ValueError, match=rule):
    lb.interop.load(write(tmp_path, tensors(), **CONFIGS[rule]))


def test_images_of_another_size_are_refused():
  model = vit.ViT(vit.ViTConfig(image=(8, 8), patch=(4, 4), layers=1))
  with pytest.raises(ValueError, match=r'must be \[B, 8, 8, 3\]'):
    model.init(jax.random.key(0), jnp.zeros((1, 3, 8, 8)))
