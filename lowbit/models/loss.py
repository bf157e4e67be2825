"""Losses of language models."""

import jax
import jax.numpy as jnp


def next_token_nats(logits: jax.Array, tokens: jax.Array) -> jax.Array:
  """Cross-entropy of each next token.

  Args:
    logits: [batch, time, vocab], as the decoder returns them.
    tokens: int32 [batch, time], the decoder's input.

  Returns:
    float32 [batch, time - 1], nats; divide by ln 2 for bits a byte.
  """
  log_p = jax.nn.log_softmax(logits[:, :-1].astype(jnp.float32))
  picked = jnp.take_along_axis(log_p, tokens[:, 1:, None], axis=-1)
  return -picked[..., 0]
