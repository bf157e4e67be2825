"""Weights as safetensors: written once, read with suspicion."""

import importlib.resources
import json
import pathlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from lowbit.data import files
from lowbit.models import decoder

LIMIT = 64 * 2**20  # Bytes; a larger file is not read.


def save(path, params: dict, config: dict) -> None:
  """Writes params as bfloat16 safetensors, the model's sizes in its header.

  Args:
    path: File to write.
    params: The decoder's params tree.
    config: Fields of `DecoderConfig`.
  """
  import safetensors.numpy

  flat = {
    '/'.join(k.key for k in path): np.asarray(leaf, ml_dtypes.bfloat16)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params)
  }
  safetensors.numpy.save_file(
    flat, str(path), metadata={'config': json.dumps(config, sort_keys=True)}
  )


def load(path: str | None = None) -> tuple[decoder.DecoderConfig, dict]:
  """The embedded decoder, or one that `scripts/train.py` wrote.

  Args:
    path: A safetensors file; None or '' for the one that ships.

  Returns:
    `(config, params)`, params float32, as nested dicts of numpy arrays.

  Raises:
    ValueError: If the file is missing, larger than 64 MiB, truncated, not
      safetensors, without the sizes of a decoder in its header, or if a tensor
      is missing, unknown, of the wrong shape or dtype, or not finite.
  """
  path = file_of(path)
  tensors, metadata = files.read_safetensors(path, LIMIT)
  config = sizes(path, metadata)
  return config, _checked(path, tensors, config)


def file_of(path: str | None = None) -> pathlib.Path:
  """`path`, or where the decoder that ships lies."""
  if not path:
    path = importlib.resources.files('lowbit.data') / 'decoder.safetensors'
  return pathlib.Path(str(path))


def sizes(path, metadata: Mapping[str, str]) -> decoder.DecoderConfig:
  """The sizes of a decoder from the header of its file; else ValueError."""
  try:
    return decoder.DecoderConfig(**json.loads(metadata['config']))
  except (KeyError, TypeError, ValueError) as error:
    raise ValueError(
      f'`path` {path} does not name the sizes of a decoder in its header '
      f'({error}). Use a file that scripts/train.py wrote.'
    ) from error


def _checked(path, tensors: dict, config: decoder.DecoderConfig) -> dict:
  model = decoder.Decoder(config)
  shapes = jax.eval_shape(
    model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 8), jnp.int32)
  )['params']
  want = {
    '/'.join(k.key for k in p): leaf.shape
    for p, leaf in jax.tree_util.tree_leaves_with_path(shapes)
  }
  missing, extra = set(want) - set(tensors), set(tensors) - set(want)
  if missing or extra:
    raise ValueError(
      f'`path` {path} does not fit its config: missing {sorted(missing)}, '
      f'unknown {sorted(extra)}.'
    )
  params: dict = {}
  for name, shape in want.items():
    value = tensors[name]
    if value.shape != shape or value.dtype.name not in ('bfloat16', 'float32'):
      raise ValueError(
        f'Tensor {name} of `path` {path} is {value.dtype} {value.shape}; it '
        f'must be bfloat16 or float32 {shape}.'
      )
    node = params
    *parents, last = name.split('/')
    for parent in parents:
      node = node.setdefault(parent, {})
    node[last] = files.float32(name, value, path)
  return params
