"""Which trial comes next: the one expected to take longest, so that no core is left alone with a long one at the end; of those
that measure cost, the next of its round.

Longest processing time first (Graham 1969, doi:10.1137/0117039) ends at most a third later than the best order could.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain

from benchmarks.records import Result
from benchmarks.trial import Trial


class Expected:
    """Seconds that trials take, by the ended ones that differ in the seed alone."""

    def __init__(self, ended: Iterable[tuple[Trial, Result]] = ()) -> None:
        self._known: dict[str, tuple[float, int]] = {}
        for trial, result in ended:
            self.learn(trial, result)

    def learn(self, trial: Trial, result: Result) -> None:
        """What a trial took; one without a clock, such as a failed one, says nothing."""
        if result.seconds:
            total, n = self._known.get(trial.cell, (0.0, 0))
            self._known[trial.cell] = total + sum(result.seconds.values()), n + 1

    def seconds(self, of: str) -> float | None:
        """The mean over the trials of a `Trial.cell`; None where none has ended."""
        total, n = self._known.get(of, (0.0, 0))
        return total / n if n else None


class Queue:
    """The trials that wait. Where nothing is known of a cell, its first trial goes before all others: it may be the longest,
    and tells of the rest."""

    def __init__(self, trials: Iterable[Trial], expected: Expected) -> None:
        self._expected = expected
        self._waiting: dict[str, deque[Trial]] = {}
        self._under_way: set[str] = set()
        for trial in trials:
            self.put(trial)

    def put(self, trial: Trial) -> None:
        self._waiting.setdefault(trial.cell, deque()).append(trial)

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def __iter__(self) -> Iterator[Trial]:
        return chain.from_iterable(self._waiting.values())

    def take(self, suits: Callable[[Trial], bool] = lambda trial: True) -> Trial | None:
        """The next trial that suits, or None; equals go in the order in which they came."""
        for of in sorted(self._waiting, key=self._urgency, reverse=True):
            waiting = self._waiting[of]
            trial = next(filter(suits, waiting), None)
            if trial is not None:
                self._under_way.add(of)
                waiting.remove(trial)
                if not waiting:
                    del self._waiting[of]
                return trial
        return None

    def _urgency(self, of: str) -> float:
        seconds = self._expected.seconds(of)
        if seconds is not None:
            return seconds
        # While its first trial runs, the others of a cell wait until it has told, unless nothing else is left.
        return -1.0 if of in self._under_way else math.inf


class Rounds:
    """The trials that measure cost: the first process of every model, then the second; one that is tried again comes last. What
    changes on a machine over minutes falls on all models alike."""

    def __init__(self, trials: Iterable[Trial]) -> None:
        self._waiting = deque(sorted(trials, key=lambda trial: trial.seed))

    def put(self, trial: Trial) -> None:
        self._waiting.append(trial)

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self) -> Trial | None:
        """The next trial, or None."""
        return self._waiting.popleft() if self._waiting else None
