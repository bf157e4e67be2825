"""What changes with the step of training: formats by stages, and strength.

Both are static values; the step is traced, so that one compiled train step
serves the whole run.
"""

import dataclasses

import jax
import jax.numpy as jnp

from lowbit.quantize import spec as spec_lib


def _check_whole(name: str, steps) -> None:
  is_whole = lambda s: isinstance(s, int) and not isinstance(s, bool)
  if not all(map(is_whole, steps)):
    raise TypeError(
      f'`{name}` of a schedule are whole steps, got {list(steps)}. Write ints.'
    )


@dataclasses.dataclass(frozen=True)
class Progressive:
  """One spec after another: stages (first step, spec or its name or None).

  None leaves the tensor in float, as in a warm-up:
  Progressive(((0, None), (1000, 'int8@channel'), (3000, 'int4@channel'))).
  """

  stages: tuple[tuple[int, spec_lib.Spec | str | None], ...]

  def __post_init__(self):
    steps = [step for step, _ in self.stages]
    _check_whole('stages', steps)
    if not steps or steps[0] != 0 or steps != sorted(set(steps)):
      raise ValueError(
        f'`stages` must begin at step 0 and rise; got steps {steps}. Sort '
        'them, and give each its own first step.'
      )
    parse = lambda s: None if s is None else spec_lib.Spec.parse(s)
    stages = tuple((step, parse(spec)) for step, spec in self.stages)
    object.__setattr__(self, 'stages', stages)

  @property
  def specs(self) -> tuple[spec_lib.Spec | None, ...]:
    """The spec of each stage."""
    return tuple(spec for _, spec in self.stages)

  def stage(self, step: jax.Array) -> jax.Array:
    """Index of the stage that holds at `step`: int32 []."""
    starts = jnp.asarray([start for start, _ in self.stages], jnp.int32)
    return jnp.sum(jnp.asarray(step, jnp.int32) >= starts) - 1


@dataclasses.dataclass(frozen=True)
class Ramp:
  """Phasing-in: the quantized value counts 0 up to `begin`, 1 from `end` on.

  Between, x + strength (q - x), strength linear in the step.
  """

  begin: int
  end: int

  def __post_init__(self):
    _check_whole('begin, end', (self.begin, self.end))
    if not 0 <= self.begin < self.end:
      raise ValueError(
        f'A ramp needs 0 <= begin < end, got {self.begin} and {self.end}. For '
        'a jump use Progressive.'
      )

  def strength(self, step: jax.Array) -> jax.Array:
    """float32 [] in [0, 1]."""
    done = jnp.asarray(step, jnp.float32) - self.begin
    return jnp.clip(done / (self.end - self.begin), 0.0, 1.0)
