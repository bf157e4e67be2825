"""The sweep behind docs/scaling_laws.md: 176 decoders of up to 87k parameters.

Run:     python scripts/sweep.py --config=configs/sweeps/embedded.py --out=DIR

Four sizes, four lengths, one seed. In blocks of 16: float, weights and inputs
in five formats of 3 to 5 bits, and 3 bits for one of the two alone; in blocks
of 4, three of the formats. e1m1 and e1m2 are int3 and int4 but for a factor.
"""

import ml_collections


def model(width, hidden):
  return dict(
    vocab=256,
    width=width,
    layers=2,
    heads=width // 16,
    kv_heads=1,
    head_dim=16,
    hidden=hidden,
  )


def get_config() -> ml_collections.ConfigDict:
  models = {
    'n16': model(16, 48),
    'n32': model(32, 80),
    'n48': model(48, 128),
    'n64': model(64, 160),
  }
  every = dict(
    model=tuple(models), tokens=tuple(2**i for i in (16, 17, 18, 19))
  )
  both = [dict(weight=f, activation=f) for f in _FORMATS]
  alone = [dict(weight='e1m1@g16'), dict(activation='e1m1@g16')]
  return ml_collections.ConfigDict(
    dict(
      models=models,
      grid=tuple({**every, **chosen} for chosen in (*both, *alone)),
      learning_rate=5e-3,
      warmup=20,  # Steps.
      decay=0.3,  # Last fraction of the steps.
      weight_decay=0.1,
      keep=('head/kernel',),  # Layers that stay in float.
      data=dict(path=''),  # A UTF-8 text of your own; '' = embedded.
      sequence=64,  # Bytes a window.
      batch=4,  # Windows a step.
      windows=128,  # Held out, for the loss.
      post=tuple(f'int{k}@g16' for k in (2, 3, 4, 5, 6, 8)),
      members=8,  # Runs of one program.
      checkpoint_every=250,  # Steps.
    )
  )


_FORMATS = (
  '',
  *(f'{f}@g16' for f in ('e1m1', 'e1m2', 'e2m1', 'e2m2', 'e3m1')),
  *(f'{f}@g4' for f in ('e1m1', 'e1m2', 'e2m1')),
)
