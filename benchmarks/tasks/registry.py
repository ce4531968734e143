"""The one table of tasks, and how a task is built by name.

To add a task: write its class in the file of its family, and add it to ``TASKS``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from benchmarks.tasks.archive import GunPoint, ItalyPower
from benchmarks.tasks.biology import ProteinStructure, Splice
from benchmarks.tasks.classification import BasicMotions, Digits, JapaneseVowels
from benchmarks.tasks.control import MaskedCartPole
from benchmarks.tasks.diagnostic import Adding, Recall
from benchmarks.tasks.few_shot import FewShot
from benchmarks.tasks.forecasting import CO2, Economy, ElNino, Sunspots
from benchmarks.tasks.formal_languages import BracketDepth, CycleNavigation, EvenPairs, ModularArithmetic, Parity
from benchmarks.tasks.gestures import GesturePhase, Libras
from benchmarks.tasks.markov import Casino, HiddenSource
from benchmarks.tasks.medicine import ClinicalVisits, Electrocardiogram
from benchmarks.tasks.memory import AssociativeRecall, CopyMemory, SelectiveCopy
from benchmarks.tasks.monitoring import Occupancy, RemainingLife, TransformerTemperature
from benchmarks.tasks.music import JSBChorales, Nottingham, PianoMidi
from benchmarks.tasks.pen import OmniglotStrokes, PenDigits
from benchmarks.tasks.sensors import Activity, IndoorMovement, SensorFusion
from benchmarks.tasks.sentences import Intent, Sentiment, Subjectivity, Surnames
from benchmarks.tasks.speech import SpokenDigits, SpokenDigitsRaw
from benchmarks.tasks.tagging import Entities, PosAtis, PosEwt, PosEwtSmall
from benchmarks.tasks.task import Task
from benchmarks.tasks.text import Characters, Names, WordsSmall
from benchmarks.tasks.transcription import DigitStrings
from benchmarks.tasks.transduction import DuplicateString, ReverseString
from benchmarks.tasks.translation import Inflection, NumberWords
from benchmarks.tasks.video import MovingDigitsDigit, MovingDigitsDirection
from benchmarks.tasks.vision import (
    MnistPermuted,
    MnistPermutedSmall,
    MnistPixels,
    MnistPixelsSmall,
    MnistRows,
    MnistRowsSmall,
)
from benchmarks.tasks.waveforms import Waveform
from benchmarks.tasks.your_data import YourData
from models.names import UnknownName

TASKS: dict[str, type[Task]] = {
    task.name: task
    for task in (
        JapaneseVowels,
        SpokenDigits,
        SpokenDigitsRaw,
        DigitStrings,
        Waveform,
        JSBChorales,
        Nottingham,
        PianoMidi,
        BasicMotions,
        GunPoint,
        ItalyPower,
        Digits,
        MnistPixels,
        MnistPixelsSmall,
        MnistRows,
        MnistRowsSmall,
        MnistPermuted,
        MnistPermutedSmall,
        MovingDigitsDirection,
        MovingDigitsDigit,
        Libras,
        GesturePhase,
        PenDigits,
        OmniglotStrokes,
        FewShot,
        CO2,
        Sunspots,
        ElNino,
        Economy,
        TransformerTemperature,
        RemainingLife,
        Occupancy,
        IndoorMovement,
        Activity,
        SensorFusion,
        Splice,
        ProteinStructure,
        Electrocardiogram,
        ClinicalVisits,
        Adding,
        Recall,
        Parity,
        CopyMemory,
        SelectiveCopy,
        AssociativeRecall,
        EvenPairs,
        CycleNavigation,
        ModularArithmetic,
        BracketDepth,
        ReverseString,
        DuplicateString,
        HiddenSource,
        Casino,
        MaskedCartPole,
        Characters,
        WordsSmall,
        Names,
        Sentiment,
        Subjectivity,
        Intent,
        Surnames,
        PosAtis,
        PosEwtSmall,
        PosEwt,
        Entities,
        NumberWords,
        Inflection,
    )
}

BY_NAME: dict[str, type[Task]] = {**TASKS, YourData.name: YourData}
"""And the task that has no default, because it needs a file; it is not listed."""


def task(name: str, parameters: Mapping[str, Any]) -> Task:
    """The task of that name with ``parameters``, the rest default.

    Raises UnknownName, with the nearest known one, for an unknown task or parameter, and InvalidParameter for a value
    of the wrong type or out of range.
    """
    if name not in BY_NAME:
        raise UnknownName("task", name, TASKS)
    known = [field.name for field in fields(BY_NAME[name])]  # type: ignore[arg-type]
    for key in parameters:
        if key not in known:
            raise UnknownName(f"parameter of {name}", key, known)
    return BY_NAME[name](**parameters)
