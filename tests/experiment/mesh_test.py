"""A run over a mesh: killed, restarted, restored on another one."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from lowbit.experiment import mesh as mesh_lib
from lowbit.experiment import train
from lowbit.models import decoder

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SMOKE = ROOT / 'configs/pretrain/smoke.py'


def free_port() -> int:
  with socket.socket() as s:
    s.bind(('localhost', 0))
    return s.getsockname()[1]


def start(out, devices, *flags, processes=1):
  """The train script in `processes` processes of `devices` CPU devices."""
  settings = {
    'JAX_PLATFORMS': 'cpu',
    'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices}',
    'PYTHONPATH': str(ROOT),
  }
  script = [sys.executable, str(ROOT / 'scripts/train.py')]
  script += [f'--config={SMOKE}', f'--out={out}', *flags]
  port = free_port()
  for i in range(processes):
    joined = [
      f'--coordinator=localhost:{port}',
      f'--processes={processes}',
      f'--process={i}',
    ]
    yield subprocess.Popen(
      script + (joined if processes > 1 else []),
      env={**os.environ, **settings},
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )


def finish(processes):
  """Waits for all; returns the curve's rows by the step."""
  for process in processes:
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output[-3000:]


def curve(out) -> dict:
  rows = map(json.loads, (out / 'curve.jsonl').read_text().splitlines())
  return {row['step']: row['train_bits_per_byte'] for row in rows}


def wait_for(condition, processes):
  end = time.monotonic() + 300
  while not condition():
    dead = [p for p in processes if p.poll() not in (None, 0)]
    assert not dead, dead[0].communicate()[0][-3000:]
    assert time.monotonic() < end
    time.sleep(0.05)


@pytest.mark.slow
def test_two_processes_killed_and_restarted_end_bit_for_bit(tmp_path):
  whole, cut = tmp_path / 'whole', tmp_path / 'cut'
  mesh = '--config.mesh.model=2'
  finish(list(start(whole, 2, mesh, processes=2)))

  running = list(start(cut, 2, mesh, processes=2))
  wait_for(lambda: (cut / 'checkpoints/4').exists(), running)
  running[1].send_signal(signal.SIGKILL)
  for process in running:
    process.kill()
    process.communicate()
  assert 12 not in curve(cut)
  finish(list(start(cut, 2, mesh, processes=2)))
  assert curve(cut)[12] == curve(whole)[12]
  weights = lambda out: (out / 'decoder.safetensors').read_bytes()
  assert weights(cut) == weights(whole)


@pytest.mark.slow
def test_a_checkpoint_restores_on_another_mesh(tmp_path):
  whole, moved = tmp_path / 'whole', tmp_path / 'moved'
  finish(list(start(whole, 1)))
  finish(list(start(moved, 4, '--config.mesh.model=2')))
  np.testing.assert_allclose(curve(moved)[12], curve(whole)[12], rtol=1e-4)
  more = '--config.steps=16'
  finish(list(start(moved, 2, '--config.mesh.model=1', more)))
  finish(list(start(whole, 1, more)))
  np.testing.assert_allclose(curve(moved)[16], curve(whole)[16], rtol=1e-3)


@pytest.mark.slow
def test_sigterm_saves_and_ends(tmp_path):
  (process,) = start(tmp_path, 1, '--config.steps=100000')
  wait_for(lambda: (tmp_path / 'checkpoints/4').exists(), [process])
  process.send_signal(signal.SIGTERM)
  output, _ = process.communicate(timeout=300)
  assert process.returncode == 0, output[-3000:]
  assert 'the same command goes on' in output
  steps = [int(p.name) for p in (tmp_path / 'checkpoints').iterdir()]
  assert f'Stopped at step {max(steps)};' in output


def small(**sizes):
  sizes = {'width': 64, 'layers': 1, 'heads': 2, 'kv_heads': 2, **sizes}
  return decoder.DecoderConfig(head_dim=32, **sizes)


def smoke(**changes):
  names: dict = {}
  exec(SMOKE.read_text(), names)
  config = names['get_config']()
  config.update(changes)
  return config


def abstract(data, model):
  return jax.sharding.AbstractMesh(
    (data, model),
    mesh_lib.AXES,
    axis_types=(jax.sharding.AxisType.Auto,) * 2,
  )


@pytest.mark.parametrize('optimizer', ['adamw', 'adamw8bit'])
def test_every_matrix_and_its_state_is_spread(optimizer):
  config = smoke(optimizer=optimizer)
  model = decoder.Decoder(small(hidden=512, scan_layers=True))
  state = jax.eval_shape(lambda: train.init(config, model))
  where = mesh_lib.state_shardings(state, abstract(4, 2))
  leaves = jax.tree_util.tree_leaves_with_path(where)
  spec = {jax.tree_util.keystr(p): s.spec for p, s in leaves}
  assert spec[".params['layers']['mlp']['up']['kernel']"] == P(
    None, 'data', 'model'
  )
  assert spec[".params['layers']['mlp']['down']['kernel']"] == P(
    None, 'model', 'data'
  )
  bytes_of = lambda leaf, parts: leaf.size * leaf.dtype.itemsize / parts
  total = sum(bytes_of(x, 1) for x in jax.tree.leaves(state))
  local = sum(
    bytes_of(x, 8 if any(s.spec) else 1)
    for x, s in zip(jax.tree.leaves(state), jax.tree.leaves(where))
  )
  assert local < 1.1 * total / 8


def test_activations_are_spread_as_the_batch_is():
  model, tokens = decoder.Decoder(small()), jnp.zeros((2, 8), jnp.int32)
  params = jax.eval_shape(model.init, jax.random.key(0), tokens)['params']

  def constraints(mesh):
    with mesh_lib.spread(mesh):
      run = lambda p: model.apply({'params': p}, tokens)
      return str(jax.make_jaxpr(run)(params)).count('sharding_constraint[')

  # The embedding, seven kernels of the layer, the head.
  assert constraints(mesh_lib.make(1, devices=jax.devices()[:1])) == 9
  assert constraints(None) == 0


def test_bad_meshes_and_configs():
  config = smoke()
  model = decoder.Decoder(small(hidden=100))
  state = jax.eval_shape(lambda: train.init(config, model))
  with pytest.raises(ValueError, match='mlp.*does not divide.*axis of 100'):
    mesh_lib.state_shardings(state, abstract(2, 8))
  with pytest.raises(ValueError, match='does not fit'):
    mesh_lib.make(data=3, model=5)
  with pytest.raises(ValueError, match='must be a multiple of the'):
    mesh_lib.global_batch(np.zeros((6, 4), np.int32), abstract(4, 1))
  with pytest.raises(ValueError, match='2 processes need `coordinator`'):
    mesh_lib.connect('', 2, 0)
  with pytest.raises(ValueError, match='optimizer'):
    train.optimizer(smoke(optimizer='sgdx'))
  with pytest.raises(ValueError, match='recipe.kind'):
    train.recipe(smoke(recipe={'kind': 'magic'}))
