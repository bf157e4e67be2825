"""Every claim file parses, has its row in PAPERS.md, and holds."""

import json
import pathlib

import jax
import pytest

from lowbit.experiment import claims

ROOT = pathlib.Path(__file__).resolve().parent.parent
CLAIMS = claims.load_all(ROOT / 'configs/papers')


def test_the_page_has_every_claim_and_no_other():
  rows = [
    json.loads(line) for line in (ROOT / claims.STORE).read_text().splitlines()
  ]
  assert [row['key'] for row in rows] == sorted(c.key for c in CLAIMS)
  assert (ROOT / claims.PAGE).read_text() == claims.page(rows)


@pytest.mark.parametrize(
  'claim',
  [
    pytest.param(c, id=c.key, marks=() if c.fast else pytest.mark.slow)
    for c in CLAIMS
  ],
)
def test_claim_holds_and_its_ablation_does_not(claim):
  # As scripts/reproduce.py runs it: claims are programs of users, who have
  # JAX's own promotion.
  with jax.numpy_dtype_promotion('standard'), jax.numpy_rank_promotion('allow'):
    row = claims.run(claim)
  assert row['verdict'] == 'holds', row
