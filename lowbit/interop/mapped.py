"""Decoders of others that are read part by part, from mapped files."""

import dataclasses
import os
import pathlib

import jax
import jax.numpy as jnp

from lowbit.data import embedded
from lowbit.interop import (
  gguf_decoders,
  gguf_file,
  gguf_tokenizer,
  hf_decoders,
  hugging_face,
  layout,
  safetensors_file,
)
from lowbit.models import decoder

_TABLE, _HEAD = 'embed/embedding', 'head/kernel'


@dataclasses.dataclass(frozen=True)
class Mapped:
  """A decoder whose params are still on disk."""

  model: decoder.Decoder
  plan: layout.Plan  # `plan.read('layers_0')` reads a part.
  tokenizer: object | None


def open_decoder(path: str | os.PathLike) -> Mapped:
  """Maps the checkpoint of a decoder, and checks its names and shapes.

  Args:
    path: A GGUF file or a folder of Hugging Face, as `load` takes them, or a
      safetensors file of `scripts/train.py`, which has no tokenizer.

  Raises:
    ValueError: As `load` does, or if the model is no decoder.
  """
  path = pathlib.Path(path)
  if path.suffix == '.gguf':
    file = gguf_file.GgufFile(path)
    return Mapped(*gguf_decoders.plan(file), gguf_tokenizer.build(file))
  if path.suffix == '.safetensors':
    return Mapped(*_of_lowbit(path), None)
  folder = hugging_face.read(path)
  model, plan = hf_decoders.plan(folder)
  tokenizer = None
  if (path / 'tokenizer.json').exists():
    tokenizer = hugging_face.read_tokenizer(path, model.config.vocab)
  return Mapped(model, plan, tokenizer)


def _of_lowbit(path) -> tuple[decoder.Decoder, layout.Plan]:
  file = safetensors_file.SafetensorsFile(path)
  model = decoder.Decoder(embedded.sizes(path, file.metadata))
  tokens = jax.ShapeDtypeStruct((1, 8), jnp.int32)
  sources = {name: layout.Source(name) for name in file.shapes}
  return model, layout.plan(file, model, (tokens,), sources)


def untied(mapped: Mapped) -> Mapped:
  """The same with a head of its own, which is the transposed look-up table."""
  if not mapped.model.config.tied:
    return mapped
  table = mapped.plan.sources[_TABLE]
  head = layout.Source(table.name, lambda w: table.turn(w).T)
  sources = {**mapped.plan.sources, _HEAD: head}
  config = dataclasses.replace(mapped.model.config, tied=False)
  return dataclasses.replace(
    mapped,
    model=decoder.Decoder(config),
    plan=dataclasses.replace(mapped.plan, sources=sources),
  )
