"""Post-training quantization of a decoder: a table of recipes, one by one."""

import inspect
import pathlib
import time
from collections.abc import Callable, Iterator

import jax
import numpy as np

from lowbit import calibrate, operators, quantize, recipes
from lowbit.data import embedded, text
from lowbit.experiment import evaluate, results
from lowbit.intercept import Recipe
from lowbit.models import decoder

MEGABYTE = 1e6


def runs(config) -> list[dict]:
  """The runs of a config: its own recipe, or its table.

  Raises:
    ValueError: If a recipe, a spec or a field is unknown, before any work.
  """
  if config.recipe or config.weight:
    table = [
      {
        'recipe': config.recipe or 'nearest',
        'weight': config.weight,
        'activation': config.activation,
      }
    ]
    floating = [{'recipe': 'floating', 'weight': '', 'activation': ''}]
    table = floating + table if config.recipe != 'floating' else table
  else:
    table = [dict(row) for row in config.table]
  for row in table:
    build(row)  # Unknown names fail here.
  return table


def build(run: dict) -> Recipe:
  """The recipe of one run."""
  names = [n for n in recipes.__all__]
  if run['recipe'] not in names:
    raise ValueError(
      f'`recipe` {run["recipe"]!r} is unknown. Use one of {", ".join(names)}.'
    )
  function = getattr(recipes, run['recipe'])
  given = {k: run[k] for k in ('weight', 'activation') if run.get(k)}
  unknown = set(given) - set(inspect.signature(function).parameters)
  if unknown:
    raise ValueError(
      f'Recipe {run["recipe"]!r} takes no {sorted(unknown)}; got {given}.'
    )
  for spec in given.values():
    quantize.Spec.parse(spec)
  return function(**given)


def full_config(config, run: dict) -> dict:
  """All that the result of a run depends on."""
  kept = ('model', 'data', 'sequence', 'calibration', 'windows')
  everything = config.to_dict()
  return {**{k: everything[k] for k in kept}, **run}


class Job:
  """A config with its model, text and float answers loaded and checked."""

  def __init__(self, config, out: pathlib.Path):
    """Loads everything; raises ValueError for bad input before long work."""
    self.config, self.runs = config, runs(config)
    self.out = results.check_writable(out)
    model_config, params = embedded.load(config.model.path)
    self.model = decoder.Decoder(model_config)
    self.params = jax.tree.map(jax.numpy.asarray, params)
    texts = text.load(config.data.path)
    sample = lambda name, count: text.sample(
      texts, name, count, config.sequence
    )
    self.calibration = list(
      _batches(sample('calibration', config.calibration), config.batch)
    )
    self.test = _batches(sample('test', config.windows), config.batch)
    self.float_bits: np.ndarray | None = None

  def prepare(self) -> None:
    """Runs the float model, against which all others are compared."""
    self.reference = evaluate.reference(self.model, self.params, self.test)
    scores = evaluate.score(self.model, self.params, self.reference)
    self.float_bits = scores.bits_per_byte

  def run(self, run: dict) -> dict:
    """Quantizes and evaluates one recipe; returns its result row."""
    recipe, start = build(run), time.monotonic()
    params = self.params
    if run['recipe'] != 'floating':
      params = calibrate.quantize_model(
        self.model, params, recipe, self.calibration
      )
    scores = evaluate.score(self.model, params, self.reference)
    change = scores.bits_per_byte - self.float_bits
    config = full_config(self.config, run)
    bits = quantize.bits(params)
    return {
      'recipe': recipe.name,
      'weight': run['weight'],
      'activation': run['activation'] or _activation(recipe),
      'bits_per_weight': operators.base.bits_per_weight(params),
      'megabytes': bits / 8 / MEGABYTE,
      'bits_per_byte': float(scores.bits_per_byte.mean()),
      'noise': evaluate.standard_error(scores.bits_per_byte),
      'delta': float(change.mean()),
      'stderr': evaluate.standard_error(change),
      'kl': float(scores.kl_nats.mean()),
      'seconds': time.monotonic() - start,
      'status': 'ok',
      'config_hash': results.config_hash(config),
      'config': config,
    }

  def rows(self, log: Callable[[str], None]) -> Iterator[dict]:
    """Result rows in the order of the runs; finished ones are not run again.

    Args:
      log: Called with a line before each step.
    """
    file = self.out / results.FILE
    for i, run in enumerate(self.runs):
      done = results.finished(file, full_config(self.config, run))
      if done:
        log(f'{done["recipe"]}: found in {file.name}')
        yield done
        continue
      log(f'{build(run).name} ({i + 1} of {len(self.runs)})')
      if self.float_bits is None:
        self.prepare()
      row = self.run(run)
      results.append(file, row)
      yield row


def _activation(recipe: Recipe) -> str:
  """The spec of activations of a recipe's last rule."""
  spec = recipe.rules[-1].activation
  return str(spec) if spec is not None else ''


def _batches(rows: np.ndarray, batch: int) -> list[np.ndarray]:
  """Batches of one size, so that one compiled program serves them all."""
  if batch < 1 or len(rows) % batch:
    raise ValueError(
      f'`batch` {batch} must divide the number of sequences, {len(rows)}. '
      'Change config.batch, config.windows or config.calibration.'
    )
  return [rows[i : i + batch] for i in range(0, len(rows), batch)]
