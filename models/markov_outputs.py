"""What hidden Markov models answer to each kind of task, whether their parameters are estimated or trained.

Sources: Rabiner 1989, doi:10.1109/5.18626; Zucchini and MacDonald 2009, doi:10.1201/9781420010893 (forecasts). With
p_(t+1)(s) = p(s_(t+1) = s | x_1..t), the predicted distribution of `markov_inference`, and means m_s of the emissions:

    class        log p(y | x_1..t) = log p(y) + sum_(i<=t) log p(x_i | x_1..i-1, y) + constant, one model per class
    next input   E[x_(t+1) | x_1..t] = sum_s p_(t+1)(s) m_s, which of symbols and frames is their probabilities
    forecast     E[d_(t+1) + … + d_(t+k) | x_1..t], where the states emit the differences d_t = x_t − x_(t−1)

What is carried from chunk to chunk begins with the predicted distribution over the states of the next step, (B, G, S), left to
right its logarithm.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.contract import State
from models.markov_emissions import MarkovModels
from models.markov_inference import Filtered, filter_left_to_right, filter_states, forecast_means
from models.sequences import Classes, InputSpec, Real, RealInput, TargetSpec, TokenInput, valid_steps


def refuses(inputs: InputSpec, target: TargetSpec, causal: bool) -> str | None:
    """An HMM gives classes, tags, the next symbol or frame, and the mean of its inputs' future."""
    if isinstance(target, Real):
        if not target.future:
            return "an HMM gives classes and its inputs' future, not a value computed from the whole sequence"
        if isinstance(inputs, TokenInput) or target.n % inputs.channels or inputs.masks:
            return "an HMM forecasts the channels it reads, and these are not the targets"
        return None
    if isinstance(target, Classes):
        if target.future and (isinstance(inputs, RealInput) or inputs.vocabulary != target.n):
            return "an HMM predicts the next of the symbols it reads, and these are not the classes"
        return None
    if target.future:
        if isinstance(inputs, TokenInput) or inputs.channels != target.n:
            return "an HMM predicts the next of the frames it reads, and these are not the answers"
        return None
    return f"this HMM gives one class at a step or its inputs' future, not {type(target).__name__.lower()} targets"


def observed_steps(inputs: Tensor, lengths: Tensor | None) -> Tensor:
    """(B, T) bool on the inputs' device."""
    if lengths is None:
        return torch.ones(inputs.shape[:2], dtype=torch.bool, device=inputs.device)
    return valid_steps(lengths, inputs.shape[1]).to(inputs.device)


def filtered(
    hmm: MarkovModels, inputs: Tensor, lengths: Tensor | None, carried: Tensor | None
) -> tuple[Filtered, Tensor]:
    """The filter over a chunk, and the (B, T) observed steps. carried: (B, G, S), from the chunk before, or None."""
    observed = observed_steps(inputs, lengths)
    return filtered_steps(hmm, hmm.log_likelihoods(inputs, observed), observed, carried), observed


def filtered_steps(hmm: MarkovModels, log_likelihoods: Tensor, observed: Tensor, carried: Tensor | None) -> Filtered:
    """The filter over (B, T, G, S) log likelihoods."""
    chain = hmm.chain()
    carried = hmm.beginning(len(observed), chain) if carried is None else carried
    run = filter_left_to_right if hmm.topology == "left_to_right" else filter_states
    return run(log_likelihoods, observed, carried, chain.transition)


def class_posteriors(
    hmm: MarkovModels, log_prior: Tensor, inputs: Tensor, state: State | None, lengths: Tensor | None
) -> tuple[Tensor, State]:
    """Log posterior (B, T, G) of the classes, of log prior (G,). State: predicted (B, G, S), log posterior (B, G)."""
    predicted, before = state or (None, log_prior.expand(len(inputs), -1))
    result, observed = filtered(hmm, inputs, lengths, predicted)
    log_posteriors = (before[:, None] + result.log_evidence.cumsum(1)).log_softmax(-1)  # (B, T, G)
    after = torch.where(observed.any(1)[:, None], log_posteriors[:, -1], before)
    return log_posteriors, (result.carried, after)


def next_inputs(hmm: MarkovModels, inputs: Tensor, state: State | None, lengths: Tensor | None) -> tuple[Tensor, State]:
    """Log probabilities (B, T, V) of the next symbol, or logits (B, T, C) of the next frame. State: predicted (B, 1, S)."""
    seen = as_frames(inputs) if hmm.is_real else inputs
    result, _ = filtered(hmm, seen, lengths, state[0] if state else None)
    means = result.predicted[:, :, 0] @ hmm.means()[0]  # (B, T, S) → (B, T, V) or (B, T, C)
    return means.logit() if hmm.is_real else means.log(), (result.carried,)


def as_frames(inputs: Tensor) -> Tensor:
    """1 where an input is above 0.5, else 0."""
    return (inputs > 0.5).to(inputs.dtype)


def forecasts(
    hmm: MarkovModels, horizon: int, inputs: Tensor, state: State | None, lengths: Tensor | None
) -> tuple[Tensor, State]:
    """E[x_(t+k) − x_t | x_1..t] for k = 1 … horizon, (B, T, horizon · C), step-major over channels, in the inputs' units.

    State: predicted (B, 1, S), last input (B, C), and (B, 1) 1.0 where there was one, else 0.0.
    """
    predicted, last, started = state or before_forecasts(hmm, len(inputs))
    valid = observed_steps(inputs, lengths)
    values = inputs.to(last.dtype)
    differences = values - torch.cat([last[:, None], values[:, :-1]], 1)  # (B, T, C)
    observed = valid & torch.cat([started > 0, valid[:, :-1]], 1)  # (B, T): where there is a step before
    likelihoods = hmm.log_likelihoods(differences, observed)
    result = filtered_steps(hmm, likelihoods, observed, predicted)
    sums = forecast_means(hmm.means()[0], hmm.chain().transition[0], horizon)  # (S, horizon, C)
    outputs = result.predicted[:, :, 0] @ sums.flatten(1)  # (B, T, S) → (B, T, horizon · C)
    n_valid = valid.sum(1)
    final = values[torch.arange(len(inputs), device=inputs.device), (n_valid - 1).clamp_min(0)]  # (B, C)
    any_valid = (n_valid > 0)[:, None]
    after = (result.carried, torch.where(any_valid, final, last), started.masked_fill(any_valid, 1.0))
    return outputs, after


def before_forecasts(hmm: MarkovModels, batch_size: int) -> State:
    """The state of `forecasts` before the first step."""
    last = hmm.shift.new_zeros(batch_size, len(hmm.shift))
    return hmm.beginning(batch_size), last, last.new_zeros(batch_size, 1)
