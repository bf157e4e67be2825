"""What a quantized net learns from its float teacher, beside the labels."""

import jax
import jax.numpy as jnp


def _check_alike(student, teacher) -> None:
  if student.shape != teacher.shape:
    raise ValueError(
      '`student` and `teacher` must have one shape, got '
      f'{student.shape} and {teacher.shape}.'
    )


def soft_labels(
  student: jax.Array, teacher: jax.Array, temperature: float = 1.0
) -> jax.Array:
  """T^2 KL(teacher || student) of softened logits, mean over examples.

  Hinton et al., 2015 (arXiv:1503.02531). No gradient reaches the teacher.

  Args:
    student: Logits [..., C].
    teacher: Likewise.
    temperature: T, which divides the logits of both.

  Returns:
    float32 [], nats.
  """
  _check_alike(student, teacher)
  teacher = jax.lax.stop_gradient(teacher)
  soft = lambda z: jax.nn.log_softmax(z.astype(jnp.float32) / temperature)
  mine, other = soft(student), soft(teacher)
  each = jnp.sum(jnp.exp(other) * (other - mine), axis=-1)
  return temperature**2 * jnp.mean(each)


def spatial_map(features: jax.Array) -> jax.Array:
  """sum over channels of F^2, to unit norm: [B, h, w, C] -> [B, h w]."""
  energy = jnp.sum(features.astype(jnp.float32) ** 2, axis=-1)
  energy = energy.reshape(energy.shape[0], -1)
  square = jnp.sum(energy**2, axis=1, keepdims=True)
  return energy * jax.lax.rsqrt(jnp.where(square > 0, square, 1.0))


def spatial_distance(student: jax.Array, teacher: jax.Array) -> jax.Array:
  """Structured knowledge transfer: mean ||map(student) - map(teacher)||^2.

  The squared distance, whose gradient is defined where both agree. Li et al.,
  PAMS, 2020 (arXiv:2011.04212).

  Args:
    student: Features [B, h, w, C].
    teacher: Likewise; no gradient reaches it.

  Returns:
    float32 [].
  """
  _check_alike(student, teacher)
  apart = spatial_map(student) - spatial_map(jax.lax.stop_gradient(teacher))
  return jnp.mean(jnp.sum(apart**2, axis=1))
