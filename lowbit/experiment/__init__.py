"""Experiments: training, results, checkpoints, reports, claims."""
