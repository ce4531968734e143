"""Biology: where DNA is spliced, and how a protein folds, letter by letter."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch

from benchmarks import datasets
from benchmarks.seeding import numpy_generator
from benchmarks.tasks.biology_files import SPLICE_CLASSES, SpliceExample, fasta, splice_examples
from benchmarks.tasks.sensor_files import zipped_texts
from benchmarks.tasks.task import Reference, Splits, Task, require_integers
from models.sequences import Classes, SequenceBatch, TokenInput, last_steps

N_SPLICE = 60
BASES = "ACGT"
RELATED = 48
"""Equal bases of 60, four in five, from which two windows are taken for relatives."""


class Windows(NamedTuple):
    """tokens: (B, 60) int64, 0 … 3 and 4 for a base that was not read clearly. labels: (B,) int64. families: (B,) int64."""

    tokens: np.ndarray
    labels: np.ndarray
    families: np.ndarray

    def where(self, chosen: np.ndarray) -> Windows:
        return Windows(*(field[chosen] for field in self))


def distinct(examples: list[SpliceExample]) -> list[SpliceExample]:
    """Each sequence of bases once, and none that is listed under two classes."""
    kinds: dict[str, set[str]] = {}
    for example in examples:
        kinds.setdefault(example.bases, set()).add(example.kind)
    first = {example.bases: example for example in reversed(examples) if len(kinds[example.bases]) == 1}
    return [example for example in examples if first.get(example.bases) is example]


def families(tokens: np.ndarray, entries: list[str]) -> np.ndarray:
    """(B,) int64: windows of one entry, or that agree at RELATED places or more, are of one family, and so are theirs."""
    from scipy.sparse import csr_array  # 0.3 s that other tasks need not wait for
    from scipy.sparse.csgraph import connected_components

    known = (tokens[:, :, None] == np.arange(len(BASES))).reshape(len(tokens), -1).astype(np.float32)
    entry = np.unique(entries, return_inverse=True)[1]
    related = (known @ known.T >= RELATED) | (entry[:, None] == entry)
    return connected_components(csr_array(related), directed=False)[1].astype(np.int64)


@lru_cache(maxsize=1)
def splice_windows() -> Windows:
    """The 3,004 distinct windows."""
    path = datasets.path("splice_uci", "splice.arff")
    examples = distinct(splice_examples(path.read_text(), path.name))
    tokens = np.array([[BASES.find(base) % (len(BASES) + 1) for base in example.bases] for example in examples])
    labels = np.array([SPLICE_CLASSES.index(example.kind) for example in examples])
    return Windows(tokens, labels, families(tokens, [example.entry for example in examples]))


def drawn_families(windows: Windows, share: float, generator: np.random.Generator) -> np.ndarray:
    """(B,) bool, true for all windows of a random ``share`` of the families, rounded."""
    names = np.unique(windows.families)
    return np.isin(windows.families, generator.permutation(names)[: round(share * len(names))])


@dataclass(frozen=True)
class Splice(Task):
    """Whether a gene is cut in the middle of 60 bases of DNA, and on which side the part lies that is kept.

        base      0  1  2  …  29 30 31 …  59
        input     C  C  A  …   G  G  T …   G        the first window of the file
        target    ·  ·  ·  …   ·  ·  · …  EI        kept before, removed after; the last step alone is scored

    EI: from exon to intron, which nearly always begins with GT. IE: from intron, which ends with AG, to exon. N: neither.
    3,190 windows of primates; 186 that repeat another, or contradict it, are dropped. Windows of one entry of the data bank,
    or that agree at 48 places or more, are relatives, and stay in one split: a fifth of the 1,424 families is test, a
    fifth of the others, drawn by the seed, validation. (Without that, test would hold near copies of what was learned.)

    Floor: neither, about 0.55. Ceiling: unknown. Reference: the frequency of each base at each place by class, the places
    taken as independent (naive Bayes, the classical weight matrix: Staden 1984, doi:10.1093/nar/12.1Part2.505), counted on
    all windows that are not test; computed on the test windows.
    """

    name: ClassVar[str] = "splice"
    group: ClassVar[str] = "biology"
    summary: ClassVar[str] = "whether a gene is spliced in the middle of 60 bases, and in which direction"
    licence: ClassVar[str] = "CC BY 4.0"
    source: ClassVar[str] = "Towell, Noordewier and Shavlik 1991, doi:10.24432/C5M888; UCI 69"
    datasets: ClassVar[tuple[str, ...]] = ("splice_uci",)
    picture: ClassVar[Literal["confusion"]] = "confusion"
    symbols: ClassVar[tuple[str, ...]] = SPLICE_CLASSES
    input_symbols: ClassVar[tuple[str, ...]] = (*BASES, "?")
    causal: ClassVar[bool] = False

    @property
    def input(self) -> TokenInput:
        return TokenInput(len(BASES) + 1, max_length=N_SPLICE)

    @property
    def target(self) -> Classes:
        return Classes(len(SPLICE_CLASSES), scope="sequence")

    def parts(self) -> tuple[Windows, Windows]:
        """Development and test."""
        windows = splice_windows()
        test = drawn_families(windows, 0.2, numpy_generator("test", self.name))
        return windows.where(~test), windows.where(test)

    def splits(self, seed: int) -> Splits:
        development, test = self.parts()
        validation = drawn_families(development, 0.2, numpy_generator("data", self.name, seed))
        chosen = (development.where(~validation), development.where(validation), test)
        return Splits(*(_window_batch(part) for part in chosen))

    @property
    def reference(self) -> Reference:
        development, test = self.parts()
        logs = np.zeros((len(SPLICE_CLASSES), N_SPLICE, len(BASES) + 1))
        for label in range(len(SPLICE_CLASSES)):
            own = development.tokens[development.labels == label]
            counts = (own[:, :, None] == np.arange(len(BASES) + 1)).sum(0) + 0.5  # (60, 5)
            logs[label] = np.log(counts / counts.sum(1, keepdims=True))
        prior = np.log(np.bincount(development.labels) / len(development.labels))
        scores = prior + logs[:, np.arange(N_SPLICE), test.tokens].sum(-1).T  # (B, 3)
        source = "computed: naive Bayes on the base at each place; Staden 1984, doi:10.1093/nar/12.1Part2.505"
        return Reference(float((scores.argmax(1) == test.labels).mean()), source)


def _window_batch(windows: Windows) -> SequenceBatch:
    lengths = torch.full((len(windows.labels),), N_SPLICE)
    scored = last_steps(lengths, N_SPLICE)
    targets = torch.from_numpy(windows.labels)[:, None] * scored  # (B, 1) → (B, 60)
    return SequenceBatch(torch.from_numpy(windows.tokens), targets, lengths, scored)


AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"
FOLDS = "HEC"
FOLD_NAMES = ("helix", "strand", "coil")


class Chain(NamedTuple):
    """residues: (T,) int64, 0 … 19 and 20 for a rare or unknown one. folds: (T,) int64. scored: (T,) bool."""

    residues: np.ndarray
    folds: np.ndarray
    scored: np.ndarray


def read_chains(sequences: str, labels: str, masks: str) -> dict[str, list[Chain]]:
    """The three FASTA files of FLIP → chains by split: train, validation, test.

    Headers of the labels are ``NAME SET=train|test VALIDATION=True|False``. Raises ValueError where the files disagree.
    """
    letters, known = fasta(sequences, "sequences.fasta"), fasta(masks, "mask.fasta")
    chains: dict[str, list[Chain]] = {"train": [], "validation": [], "test": []}
    for header, labelled in fasta(labels, "sampled.fasta").items():
        name, *rest = header.split()
        facts = dict(fact.split("=", 1) for fact in rest if "=" in fact)
        split = "validation" if facts.get("VALIDATION") == "True" else facts.get("SET", "")
        if split not in chains or name not in letters or name not in known:
            raise ValueError(f"sampled.fasta: {header} names no split, or a chain that the other files lack")
        if not len(letters[name]) == len(labelled) == len(known[name]):
            raise ValueError(f"sampled.fasta: {name} has another length in the other files")
        folds, mask = _codes(labelled, FOLDS), _codes(known[name], "01")
        if folds.max() == len(FOLDS) or mask.max() > 1:
            raise ValueError(f"sampled.fasta: {name} has labels other than {FOLDS}, or a mask other than 0 and 1")
        chains[split].append(Chain(_codes(letters[name], AMINO_ACIDS), folds, mask == 1))
    return chains


def _codes(text: str, alphabet: str) -> np.ndarray:
    """(T,) int64: the place of each letter in the alphabet, or its size."""
    places = np.full(128, len(alphabet))
    places[np.frombuffer(alphabet.encode("ascii"), np.uint8)] = np.arange(len(alphabet))
    return places[np.frombuffer(text.encode("ascii", "replace"), np.uint8)]


@lru_cache(maxsize=1)
def chains() -> dict[str, list[Chain]]:
    archive = datasets.path("flip_secondary_structure", "splits.zip")
    texts = zipped_texts(archive, lambda name: name.endswith(".fasta"))
    return read_chains(*(texts[f"splits/{name}.fasta"] for name in ("sequences", "sampled", "mask")))


def chain_batch(chosen: list[Chain], max_length: int) -> SequenceBatch:
    """Chains longer than ``max_length`` are cut into equal parts that are not; parts without a scored residue are left
    out."""
    parts = []
    for chain in chosen:
        n_parts = -(-len(chain.residues) // max_length)
        cut = (np.array_split(field, n_parts) for field in chain)
        parts += [Chain(*fields) for fields in zip(*cut, strict=True) if fields[2].any()]
    lengths = np.array([len(part.residues) for part in parts])
    shape = (len(parts), lengths.max())
    residues, folds, scored = np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(shape, bool)
    for row, part in enumerate(parts):
        residues[row, : lengths[row]], folds[row, : lengths[row]], scored[row, : lengths[row]] = part
    return SequenceBatch(*(torch.from_numpy(array) for array in (residues, folds, lengths, scored)))


@dataclass(frozen=True)
class ProteinStructure(Task):
    """The secondary structure of a protein, residue by residue: helix, strand or coil.

        residue     0  1  2  …   9 10 11  …                 the first chain of the file
        input       V  T  K  …   G  G  Y  …
        scored      0  0  1  …   1  1  1  …                 a mask leaves out what the crystal does not show
        target      ·  ·  C  …   E  E  E  …

    9,712 chains for training and 1,080 for validation, of which the seed draws ``n_train`` and ``n_validation``; all 364
    of test, chosen by the publishers to have no relatives in training. Longer chains are cut into equal parts, so that
    every scored residue of test counts.

    Floor: always the most frequent, coil, about 0.4. Ceiling: unknown. Reference: naive Bayes on the 17 residues around each
    (GOR: Garnier, Osguthorpe and Robson 1978, doi:10.1016/0022-2836(78)90297-8), counted on 2,000 training chains; computed
    on the test residues.

    n_train, n_validation: chains drawn. max_length: residues of a part.
    """

    n_train: int = 1000
    n_validation: int = 100
    max_length: int = 256

    name: ClassVar[str] = "protein_structure"
    group: ClassVar[str] = "biology"
    summary: ClassVar[str] = "helix, strand or coil for each residue of a protein"
    licence: ClassVar[str] = "AFL 3.0 / CC BY 4.0"
    source: ClassVar[str] = "Dallago et al. 2021, doi:10.1101/2021.11.09.467890; FLIP, secondary structure, sampled"
    datasets: ClassVar[tuple[str, ...]] = ("flip_secondary_structure",)
    picture: ClassVar[Literal["symbols"]] = "symbols"
    symbols: ClassVar[tuple[str, ...]] = FOLD_NAMES
    input_symbols: ClassVar[tuple[str, ...]] = (*AMINO_ACIDS, "X")
    causal: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require_integers(self, {"n_train": 1, "n_validation": 1, "max_length": 1})

    @property
    def input(self) -> TokenInput:
        return TokenInput(len(AMINO_ACIDS) + 1, max_length=self.max_length)

    @property
    def target(self) -> Classes:
        return Classes(len(FOLDS))

    def splits(self, seed: int) -> Splits:
        generator = numpy_generator("data", self.name, seed)
        chosen = []
        for split, n in (("train", self.n_train), ("validation", self.n_validation)):
            there = chains()[split]
            chosen.append([there[i] for i in np.sort(generator.permutation(len(there))[:n])])
        return Splits(*(chain_batch(part, self.max_length) for part in (*chosen, chains()["test"])))

    @property
    def reference(self) -> Reference:
        source = "computed: naive Bayes on 17 residues, GOR; Garnier et al. 1978, doi:10.1016/0022-2836(78)90297-8"
        return Reference(_structure_reference(), source)


AROUND = 8
"""Residues to each side that GOR looks at."""
COUNTED = 2000
"""Training chains that it is counted on: half a million residues for its thousand frequencies."""


@lru_cache(maxsize=1)
def _structure_reference() -> float:
    places, letters = 2 * AROUND + 1, len(AMINO_ACIDS) + 2  # one for beyond the ends
    counts = np.full((len(FOLDS), places, letters), 0.5)
    prior = np.zeros(len(FOLDS))
    for chain in chains()["train"][:COUNTED]:
        windows, folds = _surroundings(chain), chain.folds[chain.scored]
        prior += np.bincount(folds, minlength=len(FOLDS))
        keys = (folds[:, None] * places + np.arange(places)) * letters + windows
        counts += np.bincount(keys.ravel(), minlength=counts.size).reshape(counts.shape)
    logs = np.log(counts / counts.sum(-1, keepdims=True))
    right = total = 0
    for chain in chains()["test"]:
        scores = np.log(prior) + logs[:, np.arange(places), _surroundings(chain)].sum(-1).T  # (N, 3)
        right += int((scores.argmax(1) == chain.folds[chain.scored]).sum())
        total += int(chain.scored.sum())
    return right / total


def _surroundings(chain: Chain) -> np.ndarray:
    """(N scored, 17) int64: the residues around each scored one, one number more where there is none."""
    padded = np.pad(chain.residues, AROUND, constant_values=len(AMINO_ACIDS) + 1)
    return np.lib.stride_tricks.sliding_window_view(padded, 2 * AROUND + 1)[chain.scored]
