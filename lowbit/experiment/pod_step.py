"""The train step of a config, compiled for a slice that is not here."""

import functools
import math

import jax
import jax.numpy as jnp

from lowbit.experiment import mesh as mesh_lib
from lowbit.experiment import targets, train
from lowbit.models import decoder

# FLOP/s of bfloat16 of a chip, and bytes of its memory; Cloud TPU
# documentation.
PEAKS = {
  'v5e': (197e12, 16 * 2**30),
  'v5p': (459e12, 95 * 2**30),
  'v6e': (918e12, 32 * 2**30),
}


def compile_step(config, topology: str, model_axis: int):
  """The compiled step, sharded over all chips of a slice.

  Args:
    config: Of `configs/pretrain/`.
    topology: As libtpu names it, such as 'v5e:16x16'.
    model_axis: Chips along the model axis.

  Returns:
    (compiled program, train state of shapes with their shardings).

  Raises:
    ValueError: If the mesh does not divide the model or the batch.
  """
  target = targets.Target(topology, 'tpu', topology)
  count = len(target.devices)
  if count % model_axis or config.batch % (count // model_axis):
    raise ValueError(
      f'{topology} has {count} chips: `model_axis` {model_axis} must divide '
      f'them, and the rest the batch of {config.batch}.'
    )
  mesh = target.mesh((count // model_axis, model_axis), mesh_lib.AXES)
  model = decoder.Decoder(decoder.DecoderConfig(**config.model))
  state = jax.eval_shape(functools.partial(train.init, config, model))
  where = mesh_lib.state_shardings(state, mesh)
  place = lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s)
  state = jax.tree.map(place, state, where)
  tokens = jax.ShapeDtypeStruct(
    (config.batch, config.sequence),
    jnp.int32,
    sharding=mesh_lib.batch_sharding(mesh),
  )
  step = train.make_step(config, model, mesh)
  program = step.trace(state, tokens).lower(lowering_platforms=('tpu',))
  return program.compile(), state


def row(config, topology: str, model_axis: int) -> dict:
  """What `compile_step` found, for one chip.

  Returns:
    Bytes of state, of temporaries, at the peak and of the chip; flops that the
    maths needs, flops and bytes of the program by XLA's count (of the body of
    the scan over layers, once), and the least seconds that the needed flops
    take at the chip's bfloat16 rate.
  """
  program, state = compile_step(config, topology, model_axis)
  memory, cost = program.memory_analysis(), program.cost_analysis()
  rate, capacity = PEAKS[topology.partition(':')[0]]
  resident = memory.argument_size_in_bytes
  fresh = memory.output_size_in_bytes - memory.alias_size_in_bytes
  peak = resident + fresh + memory.temp_size_in_bytes
  parameters = sum(math.prod(p.shape) for p in jax.tree.leaves(state.params))
  # XLA counts the body of a scan once: the model's own products, 2 a weight
  # forward and 4 backward, are the flops that the maths needs.
  flops = 6 * parameters * config.batch * config.sequence
  chips = len(targets.Target(topology, 'tpu', topology).devices)
  return {
    'topology': topology,
    'mesh': [chips // model_axis, model_axis],
    'parameters': parameters,
    'state_bytes': resident,
    'temporary_bytes': memory.temp_size_in_bytes,
    'peak_bytes': peak,
    'capacity_bytes': capacity,
    'fits': peak <= capacity,
    'model_flops': flops / chips,
    'program_flops': cost['flops'],
    'program_bytes': cost['bytes accessed'],
    'arithmetic_s': flops / chips / rate,
  }
