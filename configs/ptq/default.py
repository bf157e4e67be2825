"""What each format costs: a table of recipes on the embedded decoder.

Run:     python scripts/ptq.py
One:     python scripts/ptq.py --config.recipe=gptq --config.weight=int3@g64
"""

import ml_collections


def run(recipe='nearest', weight='', activation=''):
  return dict(recipe=recipe, weight=weight, activation=activation)


def get_config() -> ml_collections.ConfigDict:
  nearest = (
    'bf16',
    'int8@channel',
    'int4@g64',
    'int4z@g64',
    'nf4@g64',
    'mxfp4',
    'nvfp4',
    'mxfp6_e2m3',
    'posit8_1',
    'int3@g64',
    'int2z@g32',
  )
  gptq = ('int4z@g64', 'int3@g64', 'int2z@g32')
  table = [
    run('floating'),
    *(run(weight=w) for w in nearest),
    *(run('gptq', w) for w in gptq),
    run('awq', 'int4z@g64'),
    run('smoothquant', 'int8@channel', 'int8@token'),
    run('quarot', 'int4@channel', 'int4@token'),
  ]
  return ml_collections.ConfigDict(
    dict(
      recipe='',  # One recipe of lowbit.recipes; '' runs the table.
      weight='',  # Spec of its weights, such as int3@g64.
      activation='',  # Spec of its activations; '' leaves its default.
      model=dict(path=''),  # safetensors of scripts/train.py; '' = embedded.
      data=dict(path=''),  # A UTF-8 text of your own; '' = embedded.
      sequence=256,  # Bytes a window.
      calibration=32,  # Windows.
      windows=64,  # Test windows: 16 KiB of text.
      batch=32,  # Windows at once.
      picture=True,  # Needs matplotlib.
      table=tuple(table),
    )
  )
