"""One function for all files and folders that can be read."""

import dataclasses
import os
import pathlib

from lowbit.interop import (
  gguf_decoders,
  gguf_encoders,
  gguf_file,
  gguf_gpt2,
  gguf_tokenizer,
  hf_decoders,
  hf_encoders,
  hf_gpt2,
  hf_vit,
  hugging_face,
)


@dataclasses.dataclass(frozen=True)
class Loaded:
  """A model that others trained."""

  model: object  # Linen module; its `config` has the sizes.
  params: dict  # float32.
  tokenizer: object | None  # `tokenizers.Tokenizer`, where one lies beside.


def load(path: str | os.PathLike) -> Loaded:
  """Reads a GGUF file, or a folder of Hugging Face.

  GGUF: the architectures llama (with Mistral and SmolLM2), qwen2, qwen3, gpt2
  and bert, in every type that the package gguf decodes. Folders: config.json,
  safetensors in one file or shards, and tokenizer.json if there is one, of
  llama, mistral, qwen2, qwen3, gpt2, bert and vit. Without a head, bert and vit
  give states. Rotary positions may be scaled: see `rope_scaling`.

  Args:
    path: FILE.gguf, or the folder.

  Raises:
    ValueError: If it is damaged, of another kind, or does not fit itself;
      sizes are checked before memory is taken.
    ImportError: Without the extra 'interop', where it is needed.
  """
  path = pathlib.Path(path)
  if path.suffix == '.gguf':
    file = gguf_file.GgufFile(path)
    kinds = dict.fromkeys(gguf_decoders.ARCHITECTURES, gguf_decoders.load) | {
      'bert': gguf_encoders.load,
      'gpt2': gguf_gpt2.load,
    }
    file.expect('general.architecture', *kinds)
    tokenizer = gguf_tokenizer.build(file)
    return Loaded(*kinds[file.architecture](file), tokenizer)
  folder = hugging_face.read(path)
  kinds = dict.fromkeys(hf_decoders.KINDS, hf_decoders.load) | {
    'bert': hf_encoders.load,
    'gpt2': hf_gpt2.load,
    'vit': hf_vit.load,
  }
  folder.expect('model_type', *kinds)
  model, params = kinds[folder.kind](folder)
  tokenizer = None
  if folder.kind != 'vit' and (path / 'tokenizer.json').exists():
    tokenizer = hugging_face.read_tokenizer(path, model.config.vocab)
  return Loaded(model, params, tokenizer)
