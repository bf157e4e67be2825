"""A decoder cut in parts, which run one after another.

So a model that does not fit in memory is met part by part: the look-up table,
each layer, the last norm with the head.
"""

import dataclasses

import jax
from flax import linen as nn

from lowbit.models import decoder

LAYER = 'layers_0'  # What every layer is called in its part.


class Part(nn.Module):
  """Tokens or residual stream -> residual stream or logits."""

  config: decoder.DecoderConfig
  kind: str  # 'embed', 'layer' or 'head'.
  window: int = 0  # Of the layer.

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps tokens [B, T], or x [B, T, D], to x [B, T, D] or [B, T, V]."""
    c = self.config
    if self.kind == 'embed':
      return nn.Embed(c.vocab, c.width, dtype=c.dtype, name='embed')(x)
    if self.kind == 'layer':
      return decoder.Layer(c, self.window, name=LAYER)(x)
    return decoder.head(c, x, None)


@dataclasses.dataclass(frozen=True)
class Piece:
  """A part, and where its params lie in the whole.

  Layers with one window have equal modules: one compiled program serves all.
  """

  name: str
  module: Part
  names: tuple[tuple[str, str], ...]  # (top key in the whole, in the part).

  def local(self, path: str) -> str | None:
    """A path of the whole as one of the part; None if it lies elsewhere."""
    key, _, rest = path.partition('/')
    mine = dict(self.names).get(key)
    return None if mine is None else f'{mine}/{rest}'


def cut(c: decoder.DecoderConfig) -> tuple[Piece, ...]:
  """The pieces of a decoder in the order of its forward pass.

  Args:
    c: Sizes; the head must be a matrix of its own, and layers unrolled.

  Raises:
    ValueError: If they are not.
  """
  if c.tied or c.scan_layers:
    raise ValueError(
      f'A decoder with tied={c.tied} and scan_layers={c.scan_layers} is not '
      'cut: untie its head (transforms.untie), unstack its layers '
      '(decoder.unstack), and set both to False.'
    )
  layers = [
    Piece(
      f'layers_{i}',
      Part(c, 'layer', c.window_of(i)),
      ((f'layers_{i}', LAYER),),
    )
    for i in range(c.layers)
  ]
  top = ('final_norm', 'head')
  return (
    Piece('embed', Part(c, 'embed'), (('embed', 'embed'),)),
    *layers,
    Piece('head', Part(c, 'head'), tuple((n, n) for n in top)),
  )
