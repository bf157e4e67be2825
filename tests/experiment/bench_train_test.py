import jax
import jax.numpy as jnp
import numpy as np

import lowbit as lb
from lowbit.experiment import bench_train, qwix_baseline, timing, training_steps
from lowbit.models import decoder

SMALL = decoder.DecoderConfig(
  width=32, layers=1, heads=2, kv_heads=1, head_dim=16, hidden=64
)


def test_optimizer_rows_compare_time_and_bytes():
  settings = timing.Settings(size=1, repeats=1)
  found = bench_train.optimizer_rows(settings, ((64, 128),))
  rows = {r['case']: r for r in found}
  assert set(rows) == set(bench_train.pairs())
  eight = rows['adamw8bit']
  # Codes, a float32 for each 256, the count: a quarter and 1 / 64.
  assert 0.25 < eight['bytes_of_float'] < 0.27
  assert rows['adamw4bit']['bytes_of_float'] < 0.16
  assert all(r['ms'] > 0 and r['times_float'] > 0 for r in rows.values())


def test_step_rows_divide_by_the_float_step(monkeypatch):
  monkeypatch.setattr(qwix_baseline, 'is_installed', lambda: False)
  settings = timing.Settings(size=1, repeats=1, only='w4a8')
  with jax.numpy_dtype_promotion('standard'):  # optax needs it.
    (row,) = training_steps.rows(settings, SMALL, (1, 8))
  assert row['case'] == 'w4a8'
  np.testing.assert_allclose(
    row['beyond'], (row['ms'] - row['arithmetic_ms']) / row['float_ms']
  )
  assert row['times_float'] == row['ms'] / row['float_ms']
  assert row['first_call'] > 0
  assert row['times_qwix'] == row['qwix_first_call'] == 'not installed'


def test_the_arithmetic_of_a_step_is_each_operand_once():
  model = decoder.Decoder(SMALL)
  tokens = jnp.zeros((1, 8), jnp.int32)
  params = model.init(jax.random.key(0), tokens)['params']
  recipe = lb.recipes.qat('int4@channel', 'int8@token')
  found = training_steps.operands(model, params, tokens, recipe)
  # Seven products and the head; inputs of q, k, v, of gate, up are shared.
  weights = [f for f in found if f[1].format.bits == 4]
  assert len(weights) == 8
  assert len(found) - len(weights) == 5
  rounded = training_steps.arithmetic(found)()
  want = lb.fake_quantize(found[0][0], found[0][1], found[0][2])
  np.testing.assert_array_equal(rounded[0], want)
