"""Notebooks run from top to bottom, and use names that exist."""

import ast
import builtins
import importlib
import pathlib
import types

import nbclient
import nbformat
import pytest
from IPython.core import inputtransformer2

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
NOTEBOOKS = sorted((ROOT / 'colab').glob('*.ipynb'))
BY_NAME = {'argvalues': NOTEBOOKS, 'ids': [p.stem for p in NOTEBOOKS]}


def trees(notebook):
  """The syntax tree of each code cell, after IPython's own syntax."""
  transform = inputtransformer2.TransformerManager().transform_cell
  for cell in notebook.cells:
    if cell.cell_type == 'code':
      yield ast.parse(transform(cell.source))


def imported(tree):
  """(name, object) of each import."""
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      for alias in node.names:
        root = alias.name.split('.')[0]
        module = importlib.import_module(alias.name)
        named = module if alias.asname else importlib.import_module(root)
        yield alias.asname or root, named
    elif isinstance(node, ast.ImportFrom):
      package = importlib.import_module(node.module)
      for alias in node.names:
        found = getattr(package, alias.name, None) or importlib.import_module(
          f'{node.module}.{alias.name}'
        )
        yield alias.asname or alias.name, found


def missing(trees):
  """Names that no earlier cell gives, and attributes that a module lacks."""
  known = {*dir(builtins), 'get_ipython'}
  modules = {}
  for tree in trees:
    modules |= dict(imported(tree))
    known |= set(modules)
    nodes = list(ast.walk(tree))
    known |= {n.arg for n in nodes if isinstance(n, ast.arg)}
    known |= {n.name for n in nodes if isinstance(n, ast.FunctionDef)}
    names = [n for n in nodes if isinstance(n, ast.Name)]
    known |= {n.id for n in names if isinstance(n.ctx, ast.Store)}
    yield from (n.id for n in names if n.id not in known)
    for node in nodes:
      if isinstance(node, ast.Attribute):
        yield from lacking(node, modules)


def lacking(node, modules):
  """`a.b.c` if a is an imported module, and b or c is not in there."""
  names = [node.attr]
  while isinstance(node.value, ast.Attribute):
    node = node.value
    names.append(node.attr)
  root = node.value.id if isinstance(node.value, ast.Name) else None
  found = modules.get(root)
  for name in reversed(names):
    if not isinstance(found, types.ModuleType):
      return
    if not hasattr(found, name):
      yield f'{root}: {name}'
      return
    found = getattr(found, name)


@pytest.mark.parametrize('path', **BY_NAME)
def test_every_name_exists(path):
  notebook = nbformat.read(path, as_version=4)
  nbformat.validate(notebook)
  assert list(missing(trees(notebook))) == []


@pytest.mark.parametrize(
  'source, want',
  [
    ('import lowbit as lb\nlb.quantise(x)', ['x', 'lb: quantise']),
    ('%matplotlib inline\nimport math\nmath.pi.real', []),
    ('[a for a in range(3)]\n(lambda b: b)(1)\nc', ['c']),
    ('import lowbit as lb\nlb.formats.getit("int4")', ['lb: getit']),
  ],
)
def test_the_checker_sees_names_that_do_not(source, want):
  cell = nbformat.v4.new_code_cell(source)
  notebook = nbformat.v4.new_notebook(cells=[cell])
  assert sorted(missing(trees(notebook))) == sorted(want)


@pytest.mark.parametrize('path', **BY_NAME)
def test_committed_without_outputs_and_small(path):
  notebook = nbformat.read(path, as_version=4)
  cells = [c for c in notebook.cells if c.cell_type == 'code']
  assert all(c.outputs == [] and c.execution_count is None for c in cells)
  assert path.stat().st_size < 20_000
  assert max(len(line) for c in cells for line in c.source.splitlines()) <= 80


@pytest.mark.parametrize('path', **BY_NAME)
def test_it_runs_from_top_to_bottom(path, tmp_path):
  notebook = nbformat.read(path, as_version=4)
  nbclient.NotebookClient(
    notebook,
    timeout=600,
    kernel_name='python3',
    resources={'metadata': {'path': str(tmp_path)}},
  ).execute()
  outputs = [o for c in notebook.cells for o in c.get('outputs', ())]
  streams = [o for o in outputs if o.output_type == 'stream']
  assert [o.text for o in streams if o.name == 'stderr'] == []
  pictures = [o for o in outputs if 'image/png' in o.get('data', ())]
  assert len(pictures) >= 4
  assert 'mine@g64' in ''.join(o.text for o in streams)
