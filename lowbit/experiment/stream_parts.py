"""The pieces of a decoder, with what a recipe does in each of them."""

import dataclasses
import re

import jax
import jax.numpy as jnp

from lowbit import calibrate, operators, solvers
from lowbit.intercept import Recipe
from lowbit.models import decoder, decoder_parts


def match(model: decoder.Decoder, recipe: Recipe) -> dict:
  """Path -> (rule, contracted axes) of every weight; from shapes alone."""
  tokens = jax.ShapeDtypeStruct((1, 8), jnp.int32)
  shapes = jax.eval_shape(model.init, jax.random.key(0), tokens)['params']
  rules, axes = calibrate.matched(model, shapes, recipe, tokens)
  return {path: (rule, axes[path]) for path, rule in rules.items()}


def local(recipe: Recipe, rules: dict, piece: decoder_parts.Piece) -> Recipe:
  """The recipe of one part: a rule for each of its weights."""
  mine = {piece.local(path): rule for path, (rule, _) in rules.items()}
  exact = tuple(
    dataclasses.replace(rule, pattern=re.escape(path))
    for path, rule in mine.items()
    if path is not None
  )
  return dataclasses.replace(recipe, rules=exact)


def read(plan, piece: decoder_parts.Piece) -> dict:
  """The float32 params of a part, by the names in the part."""
  names = dict(piece.names)
  params = plan.read(*names)
  return {names[key]: value for key, value in params.items()}


def like(piece: decoder_parts.Piece, rules: dict) -> dict:
  """Shapes and specs of a part as it is stored."""
  c = piece.module.config
  x = jax.ShapeDtypeStruct((1, 8), jnp.int32)
  if piece.module.kind != 'embed':
    x = jax.ShapeDtypeStruct((1, 8, c.width), c.dtype)
  shapes = jax.eval_shape(piece.module.init, jax.random.key(0), x)['params']
  mine = {piece.local(path): found for path, found in rules.items()}
  mine.pop(None, None)

  def stored(path, leaf):
    rule, axes = mine.get('/'.join(k.key for k in path), (None, ()))
    if rule is None or not rule.changes:
      return leaf
    return jax.eval_shape(
      lambda w, s: _stored(w, rule, s, axes), leaf, _statistics(leaf)
    )

  return jax.tree_util.tree_map_with_path(stored, shapes)


def _stored(w, rule, stats, axes):
  stats = stats if rule.needs_statistics else None
  return operators.pack(calibrate.quantize_weight(w, rule, stats, axes))


def _statistics(leaf):
  x = jax.ShapeDtypeStruct((1, leaf.shape[0]), jnp.float32)
  return jax.eval_shape(solvers.observe, x)
