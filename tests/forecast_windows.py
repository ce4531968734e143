"""Windows of a series, as forecasting tasks cut them."""

import numpy as np
import torch

from models.sequences import SequenceBatch, last_steps

HORIZON = 8
WEEK = np.array([0.0, 3.0, -1.0, 2.0, 7.0, 1.0, 1.5])


def windows_of(series, look_back, stride=1):
    """Windows of a series (n, C), relative to their last value and scored there."""
    series = torch.as_tensor(series)
    starts = range(0, len(series) - look_back - HORIZON + 1, stride)
    inputs = torch.stack([series[i : i + look_back] - series[i + look_back - 1] for i in starts])
    futures = torch.stack([series[i + look_back :][:HORIZON] - series[i + look_back - 1] for i in starts])
    targets = torch.zeros(len(inputs), look_back, futures[0].numel(), dtype=series.dtype)
    targets[:, -1] = futures.flatten(1)
    lengths = torch.full((len(inputs),), look_back)
    return SequenceBatch(inputs, targets, lengths, last_steps(lengths, look_back))
