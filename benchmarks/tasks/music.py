"""Polyphonic music: which of the 88 keys of a piano sound in the next frame.

Three of the collections of Boulanger-Lewandowski, Bengio and Vincent 2012, arXiv 1206.6392, as prepared by Bai, Kolter
and Koltun 2018, arXiv 1803.01271, in the files' own splits and by their protocol: the negative log-likelihood of a frame is
the sum over all 88 keys, those that never sound included, and the mean is over all frames of the split but each piece's
first. The splits are the same for every seed.

A training piece that is also a validation or test piece, or an earlier training piece, is left out: Nottingham has three
such tunes. Validation and test stay as published.

Pieces differ in length by a factor of a hundred, and a batch of whole pieces would be mostly padding. So training and
validation pieces are cut into excerpts, which begin without memory of what went before. Test pieces are read whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import datasets
from benchmarks.metrics import POSITIVE, SHARE, Metric, Parts, StepMetric
from benchmarks.tasks.music_files import N_KEYS, Rolls, read_rolls
from benchmarks.tasks.task import Reference, Splits, Task, require_integers
from models.sequences import Binary, RealInput, SequenceBatch, valid_steps


def _nats(outputs: Tensor, targets: Tensor) -> Tensor:
    losses = F.binary_cross_entropy_with_logits(outputs.double(), targets.double(), reduction="none")  # (N, 88)
    return losses.sum(-1)


negative_log_likelihood = StepMetric(
    "nll",
    "nats per frame",
    "lower",
    "negative log-probability of a frame, summed over the 88 keys, mean over frames",
    0.05,
    bounds=POSITIVE,
    terms=_nats,
)


@dataclass(frozen=True, kw_only=True)
class NoteAccuracy(Metric):
    """See `note_accuracy`."""

    def parts(self, outputs: Tensor, batch: SequenceBatch) -> Parts:
        played = (outputs > 0) & batch.scored[..., None]  # (B, T, 88)
        true = (batch.targets > 0.5) & batch.scored[..., None]
        hits, there = ((pair.sum((1, 2)).double().cpu()) for pair in (played & true, played | true))
        is_nan = (outputs.isnan().any(-1) & batch.scored).any(1).cpu()  # NaN is not above 0
        return Parts(hits.masked_fill(is_nan, torch.nan), there)


note_accuracy = NoteAccuracy(
    "note_accuracy",
    "fraction of notes",
    "higher",
    "notes predicted with a probability above 1/2 that sound, over those that are predicted or sound (Bay, Ehmann and "
    "Downie 2009)",
    0.01,
    bounds=SHARE,
)


@lru_cache(maxsize=4)
def rolls(file: str) -> Rolls:
    """Without the training pieces that come again; see the module docstring."""
    read = read_rolls(datasets.path("poly_music_tcn", file).read_bytes(), file)
    seen = {piece.tobytes() for piece in (*read.validation, *read.test)}
    train = []
    for piece in read.train:
        if piece.tobytes() not in seen:
            train.append(piece)
        seen.add(piece.tobytes())
    return read._replace(train=train)


def excerpts(pieces: list[np.ndarray], length: int) -> list[np.ndarray]:
    """Pieces (T, 88) → excerpts of at most ``length`` predicted frames, (2 … length + 1, 88).

    Consecutive ones share a frame, the last of one being the first of the next, so that every frame that a whole piece
    asks for is asked for once.
    """
    return [piece[start : start + length + 1] for piece in pieces for start in range(0, len(piece) - 1, length)]


def next_frame_batch(pieces: list[np.ndarray]) -> SequenceBatch:
    """Targets are the inputs one frame ahead, scored at all frames but each piece's last; both share their memory."""
    lengths = torch.tensor([len(piece) for piece in pieces])
    longest = int(lengths.max())
    frames = torch.zeros(len(pieces), longest + 1, N_KEYS)
    for row, piece in zip(frames, pieces, strict=True):
        row[: len(piece)] = torch.from_numpy(piece)
    return SequenceBatch(frames[:, :-1], frames[:, 1:], lengths, valid_steps(lengths - 1, longest))


def key_by_key(train: list[np.ndarray], test: list[np.ndarray]) -> float:
    """Nats per test frame where each key, by itself, goes on or stays off as often as it did in training.

    P(on | the key's last two frames), each with one count added at the key's base rate, and the base rates with half a
    count added to either side.
    """
    counts = np.zeros((2, 4, N_KEYS))  # whether on, by the two frames before
    for piece in train:
        _count(counts, piece)
    rate = (counts[1].sum(0) + 0.5) / (counts.sum((0, 1)) + 1)  # (88,)
    chances = (counts[1] + rate) / (counts.sum(0) + 1)  # (4, 88)
    asked = np.zeros_like(counts)
    for piece in test:
        _count(asked, piece)
    return float(-(asked[1] * np.log(chances) + asked[0] * np.log1p(-chances)).sum() / asked[:, :, 0].sum())


