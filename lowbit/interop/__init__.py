"""Models of others in, and ours out: GGUF and safetensors.

Needs the extra 'interop'.
"""

from lowbit.interop.compressed_tensors import save as save_compressed_tensors
from lowbit.interop.gguf_export import save as save_gguf
from lowbit.interop.gguf_file import GgufFile
from lowbit.interop.loading import Loaded, load

__all__ = [
  'GgufFile',
  'Loaded',
  'load',
  'save_compressed_tensors',
  'save_gguf',
]
