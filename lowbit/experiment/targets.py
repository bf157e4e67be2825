"""Machines that are not here, to compile for; see `compile`.

The XLA and Mosaic compilers of libtpu and the XLA:GPU and Triton compilers of
the CUDA plugin run on any Linux x86-64 machine. What they accept is accepted on
the target; how fast it runs there, they do not say.
"""

import contextlib
import dataclasses
import functools

import jax
import numpy as np
from jax.experimental import topologies

# From the data sheets and `cudaGetDeviceProperties`; only the limits and the
# compute capability bear on whether a kernel compiles.
GPU = """
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: 233472
  threads_per_core_limit: 2048
  core_count: {cores}
  fpus_per_core: 128
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {bandwidth}
  l2_cache_size: {l2}
  clock_rate_ghz: {clock}
  device_memory_size: {memory}
  shared_memory_per_block_optin: 232448
  cuda_compute_capability {{ major: {major} }}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}}
platform_name: "CUDA"
device_description_str: "{name}"
"""
H100 = GPU.format(
  cores=132,
  bandwidth=3352 * 10**9,
  l2=50 * 2**20,
  clock=1.98,
  memory=80 * 2**30,
  major=9,
  name='NVIDIA H100 80GB HBM3',
)
B200 = GPU.format(
  cores=148,
  bandwidth=8000 * 10**9,
  l2=126 * 2**20,
  clock=1.965,
  memory=180 * 2**30,
  major=10,
  name='NVIDIA B200',
)


@dataclasses.dataclass(frozen=True)
class Target:
  """A kind of machine, and a slice of it."""

  name: str
  platform: str  # 'tpu' or 'cuda'.
  topology: str
  config: str = ''
  kind: str = ''  # `device_kind` of a GPU.

  @functools.cached_property
  def devices(self) -> list[jax.Device]:
    """The devices of the slice, which can be compiled for and nothing else."""
    if self.platform == 'tpu':
      description = topologies.get_topology_desc(
        platform='tpu', topology_name=self.topology
      )
    else:
      description = topologies.get_topology_desc(
        platform='cuda',
        topology_name='',
        topology=self.topology,
        target_config=self.config,
      )
    return description.devices

  def mesh(self, shape: tuple[int, ...], axes: tuple[str, ...]):
    """All devices of the slice as a mesh."""
    devices = np.asarray(self.devices).reshape(shape)
    kind = jax.sharding.AxisType.Auto
    return jax.sharding.Mesh(devices, axes, axis_types=(kind,) * len(axes))


TPUS = tuple(
  Target(name, 'tpu', topology)
  for name, topology in (
    ('v5e', 'v5e:2x2'),
    ('v5p', 'v5p:2x2x1'),
    ('v6e', 'v6e:2x2'),
  )
)
GPUS = (
  Target('h100', 'cuda', '1x1x1', H100, 'NVIDIA H100 80GB HBM3'),
  Target('b200', 'cuda', '1x1x1', B200, 'NVIDIA B200'),
)
NAMED = {t.name: t for t in (*TPUS, *GPUS)}


def compile(function, target: Target, *args, sharding=None):
  """Compiles `function` for a target.

  Args:
    function: Of arrays and pytrees of them.
    target: What for.
    *args: `jax.ShapeDtypeStruct`s, or pytrees of them.
    sharding: Of the arguments that have none; None for the first device.

  Returns:
    The compiled program: `cost_analysis()`, `memory_analysis()`, `as_text()`.
  """
  sharding = sharding or jax.sharding.SingleDeviceSharding(target.devices[0])

  def place(a):
    kept = getattr(a, 'sharding', None) or sharding
    return jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=kept)

  return lower(function, target, *jax.tree.map(place, args)).compile()


def lower(function, target: Target, *args):
  """Traces and lowers `function` for a target; needs none of its compilers.

  Args:
    function: Of arrays and pytrees of them.
    target: What for.
    *args: Pytrees of `jax.ShapeDtypeStruct`s.
  """
  with _standing_in(target):
    traced = jax.jit(function).trace(*args)
    return traced.lower(lowering_platforms=(target.platform,))


@contextlib.contextmanager
def _standing_in(target: Target):
  """Triton asks which GPU it lowers for, in jax 0.11."""
  if target.platform != 'cuda':
    yield
    return
  device = jax.sharding.AbstractDevice(target.kind, None, 'cuda')
  mesh = jax.sharding.AbstractMesh(
    (1,),
    ('target',),
    axis_types=(jax.sharding.AxisType.Auto,),
    abstract_device=device,
  )
  with jax.sharding.use_abstract_mesh(mesh):
    yield


def size(tree) -> int:
  """Bytes of all arrays of a tree."""
  return sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(tree))
