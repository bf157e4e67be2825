"""Learned scales: the one parameter of a group that training may move.

Guo et al., FLUTE, 2024 (arXiv:2407.10960): codes are found anew from w / s at
every step, and the gradient of s goes through the product code value times s
alone. There the loss is that of the model; here it is a layer's.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import optax

from lowbit import quantize


def learn_scales(
  w: jax.Array,
  hessian: jax.Array,
  spec: quantize.Spec | str,
  steps: int = 200,
  rate: float = 0.005,
) -> quantize.QTensor:
  """Quantizes `w` with scales that lower tr((W - Q) H (W - Q)^T).

  Args:
    w: Float [out, in].
    hessian: float32 [in, in], the mean of x x^T.
    spec: Float32 scales, no zero point.
    steps: Of Adam.
    rate: Step size, relative to each first scale.

  Returns:
    A `QTensor` [out, in].

  Raises:
    ValueError: If the spec has coded scales or zero points.
  """
  spec = quantize.Spec.parse(spec)
  if spec.scale_format is not None or spec.zero_point:
    raise ValueError(
      f'Scales are learned in float32 and without zero points; got {spec}.'
    )
  return _learn(w.astype(jnp.float32), hessian, spec, steps, rate)


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _learn(w, hessian, spec, steps, rate):
  first = quantize.quantize(w, spec)
  factor = jnp.ones_like(first.scale)
  tx = optax.adam(optax.cosine_decay_schedule(rate, steps))

  def at(factor):
    # A scale that left the positive numbers would have no codes.
    scale = first.scale * jnp.maximum(factor, 1e-3)
    held = dataclasses.replace(first, scale=jax.lax.stop_gradient(scale))
    codes = quantize.quantize_with(w, held).codes
    return dataclasses.replace(first, scale=scale, codes=codes)

  def loss(factor):
    d = quantize.dequantize(at(factor)) - w
    return jnp.sum(jnp.matmul(d, hessian) * d)

  def step(carry, _):
    factor, state = carry
    updates, state = tx.update(jax.grad(loss)(factor), state)
    return (optax.apply_updates(factor, updates), state), None

  with jax.numpy_dtype_promotion('standard'):  # optax divides by a count.
    (factor, _), _ = jax.lax.scan(step, (factor, tx.init(factor)), length=steps)
  return at(factor)
