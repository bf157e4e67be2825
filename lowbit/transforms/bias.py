"""Biases that make up for quantization: correction and absorption.

From Nagel et al., A White Paper on Neural Network Quantization, 2021
(arXiv:2106.08295). A batch norm before a ReLU makes its inputs N(beta,
gamma^2), channel by channel, which is all that the data-free forms need.
"""

import jax
import jax.numpy as jnp


def relu_mean(beta: jax.Array, gamma: jax.Array) -> jax.Array:
  """E[max(x, 0)] of x ~ N(beta, gamma^2).

  gamma phi(-beta / gamma) + beta (1 - Phi(-beta / gamma)).

  Args:
    beta: Float means.
    gamma: Standard deviations, like `beta`; 0 gives max(beta, 0).
  """
  gamma = jnp.abs(gamma)
  ratio = beta / jnp.where(gamma == 0, 1.0, gamma)
  normal = gamma * jax.scipy.stats.norm.pdf(ratio)
  mean = normal + beta * jax.scipy.stats.norm.cdf(ratio)
  return jnp.where(gamma == 0, jnp.maximum(beta, 0.0), mean)


def bias_correction(
  w: jax.Array, quantized: jax.Array, input_mean: jax.Array
) -> jax.Array:
  """What to add to the bias, so that the mean output is as before.

  Args:
    w: Float [in, out].
    quantized: The matrix in its place, [in, out].
    input_mean: E[x], [in]: the mean over calibration data, which it then
      restores exactly on them, or `relu_mean`.

  Returns:
    [out], E[x] (W - W^).
  """
  return jnp.matmul(input_mean, w - quantized, precision='highest')


def absorb_high_bias(
  b1: jax.Array,
  w2: jax.Array,
  b2: jax.Array,
  beta: jax.Array,
  gamma: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """Moves what a ReLU nearly always passes of a bias to the next layer.

  c = max(0, beta - 3 gamma): ReLU(x - c) = ReLU(x) - c wherever x >= c, which
  fails for about one Gaussian input in 740, and in no more than that.

  Args:
    b1: [hidden], bias before the ReLU.
    w2: [hidden, out].
    b2: [out].
    beta: [hidden], mean before the ReLU.
    gamma: [hidden], its standard deviation.

  Returns:
    The new `(b1, b2)`.
  """
  c = jnp.maximum(beta - 3 * jnp.abs(gamma), 0.0)
  return b1 - c, b2 + jnp.matmul(c, w2, precision='highest')
