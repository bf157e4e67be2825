"""The stable embedding of 8-bit optimizers."""

import jax
from flax import linen as nn


class StableEmbed(nn.Module):
  """Xavier-uniform table, and a layer norm behind the look-up.

  Add positions after it, and keep its optimizer state in float32, as its
  gradients are uneven: `lowbit.optim.Moments(..., keep=('embedding',))`.
  Dettmers et al., 2021 (arXiv:2110.02861).
  """

  vocab: int
  width: int

  @nn.compact
  def __call__(self, ids: jax.Array) -> jax.Array:
    """Maps ids, int32 [...], to float32 [..., width]."""
    table = nn.Embed(
      self.vocab,
      self.width,
      embedding_init=nn.initializers.xavier_uniform(),
      name='embedding',
    )
    return nn.LayerNorm(name='norm')(table(ids))
