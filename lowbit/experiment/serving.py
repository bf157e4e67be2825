"""The decoder as it is served: a cache of keys and values, weights in columns.

`forward` is the model of `models.decoder`, written as a function of its params,
with a cache. It runs on one device, and inside `jax.shard_map` with the heads
and the columns of every matrix spread over a mesh axis: each device holds
whole columns of packed codes, which its kernel reads as they are.
"""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from lowbit import operators, quantize
from lowbit.models import decoder, rotary

Cache = list[tuple[jax.Array, jax.Array]]  # Keys, values [B, S, K, C] a layer.


def empty_cache(
  config: decoder.DecoderConfig, batch: int, length: int
) -> Cache:
  """A cache of `length` positions, in the dtype of the model."""
  shape = (batch, length, config.kv_heads, config.head_dim)
  zeros = lambda: jnp.zeros(shape, config.dtype)
  return [(zeros(), zeros()) for _ in range(config.layers)]


def forward(
  params: dict,
  tokens: jax.Array,
  cache: Cache,
  start,
  config: decoder.DecoderConfig,
  axis: str | None = None,
) -> tuple[jax.Array, Cache]:
  """Prefill, or with T = 1 a decode step.

  Args:
    params: Of the decoder, layers not stacked; kernels may be operators or
      packed QTensors.
    tokens: int32 [B, T].
    cache: From `empty_cache`, or from the step before.
    start: Position of the first token, int32 scalar.
    config: Of the whole model.
    axis: Mesh axis over which heads and columns are spread, inside `shard_map`;
      None for all on one device.

  Returns:
    (logits float32 [B, T, V], V spread over `axis`; the cache with the tokens
    in it).

  Raises:
    ValueError: If `config` has a dynamic rotary base.
  """
  if config.rope_dynamic:
    raise ValueError(
      f'`config.rope_dynamic` {config.rope_dynamic} turns all keys anew as a '
      'text grows, which a cache cannot. Use YaRN, or Decoder.apply.'
    )
  embedding = params['embed']['embedding']
  if isinstance(embedding, quantize.QTensor | quantize.PackedQTensor):
    embedding = operators.Coded(embedding)
  if isinstance(embedding, operators.Operator):
    embedding = embedding.dense()
  x = embedding[tokens].astype(config.dtype)
  layers = []
  for i in range(config.layers):
    p = params[f'layers_{i}']
    window = config.window if i >= config.window_from else 0
    x, kept = _layer(p, x, cache[i], start, config, axis, window)
    layers.append(kept)
  x = _norm(params['final_norm'], x, config)
  if config.tied:
    logits = jnp.matmul(x.astype(jnp.float32), embedding.T.astype(jnp.float32))
  else:
    logits = _dense(params['head'], x)
  return logits.astype(jnp.float32), layers


def _layer(p, x, cache, start, config, axis, window):
  y = _norm(p['attention_norm'], x, config)
  y, cache = _attention(p['attention'], y, cache, start, config, window)
  x = x + _columns(p['attention']['out'], y, axis)
  y, mlp = _norm(p['mlp_norm'], x, config), p['mlp']
  y = jax.nn.silu(_dense(mlp['gate'], y)) * _dense(mlp['up'], y)
  return x + _columns(mlp['down'], y, axis), cache


def _attention(p, x, cache, start, config, window):
  """Causal attention of this device's heads: [B, T, heads * C], cache."""
  batch, time = x.shape[:2]
  split = lambda name: _dense(p[name], x).reshape(
    batch, time, -1, config.head_dim
  )
  q, k, v = split('query'), split('key'), split('value')
  if config.qk_norm:
    q, k = _norm(p['query_norm'], q, config), _norm(p['key_norm'], k, config)
  turn = lambda y: rotary.rope(
    y, config.rope_base, start, config.rope_factors, config.rope_scale
  )
  q, k = turn(q), turn(k)
  put = lambda old, new: jax.lax.dynamic_update_slice_in_dim(
    old, new.astype(old.dtype), start, axis=1
  )
  keys, values = put(cache[0], k), put(cache[1], v)
  q = q.reshape(batch, time, keys.shape[2], -1, config.head_dim)
  scores = jnp.einsum(
    'btkgc,bskc->bkgts', q, keys, preferred_element_type=jnp.float32
  )
  scores = scores * config.head_dim**-0.5
  at = start + jnp.arange(time)[:, None]
  slot = jnp.arange(keys.shape[1])[None]
  seen = slot <= at
  if window:
    seen &= slot > at - window
  lowest = jnp.finfo(jnp.float32).min
  scores = jnp.where(seen[None, None, None], scores, lowest)
  weights = jax.nn.softmax(scores, axis=-1).astype(config.dtype)
  y = jnp.einsum('bkgts,bskc->btkgc', weights, values)
  return y.reshape(batch, time, -1), (keys, values)


def _norm(p, x, config):
  return decoder.RMSNorm(config.norm_eps, config.dtype).apply({'params': p}, x)


def _dense(p, x):
  w = p['kernel']
  if isinstance(w, jax.Array):
    w = w.astype(x.dtype)
  y = operators.matmul(x, w)
  if 'bias' not in p:
    return y
  bias = p['bias'].astype(y.dtype)
  return y + bias.reshape((1,) * (y.ndim - 1) + bias.shape)


def _columns(p, x, axis):
  """The product of spread inputs with spread columns, gathered."""
  gather = lambda a: jax.lax.all_gather(a, axis, axis=a.ndim - 1, tiled=True)
  if axis is None:
    return _dense(p, x)
  return gather(_dense(p, gather(x)))


def column_specs(params: dict, axis: str) -> dict:
  """How params are spread: the columns of kernels and biases over `axis`."""

  def spec(path, leaf):
    names = [getattr(k, 'key', None) for k in path]
    if 'bias' in names:
      return P(axis)
    # One value for all columns stays whole.
    spreads = 'kernel' in names and leaf.ndim == 2 and leaf.shape[1] > 1
    return P(None, axis) if spreads else P()

  return jax.tree_util.tree_map_with_path(spec, params)


def sharded_forward(
  mesh: jax.sharding.Mesh,
  params: dict,
  config: decoder.DecoderConfig,
  data: str = 'data',
  model: str = 'model',
):
  """`forward` over a mesh: the batch over `data`, heads and columns over
  `model`.

  Args:
    mesh: With these two axes.
    params: As for `forward`; shapes alone suffice.
    config: Of the whole model; `heads`, `kv_heads`, `hidden` and `width` are
      multiples of the size of `model`.
    data: Mesh axis of the batch.
    model: Mesh axis of heads and columns.

  Returns:
    (params, tokens, cache, start) -> (logits, cache), to be jitted, and the
    specs of these four arguments.

  Raises:
    ValueError: If a size does not divide, or the head is tied.
  """
  parts = mesh.shape[model]
  for field in ('heads', 'kv_heads', 'hidden', 'width', 'vocab'):
    if getattr(config, field) % parts:
      raise ValueError(
        f'`{field}` {getattr(config, field)} must be a multiple of the {parts} '
        f'devices along {model!r}.'
      )
  if config.tied:
    raise ValueError('A tied head has no columns to spread: untie it.')
  heads = P(data, None, model, None)
  cache = [(heads, heads)] * config.layers
  inputs = (column_specs(params, model), P(data, None), cache, P())
  step = jax.shard_map(
    lambda p, t, c, s: forward(p, t, c, s, config, model),
    mesh=mesh,
    in_specs=inputs,
    out_specs=(P(data, None, model), cache),
    check_vma=False,  # Kernels do not say over which axes they vary.
  )
  return step, inputs
