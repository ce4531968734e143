"""Inference in hidden Markov models as pure functions: filter, smoother, best paths and forecasts.

Sources: Rabiner 1989, doi:10.1109/5.18626 (scaled forward pass, best path); Viterbi 1967, doi:10.1109/TIT.1967.1054010;
Rauch, Tung and Striebel 1965, doi:10.2514/3.3166 (the backward pass that needs no second look at the inputs, here in its
discrete form).

G models of S states run side by side over a batch. With b_t(s) = p(x_t | s), A the transitions and
p_t(s) = p(s_t = s | x_1..t-1) the predicted distribution, p_1 being the start:

    evidence   e_t = p(x_t | x_1..t-1) = sum_s p_t(s) b_t(s)
    filtered   f_t(s) = p_t(s) b_t(s) / e_t
    predicted  p_(t+1) = f_t A
    smoothed   g_t(i) = f_t(i) sum_j A_ij g_(t+1)(j) / p_(t+1)(j)           g_T = f_T

Each b_t is divided by its largest entry, so nothing underflows however long the sequence is, and no logarithm is taken
per step. This needs p_t to be positive at the likeliest state, which whoever makes the parameters sees to; left-to-right
chains have a filter of their own. Everything can be differentiated. Loops run over time alone, on tensors with time first, so
that a step is one contiguous (G, B, S) block.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Chain(NamedTuple):
    """G chains of S states. start: (G, S). transition: (G, S, S), from row to column. Rows sum to one."""

    start: Tensor
    transition: Tensor

    def beginning(self, batch_size: int) -> Tensor:
        """(B, G, S): the distribution of the first state."""
        return self.start.expand(batch_size, -1, -1)


class Filtered(NamedTuple):
    """What `filter_states` returns. At a step that is not observed nothing is learned and no time passes.

    filtered: (B, T, G, S) p(s_t | x_1..t). predicted: (B, T, G, S) p(s_(t+1) | x_1..t), whose last row is what the
    next chunk needs; carried: (B, G, S), the same as that chunk takes it. log_evidence: (B, T, G) log p(x_t | x_1..t-1), zero
    where not observed.
    """

    filtered: Tensor
    predicted: Tensor
    log_evidence: Tensor
    carried: Tensor


def filter_states(log_likelihoods: Tensor, observed: Tensor, predicted: Tensor, transition: Tensor) -> Filtered:
    """The forward pass from ``predicted``, (B, G, S) p(s_1) before the chunk.

    log_likelihoods: (B, T, G, S), finite. observed: (B, T) bool. transition: (G, S, S), rows sum to one.
    """
    peak = log_likelihoods.detach().amax(-1, keepdim=True)  # (B, T, G, 1), taken out and put back: no gradient needed
    likelihoods = _time_first((log_likelihoods - peak).exp())  # (B, T, G, S) → (T, G, B, S)
    predicted = predicted.transpose(0, 1)  # (B, G, S) → (G, B, S)
    filtered, predictions, evidence = [], [], []
    for likelihood, is_observed in zip(likelihoods.unbind(), observed.T[:, None, :, None].unbind(), strict=True):
        joint = predicted * likelihood  # (G, B, S)
        total = joint.sum(-1, keepdim=True)  # (G, B, 1)
        filtered.append(joint / total)
        predicted = torch.where(is_observed, filtered[-1] @ transition, predicted)
        predictions.append(predicted)
        evidence.append(total)
    log_evidence = (_batch_first(evidence).log() + peak).squeeze(-1)  # (B, T, G)
    log_evidence = torch.where(observed[..., None], log_evidence, 0.0)
    return Filtered(_batch_first(filtered), _batch_first(predictions), log_evidence, predicted.transpose(0, 1))


def filter_left_to_right(
    log_likelihoods: Tensor, observed: Tensor, log_predicted: Tensor, transition: Tensor
) -> Filtered:
    """`filter_states` of a chain whose states go to themselves and the next alone, from ``log_predicted``, (B, G, S), on.

    In logarithms: a state that has been left cannot be reached again, so one that looks impossible for some steps must not be
    lost. With two arcs into each state this takes no product of matrices.
    """
    stay = transition.diagonal(dim1=1, dim2=2).log()[:, None]  # (G, 1, S)
    go = transition.diagonal(1, dim1=1, dim2=2).log()[:, None]  # (G, 1, S-1)
    log_predicted = log_predicted.transpose(0, 1)  # (B, G, S) → (G, B, S)
    filtered, predictions, evidence = [], [], []
    steps = _time_first(log_likelihoods).unbind()  # T × (G, B, S)
    for step, is_observed in zip(steps, observed.T[:, None, :, None].unbind(), strict=True):
        joint = log_predicted + step
        total = joint.logsumexp(-1, keepdim=True)  # (G, B, 1)
        filtered.append(joint - total)
        stayed = filtered[-1] + stay
        arrived = torch.logaddexp(stayed[..., 1:], filtered[-1][..., :-1] + go)
        moved = torch.cat([stayed[..., :1], arrived], -1)  # (G, B, S)
        log_predicted = torch.where(is_observed, moved, log_predicted)
        predictions.append(log_predicted)
        evidence.append(total)
    log_evidence = torch.where(observed[..., None], _batch_first(evidence).squeeze(-1), 0.0)  # (B, T, G)
    posteriors, predicted = _batch_first(filtered).exp(), _batch_first(predictions).exp()
    return Filtered(posteriors, predicted, log_evidence, log_predicted.transpose(0, 1))


def smooth_states(result: Filtered, lengths: Tensor, transition: Tensor) -> Tensor:
    """The backward pass over whole sequences of ``lengths`` (B,) → (B, T, G, S) p(s_t | x_1..T)."""
    tiny = torch.finfo(transition.dtype).tiny
    filtered = _time_first(result.filtered).unbind()  # T × (G, B, S)
    # An unreachable state has probability 0 after and before the step; the clamp makes of 0 / 0 a 0.
    predicted = _time_first(result.predicted.clamp_min(tiny)).unbind()
    inside = _has_next(lengths, len(filtered)).to(transition.device)  # (T, 1, B, 1)
    backward = transition.transpose(1, 2)
    smoothed = [filtered[-1]]
    for t in range(len(filtered) - 2, -1, -1):
        earlier = filtered[t] * ((smoothed[-1] / predicted[t]) @ backward)
        smoothed.append(torch.where(inside[t], earlier, filtered[t]))  # from its end on, a sequence is filtered only
    return _batch_first(smoothed[::-1])


def best_path_scores(log_likelihoods: Tensor, lengths: Tensor, chain: Chain) -> Tensor:
    """(B, T, G, S) log likelihoods of whole sequences of ``lengths`` (B,) → (B, T, G, S) max-marginals, in nats.

    At (t, s) stands the largest log p(s_1..T, x_1..T) over the paths with s_t = s. Its maximum over s is the same at every
    step, the score of the Viterbi path, whose state at t is where it is reached. Max-product in place of sum-product:

        a_t(j) = max_i (a_(t-1)(i) + log A_ij) + log b_t(j)     c_t(i) = max_j (log A_ij + log b_(t+1)(j) + c_(t+1)(j))

    and the max-marginal is a_t + c_t.
    """
    steps = _time_first(log_likelihoods).unbind()  # T × (G, B, S)
    inside = _has_next(lengths, len(steps)).to(log_likelihoods.device)  # (T, 1, B, 1)
    arcs = chain.transition.log()[:, None]  # (G, 1, S, S)
    forward = [chain.start.log()[:, None] + steps[0]]
    for step in steps[1:]:
        forward.append((forward[-1][..., None] + arcs).amax(-2) + step)  # (G, B, S, S) → (G, B, S)
    backward = [torch.zeros_like(steps[0])]
    for t in range(len(steps) - 2, -1, -1):
        ahead = (arcs + (steps[t + 1] + backward[-1])[..., None, :]).amax(-1)  # (G, B, S, S) → (G, B, S)
        backward.append(torch.where(inside[t], ahead, 0.0))
    return _batch_first(forward) + _batch_first(backward[::-1])


def forecast_means(means: Tensor, transition: Tensor, n_steps: int) -> Tensor:
    """(S, C) means of the emissions, (S, S) transitions → (S, n_steps, C): means of the sums of 1 … n_steps emissions.

    Row s holds sum_(i<k) E[x_i | s_0 = s] for k = 1 … n_steps, s_0 being the state of the first of them.
    """
    expected = [means]
    for _ in range(n_steps - 1):
        expected.append(transition @ expected[-1])
    return torch.stack(expected, 1).cumsum(1)  # (S, n_steps, C)


def _time_first(steps: Tensor) -> Tensor:
    """(B, T, G, S) → (T, G, B, S), laid out so."""
    return steps.permute(1, 2, 0, 3).contiguous()


def _batch_first(steps: list[Tensor]) -> Tensor:
    """T × (G, B, S) → (B, T, G, S)."""
    return torch.stack(steps).permute(2, 0, 1, 3)


def _has_next(lengths: Tensor, longest: int) -> Tensor:
    """(B,) lengths → (T, 1, B, 1) bool: whether another step of the sequence follows."""
    return (torch.arange(1, longest + 1, device=lengths.device)[:, None] < lengths)[:, None, :, None]
