"""Images as they look elsewhere: for learning that meets other domains.

Each function maps images [B, height, width, C], float32 in [0, 1], to the same.
"""

import numpy as np
import scipy.ndimage


def rotated(images: np.ndarray, degrees: float) -> np.ndarray:
  """Turned counter-clockwise about the centre; black comes in."""
  turned = scipy.ndimage.rotate(
    images, degrees, axes=(2, 1), reshape=False, order=1
  )
  return np.clip(turned, 0, 1).astype(np.float32)


def shifted(images: np.ndarray, rows: int, columns: int) -> np.ndarray:
  """Moved down and to the right by whole pixels; black comes in."""
  offset = (0, rows, columns, 0)
  return scipy.ndimage.shift(images, offset, order=0).astype(np.float32)


def blurred(images: np.ndarray, sigma: float) -> np.ndarray:
  """Smoothed by a Gaussian of `sigma` pixels."""
  return scipy.ndimage.gaussian_filter(images, (0, sigma, sigma, 0)).astype(
    np.float32
  )


def inverted(images: np.ndarray) -> np.ndarray:
  """Black for white."""
  return (1 - images).astype(np.float32)


def noisy(images: np.ndarray, std: float, seed: int) -> np.ndarray:
  """With Gaussian noise, clipped to [0, 1]."""
  noise = np.random.default_rng(seed).normal(size=images.shape)
  return np.clip(images + std * noise, 0, 1).astype(np.float32)


def faded(images: np.ndarray, contrast: float) -> np.ndarray:
  """With less contrast: 1/2 + contrast (x - 1/2)."""
  return (0.5 + contrast * (images - 0.5)).astype(np.float32)
