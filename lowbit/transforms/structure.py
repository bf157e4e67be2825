"""Where the tensors of an RMSNorm pre-norm transformer lie, and access to them.

Paths are written 'layers_0/attention/query/kernel'.
"""

import dataclasses
from collections.abc import Mapping

import jax

FINAL_NORM = 'final_norm/scale'


@dataclasses.dataclass(frozen=True)
class Structure:
  """Which norm feeds which kernels, and who writes the residual stream."""

  norms: tuple[tuple[str, tuple[str, ...]], ...]  # (gain, readers' kernels).
  writers: tuple[str, ...]  # Kernels [in, width] that add to the stream.
  pairs: tuple[tuple[str, str], ...]  # (up, down): down reads up times gate.
  embedding: str  # [vocab, width]; '' in a part without one.

  def readers(self, norm: str) -> tuple[str, ...]:
    """The kernels that read the output of one norm."""
    return dict(self.norms)[norm]


def get(params: Mapping, path: str):
  """The leaf at a path; KeyError names what is missing."""
  node = params
  for key in path.split('/'):
    if not isinstance(node, Mapping) or key not in node:
      raise KeyError(f'`params` has no {path!r}: {key!r} is missing.')
    node = node[key]
  return node


def replace(params: Mapping, leaves: Mapping[str, object]) -> dict:
  """`params` with the leaves at these paths replaced; nothing is mutated."""
  params = dict(params)
  heads: dict[str, dict] = {}
  for path, leaf in leaves.items():
    head, _, tail = path.partition('/')
    if tail:
      heads.setdefault(head, {})[tail] = leaf
    else:
      params[head] = leaf
  for head, inner in heads.items():
    params[head] = replace(params[head], inner)
  return params


def untie(params: Mapping) -> dict:
  """Gives a tied decoder a head of its own: the transposed embedding."""
  if 'head' in params:
    return dict(params)
  return {**params, 'head': {'kernel': get(params, 'embed/embedding').T}}


def rmsnorm_decoder(params: Mapping) -> Structure:
  """The structure of lowbit's decoder, unrolled or scanned, or of a part.

  A part is what `models.decoder_parts` cuts: the embedding alone, a layer
  alone, or the last norm with the head.

  Raises:
    ValueError: If the tree does not look like one; the missing paths are named.
  """
  layers = [k for k in params if k == 'layers' or k.startswith('layers_')]
  has_head, has_embedding = True, True
  if _is_part(params, layers):
    has_head, has_embedding = 'head' in params, 'embed' in params
  layers.sort(key=lambda k: int(k[7:] or 0))
  norms, writers, pairs = [], [], []
  for layer in layers:
    attention, mlp = f'{layer}/attention', f'{layer}/mlp'
    names = lambda parent, keys: tuple(f'{parent}/{k}/kernel' for k in keys)
    norms.append(
      (
        f'{layer}/attention_norm/scale',
        names(attention, ('query', 'key', 'value')),
      )
    )
    norms.append((f'{layer}/mlp_norm/scale', names(mlp, ('gate', 'up'))))
    writers += [f'{attention}/out/kernel', f'{mlp}/down/kernel']
    pairs.append((f'{mlp}/up/kernel', f'{mlp}/down/kernel'))
  if has_head:
    norms.append((FINAL_NORM, ('head/kernel',)))
  embedding = 'embed/embedding' if has_embedding else ''
  found = Structure(tuple(norms), tuple(writers), tuple(pairs), embedding)
  _check(params, found, layers)
  return found


def _is_part(params, layers) -> bool:
  keys = set(params)
  alone = len(layers) == 1 and keys == set(layers)
  return alone or keys in ({'embed'}, {'final_norm', 'head'})


def _check(params, found: Structure, layers) -> None:
  paths = [*found.writers]
  if found.embedding:
    paths.append(found.embedding)
  for norm, readers in found.norms:
    paths += [norm, *readers]
  missing = []
  for path in paths:
    try:
      get(params, path)
    except KeyError:
      missing.append(path)
  if missing or not (layers or _is_part(params, layers)):
    hint = ' Call untie(params) first.' if 'head/kernel' in missing else ''
    raise ValueError(
      f'`params` is no RMSNorm decoder: missing {missing or ["layers_0"]}, '
      f'found {sorted(params)}.{hint}'
    )


def paths_of(params) -> list[str]:
  """The path of every leaf."""
  leaves = jax.tree_util.tree_leaves_with_path(params)
  return ['/'.join(str(k.key) for k in path) for path, _ in leaves]
