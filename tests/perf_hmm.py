"""How much faster a batch is scored than hmmlearn scores its sequences one by one: ``python tests/perf_hmm.py``.

370 sequences of 7 to 29 steps and 12 channels, the shape of the test split of japanese_vowels, under one HMM of 5 states with
diagonal Gaussians; one thread. Both are timed alternately, and the fastest of several runs counts. Exits 1 where batch
scoring is less than 10 times as fast or differs by more than 1e-8 nats.
"""

import sys
import time

import numpy as np
import torch
from hmmlearn.hmm import GaussianHMM

from models.markov_emissions import Gaussians, HiddenMarkovModels, Parameters
from models.markov_inference import filter_states
from models.sequences import RealInput, valid_steps

N, LONGEST, C, S = 370, 29, 12, 5
RUNS = 7
LEAST_RATIO, TOLERANCE = 10, 1e-8


def main() -> int:
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    lengths = rng.integers(7, LONGEST + 1, N)
    values = rng.normal(size=(N, LONGEST, C))
    model = GaussianHMM(S, "diag")
    model.n_features, model.means_, model.covars_ = C, rng.normal(size=(S, C)), rng.uniform(0.5, 2, size=(S, C))
    model.startprob_, model.transmat_ = rng.dirichlet(np.ones(S)), rng.dirichlet(np.ones(S), S)
    hmm = HiddenMarkovModels(1, S, RealInput(C), Gaussians(1, S, C, "diag", 1))
    hmm.put(0, Parameters(*map(torch.from_numpy, (model.startprob_, model.transmat_, model.means_, model.covars_))))
    inputs, observed = torch.from_numpy(values), valid_steps(torch.from_numpy(lengths), LONGEST)
    sequences = [own[:n] for own, n in zip(values, lengths, strict=True)]

    def one_by_one() -> np.ndarray:
        return np.array([model.score(sequence) for sequence in sequences])

    def at_once() -> np.ndarray:
        chain = hmm.chain()
        result = filter_states(hmm.log_likelihoods(inputs, observed), observed, chain.beginning(N), chain.transition)
        return result.log_evidence.sum((1, 2)).numpy()

    difference = float(np.abs(one_by_one() - at_once()).max())
    slow, fast = (
        min(times) for times in zip(*((seconds(one_by_one), seconds(at_once)) for _ in range(RUNS)), strict=True)
    )
    print(
        f"hmmlearn one by one {1e3 * slow:.1f} ms, at once {1e3 * fast:.2f} ms: {slow / fast:.0f} times as fast, "
        f"largest difference {difference:.1e} nats"
    )
    return int(slow / fast < LEAST_RATIO or difference > TOLERANCE)


def seconds(score) -> float:
    started = time.perf_counter()
    score()
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
