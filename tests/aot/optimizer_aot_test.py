"""8-bit optimizers compiled for TPUs look nothing up: a gather is 70 passes."""

import jax
import jax.numpy as jnp
import optax
import pytest

from lowbit import optim
from lowbit.experiment import targets

SHAPE = (2048, 2048)


def compiled(tx, target):
  """Update and apply for one parameter."""

  def step(params, state, gradients):
    updates, state = tx.update(gradients, state, params)
    return optax.apply_updates(params, updates), state

  params = {'w': jax.ShapeDtypeStruct(SHAPE, jnp.float32)}
  state = jax.eval_shape(tx.init, params)
  with jax.numpy_dtype_promotion('standard'):  # optax needs it.
    return targets.compile(step, target, params, state, params)


def bytes_an_element(program):
  return program.cost_analysis()['bytes accessed'] / (SHAPE[0] * SHAPE[1])


@pytest.mark.parametrize('kind', [optim.Flat, optim.Rows])
def test_adamw8bit_computes_its_codes(kind):
  moments = optim.Moments(kind('dynamic8@g256'), kind('udynamic8@g256'))
  tx = optim.adamw8bit(1e-3, moments=moments)
  program = compiled(tx, targets.NAMED['v5e'])
  assert ' gather(' not in program.as_text()
  assert bytes_an_element(program) < 300  # Measured: 217 and 164.


def test_a_look_up_costs_much_more():
  moments = optim.Moments('log8@g256', 'udynamic8@g256')
  tx = optim.adamw8bit(1e-3, moments=moments)
  program = compiled(tx, targets.NAMED['v5e'])
  assert ' gather(' in program.as_text()
  assert bytes_an_element(program) > 3000
