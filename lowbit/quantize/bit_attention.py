"""Attention over bit widths: a mix of quantized weights, cooled to the lowest.

y = sum_k a_k Q_k(x), a = softmax(alpha / T): at high temperature T all widths
share the forward pass, at low one of them is left. Hermann et al., DNN
Quantization with Attention, 2021 (arXiv:2103.13322).
"""

import dataclasses

import jax
import jax.numpy as jnp

from lowbit.quantize import estimators
from lowbit.quantize import spec as spec_lib

COSTS = (1.0, 4.0, 16.0)  # The paper's price of 2, 4 and 8 bits.


def temperature(
  step: jax.Array, steps: int, first: float = 100.0, last: float = 0.03
) -> jax.Array:
  """first (last / first)^(step / steps): float32 [], geometric.

  Raises:
    ValueError: If `steps` or a temperature is not positive.
  """
  if steps < 1 or first <= 0 or last <= 0:
    raise ValueError(
      '`steps`, `first` and `last` must be positive, got '
      f'{steps}, {first} and {last}.'
    )
  done = jnp.asarray(step, jnp.float32) / steps
  return jnp.float32(first) * (last / first) ** done


def normalize(alpha: jax.Array) -> jax.Array:
  """alpha / std(alpha) over its last axis; without it T has no meaning."""
  spread = jnp.std(alpha, axis=-1, keepdims=True)
  return alpha / jnp.where(spread > 0, spread, 1.0)


@dataclasses.dataclass(frozen=True)
class BitAttention:
  """A rule takes it like a learned quantizer.

  Its parameters are 'alpha', float32 [K], trained, and 'temperature', float32
  [], which `cool` sets: its gradient is zero. The paper starts alpha_k at
  (sum_j n_j - n_k) / sum_j n_j for widths n, so that the lowest gets the most.

  Attributes:
    specs: K specs or names, of rising width.
  """

  specs: tuple[spec_lib.Spec | str, ...]

  def __post_init__(self):
    specs = tuple(spec_lib.Spec.parse(s) for s in self.specs)
    bits = [s.format.bits for s in specs]
    if len(specs) < 2 or bits != sorted(set(bits)):
      raise ValueError(
        f'`specs` must be two or more of rising width, got {bits} bits.'
      )
    object.__setattr__(self, 'specs', specs)

  def init(self, x, axis=-1) -> dict[str, jax.Array]:
    """{'alpha', 'temperature'}: the paper's first values."""
    del x, axis
    bits = jnp.asarray([s.format.bits for s in self.specs], jnp.float32)
    total = jnp.sum(bits)
    return {
      'alpha': (total - bits) / total,
      'temperature': jnp.float32(100.0),
    }

  def __call__(self, x, params, axis=-1):
    """The mix, in the dtype of `x`; gradients reach x and alpha."""
    shares = attention(params).astype(x.dtype)
    each = [estimators.fake_quantize(x, s, axis) for s in self.specs]
    return sum(a * q for a, q in zip(shares, each))

  @property
  def lowest(self) -> spec_lib.Spec:
    """What is left in the end, and is stored."""
    return self.specs[0]


def attention(params: dict[str, jax.Array]) -> jax.Array:
  """Shares of the widths, float32 [K], from a `BitAttention`'s parameters."""
  cold = jax.lax.stop_gradient(params['temperature'])
  return jax.nn.softmax(params['alpha'] / cold)


def _is_attention(node) -> bool:
  return isinstance(node, dict) and set(node) == {'alpha', 'temperature'}


def cool(quantizers, value: jax.Array):
  """The tree with every temperature set to `value` and alpha normalized.

  Args:
    quantizers: A tree that holds `BitAttention` parameters, and maybe others.
    value: float32 [].
  """
  at = lambda p: {
    'alpha': normalize(p['alpha']),
    'temperature': jnp.asarray(value, jnp.float32),
  }
  return jax.tree.map(
    lambda p: at(p) if _is_attention(p) else p,
    quantizers,
    is_leaf=_is_attention,
  )


def cost(quantizers, costs: tuple[float, ...] = COSTS) -> jax.Array:
  """sum over layers of costs . attention: float32 [], for the loss.

  The paper adds lambda / S of it, S the number of weights of the net.
  """
  nodes = jax.tree.leaves(quantizers, is_leaf=_is_attention)
  prices = jnp.asarray(costs, jnp.float32)
  return sum(
    (jnp.sum(prices * attention(p)) for p in nodes if _is_attention(p)),
    start=jnp.float32(0),
  )
