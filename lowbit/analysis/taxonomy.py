"""The field's map as data: each option of the surveys, and what implements it.

After Gholami et al., A Survey of Quantization Methods for Efficient Neural
Network Inference, 2021 (arXiv:2103.13630), and A Survey of Low-bit Large
Language Models, 2024 (arXiv:2409.16694).
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Entry:
  """One option on one axis of the surveys.

  Attributes:
    axis: What is chosen: 'format', 'granularity', 'range', ...
    option: The choice, in the surveys' words.
    spec: A spec that makes the choice, if a spec does.
    path: A public name that implements it, such as 'lowbit.solvers.gptq'.
  """

  axis: str
  option: str
  spec: str | None = None
  path: str | None = None


def _specs(axis: str, **options: str) -> tuple[Entry, ...]:
  return tuple(
    Entry(axis, name.replace('_', ' '), spec=s) for name, s in options.items()
  )


def _paths(axis: str, **options: str) -> tuple[Entry, ...]:
  return tuple(
    Entry(axis, name.replace('_', ' '), path=f'lowbit.{p}')
    for name, p in options.items()
  )


TAXONOMY = (
  *_specs(
    'format',
    integer='int8@channel',
    affine_integer='int4z@g64',
    ternary='ternary@channel',
    binary='int1@channel',
    fixed_point='fixed8_4',
    minifloat='e4m3@channel',
    microscaling='mxfp4',
    two_level_float='nvfp4',
    block_floating_point='bfp6',
    posit='posit8_1@tensor',
    normal_float='nf4@g64',
    dynamic_tree='dynamic8@b256',
    flint='flint4@g64',
    power_of_two='shift4@channel',
    logarithmic='log4@b16',
    companded='power4_65@channel',
    shift_uniform_log2='sulq4_50@tensor',
    integer_with_denormals='dint4@g128',
    float_without_an_implicit_one='dmf2_3@g64',
    chosen_special_value='bitmod4@g128',
    two_scales='afpq_nf4@g128',
  ),
  *_specs(
    'granularity',
    layer='int8@tensor',
    channel='int8@channel',
    token='int8@token',
    group='int4@g128',
    tile='int8@t128x128',
    two_level='nf4@g64:(int8@g256)',
  ),
  *_specs(
    'range',
    absolute_maximum='int8@tensor:absmax',
    percentile='int8@tensor:p99.9',
    least_squares='int4@channel:mse',
    power_of_two='e2m1@b32:e8m0-floor',
    density='nf4z@g128:density',
    entropy='int8@tensor:entropy',
  ),
  *_specs(
    'symmetry',
    symmetric='int4@g64',
    full_range='int4f@g64',
    affine='int4z@g64',
    affine_with_a_real_zero='nf4z@g64',
  ),
  *_specs(
    'rounding',
    nearest_even='int4@g64',
    stochastic='int4@g64~stochastic',
    floor='int4@g64~floor',
    away_from_zero='int4@g64~away',
  ),
  *_paths(
    'post-training method',
    round_to_nearest='recipes.nearest',
    second_order_columns='recipes.gptq',
    activation_aware_scaling='recipes.awq',
    smoothing='recipes.smoothquant',
    rotation='recipes.quarot',
    joint_smoothing='solvers.search_joint_scale',
    equalization='transforms.equalize',
    low_rank_compensation='solvers.low_rank',
    searched_floats='solvers.search_floats',
    learned_power='solvers.learn_power',
    bias_correction='transforms.bias_correction',
    zeroth_order_tuning='solvers.refine',
  ),
  *_paths(
    'training',
    straight_through='quantize.straight_through',
    clipped_straight_through='quantize.clipped',
    learned_clip_and_split='quantize.learned_float.learned_float',
  ),
  *_paths(
    'arithmetic',
    simulated='quantize.fake_quantize',
    integer_with_zero_points='quantize.integer_dot.integer_matmul',
    binary_by_xnor='quantize.integer_dot.xnor_dot',
    dyadic_integer_only='quantize.dyadic.requantize',
    packed_storage='quantize.pack',
    entropy_coded_storage='quantize.entropy.compress',
  ),
  *_paths(
    'several widths',
    mixed_precision='allocation.choose',
    nested_codes='codebooks.nest',
    double_rounding='quantize.nested.narrow',
  ),
)
