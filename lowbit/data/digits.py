"""1 797 handwritten digits of 8 x 8 pixels, split once into train and test."""

import importlib.resources
from typing import NamedTuple

import numpy as np


class Digits(NamedTuple):
  """Images and labels of both splits."""

  train_images: np.ndarray  # float32 [1438, 8, 8, 1] in [0, 1].
  train_labels: np.ndarray  # int32 [1438].
  test_images: np.ndarray  # float32 [359, 8, 8, 1].
  test_labels: np.ndarray  # int32 [359].


def load() -> Digits:
  """The embedded digits; every fifth is test.

  E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI
  Machine Learning Repository, 1998 (`NOTICE.md`).
  """
  path = importlib.resources.files('lowbit.data') / 'digits.npz'
  with path.open('rb') as file, np.load(file, allow_pickle=False) as arrays:
    images, labels = arrays['images'], arrays['labels']
  images = images.astype(np.float32)[..., None] / 16
  labels = labels.astype(np.int32)
  test = np.arange(len(labels)) % 5 == 4
  return Digits(images[~test], labels[~test], images[test], labels[test])
