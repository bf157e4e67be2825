"""What may hold a second moment."""

from lowbit.optim import storage as storage_lib
from lowbit.optim import structured

SMALLEST = 1e-4  # Of the largest level: below it a zero does little harm.


def check(storage: storage_lib.Storage) -> None:
  """Raises ValueError where a second moment would fall to zero and diverge.

  The update divides by the root of the second moment. Where small entries of a
  block become zero, it explodes: a format must exclude zero, or have a value
  below 1e-4 of its largest, as the 8-bit dynamic tree, e4m3 and e5m2 do.
  """
  if isinstance(storage, structured.Factored):
    return check(storage.vector)
  fmt = (
    storage.format
    if isinstance(storage, structured.RankOne)
    else storage.spec.format
  )
  if fmt.bits > 16 or not storage_lib.has_zero(fmt):
    return None
  values = fmt.values()
  smallest = float(values[values > 0].min() / values.max())
  if smallest <= SMALLEST:
    return None
  raise ValueError(
    f'A second moment cannot be stored as {fmt.name}: below {smallest / 2:.3g} '
    'of its largest value an entry becomes 0, and the update, divided by its '
    'root, explodes. Use a format without zero (linear0_4, de0_4), or one that '
    'reaches far down (udynamic8, e5m2).'
  )
