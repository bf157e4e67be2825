"""EdgeQAT: two losses that keep queries and keys rich and attention maps alike.

A decoder of two layers, width 48, on 32 bytes of the embedded texts, 600 steps
in float; then 200 steps with weights and inputs of 4 bits, learned steps, from
labels and the float model's logits (0.5 each, T = 2), with the entropy of
queries and keys (0.5) and the likeness of attention scores (1.0). Measured on
held-out text: the entropy log(1 + variance) of queries and keys above that of
the same training without the two losses; how far the maps are from the float
model's, 1 - cosine, over that of it, under likeness alone, entropy alone and
both; and the next byte's loss. The ablation leaves both losses out. In so small
a model neither loss lowers that of the next byte, and both together cost a
little: the condition is on what they are for. Queries and keys are
quantized through the layers that make them, the maps are not; BLiMP, half the
tokens at fewer bits, and speed are not part of this claim.
"""

import functools

import jax
import jax.numpy as jnp
import optax

import lowbit as lb
from lowbit import recipes
from lowbit.data import text
from lowbit.experiment import claims, fit
from lowbit.models import attention_guides, decoder, distillation
from lowbit.models import loss as losses

MODEL = decoder.Decoder(
  decoder.DecoderConfig(
    width=48, layers=2, heads=2, kv_heads=2, head_dim=24, hidden=96
  )
)
RECIPE = recipes.edgeqat(4, 4)
ENTROPY, LIKENESS = 0.5, 1.0  # The paper's weights.
PLAIN, BOTH = (0.0, 0.0), (ENTROPY, LIKENESS)
TX = optax.adam(2e-3)


@functools.cache
def data():
  """Windows of the training and of the test, int32 [windows, 32]."""
  texts = text.load()
  sample = lambda name, n: jnp.asarray(text.sample(texts, name, n, 32))
  return sample('train', 4096), sample('test', 256)


def nats(logits, tokens):
  return jnp.mean(losses.next_token_nats(logits, tokens))


def float_loss(params, batch, step, key):
  del step, key
  return nats(MODEL.apply({'params': params}, batch[0]), batch[0])


@functools.cache
def teacher():
  params = MODEL.init(jax.random.key(0), data()[0][:1])['params']
  tx = optax.adam(optax.cosine_decay_schedule(1e-2, 600))
  run = fit.fit(float_loss, params, data()[:1], tx, 600, 32)
  return run.variables


def student(variables, tokens):
  """Logits, and what attention sowed."""
  return lb.apply(
    MODEL,
    variables['params'],
    tokens,
    recipe=RECIPE,
    quantizers=variables['quantizers'],
    mutable=['intermediates'],
  )


def both_runs(variables, tokens):
  """Logits, and a reader of what was sown, of the student and the teacher."""
  exact = {'params': teacher()}
  runs = (
    student(variables, tokens),
    MODEL.apply(exact, tokens, mutable=['intermediates']),
  )
  return [
    (logits, functools.partial(attention_guides.sown, state))
    for logits, state in runs
  ]


@functools.cache
def loss_of(weights):
  entropy, likeness = weights

  def loss(variables, batch, step, key):
    del step, key
    (mine, sown), (other, exact) = both_runs(variables, batch[0])
    soft = distillation.soft_labels(mine, other, 2.0)
    guide = attention_guides.entropy_loss(sown('queries'), sown('keys'))
    apart = attention_guides.distribution_loss(sown('scores'), exact('scores'))
    task = 0.5 * nats(mine, batch[0]) + 0.5 * soft
    return task + entropy * guide + likeness * apart

  return loss


@jax.jit
def score(variables, tokens):
  (mine, sown), (_, exact) = both_runs(variables, tokens)
  vectors = (*sown('queries'), *sown('keys'))
  alike = list(map(attention_guides.likeness, sown('scores'), exact('scores')))
  return {
    'nats': nats(mine, tokens),
    'entropy': sum(map(attention_guides.entropy, vectors)) / len(vectors),
    'apart': 1 - sum(alike) / len(alike),
  }


@functools.cache
def train(seed, weights):
  """Numbers of a run on held-out text."""
  tokens, test = data()
  start = lb.init_quantizers(MODEL, teacher(), RECIPE, tokens[:64])
  variables = {'params': teacher(), 'quantizers': start}
  run = fit.fit(loss_of(weights), variables, (tokens,), TX, 200, 32, seed)
  return {k: float(v) for k, v in score(run.variables, test).items()}


def measure(seed, ablated):
  plain = train(seed, PLAIN)
  guided = lambda weights: train(seed, PLAIN if ablated else weights)
  both, alike = guided(BOTH), guided((0.0, LIKENESS))
  rich = guided((ENTROPY, 0.0))
  return {
    'entropy': both['entropy'] - plain['entropy'],
    'alike': alike['apart'] / plain['apart'],
    'rich': rich['apart'] / plain['apart'],
    'both': both['apart'] / plain['apart'],
    'nats_alike': alike['nats'] - plain['nats'],
    'nats_both': both['nats'] - plain['nats'],
    'plain': plain['nats'],
  }


def get_claim():
  return claims.Claim(
    key='edgeqat',
    title='EdgeQAT: Entropy and Distribution Guided QAT',
    reference='arXiv:2402.10787',
    recipe='recipes.edgeqat',
    says='guided by entropy and likeness, low-bit queries and keys carry more '
    'and attention maps stay close to the float ones',
    published='LLaMA-58M at W4A8 close to fp16 on BLiMP; 2.37 x faster',
    ablation='both losses are left out',
    measure=measure,
    holds=lambda n: (
      n['entropy'] > 0.5
      and n['alike'] < 0.6
      and n['both'] < 0.5 * n['rich']
      and n['nats_both'] < 0.05
    ),
    show='entropy {entropy:+.2f}; maps apart {alike:.2f} x by likeness, '
    '{rich:.2f} x by entropy, {both:.2f} x by both; {nats_alike:+.3f} and '
    '{nats_both:+.3f} nats by likeness and both ({plain:.3f})',
    fast=False,
  )
