"""Post-training quantization of a decoder: a table of recipes, one by one."""

import dataclasses
import inspect
import pathlib
import time
from collections.abc import Callable, Iterator

import numpy as np

from lowbit import calibrate, operators, quantize, recipes
from lowbit.experiment import evaluate, language, memory, report, results
from lowbit.intercept import Recipe, Rule

MEGABYTE = 1e6
EMBEDDING = 'embed/embedding'


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
    build(row, _embedding(config))  # Unknown names fail here.
  return table


def _embedding(config) -> str:
  """Spec of the look-up table; '' leaves it in float."""
  return config.get('embedding', '')


def build(run: dict, embedding: str = '') -> Recipe:
  """The recipe of one run; `embedding` is the spec of its look-up table."""
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
  if not embedding or run['recipe'] == 'floating':
    return function(**given)
  recipe = function(**given, keep=())
  rules = (Rule(EMBEDDING, embedding), *recipe.rules)
  return dataclasses.replace(recipe, rules=rules)


def full_config(config, run: dict) -> dict:
  """All that the result of a run depends on."""
  kept = ('model', 'data', 'sequence', 'calibration', 'windows')
  everything = config.to_dict()
  found = {**{k: everything[k] for k in kept}, **run}
  embedding = _embedding(config)
  return found | ({'embedding': embedding} if embedding else {})


class Job:
  """A config with its model, text and float answers loaded and checked."""

  headline = 'bits_per_byte'  # What tells most of a row.

  def __init__(self, config, out: pathlib.Path):
    """Loads everything; raises ValueError for bad input before long work."""
    self.config, self.runs = config, runs(config)
    self.out = results.check_writable(out)
    found = language.load(config)
    self.model, self.params = found.model, found.params
    self.tokens_per_byte = found.tokens_per_byte
    # Statistics of one batch are not merged, which would hold them three times.
    together = config.get('calibration_batch', config.batch)
    together = min(together, len(found.calibration))
    self.calibration = _batches(found.calibration, together)
    self.test = _batches(found.test, config.batch)
    self.float_bits: np.ndarray | None = None

  @property
  def prepared(self) -> bool:
    """Whether the float answers are there."""
    return self.float_bits is not None

  def prepare(self) -> None:
    """Runs the float model, against which all others are compared."""
    self.reference = evaluate.reference(self.model, self.params, self.test)
    memory.release()
    scores = evaluate.score(self.model, self.params, self.reference)
    self.float_bits = scores.bits_per_token

  def recipe(self, run: dict) -> Recipe:
    """The recipe of one run."""
    return build(run, _embedding(self.config))

  def identity(self, run: dict) -> dict:
    """All that the result of a run depends on."""
    return full_config(self.config, run)

  def head(self, run: dict, recipe: Recipe) -> dict:
    """What every row starts with."""
    config = self.identity(run)
    return {
      'recipe': recipe.name,
      'weight': run['weight'],
      'activation': run['activation'] or _activation(recipe),
      'config_hash': results.config_hash(config),
      'config': config,
    }

  def run(self, run: dict) -> dict:
    """Quantizes and evaluates one recipe; returns its result row."""
    recipe, start = self.recipe(run), time.monotonic()
    params = self.params
    if run['recipe'] != 'floating':
      params = calibrate.quantize_model(
        self.model, params, recipe, self.calibration
      )
      memory.release()
    scores = evaluate.score(self.model, params, self.reference)
    per_byte = scores.bits_per_token * self.tokens_per_byte
    change = per_byte - self.float_bits * self.tokens_per_byte
    bits = quantize.bits(params)
    perplexity = {'perplexity': float(2 ** scores.bits_per_token.mean())}
    return {
      **self.head(run, recipe),
      'bits_per_weight': operators.base.bits_per_weight(params),
      'megabytes': bits / 8 / MEGABYTE,
      'bits_per_byte': float(per_byte.mean()),
      **(perplexity if self.tokens_per_byte != 1 else {}),
      'noise': evaluate.standard_error(per_byte),
      'delta': float(change.mean()),
      'stderr': evaluate.standard_error(change),
      'kl': float(scores.kl_nats.mean()),
      'seconds': time.monotonic() - start,
      'status': 'ok',
    }

  def rows(self, log: Callable[[str], None]) -> Iterator[dict]:
    """Result rows in the order of the runs; finished ones are not run again.

    Args:
      log: Called with a line before each step.
    """
    file = self.out / results.FILE
    for i, run in enumerate(self.runs):
      done = results.finished(file, self.identity(run))
      if done:
        log(f'{done["recipe"]}: found in {file.name}')
        yield done
        continue
      log(f'{self.recipe(run).name} ({i + 1} of {len(self.runs)})')
      if not self.prepared:
        self.prepare()
      row = self.run(run)
      memory.release()
      results.append(file, row)
      yield row

  def table(self, rows):
    """One line a row."""
    unit = 'bytes' if self.tokens_per_byte == 1 else 'tokens'
    windows, length = self.config.windows, self.config.sequence
    return report.table(rows, f'{windows} windows of {length} {unit}, held out')

  def note(self, rows) -> str:
    """What the columns are."""
    return (
      f'Noise of bits/byte itself (8 shards): ± {rows[0]["noise"]:.4f}; the '
      'change is paired by window. * Pareto front.'
    )


def _activation(recipe: Recipe) -> str:
  """The spec of activations of a recipe's last rule."""
  spec = recipe.rules[-1].activation
  return str(spec) if spec is not None else ''


def check_batch(batch: int, *counts: int) -> None:
  """Raises ValueError unless the batch divides every number of sequences."""
  for count in counts:
    if batch < 1 or count % batch:
      raise ValueError(
        f'`batch` {batch} must divide the number of sequences, {count}. Change '
        'config.batch, config.calibration, or config.windows (or sentences).'
      )


def _batches(rows: np.ndarray, batch: int) -> list[np.ndarray]:
  """Batches of one size, so that one compiled program serves them all."""
  check_batch(batch, len(rows))
  return [rows[i : i + batch] for i in range(0, len(rows), batch)]
