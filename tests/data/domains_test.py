"""Domains: what each does to an image, and that none leaves [0, 1]."""

import numpy as np
import pytest

from lowbit.data import digits, domains

IMAGES = digits.load().test_images[:40]


@pytest.mark.parametrize(
  'view',
  [
    lambda x: domains.rotated(x, 25),
    lambda x: domains.shifted(x, 1, -2),
    lambda x: domains.blurred(x, 0.7),
    domains.inverted,
    lambda x: domains.noisy(x, 0.3, 0),
    lambda x: domains.faded(x, 0.4),
  ],
)
def test_images_stay_images(view):
  y = view(IMAGES)
  assert y.shape == IMAGES.shape
  assert y.dtype == np.float32
  assert y.min() >= 0
  assert y.max() <= 1
  assert np.abs(y - IMAGES).max() > 0.1
  np.testing.assert_array_equal(view(IMAGES[:3]), y[:3])  # One by one.


def test_by_hand():
  np.testing.assert_allclose(domains.inverted(IMAGES), 1 - IMAGES)
  np.testing.assert_allclose(domains.faded(IMAGES, 0.0), 0.5)
  turned = domains.rotated(IMAGES, 90)
  np.testing.assert_allclose(turned, np.rot90(IMAGES, 1, (1, 2)), atol=1e-5)
  down = domains.shifted(IMAGES, 1, 0)
  np.testing.assert_array_equal(down[:, 1:], IMAGES[:, :-1])
  assert not down[:, 0].any()
  noise = domains.noisy(np.full((50, 8, 8, 1), 0.5, np.float32), 0.1, 0)
  assert noise.std() == pytest.approx(0.1, rel=0.05)
  np.testing.assert_array_equal(
    noise, domains.noisy(np.full((50, 8, 8, 1), 0.5, np.float32), 0.1, 0)
  )
