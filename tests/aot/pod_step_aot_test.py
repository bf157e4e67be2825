"""The sharded train step exists on slices that are not here."""

import pathlib

import jax
import pytest

from lowbit.experiment import pod_step

CONFIGS = pathlib.Path(__file__).resolve().parent.parent.parent / 'configs'


@pytest.fixture(autouse=True)
def as_optax_needs_it():
  with jax.numpy_dtype_promotion('standard'):
    yield


def load(name, **changes):
  names: dict = {}
  exec((CONFIGS / f'pretrain/{name}.py').read_text(), names)
  config = names['get_config']()
  config.update(changes)
  return config


RECIPES = {
  'float': {'kind': ''},
  'mxfp8': {
    'kind': 'pretraining',
    'weight': 'mxfp8_e4m3',
    'activation': 'mxfp8_e4m3',
    'gradient': 'mxfp8_e5m2',
  },
}


@pytest.mark.parametrize('recipe', RECIPES)
def test_a_small_step_spreads_its_state(recipe):
  # Wide enough that a chip's tiles of 8 x 128 are full.
  wide = {'width': 256, 'head_dim': 128, 'hidden': 512}
  config = load('smoke', recipe=RECIPES[recipe], model=wide)
  row = pod_step.row(config, 'v5e:2x2', 2)
  # Parameters and two moments in float32, a quarter to a chip, gains aside.
  share = 12 * row['parameters'] / 4
  assert share <= row['state_bytes'] < 1.2 * share
  assert row['fits']


@pytest.mark.slow
@pytest.mark.parametrize('topology', ['v5e:16x16', 'v5p:4x4x4'])
def test_a_billion_parameters_fit(topology):
  row = pod_step.row(load('1b'), topology, 4)
  assert row['parameters'] > 1e9
  assert row['fits']


def test_bad_meshes():
  with pytest.raises(ValueError, match='has 4 chips'):
    pod_step.row(load('smoke'), 'v5e:2x2', 3)
  with pytest.raises(ValueError, match='does not divide'):
    pod_step.row(load('smoke', model={'hidden': 130}), 'v5e:2x2', 4)
