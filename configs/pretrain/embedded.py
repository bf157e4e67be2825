"""The decoder that ships with lowbit, trained on its embedded text.

Run:     python scripts/train.py --config=configs/pretrain/embedded.py \
             --out=results/embedded
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  return ml_collections.ConfigDict(
    dict(
      seed=0,
      start='',  # Weights to go on from; empty for random ones.
      model=dict(
        vocab=256,
        width=256,
        layers=6,
        heads=4,
        kv_heads=2,
        head_dim=64,
        hidden=640,
      ),
      data=dict(
        path='',  # A UTF-8 text of your own; empty for the embedded one.
        extra='',  # One more text to train on.
      ),
      sequence=256,  # Bytes a window.
      batch=8,  # Windows a step.
      steps=3500,
      warmup=200,
      decay_steps=1000,  # The learning rate falls to 0 over these last steps.
      learning_rate=2e-3,
      weight_decay=0.1,
      checkpoint_every=250,
      evaluate_every=100,
    )
  )
