"""Orbax checkpoints of any tree: params and optimizer states, coded or float.

What the codes mean, the spec or format of each coded tensor, is written as
metadata: codes of one width are alike on disk, and would else be read as if
they were of another format.
"""

import os
import pathlib

import jax
import orbax.checkpoint as ocp

from lowbit import quantize
from lowbit.optim import structured

_CODED = (
  quantize.QTensor,
  quantize.PackedQTensor,
  structured.RankOneTensor,
)


def save(path: str | os.PathLike, tree) -> None:
  """Writes a tree of arrays; QTensors and operators are trees as well.

  Args:
    path: A folder that does not exist yet.
    tree: Any pytree of arrays.

  Raises:
    ValueError: If `path` exists.
  """
  path = pathlib.Path(path).absolute()
  if path.exists():
    raise ValueError(f'`path` {path} exists. Give a new one, or remove it.')
  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(
      path, _leaves(tree), custom_metadata={'specs': _specs(tree)}
    )


def _leaves(tree) -> dict:
  """Every leaf under its path: static fields stay with the caller's tree."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def _specs(tree) -> dict[str, str]:
  """What the codes of each coded tensor mean, under its path."""
  is_coded = lambda node: isinstance(node, _CODED)
  nodes = jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_coded)
  name = lambda q: str(q.spec) if hasattr(q, 'spec') else q.format.name
  return {
    jax.tree_util.keystr(path): name(node)
    for path, node in nodes
    if is_coded(node)
  }


def restore(path: str | os.PathLike, like):
  """Reads a tree of the structure, shapes, dtypes and shardings of `like`.

  Args:
    path: What `save` wrote.
    like: A tree of arrays or of `jax.ShapeDtypeStruct`, with the static parts
      (specs) that a checkpoint does not hold; jax.eval_shape makes one.

  Raises:
    ValueError: If there is no checkpoint, or it does not fit `like`, the specs
      of coded tensors included; the paths are named.
  """
  path = pathlib.Path(path).absolute()
  if not (path / '_CHECKPOINT_METADATA').is_file():
    raise ValueError(f'`path` {path} is not a finished checkpoint.')
  wanted = _leaves(like)
  with ocp.StandardCheckpointer() as checkpointer:
    metadata = checkpointer.metadata(path)
    _check_specs(path, _specs(like), metadata.custom_metadata or {})
    _check(path, wanted, metadata.item_metadata.tree)
    leaves = checkpointer.restore(path, wanted)
  structure = jax.tree.structure(like)
  return jax.tree.unflatten(structure, [leaves[key] for key in wanted])


def manager_of(folder: str | os.PathLike) -> ocp.CheckpointManager:
  """Keeps the last two steps of a run, written in the background."""
  return ocp.CheckpointManager(
    pathlib.Path(folder).absolute(),
    options=ocp.CheckpointManagerOptions(max_to_keep=2),
    item_handlers=ocp.StandardCheckpointHandler(),
  )


def save_step(manager: ocp.CheckpointManager, step: int, tree) -> None:
  """Writes a tree as one step of a run, in the background.

  Args:
    manager: From `manager_of`.
    step: Number of steps done.
    tree: Any pytree of arrays, spread over processes or not.
  """
  manager.save(
    step,
    args=ocp.args.StandardSave(_leaves(tree)),
    custom_metadata={'specs': _specs(tree)},
  )


def restore_newest(manager: ocp.CheckpointManager, like):
  """The newest step that `save_step` wrote.

  Args:
    manager: From `manager_of`.
    like: As for `restore`; leaves come back in its shardings, whatever mesh
      they were written from.

  Returns:
    The tree, or None if there is no step.

  Raises:
    ValueError: If the checkpoint is of another model or optimizer.
  """
  step = manager.latest_step()
  if step is None:
    return None
  path, wanted = manager.directory / str(step), _leaves(like)
  custom = manager.metadata(step).custom_metadata or {}
  _check_specs(path, _specs(like), custom)
  _check(path, wanted, manager.item_metadata(step).tree)
  leaves = manager.restore(step, args=ocp.args.StandardRestore(wanted))
  structure = jax.tree.structure(like)
  return jax.tree.unflatten(structure, [leaves[key] for key in wanted])


def _check_specs(path, wanted: dict, metadata: dict) -> None:
  found = metadata.get('specs', wanted)
  wrong = [
    f'{key}: {found[key]}, not {spec}'
    for key, spec in wanted.items()
    if found.get(key, spec) != spec
  ]
  if wrong:
    raise ValueError(
      f'The checkpoint {path} holds codes of other specs than `like`: '
      f'{"; ".join(wrong)}. Make `like` with the specs that were saved; to '
      'change them decode the tensors, and quantize them anew.'
    )


def _check(path, wanted: dict, found: dict) -> None:
  missing = sorted(set(wanted) - set(found))
  extra = sorted(set(found) - set(wanted))
  wrong = [
    f'{key}: {found[key].dtype} {found[key].shape}, not {leaf.dtype} '
    f'{leaf.shape}'
    for key, leaf in wanted.items()
    if key in found
    and (
      tuple(found[key].shape) != leaf.shape or found[key].dtype != leaf.dtype
    )
  ]
  if missing or extra or wrong:
    raise ValueError(
      f'The checkpoint {path} does not fit `like`: missing {missing}, unknown '
      f'{extra}, different {wrong}.'
    )
