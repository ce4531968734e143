"""Initial weights of recurrent layers.

Orthogonal: Saxe et al. 2013 (arXiv 1312.6120). Xavier: Glorot & Bengio 2010. Identity, for relu: Le et al. 2015
(arXiv 1504.00941). Forget bias 1: Jozefowicz et al. 2015. Chrono: Tallec & Ollivier 2018 (arXiv 1804.11188), where T is the
longest dependency expected:

    u uniform in 1 … T - 1;  bias of the gate that keeps the state: log u;  of the LSTM's input gate: -log u

The identity, too, comes with Xavier input weights.
    # differs from Le et al., who draw them with a standard deviation of 0.001: because with those the adding problem, solved
    # to an error of 0.0005 within 500 steps of batch 64, stays at its floor.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

KEEPS = 1
"""Which gate keeps the state, in torch's order: the LSTM's is input, forget, cell, output; the GRU's reset, update, new."""


@torch.no_grad()
def initialise(layers: nn.RNNBase, scheme: Literal["orthogonal", "xavier", "identity"], forget_bias: float) -> None:
    """Initial weights gate by gate, since a gate, not the stacked matrix of all gates, is what acts on the state."""
    for name, parameter in layers.named_parameters():
        if parameter.is_meta:
            continue
        gates = parameter.view(-1, layers.hidden_size, *parameter.shape[1:])  # (gates, H, …)
        if "bias" in name:
            parameter.zero_()
            if isinstance(layers, nn.LSTM) and "bias_ih" in name:
                gates[KEEPS] = forget_bias
        else:
            recurrent = "weight_hh" in name
            for gate in gates:
                if recurrent and scheme == "orthogonal":
                    nn.init.orthogonal_(gate)
                elif recurrent and scheme == "identity":
                    nn.init.eye_(gate)
                else:
                    nn.init.xavier_uniform_(gate)


@torch.no_grad()
def initialise_chrono(layers: nn.RNNBase, n_steps: int) -> None:
    """Gates that hold their state for 1 … n_steps - 1 steps: a gate with bias log u lets go of 1 / (1 + u) of it at a step."""
    if isinstance(layers, nn.RNN):
        raise ValueError("chrono_steps sets the biases of gates, and a vanilla network has none; leave it null")
    for name, bias in layers.named_parameters():
        if "bias" not in name or bias.is_meta:
            continue
        gates = bias.view(-1, layers.hidden_size)  # (gates, H)
        gates[KEEPS] = torch.empty_like(gates[KEEPS]).uniform_(1, n_steps - 1).log_() if "bias_ih" in name else 0
        if isinstance(layers, nn.LSTM):
            gates[0] = -gates[KEEPS]
