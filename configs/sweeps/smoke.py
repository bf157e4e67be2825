"""A sweep of a few seconds a run: two lengths, three formats, two seeds.

Run:     python scripts/sweep.py --config=configs/sweeps/smoke.py --out=DIR

Kill it at any instant and start it again: it goes on.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  return ml_collections.ConfigDict(
    dict(
      models=dict(
        tiny=dict(
          vocab=256,
          width=16,
          layers=1,
          heads=2,
          kv_heads=1,
          head_dim=8,
          hidden=24,
        ),
      ),
      grid=(
        dict(
          model='tiny',
          tokens=(64 * 256, 128 * 256),
          weight=('', 'int4@channel', 'e2m1@channel'),
          activation='',
          seed=(0, 1),
        ),
      ),
      learning_rate=1e-2,
      warmup=4,  # Steps.
      decay=0.3,  # Last fraction of the steps.
      weight_decay=0.1,
      keep=('head/kernel',),  # Layers that stay in float.
      data=dict(path=''),  # A UTF-8 text of your own; '' = embedded.
      sequence=32,  # Bytes a window.
      batch=8,  # Windows a step.
      windows=16,  # Held out, for the loss.
      post=('int3@channel',),  # Weights rounded after training, too.
      members=8,  # Runs of one program.
      checkpoint_every=8,  # Steps.
    )
  )
