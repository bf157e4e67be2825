"""One recipe on a decoder that is never whole in memory: block by block.

Run: python scripts/stream.py
Any GGUF file, or folder of Hugging Face, of a Llama, Mistral or Qwen:
     python scripts/stream.py --config.model.path=PATH --out=DIR
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  return ml_collections.ConfigDict(
    dict(
      recipe='gptq',  # One of lowbit.recipes.
      weight='int4z@g64',  # Spec of its weights.
      activation='',  # Spec of its activations; '' leaves its default.
      embedding='',  # Spec of the look-up table; '' = float32.
      model=dict(
        path='',  # '' = embedded.
        begin='',  # Token before each window, such as <s>; '' for nothing.
        untie=True,  # A head of its own, which the recipe quantizes.
      ),
      data=dict(path=''),  # A UTF-8 text of your own; '' = embedded.
      sequence=256,  # Tokens a window.
      calibration=32,  # Windows, all of them in memory at once.
      windows=64,  # Test windows.
      batch=8,  # Test windows at once.
    )
  )
