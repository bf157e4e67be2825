import jax
import jax.numpy as jnp
import numpy as np

from lowbit import optim
from lowbit.models import stable_embedding


def test_embeddings_are_normal_and_their_state_is_float():
  model = stable_embedding.StableEmbed(256, 64)
  ids = jnp.arange(12).reshape(3, 4)
  params = model.init(jax.random.key(0), ids)['params']
  y = model.apply({'params': params}, ids)
  assert y.shape == (3, 4, 64)
  np.testing.assert_allclose(jnp.mean(y, -1), 0, atol=1e-5)
  np.testing.assert_allclose(jnp.var(y, -1), 1, rtol=1e-2)
  limit = np.sqrt(6 / (256 + 64))
  table = params['embedding']['embedding']
  assert 0.9 * limit < float(jnp.max(jnp.abs(table))) <= limit
  moments = optim.Moments(
    'dynamic8@g256', 'udynamic8@g256', keep=('embedding',)
  )
  state = optim.scale_by_adam(moments=moments).init(params)
  assert state.mu['embedding']['embedding'].dtype == jnp.float32
