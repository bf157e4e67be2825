"""The import levels of the design, read from the sources."""

import ast
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent / 'lowbit'
LEVELS = {
  'packages': -1,
  'formats': 0,
  'quantize': 1,
  'codebooks': 2,
  'transforms': 2,
  'solvers': 2,
  'kernels': 2,
  'operators': 3,
  'intercept': 4,
  'optim': 4,
  'allocation': 4,
  'calibrate': 5,
  'analysis': 5,
  'interop': 5,
  'models': 5,
  'data': 5,
  'recipes': 6,
  'experiment': 7,
}
# `data.embedded` reads weights for a decoder: it may name its sizes, and so may
# `interop`, which shares the checks of `data.files`. A kernel of a transform
# takes the matrices from where they are defined.
SIDEWAYS = {
  ('data', 'models'),
  ('interop', 'data'),
  ('interop', 'models'),
  ('kernels', 'transforms'),
}
HOMES = {
  'flax': {'intercept', 'models', 'calibrate', 'experiment'},
  'optax': {'optim', 'recipes', 'experiment'},
  'matplotlib': {'experiment'},
  'safetensors': {'data', 'interop', 'experiment'},
  'gguf': {'interop'},
  'tokenizers': {'interop'},
  'orbax': {'experiment'},
}
# Inside functions only.
LAZY = ('matplotlib', 'safetensors', 'gguf', 'tokenizers')


def imports(source):
  """(module, names, whether at the top) of every import."""
  tree = ast.parse(source)
  top = set(map(id, tree.body))
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      for name in node.names:
        yield name.name, id(node) in top
    elif isinstance(node, ast.ImportFrom) and node.module:
      for name in node.names:
        yield f'{node.module}.{name.name}', id(node) in top


def faults(package, source):
  """What a module of `package` imports and must not."""
  for name, at_top in imports(source):
    root, _, rest = name.partition('.')
    if root == 'lowbit' and rest:
      other = rest.split('.')[0]
      level, mine = LEVELS.get(other), LEVELS[package]
      if other == package or level is None:
        continue
      if level >= mine and (package, other) not in SIDEWAYS:
        yield f'{package} ({mine}) imports {other} ({level})'
    if package == 'formats' and root in ('jax', 'scipy'):
      yield f'formats imports {root}'
    if package not in HOMES.get(root, {package}):
      yield f'{package} imports {root}'
    if root in LAZY and at_top:
      yield f'{package} imports {root} at the top'
    if name.startswith('jax.experimental.pallas') and package != 'kernels':
      yield f'{package} imports Pallas'


MODULES = sorted(p for p in ROOT.glob('*/**/*.py'))


def package(path):
  return path.relative_to(ROOT).parts[0]


@pytest.mark.parametrize(
  'path', MODULES, ids=lambda p: '/'.join(p.relative_to(ROOT).parts)
)
def test_imports_point_down(path):
  assert list(faults(package(path), path.read_text())) == []


@pytest.mark.parametrize(
  ('package', 'source'),
  [
    ('formats', 'import jax'),
    ('formats', 'from lowbit import quantize'),
    ('quantize', 'from lowbit.operators import base'),
    ('solvers', 'def f():\n  import lowbit.transforms.hadamard'),
    ('quantize', 'import flax.linen as nn'),
    ('intercept', 'import optax'),
    ('experiment', 'import matplotlib.pyplot'),
    ('operators', 'from jax.experimental.pallas import tpu'),
  ],
)
def test_the_checker_sees_faults(package, source):
  assert len(list(faults(package, source))) == 1


def test_every_folder_has_a_level():
  assert {package(p) for p in MODULES} <= set(LEVELS)


def run(code):
  """(processor time, what it printed); other work disturbs that less."""
  start = os.times()
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  end = os.times()
  used = end.children_user + end.children_system
  return used - start.children_user - start.children_system, done.stdout


def test_import_is_light():
  heavy = ('flax', 'optax', 'matplotlib', 'safetensors', 'orbax', 'gguf')
  code = f'import lowbit, sys; print([m for m in {heavy} if m in sys.modules])'
  assert run(code)[1].strip() == '[]'
  pairs = [(run('import lowbit')[0], run('import jax')[0]) for _ in range(5)]
  ours, theirs = map(min, zip(*pairs))
  assert ours < 1.3 * theirs, pairs
