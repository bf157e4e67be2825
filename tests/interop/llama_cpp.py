"""What llama.cpp says of a GGUF file, through the package xllamacpp."""

import jax
import jax.numpy as jnp
import numpy as np

import lowbit as lb


def ratio(path, model, params, tokens) -> float:
  """Its perplexity of windows over ours, see `log_probabilities`."""
  theirs = log_probabilities(path, tokens)
  log_p = jax.nn.log_softmax(lb.apply(model, params, jnp.asarray(tokens)))
  ours = jnp.take_along_axis(log_p[:, :-1], tokens[:, 1:, None], axis=-1)
  return np.exp(np.mean(np.asarray(ours, np.float64)) - theirs.mean())


def log_probabilities(path, tokens) -> np.ndarray:
  """Of each token of windows after the first, given those before it.

  Its server tells the log-probability of what it samples, before the sampler
  changed anything: here a bias makes it sample the text.

  Args:
    path: GGUF file with a tokenizer.
    tokens: int [windows, length]; whole characters, since the server says
      nothing of a token that ends in the middle of one.

  Returns:
    float64 [windows, length - 1], in nats.
  """
  import xllamacpp

  params = xllamacpp.CommonParams()
  params.model.path = str(path)
  params.n_ctx = 512 * -(-tokens.shape[1] // 512)
  params.n_parallel = 1
  params.warmup = False
  params.cpuparams.n_threads = 1
  params.verbosity = 0
  server = xllamacpp.Server(params)
  return np.asarray(
    [
      [_one(server, row[:i], row[i]) for i in range(1, len(row))]
      for row in tokens.tolist()
    ]
  )


def _one(server, before: list[int], token: int) -> float:
  answer = server.handle_completions(
    {
      'prompt': before,
      'max_tokens': 1,
      'logprobs': 1,
      'temperature': 0,
      'logit_bias': [[token, 1e4]],
      'cache_prompt': True,
    }
  )
  (found,) = answer['choices'][0]['logprobs']['content']
  assert found['id'] == token
  return found['logprob']
