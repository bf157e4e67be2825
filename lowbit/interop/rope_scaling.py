"""Rotary positions of others, stretched to longer contexts, as our sizes.

Each function returns fields of `DecoderConfig`: rope_base, rope_factors,
rope_scale and rope_dynamic.
"""

from lowbit.interop import gguf_file, hugging_face
from lowbit.models import rotary

FACTORS = 'rope_freqs.weight'  # What divides frequencies, in GGUF.
LARGEST = 2**14  # Numbers a head.
_IN_FOLDERS = ('default', 'linear', 'dynamic', 'yarn', 'llama3')


def of_folder(folder: hugging_face.Folder, head_dim: int) -> dict:
  """From rope_parameters, or from rope_theta and rope_scaling.

  Raises:
    ValueError: If the type is not supported, or its numbers are missing.
  """
  scaling = folder.config.get('rope_parameters') or folder.config.get(
    'rope_scaling'
  )
  scaling = scaling if isinstance(scaling, dict) else {}
  number = lambda key, default=-1.0: folder.number(key, default, scaling)
  base = number('rope_theta', folder.number('rope_theta', 1e4))
  part = folder.number('partial_rotary_factor', 1.0)
  if number('partial_rotary_factor', part) != 1:
    raise ValueError(
      f'`path` {folder.path}: rotary positions on a part of each head are not '
      'supported.'
    )
  kind = scaling.get('rope_type', scaling.get('type', 'default'))
  if kind not in _IN_FOLDERS:
    raise ValueError(
      f'`path` {folder.path}: rotary scaling of the type {kind!r} is not '
      f'supported; {", ".join(_IN_FOLDERS)} are.'
    )
  _check(base, head_dim, folder)
  found = {'rope_base': base}
  if kind == 'linear':
    found['rope_factors'] = (number('factor'),) * (head_dim // 2)
  if kind == 'dynamic':
    context = folder.number('max_position_embeddings')
    found['rope_dynamic'] = (number('factor'), context)
  if kind == 'llama3':
    found['rope_factors'] = rotary.llama3_factors(
      base,
      head_dim,
      number('factor'),
      number('low_freq_factor'),
      number('high_freq_factor'),
      number('original_max_position_embeddings'),
    )
  if kind == 'yarn':
    found |= _yarn(folder, number, base, head_dim, scaling)
  return found


def _yarn(folder, number, base: float, head_dim: int, scaling) -> dict:
  longest = folder.number('max_position_embeddings', -1.0)
  context = number('original_max_position_embeddings', longest)
  factor = number('factor', longest / max(context, 1))
  scale = rotary.yarn_scale(
    factor, number('mscale', 0.0), number('mscale_all_dim', 0.0)
  )
  return {
    'rope_factors': rotary.yarn_factors(
      base,
      head_dim,
      factor,
      context,
      number('beta_fast', 32.0) or 32.0,
      number('beta_slow', 1.0) or 1.0,
      bool(scaling.get('truncate', True)),
    ),
    'rope_scale': number('attention_factor', scale),
  }


def of_gguf(file: gguf_file.GgufFile, head_dim: int) -> dict:
  """From metadata, and the tensor of factors of Llama 3.1 if there is one.

  Raises:
    ValueError: If the type is not supported, or numbers are missing or do not
      fit.
  """
  base = file.number('rope.freq_base', 10_000.0)
  _check(base, head_dim, file)
  kind = file.fields.get(f'{file.architecture}.rope.scaling.type', 'none')
  factor = file.number('rope.scaling.factor', 1.0) or 1.0  # 0 is none, too.
  scale = file.number('rope.scaling.attn_factor', 1.0)
  factors = (1.0,) * (head_dim // 2)
  if kind == 'linear':
    factors = (factor,) * (head_dim // 2)
  elif kind == 'yarn':
    context = file.number('rope.scaling.original_context_length', 0)
    factors = rotary.yarn_factors(
      base,
      head_dim,
      factor,
      context or file.number('context_length'),
      file.number('rope.scaling.yarn_beta_fast', 32.0),
      file.number('rope.scaling.yarn_beta_slow', 1.0),
    )
    scale *= rotary.yarn_scale(factor)
  elif kind != 'none':
    raise ValueError(
      f'`path` {file.path}: rotary scaling of the type {kind!r} is not '
      'supported; none, linear and yarn are, and the factors of Llama 3.'
    )
  factors = tuple(a * b for a, b in zip(factors, _tensor(file, head_dim)))
  return {
    'rope_base': base,
    'rope_factors': () if set(factors) == {1.0} else factors,
    'rope_scale': scale,
  }


def _check(base: float, head_dim: int, source) -> None:
  """Before lists of head_dim / 2 numbers are made."""
  if base <= 1 or head_dim > LARGEST:
    raise ValueError(
      f'`path` {source.path}: the base of rotary positions must be above 1 and '
      f'a head of at most {LARGEST} numbers, got {base} and {head_dim}.'
    )


def _tensor(file, head_dim: int) -> list[float]:
  """The factors of Llama 3.1, or ones."""
  if FACTORS not in file.shapes:
    return [1.0] * (head_dim // 2)
  if file.shapes[FACTORS] != (head_dim // 2,):
    raise ValueError(
      f'Tensor {FACTORS} of `path` {file.path} has the shape '
      f'{file.shapes[FACTORS]}, not ({head_dim // 2},).'
    )
  return file.read(FACTORS).tolist()
