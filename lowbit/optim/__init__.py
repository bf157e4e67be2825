"""optax transformations in low precision; any JAX project, one line.

Optimizers: `adam8bit`, `adamw8bit`, `adamw4bit`, `momentum8bit`, `lion8bit`,
`shampoo`, `shampoo4bit`, `collage`; for any other, `quantize_state`. Parts of a
chain: `scale_by_*`, `interval_gradients`, `prune_gradients`,
`damp_oscillation`, `track_diversity`, `freeze_ordered` before,
`track_oscillation`, `freeze_confident`, `clip_weights`, `stochastic_weights`
behind the optimizer.
"""

from lowbit.optim import (
  bitwise,
  expansion,
  federated,
  matrix,
  self_compression,
)
from lowbit.optim.accounting import describe, state_bits
from lowbit.optim.adam import (
  EIGHT_BIT,
  FOUR_BIT,
  FOUR_BIT_FACTORED,
  adam8bit,
  adamw4bit,
  adamw8bit,
  scale_by_adam,
)
from lowbit.optim.compensated import (
  collage,
  collage_light,
  collage_plus,
  effective_descent,
  lost_fraction,
)
from lowbit.optim.disorder import freeze_ordered
from lowbit.optim.diversity import diversity, forget, track_diversity
from lowbit.optim.factors import Eigen, Exact
from lowbit.optim.flatness import two_gradients
from lowbit.optim.gradients import interval_gradients, prune_gradients
from lowbit.optim.moments import Moments
from lowbit.optim.momentum import (
  lion8bit,
  momentum8bit,
  scale_by_lion,
  trace,
)
from lowbit.optim.nonfinite import skip_nonfinite
from lowbit.optim.oscillation import (
  SpecGrid,
  StatsGrid,
  damp_oscillation,
  freeze_confident,
  track_oscillation,
)
from lowbit.optim.preconditioned import (
  scale_by_shampoo,
  shampoo,
  shampoo4bit,
)
from lowbit.optim.quantized_state import quantize_state
from lowbit.optim.storage import Flat, Rows
from lowbit.optim.structured import Factored, RankOne
from lowbit.optim.weights import (
  apply_updates,
  clip_weights,
  round_stochastic,
  stochastic_weights,
)

__all__ = [
  'EIGHT_BIT',
  'FOUR_BIT',
  'FOUR_BIT_FACTORED',
  'Eigen',
  'Exact',
  'Factored',
  'Flat',
  'Moments',
  'RankOne',
  'Rows',
  'SpecGrid',
  'StatsGrid',
  'adam8bit',
  'adamw4bit',
  'adamw8bit',
  'apply_updates',
  'bitwise',
  'clip_weights',
  'collage',
  'collage_light',
  'collage_plus',
  'damp_oscillation',
  'describe',
  'diversity',
  'effective_descent',
  'expansion',
  'federated',
  'forget',
  'freeze_confident',
  'freeze_ordered',
  'interval_gradients',
  'lion8bit',
  'lost_fraction',
  'matrix',
  'momentum8bit',
  'prune_gradients',
  'quantize_state',
  'round_stochastic',
  'scale_by_adam',
  'scale_by_lion',
  'scale_by_shampoo',
  'self_compression',
  'shampoo',
  'shampoo4bit',
  'skip_nonfinite',
  'state_bits',
  'stochastic_weights',
  'trace',
  'track_diversity',
  'track_oscillation',
  'two_gradients',
]
