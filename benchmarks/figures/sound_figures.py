"""Figures of sound and music: piano rolls, transcripts over time, waveforms and spectrograms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from benchmarks.experiment import Experiment
from benchmarks.figures.drawing import MUTED, SMALL, Drawing, colour, drawing, head
from benchmarks.rendering import FIRST_KEY, note_name
from benchmarks.tables import number
from benchmarks.tasks.sound import RATE, mu_law_inverse
from benchmarks.transcripts import best_path, true_symbols

TRUE = "#d55e00"
MAX_FRAMES = 100
"""Frames of a piano roll that are shown; notes of more would be specks."""
MAX_SAMPLES = 320
"""40 ms: some ten periods of a voice."""


def piano_roll(experiment: Experiment) -> Drawing:
    """Of two test pieces, how probable each key was thought to be in the next frame, and the keys that sounded."""
    test, outputs = experiment.splits.test, experiment.outputs
    primary, result = experiment.task.metrics[0], experiment.result
    title = f"Test {primary.name} {number(result.test[primary.name])} {primary.unit}; base rates: {number(result.floor or 0.0)}"
    rows = torch.linspace(0, len(test) - 1, min(2, len(test))).long().tolist()
    figure, axes = drawing(title, len(rows), (9.0, 3.6), columns=1)
    for ax, row in zip(axes, rows, strict=True):
        shown = int(test.scored[row].sum().clamp(max=MAX_FRAMES))
        probabilities = outputs[row, :shown].sigmoid().numpy()  # (T, 88)
        true = test.targets[row, :shown].numpy() > 0.5
        image = _roll(ax, probabilities, np.flatnonzero((true | (probabilities > 0.1)).any(0)))
        ax.plot(*true.nonzero(), "s", markersize=3.2, markerfacecolor="none", markeredgecolor=TRUE, markeredgewidth=0.9)
        cut = f", its first {shown} of {int(test.scored[row].sum())} frames" if shown == MAX_FRAMES else ""
        head(ax, f"test piece {row}{cut}", "frame that was predicted", "key")
    figure.colorbar(image, ax=axes, label="predicted probability", shrink=0.6, pad=0.01)
    axes[0].set_title("orange: sounded", loc="right", fontsize=SMALL, color=TRUE)
    return figure


def rolls(pieces: Mapping[str, np.ndarray], prompt: int = 0) -> Drawing:
    """Piano rolls (T, 88) below one another, by title; a line after the frames that were given."""
    keys = np.flatnonzero(np.concatenate(list(pieces.values())).any(0))
    figure, axes = drawing(" and ".join(pieces), len(pieces), (9.0, 3.0), columns=1)
    for ax, (title, roll) in zip(axes, pieces.items(), strict=True):
        _roll(ax, roll, keys)
        if prompt:
            ax.axvline(prompt - 0.5, color=TRUE, linewidth=1)
        head(ax, title, "frame", "key")
    if prompt:
        axes[0].set_title("left of the line: given", loc="right", fontsize=SMALL, color=TRUE)
    return figure


def _roll(ax: Axes, roll: np.ndarray, keys: np.ndarray) -> AxesImage:
    """An image of (T, 88) with notes' names; keys: those that must be in sight."""
    image = ax.imshow(roll.T, origin="lower", aspect="auto", cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    low, high = (int(keys.min()), int(keys.max())) if len(keys) else (0, roll.shape[1] - 1)
    ax.set_ylim(low - 1.5, high + 1.5)
    octaves = [key for key in range(low, high + 1) if (key + FIRST_KEY) % 12 == 0]
    ax.set_yticks(octaves, [note_name(key) for key in octaves])
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(visible=False)
    return image


def transcript(experiment: Experiment) -> Drawing:
    """Of some test sequences, how probable each symbol was at each step, and what was said and heard."""
    test, outputs, task = experiment.splits.test, experiment.outputs, experiment.task
    names = task.symbols or tuple(map(str, range(1, outputs.shape[-1])))
    primary, result = task.metrics[0], experiment.result
    heard, said = best_path(outputs, test.lengths), true_symbols(test)
    right = sum(a == b for a, b in zip(heard, said, strict=True))
    value = number(result.test[primary.name])
    title = f"Test {primary.name} {value}; {right} of {len(test)} test sequences are right as a whole"
    rows = torch.linspace(0, len(test) - 1, min(4, len(test))).long().tolist()
    figure, axes = drawing(title, len(rows), (9.0, 0.9 + 0.13 * outputs.shape[-1]), columns=1)
    for ax, row in zip(axes, rows, strict=True):
        length = int(test.lengths[row])
        chances = outputs[row, :length].softmax(-1).T.numpy()  # (K, T)
        image = ax.imshow(chances, aspect="auto", cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
        ax.set_yticks(range(len(chances)), ["blank", *names], fontsize=6)
        ax.grid(visible=False)
        good = heard[row] == said[row]
        told = f"true: {_spelt(said[row], names)}   answer: {_spelt(heard[row], names)}"
        head(ax, f"test sequence {row}", "step", "symbol")
        ax.set_title(told, loc="right", fontsize=SMALL, color=MUTED if good else TRUE)
    figure.colorbar(image, ax=axes, label="probability", shrink=0.6, pad=0.01)
    return figure


def _spelt(symbols: Sequence[int], names: Sequence[str]) -> str:
    """Symbols 1 … n by their names; blank has none."""
    return " ".join(names[symbol - 1] for symbol in symbols) or "nothing"


def waveform(experiment: Experiment) -> Drawing:
    """A loud stretch of some test clips: the amplitude that came, and the middle and the middle 80 % of the prediction."""
    test, outputs = experiment.splits.test, experiment.outputs
    primary, result = experiment.task.metrics[0], experiment.result
    value = number(result.test[primary.name])
    title = f"Test {primary.name} {value} {primary.unit}; shares of the levels alone: {number(result.floor or 0.0)}"
    rows = list(range(min(3, len(test))))
    figure, axes = drawing(title, len(rows), (9.0, 2.2), columns=1)
    amplitudes = mu_law_inverse(np.arange(outputs.shape[-1]))
    shade = colour(experiment.entry.family)
    for ax, row in zip(axes, rows, strict=True):
        true = amplitudes[test.targets[row, : int(test.lengths[row])].numpy()]
        start = max(0, min(int(np.abs(true).argmax()) - MAX_SAMPLES // 2, len(true) - MAX_SAMPLES))
        steps = slice(start, start + MAX_SAMPLES)
        shares = outputs[row, : len(true)][steps].double().softmax(-1).cumsum(-1).numpy()  # (T, 256)
        low, middle, high = (
            amplitudes[(shares < share).sum(-1).clip(max=len(amplitudes) - 1)] for share in (0.1, 0.5, 0.9)
        )
        times = np.arange(start, start + len(middle)) / RATE * 1000
        ax.fill_between(times, low, high, color=shade, alpha=0.3, linewidth=0, label="middle 80 % of the prediction")
        ax.plot(times, middle, color=shade, linewidth=1, label="its median")
        ax.plot(times, true[steps], color="black", linewidth=0.8, label="came")
        head(ax, f"test clip {row}, where it is loudest", "time (ms)", "amplitude (1: largest)")
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=SMALL
    )
    return figure


def spectrograms(sounds: Mapping[str, np.ndarray]) -> Drawing:
    """Waveform above spectrogram of each sound, (n,) samples at 8 kHz, by title."""
    figure, axes = drawing(" and ".join(sounds), 2 * len(sounds), (4.6, 2.4), columns=len(sounds))
    for column, (title, samples) in enumerate(sounds.items()):
        above, below = axes[column], axes[column + len(sounds)]
        seconds = np.arange(len(samples)) / RATE
        above.plot(seconds, samples, color="black", linewidth=0.4)
        above.set_xlim(0, seconds[-1])
        head(above, title, "", "amplitude")
        # Bands 40 Hz apart and 25 ms long: formants are seen, and with a low voice its harmonics.
        decibels = below.specgram(samples + 1e-6, NFFT=200, Fs=RATE, noverlap=160, cmap="Greys")
        decibels[3].set_clim(np.percentile(10 * np.log10(decibels[0]), (20, 99.5)))
        below.grid(visible=False)
        head(below, "", "time (s)", "frequency (Hz)")
    return figure
