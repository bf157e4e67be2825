"""Post-training quantization of a sentence encoder: a table of formats."""

import dataclasses
import pathlib
import time

import numpy as np
import scipy.stats

from lowbit import calibrate, operators, quantize
from lowbit.experiment import ptq, report, results, sentences
from lowbit.intercept import Recipe, Rule

TABLES = '(embed|types|positions)/embedding'


def build(run: dict) -> Recipe:
  """The recipe of one run; its look-up tables are coded as its matrices.

  Raises:
    ValueError: If a recipe, a spec or a field is unknown.
  """
  found = ptq.build(run)
  if run['recipe'] == 'floating':
    return found
  rest = [rule for rule in found.rules if rule.pattern != ptq.EMBEDDING]
  rules = (Rule(TABLES, rest[-1].weight), *rest)
  return dataclasses.replace(found, rules=rules)


class Job(ptq.Job):
  """A config with its encoder, sentences and float vectors."""

  headline = 'cosine'

  def __init__(self, config, out: pathlib.Path):
    """Loads everything; raises ValueError for bad input before long work."""
    self.config, self.runs = config, ptq.runs(config)
    for run in self.runs:
      self.recipe(run)
    self.out = results.check_writable(out)
    ptq.check_batch(config.batch, config.sentences, config.calibration)
    found = sentences.load(config)
    self.model, self.params, self.test = found.model, found.params, found.test
    self.calibration, self.examples = found.calibration, found.examples
    self.vectors: np.ndarray | None = None

  def recipe(self, run: dict) -> Recipe:
    """The recipe of one run."""
    return build(run)

  def identity(self, run: dict) -> dict:
    """All that the result of a run depends on."""
    kept = ('model', 'data', 'sequence', 'calibration', 'sentences')
    everything = self.config.to_dict()
    return {**{k: everything[k] for k in kept}, **run}

  @property
  def prepared(self) -> bool:
    """Whether the float vectors are there."""
    return self.vectors is not None

  def prepare(self) -> None:
    """Embeds all sentences by the float model."""
    self.vectors = sentences.embed(self.model, self.params, self.test)

  def run(self, run: dict) -> dict:
    """Quantizes and evaluates one recipe; returns its result row."""
    recipe, start, params = build(run), time.monotonic(), self.params
    if run['recipe'] != 'floating':
      params = calibrate.quantize_model(
        self.model, params, recipe, self.calibration
      )
    vectors = sentences.embed(self.model, params, self.test)
    examples = sentences.embed(self.model, params, [self.examples])
    return {
      **self.head(run, recipe),
      'bits_per_weight': operators.base.bits_per_weight(params),
      'megabytes': quantize.bits(params) / 8 / ptq.MEGABYTE,
      **fidelity(vectors, self.vectors),
      'examples': sentences.similarities(examples).tolist(),
      'seconds': time.monotonic() - start,
      'status': 'ok',
    }

  def table(self, rows):
    """One line a row."""
    names = ('bits/\nweight', 'MB', 'cosine', 'least', 'rank', 'examples')
    out = report.empty_table(
      'recipe', *names, 'seconds', title=f'{self.config.sentences} sentences'
    )
    for row in rows:
      out.add_row(
        row['recipe'],
        f'{row["bits_per_weight"]:.3f}',
        f'{row["megabytes"]:.2f}',
        *(f'{row[k]:.5f}' for k in ('cosine', 'least', 'rank')),
        ' '.join(f'{x:.4f}' for x in row['examples']),
        f'{row["seconds"]:.1f}',
      )
    return out

  def note(self, rows) -> str:
    """What the columns are."""
    del rows
    return (
      'cosine: of a vector and its float self, their mean, and the least; '
      "rank: Spearman's, of the cosines of all pairs against those in float; "
      "examples: cosines of the model card's three sentences."
    )


def fidelity(vectors: np.ndarray, reference: np.ndarray) -> dict[str, float]:
  """How near unit vectors [sentences, width] are to those in float.

  Returns:
    `cosine` and `least`, of each and its reference; `rank`, Spearman's
    correlation of the similarities of all pairs.
  """
  cosines = np.sum(vectors * reference, axis=1, dtype=np.float64)
  pairs = (sentences.similarities(v) for v in (vectors, reference))
  return {
    'cosine': float(cosines.mean()),
    'least': float(cosines.min()),
    'rank': float(scipy.stats.spearmanr(*pairs).statistic),
  }