def _count(counts: np.ndarray, piece: np.ndarray) -> None:
    """Adds the frames of a piece but the first; before the first stands a silent one."""
    before = np.concatenate([np.zeros((1, N_KEYS), dtype=np.uint8), piece[:-2]])
    states = 4 * piece[1:].astype(np.int64) + 2 * before + piece[:-1]  # (T - 1, 88)
    cells = np.bincount((states * N_KEYS + np.arange(N_KEYS)).ravel(), minlength=counts.size)
    counts += cells.reshape(counts.shape)


class PolyphonicMusic(Task):
    """What the collections share; see the module docstring."""

    excerpt: int
    file: ClassVar[str]
    longest: ClassVar[int]
    """Frames of the longest piece of the file."""
    group: ClassVar[str] = "music"
    licence: ClassVar[str] = "MIT (the files); the scores are in the public domain"
    source: ClassVar[str] = (
        "Boulanger-Lewandowski et al. 2012, arXiv 1206.6392, as prepared by Bai et al. 2018, arXiv 1803.01271"
    )
    picture: ClassVar[Literal["piano_roll"]] = "piano_roll"
    datasets: ClassVar[tuple[str, ...]] = ("poly_music_tcn",)
    causal: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_integers(self, {"excerpt": 1})

    @property
    def input(self) -> RealInput:
        # A chord is a choice among 88 keys: 32 features, as elsewhere, would be too narrow a passage from layer to layer.
        return RealInput(channels=N_KEYS, max_length=self.longest, features=64)

    @property
    def target(self) -> Binary:
        return Binary(N_KEYS, scope="step", future=True)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (negative_log_likelihood, note_accuracy)

    def splits(self, seed: int) -> Splits:
        """The same for every seed."""
        return _splits(self.file, self.excerpt)

    @property
    def reference(self) -> Reference:
        return Reference(_key_by_key(self.file), "computed: each key by itself, after its last two frames")


@lru_cache(maxsize=1)
def _splits(file: str, excerpt: int) -> Splits:
    train, validation, test = rolls(file)
    return Splits(*map(next_frame_batch, (excerpts(train, excerpt), excerpts(validation, excerpt), test)))


@lru_cache(maxsize=4)
def _key_by_key(file: str) -> float:
    return key_by_key(rolls(file).train, rolls(file).test)


@dataclass(frozen=True)
class JSBChorales(PolyphonicMusic):
    """Which keys sound in the next frame of a chorale of J. S. Bach: four voices, 88 keys.

        frame         0    1    2    3   …
        keys down    67   67   63   65   …      counted from the lowest of the piano; the model sees 88 zeros and ones
                     58   58   55   56   …
                     51   51   49   48   …
                     39    ·   46    ·   …
        target      the keys of the next frame, scored at every frame but the last

    229 chorales for training, 76 for validation, 77 for test, 25 to 160 frames; the same for every seed. Floor: each key
    sounds as often as in training, 11.1; all 88 keys at 1/2 would be 61.0. Ceiling: unknown. Reference: the temporal
    convolutional network of Bai et al. 2018, table 1, where an LSTM has 8.45, a GRU 8.43 and a plain recurrent network
    8.91, each with many times the parameters of the suites here. Each key by itself after its last two frames: 10.4.

    excerpt: frames that are predicted in one training sequence at most; a longer piece makes several.
    """

    excerpt: int = 200

    name: ClassVar[str] = "jsb_chorales"
    summary: ClassVar[str] = "the next chord of a four-part chorale of J. S. Bach"
    file: ClassVar[str] = "JSB_Chorales.mat"
    longest: ClassVar[int] = 160

    @property
    def reference(self) -> Reference:
        return Reference(8.10, "TCN: Bai, Kolter and Koltun 2018, table 1, arXiv 1803.01271")


@dataclass(frozen=True)
class Nottingham(PolyphonicMusic):
    """Which keys sound in the next frame of a British or American folk tune: a melody over chords, 88 keys.

        target  as in jsb_chorales

    691 of 694 tunes for training, 173 for validation, 170 for test, 40 to 1,793 frames; the same for every seed. Floor:
    each key sounds as often as in training, 10.3. Ceiling: unknown. Reference: each key by itself, after its last two
    frames, computed on the same test tunes, 5.1; what it misses is the melody and when chords change.

    excerpt: frames that are predicted in one training sequence at most; a longer tune makes several.
    """

    excerpt: int = 200

    name: ClassVar[str] = "nottingham"
    summary: ClassVar[str] = "the next frame of a folk tune with chords"
    file: ClassVar[str] = "Nottingham.mat"
    longest: ClassVar[int] = 1793


@dataclass(frozen=True)
class PianoMidi(PolyphonicMusic):
    """Which keys sound in the next frame of a classical piano piece, 88 keys.

        target  as in jsb_chorales

    87 pieces for training, 12 for validation, 25 for test, 65 to 3,857 frames; the same for every seed. Floor: each key
    sounds as often as in training, 11.1. Ceiling: unknown. Reference: each key by itself, after its last two frames,
    computed on the same test pieces, 8.0.

    excerpt: frames that are predicted in one training sequence at most; a longer piece makes several.
    """

    excerpt: int = 200

    name: ClassVar[str] = "piano_midi"
    summary: ClassVar[str] = "the next frame of a classical piano piece"
    file: ClassVar[str] = "Piano_midi.mat"
    longest: ClassVar[int] = 3857
