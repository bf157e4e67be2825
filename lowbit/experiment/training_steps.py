"""Quantization-aware training steps next to the float step, and to qwix's.

A step is loss, gradients and AdamW of a small decoder, jitted, parameters and
state donated. All programs of a case take turns in one process.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lowbit import intercept, quantize
from lowbit.calibrate import model as calibrate
from lowbit.experiment import qwix_baseline, timing
from lowbit.models import decoder, loss
from lowbit.recipes import training

MODEL = decoder.DecoderConfig(layers=2)  # The embedded model, with 2 of 6.
BATCH = (4, 128)  # Windows and tokens in each.
# name -> specs of weights and of layer inputs.
CASES = {
  'w8a8': ('int8@channel', 'int8@token'),
  'w4a8': ('int4@channel', 'int8@token'),
  'mxfp4': ('mxfp4', 'mxfp4'),
}


@dataclasses.dataclass
class Stepper:
  """A compiled step and what it goes on from; a call takes one step."""

  compiled: jax.stages.Compiled
  state: tuple
  tokens: jax.Array
  seconds: timing.Seconds  # Of tracing and compilation.

  def __call__(self):
    """Takes a step, and waits for it."""
    self.state = jax.block_until_ready(self.compiled(*self.state, self.tokens))


def compiled(logits: Callable, params, tokens) -> Stepper:
  """The training step of a model, compiled from nothing.

  Args:
    logits: (params, tokens) -> logits.
    params: Float params.
    tokens: int32 [B, T].
  """
  tx = optax.adamw(1e-3)

  def step(params, state, tokens):
    nats = lambda p: jnp.mean(loss.next_token_nats(logits(p, tokens), tokens))
    updates, state = tx.update(jax.grad(nats)(params), state, params)
    return optax.apply_updates(params, updates), state

  state = jax.tree.map(jnp.copy, (params, tx.init(params)))
  jax.clear_caches()
  wall, cpu = time.perf_counter(), time.process_time()
  jitted = jax.jit(step, donate_argnums=(0, 1))
  program = jitted.lower(*state, tokens).compile()
  spent = time.perf_counter() - wall, time.process_time() - cpu
  return Stepper(program, state, tokens, timing.Seconds(*spent))


def compiled_all(
  programs: dict[str, Callable], params, tokens, attempts: int
) -> dict[str, Stepper]:
  """The step of each program; of the times of several attempts the least."""
  steps = {}
  for _ in range(attempts):
    for name, logits in programs.items():
      new = compiled(logits, params, tokens)
      old = steps.get(name, new).seconds
      least = timing.Seconds(*map(min, old, new.seconds))
      steps[name] = dataclasses.replace(new, seconds=least)
  return steps


def operands(model, params, tokens, recipe) -> list[tuple]:
  """(value, spec, axes) of all that a forward pass quantizes, each once."""
  found = {}

  def handler(call):
    rule = recipe.rule(call.path)
    for value, spec, axes in (
      (call.weight, rule.weight, call.found.weight_axes),
      (call.x, rule.activation, call.found.input_axes),
    ):
      if spec is not None and axes is not None:
        found[id(value)] = (value, spec, axes)
    return call.own(call.weight, call.x)

  with intercept.handling(handler):
    model.apply({'params': params}, tokens)
  return list(found.values())


def arithmetic(operands: list[tuple]) -> timing.Program:
  """The program that quantizes these operands, and does nothing else."""
  values, specs, axes = zip(*operands)
  each = lambda values: list(map(quantize.fake_quantize, values, specs, axes))
  return timing.compile(each, list(values))


def rows(
  settings: timing.Settings,
  config: decoder.DecoderConfig = MODEL,
  batch: tuple[int, int] = BATCH,
) -> Iterator[dict]:
  """One row a case.

  Keys: `ms`; `times_float`, the time as a multiple of the float step's;
  `arithmetic_ms`, that of the fake quantization of the same weights and inputs
  by itself, a forward pass's; `beyond`, (ms - arithmetic_ms) / float ms;
  `times_qwix`, how many times as fast as qwix's step, or why that is not known;
  both by processor time as `cpu_...`;
  `first_call`, tracing and compilation as a multiple of the float step's, by
  processor time, and `qwix_first_call`.
  """
  model = decoder.Decoder(config)
  rng = np.random.default_rng(0)
  tokens = jnp.asarray(rng.integers(0, config.vocab, batch), jnp.int32)
  params = model.init(jax.random.key(0), tokens)['params']
  for case in filter(settings.wants, CASES):
    recipe = training.qat(*CASES[case])
    programs = {
      'float': lambda p, t: model.apply({'params': p}, t),
      'own': lambda p, t, r=recipe: calibrate.apply(model, p, t, recipe=r),
    }
    if qwix_baseline.is_installed():
      theirs = qwix_baseline.trained(model, case)
      programs['qwix'] = lambda p, t, m=theirs: m.apply({'params': p}, t)
    attempts = max(1, settings.repeats // 3)  # The first call is noisy as well.
    steps = compiled_all(programs, params, tokens, attempts)
    alone = arithmetic(operands(model, params, tokens, recipe))
    seconds = timing.best_seconds({**steps, 'alone': alone}, settings.repeats)
    yield {'case': case, **_row(steps, seconds)}


def _row(steps: dict[str, Stepper], seconds: dict) -> dict:
  wall = {name: s.wall for name, s in seconds.items()}
  cpu = {name: s.cpu for name, s in seconds.items()}
  ratio = lambda a, b: a / b if a else 'not installed'
  first = {name: step.seconds.cpu for name, step in steps.items()}
  return {
    'ms': 1e3 * wall['own'],
    'float_ms': 1e3 * wall['float'],
    'times_float': wall['own'] / wall['float'],
    'arithmetic_ms': 1e3 * wall['alone'],
    'beyond': (wall['own'] - wall['alone']) / wall['float'],
    'cpu_beyond': (cpu['own'] - cpu['alone']) / cpu['float'],
    'times_qwix': ratio(wall.get('qwix'), wall['own']),
    'cpu_times_qwix': ratio(cpu.get('qwix'), cpu['own']),
    'first_call': first['own'] / first['float'],
    'qwix_first_call': ratio(first.get('qwix'), first['float']),
  }
