"""A decoder of a billion parameters, over a pod.

On every host of a TPU slice:

    python scripts/train.py --config=configs/pretrain/1b.py --processes=-1 \
        --config.data.path=TEXT --out=gs://...

`--config.recipe.kind=` (empty) trains in bfloat16; `scripts/compile_step.py`
compiles its step for slices that are not here (docs/pods.md).
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  return ml_collections.ConfigDict(
    dict(
      seed=0,
      start='',
      model=dict(
        vocab=32768,
        width=2048,
        layers=18,
        heads=16,
        kv_heads=8,
        head_dim=128,
        hidden=7168,
        rope_base=500000.0,
        scan_layers=True,
        remat=True,
        dtype='bfloat16',
      ),
      # 'pretraining': all three products; 'qat': the forward pass alone.
      recipe=dict(
        kind='pretraining',
        weight='mxfp8_e4m3',
        activation='mxfp8_e4m3',
        gradient='mxfp8_e5m2',
      ),
      optimizer='adamw',  # 'adamw8bit' has 2.25 bytes of state, not 8.
      mesh=dict(data=-1, model=4),
      data=dict(path='', extra=''),
      sequence=4096,
      batch=128,  # 2^19 tokens a step.
      steps=30000,
      warmup=1000,
      decay_steps=6000,
      learning_rate=4e-4,
      weight_decay=0.1,
      checkpoint_every=500,
      evaluate_every=500,
    )
  )
