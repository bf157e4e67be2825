"""Meshes of devices, and how a train state is spread over one.

Two axes: 'data' spreads the batch and, FSDP-style, every matrix and its
optimizer state; 'model' spreads heads and hidden units (Megatron: columns of
what reads the residual stream, rows of what writes it). XLA inserts the
collectives.
"""

import contextlib
import math

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

AXES = ('data', 'model')
WRITERS = ('out', 'down')  # Kernels that add to the residual stream.
FLAT = 2**12  # Flat optimizer state of fewer elements stays whole.


def connect(coordinator: str, processes: int, process: int) -> None:
  """Joins the processes of one run; does nothing for a single one.

  Args:
    coordinator: 'host:port' of process 0; empty on TPU pods and clusters that
      JAX knows, where all three are found out.
    processes: How many; 0 for one process, -1 to be found out.
    process: Index of this one, or -1 to be found out.

  Raises:
    ValueError: If only some of them are given.
  """
  if processes == 0:
    return
  if processes < 0:
    jax.distributed.initialize()
    return
  if not coordinator or not 0 <= process < processes:
    raise ValueError(
      f'{processes} processes need `coordinator`, as host:port, and `process` '
      f'of 0 to {processes - 1}; got {coordinator!r} and {process}.'
    )
  jax.distributed.initialize(coordinator, processes, process)


def make(data: int = -1, model: int = 1, devices=None) -> jax.sharding.Mesh:
  """A mesh of all devices.

  Args:
    data: Size of the data axis; -1 for all that `model` leaves.
    model: Size of the model axis.
    devices: Those to use; all by default.

  Raises:
    ValueError: If the sizes do not multiply to the number of devices.
  """
  devices = np.asarray(jax.devices() if devices is None else devices)
  count = devices.size
  found = count // model if data == -1 and model > 0 else data
  if model < 1 or found * model != count:
    raise ValueError(
      f'A mesh of data={data} by model={model} does not fit {count} devices. '
      'Their product must be that number; data=-1 takes what `model` leaves.'
    )
  kind = jax.sharding.AxisType.Auto
  return jax.sharding.Mesh(
    devices.reshape(found, model), AXES, axis_types=(kind, kind)
  )


def state_shardings(state, mesh: jax.sharding.Mesh):
  """Where each leaf of a train state lies.

  Args:
    state: Params, or a tree that holds them and optimizer state of the same
      paths; shapes alone suffice.
    mesh: With the axes 'data' and 'model'.

  Returns:
    The same tree of `NamedSharding`s.

  Raises:
    ValueError: If the mesh does not divide a matrix; the path is named.
  """

  def place(path, leaf):
    names = [str(getattr(k, 'key', getattr(k, 'name', ''))) for k in path]
    spec = _spec(names, leaf.shape, mesh)
    if names[-1] == 'scale':  # Fewer than codes, and small: whole is fine.
      spec = _fitting(spec, leaf.shape, mesh)
    _check('/'.join(n for n in names if n), leaf.shape, spec, mesh)
    return NamedSharding(mesh, spec)

  return jax.tree_util.tree_map_with_path(place, state)


def _spec(names: list[str], shape: tuple[int, ...], mesh) -> P:
  if len(shape) == 1:  # A bias or gain, or state of a flattened tensor.
    spreads = shape[0] >= FLAT and shape[0] % mesh.size == 0
    return P(AXES) if spreads and names[-1] in ('codes', 'scale') else P()
  is_matrix = 'kernel' in names or 'embedding' in names
  if len(shape) < 2 or not is_matrix:
    return P()
  lead = (None,) * (len(shape) - 2)
  owner = names[names.index('kernel') - 1] if 'kernel' in names else ''
  if 'embedding' in names or owner in WRITERS:
    return P(*lead, 'model', 'data')
  return P(*lead, 'data', 'model')


def _fitting(spec, shape, mesh) -> P:
  divides = lambda a, n: n % _parts(a, mesh) == 0
  return P(*(a if divides(a, n) else None for a, n in zip(spec, shape)))


def _parts(axis, mesh) -> int:
  names = axis if isinstance(axis, tuple) else (axis,)
  return math.prod(mesh.shape[name] for name in names if name)


def _check(path, shape, spec, mesh) -> None:
  for size, axis in zip(shape, spec):
    parts = _parts(axis, mesh)
    if size % parts:
      raise ValueError(
        f'{path} of shape {shape} does not divide: an axis of {size} over the '
        f'{parts} devices along {axis!r}. Change the mesh or the model.'
      )


def batch_sharding(mesh: jax.sharding.Mesh) -> NamedSharding:
  """Of tokens [B, T]: rows over 'data'."""
  return NamedSharding(mesh, P('data'))


def global_batch(rows: np.ndarray, mesh: jax.sharding.Mesh) -> jax.Array:
  """The batch of a step as one array over all processes.

  Args:
    rows: int32 [B, T], the same in every process: each keeps what its own
      devices need.
    mesh: See `make`.

  Raises:
    ValueError: If B is not a multiple of the data axis.
  """
  parts = mesh.shape['data']
  if len(rows) % parts:
    raise ValueError(
      f'`batch` {len(rows)} must be a multiple of the {parts} devices along '
      "'data'."
    )
  return jax.make_array_from_callback(
    rows.shape, batch_sharding(mesh), lambda index: rows[index]
  )


def spread(mesh: jax.sharding.Mesh | None):
  """A context in which a decoder's activations are spread as its batch is.

  Left to itself, XLA may follow the weights instead, and keep the whole batch
  on every device. The model need not know: the layers' outputs are met by
  Linen's public interception.
  """
  if mesh is None:
    return contextlib.nullcontext()

  def constrain(next_fun, args, kwargs, context):
    y = next_fun(*args, **kwargs)
    module = context.module
    is_activation = isinstance(y, jax.Array) and y.ndim == 3
    if not is_activation or not isinstance(module, nn.Embed | nn.Dense):
      return y
    is_stream = isinstance(module, nn.Embed) or module.name in WRITERS
    spec = P('data') if is_stream else P('data', None, 'model')
    return jax.lax.with_sharding_constraint(y, NamedSharding(mesh, spec))

  return nn.intercept_methods(constrain)


def replicated(mesh: jax.sharding.Mesh) -> NamedSharding:
  """Whole on every device."""
  return NamedSharding(mesh, P())
