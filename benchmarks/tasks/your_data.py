"""A file of one's own as a task: what ``rnnbench compare`` runs. How it is read and split is said in `benchmarks.your_data`."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar, Literal, get_args

from benchmarks.metrics import Metric, absolute_error, accuracy, cross_entropy, squared_error
from benchmarks.parameters import InvalidParameter
from benchmarks.sequence_metrics import average_precision, balanced_accuracy
from benchmarks.tasks.task import Splits, Task
from benchmarks.your_data.kinds import Kind, question
from benchmarks.your_data.parts import TEST, parts
from benchmarks.your_data.prepared import Prepared
from benchmarks.your_data.reading import Roles, Source, locate, read
from benchmarks.your_data.recording import BadInput, Recording
from benchmarks.your_data.sequences import prepare
from models.sequences import Classes, InputSpec, Real, TargetSpec, TokenInput

UNBALANCED = 0.7
"""The share of one class beyond which accuracy says little."""


@dataclass(frozen=True)
class YourData(Task):
    """What a file asks: classes, tags, numbers, forecasts or the next symbol, from the rest of its columns.

        machine   minute   load   rotor     wear         a table: --target wear --sequence-id machine --time minute
        A              0    .31   steel      .10
        A              5    .33   steel      .12         load as a number, rotor as 0 or 1 for each of its values,
        B              0    .90   brass      .40         the time since the row before
        target         ·      ·       ·      .40         at each scored step, standardised over all but the test split

    Metrics: accuracy; where one class makes up more than 70 %, average precision of the rarer of two, which judges how
    sequences are ranked, or balanced accuracy. Floor: the best constant of the training split. Ceiling: unknown. Reference:
    none. What depends on the seed is which sequences validate; where time is cut, or the file says so, they are given.

    file: the path of a file, or of a folder that holds *_TRAIN.ts and *_TEST.ts. sha256: of its contents, which are refused
    if they are others; "": of the contents that it has now. target_column, sequence_id, group_column, time, split, ignore,
    missing, wide, channels_first, across_gaps, end: how it is read, see `benchmarks.your_data.reading.Roles`. kind: what is
    asked. horizon: steps to forecast. causal: predictions are due as the sequence arrives.
    """

    file: str = ""
    sha256: str = ""
    target_column: str | None = None
    sequence_id: str | tuple[str, ...] | None = None
    group_column: str | None = None
    time: str | None = None
    split: str | None = None
    ignore: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    wide: bool = False
    channels_first: bool = False
    across_gaps: bool = False
    end: bool = False
    kind: Kind = "classification"
    horizon: int | None = None
    causal: bool = False  # type: ignore[misc]

    name: ClassVar[str] = "your_data"
    group: ClassVar[str] = "own"
    summary: ClassVar[str] = "what a file of your own asks"
    licence: ClassVar[str] = "your own"
    source: ClassVar[str] = "your own"

    def __post_init__(self) -> None:
        for name in ("ignore", "missing", "sequence_id"):  # from JSON they come as lists, which have no hash
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        keys = self.sequence_id if isinstance(self.sequence_id, tuple) else (self.sequence_id,)
        texts = (self.target_column, *keys, self.group_column, self.time, self.split, *self.ignore, *self.missing)
        if not self.file or not isinstance(self.file, str) or not isinstance(self.sha256, str):
            raise InvalidParameter("your_data: file must be the path of a file; `rnnbench compare` sets it")
        if not all(text is None or isinstance(text, str) for text in texts):
            raise InvalidParameter(f"your_data: columns are named by text, got {texts!r}")
        for name in ("wide", "channels_first", "across_gaps", "end"):
            if type(getattr(self, name)) is not bool:
                raise InvalidParameter(f"your_data: {name} must be true or false, got {getattr(self, name)!r}")
        if self.kind not in get_args(Kind):
            raise InvalidParameter(f"your_data: kind must be one of {', '.join(get_args(Kind))}, got {self.kind!r}")
        if self.horizon is not None and (type(self.horizon) is not int or self.horizon < 1):
            raise InvalidParameter(f"your_data: horizon must be an integer of at least 1, got {self.horizon!r}")
        if type(self.causal) is not bool or (self.kind == "next_symbol" and not self.causal):
            raise InvalidParameter(
                f"your_data: causal must be true or false, and true for next_symbol, got {self.causal!r}"
            )
        if self.end and self.kind != "next_symbol":
            raise InvalidParameter(f"your_data: end is for next_symbol, not for {self.kind}")
        if not self.sha256:  # a trial is about these contents, wherever it runs
            source = locate(self.file)
            object.__setattr__(self, "file", str(source.path))
            object.__setattr__(self, "sha256", source.digest())

    def check_installed(self) -> None:
        """Reads the file, so that what cannot be used as asked is refused before anything runs. Raises BadInput."""
        self.prepared.counts()

    @property
    def roles(self) -> Roles:
        return Roles(
            target=self.target_column,
            sequence_id=self.sequence_id,
            group=self.group_column,
            time=self.time,
            split=self.split,
            ignore=self.ignore,
            missing=self.missing,
            wide=self.wide,
            channels_first=self.channels_first,
            across_gaps=self.across_gaps,
            end=self.end,
        )

    @property
    def prepared(self) -> Prepared:
        """Read once per process. Raises BadInput."""
        return _prepared(self)

    @property
    def input(self) -> InputSpec:
        return self.prepared.input

    @property
    def target(self) -> TargetSpec:
        made = self.prepared
        if made.answers.classes is not None:
            return Classes(len(made.answers.classes), made.question.scope, future=self.kind == "next_symbol")
        if self.kind == "forecasting":
            # What else is read is no future that is asked for.
            return Real(self.horizon or 1, "sequence", future=made.steps.values.shape[1] == 1)
        return Real(1, made.question.scope)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        if self.kind == "next_symbol":
            return (cross_entropy, accuracy)
        if self.kind in ("classification", "tagging"):
            try:
                return (*_for_unbalanced(self.prepared), accuracy, cross_entropy)
            except BadInput:  # a report names the metrics of results whose file is gone
                return (accuracy, cross_entropy)
        try:
            scale = self.prepared.answers.scale
        except BadInput:  # a report names the metrics of results whose file is gone
            scale = math.nan
        margin = 0.01 * scale
        error = absolute_error("the target's unit", scale, margin)
        if self.kind == "forecasting":
            return (error, squared_error("the target's unit²", scale, margin**2))
        squared = squared_error("the target's unit", scale, margin)
        rooted = replace(squared, name="rmse", definition="root of the mean squared error", link=math.sqrt)
        return (rooted, replace(error, definition="mean absolute error"))

    @property
    def overlap(self) -> int:
        return self.horizon if self.kind == "forecasting" and self.horizon else 1

    def splits(self, seed: int) -> Splits:
        return self.prepared.splits(seed)

    @property
    def origin(self) -> float:
        return self.prepared.answers.mean

    @property
    def symbols(self) -> tuple[str, ...] | None:
        return self.prepared.answers.classes

    @property
    def input_symbols(self) -> tuple[str, ...] | None:
        return self.prepared.steps.symbols

    @property
    def picture(self) -> Literal["confusion", "continuation", "forecast", "scatter", "tags"]:  # type: ignore[override]
        match self.kind:
            case "forecasting":
                return "forecast"
            case "regression":
                return "scatter"
            case "next_symbol":
                return "continuation"
        if self.kind == "tagging" and isinstance(self.input, TokenInput):
            return "tags"
        return "confusion"


@lru_cache(maxsize=1)
def recorded(source: Source, sha256: str, roles: Roles) -> Recording:
    """The file, read once per process; sha256: of its contents, so that a changed file is read again."""
    return read(source, roles)


@lru_cache(maxsize=1)
def _prepared(task: YourData) -> Prepared:
    source = locate(task.file)
    if source.digest() != task.sha256:
        raise BadInput(f"{source.name}: the file is not what it was; run `rnnbench compare` again")
    recording = recorded(source, task.sha256, task.roles)
    asked = question(recording, task.kind, task.horizon)
    if task.end and recording.sequence is None:
        raise recording.bad("--end needs several sequences; name the column that tells them apart with --sequence-id")
    return prepare(recording, asked, parts(recording, asked), across_gaps=task.across_gaps, end=task.end)


def _for_unbalanced(prepared: Prepared) -> tuple[Metric, ...]:
    """The primary metric where a constant answer is mostly right; empty where it is not."""
    classes = prepared.answers.classes
    if classes is None or prepared.majority <= UNBALANCED:
        return ()
    if len(classes) == 2 and not prepared.is_per_step:
        positive = int(prepared.class_counts(prepared.windows.part != TEST).argmin())
        return (average_precision(positive, classes[positive]),)
    return (balanced_accuracy(prepared.class_counts(prepared.windows.part == TEST).tolist()),)
