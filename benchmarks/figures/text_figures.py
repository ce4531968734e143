"""Figures of one trial on text: tags below words, answers beside questions, and text that the model makes by itself."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

import torch
from matplotlib.axes import Axes
from torch import Tensor

from benchmarks.decoding import decode, sample
from benchmarks.experiment import Experiment
from benchmarks.figures.drawing import MUTED, SMALL, Drawing, drawing, head
from benchmarks.seeding import torch_generator
from benchmarks.tables import number

WRONG = "#f2b8a0"
"""Behind what is wrong: light enough to read black on it."""
N_SENTENCES = 4
MAX_WORDS = 14
N_ANSWERS = 12
N_TEXTS = 3
PROMPT = 60
"""Symbols of a text that are given, before the model goes on."""
DRAWN = 300
"""Symbols that it draws."""
N_SHORT = 24
"""Short sequences drawn from their beginning."""
COLUMNS = 100
"""Characters a line."""


def spelt(symbols: Sequence[str], tokens: Iterable[int]) -> str:
    """Tokens as text: characters one after another, words with blanks between."""
    glue = "" if all(len(symbol) == 1 for symbol in symbols if not symbol.startswith("<")) else " "
    return glue.join(symbols[token] for token in tokens)


def shown(text: str) -> str:
    """As matplotlib should draw it."""
    return text.replace("\n", "↵").replace("$", r"\$")


def tags(experiment: Experiment) -> Drawing:
    """The first words of a few test sentences, the true tag of each, and the predicted one; wrong ones on orange."""
    test, outputs, task = experiment.splits.test, experiment.outputs, experiment.task
    words, names = task.input_symbols or (), task.symbols or ()
    right = (outputs.argmax(-1) == test.targets)[test.scored]
    title = f"{right.double().mean():.1%} of {len(right)} test tags are right"
    rows = (test.lengths >= 5).nonzero()[:N_SENTENCES, 0].tolist() or [0]
    figure, axes = drawing(title, len(rows), (0.85 * MAX_WORDS, 1.2), columns=1)
    for row, ax in zip(rows, axes, strict=True):
        for step in range(min(MAX_WORDS, int(test.lengths[row]))):
            true, predicted = int(test.targets[row, step]), int(outputs[row, step].argmax())
            _text(ax, step, 0, words[int(test.inputs[row, step])][:12], MUTED)
            _text(ax, step, 1, names[true], "black")
            _text(ax, step, 2, names[predicted], "black", wrong=true != predicted)
        ax.set_xlim(-0.6, MAX_WORDS - 0.4)
        ax.set_ylim(2.6, -0.6)
        ax.set_yticks([0, 1, 2], ["word, as read", "true", "predicted"])
        ax.set_xticks([])
        ax.grid(visible=False)
        head(ax, f"test sentence {row}", "")
    return figure


def answers(experiment: Experiment) -> Drawing:
    """Some test questions, what should be answered and what the model answers by itself; wrong answers on orange."""
    task, primary = experiment.task, experiment.task.metrics[0]
    symbols, decoding = task.symbols, task.decoding
    if symbols is None or decoding is None:
        raise ValueError(f"{task.name}: answers are drawn of tasks with decoding and names of symbols")
    test = experiment.splits.test.select(torch.arange(min(N_ANSWERS, len(experiment.splits.test))))
    written = decode(experiment.predictor, test.to(experiment.device), decoding)
    title = f"Test {primary.name} {number(experiment.result.test[primary.name])}; answers written symbol by symbol"
    figure, (ax,) = drawing(title, 1, (13.0, 0.4 + 0.28 * len(test)))
    for row in range(len(test)):
        scored = test.scored[row]
        n_asked = int(scored.int().argmax())  # the separator's place
        true = [symbol for symbol in test.targets[row][scored].tolist() if symbol != decoding.stop]
        answer = [symbol for symbol in written[row].tolist() if symbol >= 0]
        question = spelt(symbols, test.inputs[row, :n_asked].tolist())
        _text(ax, 0.0, row, question[:44], MUTED, left=True)
        _text(ax, 0.36, row, spelt(symbols, true)[:52], "black", left=True)
        _text(ax, 0.68, row, spelt(symbols, answer)[:52] or "(nothing)", "black", wrong=answer != true, left=True)
    ax.set_xlim(0, 1)
    ax.set_ylim(len(test) - 0.4, -0.6)
    ax.set_yticks([])
    ax.set_xticks([0, 0.36, 0.68], ["question", "true", "written"])
    ax.xaxis.tick_top()
    ax.grid(visible=False)
    return figure


def continuation(experiment: Experiment) -> Drawing:
    """Text that the model makes: test text in grey, and how the model goes on, drawn by its probabilities.

    Of a task with short sequences, whole ones are drawn from their first symbol until that comes again.
    """
    task, test, primary = experiment.task, experiment.splits.test, experiment.task.metrics[0]
    symbols = task.symbols or tuple(map(str, range(task.target.n_outputs)))
    is_long = task.window is not None
    n_given = min(PROMPT, int(test.lengths.min())) if is_long else 1
    prompt = test.inputs[: N_TEXTS if is_long else N_SHORT, :n_given]
    n_drawn = DRAWN if is_long else int(test.lengths.max())
    generator = torch_generator("sample", task.name, experiment.trial.seed)
    drawn = sample(experiment.predictor, task.target, prompt.to(experiment.device), n_drawn, generator).cpu()
    title = f"Test {primary.name} {number(experiment.result.test[primary.name])}; text drawn from the model"
    panels = _texts(symbols, prompt, drawn) if is_long else [("", ", ".join(_whole(symbols, prompt, drawn)))]
    lines = [(*_lines(given), "", *_lines(text)) for given, text in panels]
    height = 0.17 * max(map(len, lines)) + 0.5
    figure, axes = drawing(title, len(panels), (9.0, height), columns=1)
    for ax, (given, _), rows in zip(axes, panels, lines, strict=True):
        n_grey = len(_lines(given))
        for place, line in enumerate(rows):
            shade = MUTED if place < n_grey else "black"
            ax.text(0, -place, shown(line), fontsize=SMALL, family="monospace", color=shade, va="center")
        ax.set_ylim(-max(len(rows), 8), 1)
        ax.set_axis_off()
        ax.set_title("grey: test text; black: drawn" if is_long else "drawn", loc="left", fontsize=10)
    return figure


def _texts(symbols: Sequence[str], prompt: Tensor, drawn: Tensor) -> list[tuple[str, str]]:
    return [
        (spelt(symbols, given), spelt(symbols, new)) for given, new in zip(prompt.tolist(), drawn.tolist(), strict=True)
    ]


def _lines(text: str) -> list[str]:
    """The lines of a text, those too long broken."""
    return [part for line in text.split("\n") for part in textwrap.wrap(line, COLUMNS)]


def _whole(symbols: Sequence[str], prompt: Tensor, drawn: Tensor) -> list[str]:
    """Each sequence up to where its first symbol comes again."""
    ends = [
        row.index(first) if first in row else len(row)
        for (first,), row in zip(prompt.tolist(), drawn.tolist(), strict=True)
    ]
    return [spelt(symbols, row[:end]) for row, end in zip(drawn.tolist(), ends, strict=True)]


def _text(ax: Axes, x: float, y: int, text: str, shade: str, wrong: bool = False, left: bool = False) -> None:
    box = {"boxstyle": "square,pad=0.15", "facecolor": WRONG, "edgecolor": "none"} if wrong else None
    place = "left" if left else "center"
    ax.text(x, y, shown(text), color=shade, fontsize=SMALL - 1, ha=place, va="center", bbox=box, clip_on=False)
