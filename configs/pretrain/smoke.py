"""A decoder of seconds: what tests kill, restart and spread over processes.

Run:     python scripts/train.py --config=configs/pretrain/smoke.py --out=DIR
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  return ml_collections.ConfigDict(
    dict(
      seed=0,
      start='',
      model=dict(
        vocab=256,
        width=64,
        layers=2,
        heads=2,
        kv_heads=2,
        head_dim=32,
        hidden=128,
        scan_layers=True,
      ),
      recipe=dict(kind='', weight='', activation='', gradient=''),
      optimizer='adamw',
      mesh=dict(data=-1, model=1),
      data=dict(path='', extra=''),
      sequence=64,
      batch=8,
      steps=12,
      warmup=2,
      decay_steps=4,
      learning_rate=2e-3,
      weight_decay=0.1,
      checkpoint_every=4,
      evaluate_every=4,
    )
  )
