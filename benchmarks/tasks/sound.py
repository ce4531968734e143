"""Sound as numbers: wav files, mel-frequency cepstral coefficients, and the mu-law of telephony.

Cepstral coefficients are computed here and not by librosa, whose first use costs seconds in every process. A test holds
them equal to librosa's.
"""

from __future__ import annotations

import io
import struct
import wave
from functools import cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

RATE = 8000
"""Samples per second of all sound here: that of telephony."""
HOP = 80
"""Samples from frame to frame: 10 ms."""
WINDOW = 200
"""Samples that a frame looks at: 25 ms."""
N_FOURIER = 256
N_BANDS = 26
N_COEFFICIENTS = 13
DYNAMIC_RANGE = 80.0
"""Decibels below the loudest band of a clip at which the logarithm is cut off, so that silence is finite."""
MU = 255
"""256 levels, 8 bits."""


def decode_wave(data: bytes, name: str) -> np.ndarray:
    """A wav file's (n,) float64 samples in [-1, 1); ValueError, naming the file, unless it is 16-bit mono at `RATE`."""
    try:
        with wave.open(io.BytesIO(data)) as file:
            kind = (file.getnchannels(), file.getsampwidth(), file.getframerate())
            n, frames = file.getnframes(), file.readframes(file.getnframes())
    except (wave.Error, EOFError, RuntimeError, struct.error) as error:
        raise ValueError(f"{name}: this is no wav file ({error or 'it ends too early'})") from error
    if kind != (1, 2, RATE):
        told = f"{kind[0]} channels of {8 * kind[1]} bits at {kind[2]} Hz"
        raise ValueError(f"{name}: expected 1 channel of 16 bits at {RATE} Hz, got {told}")
    if n == 0 or len(frames) != 2 * n:
        raise ValueError(f"{name}: the header promises {n} samples and the file holds {len(frames) // 2}")
    return np.frombuffer(frames, "<i2") / 32768


def levelled(samples: np.ndarray) -> np.ndarray:
    """(n,) samples at a root mean square of 1, whatever the microphone's gain; silence stays silence."""
    level = np.sqrt(np.mean(samples**2))
    return samples / level if level > 0 else samples


def frames(samples: np.ndarray) -> np.ndarray:
    """(n,) samples → (⌈n / HOP⌉, HOP), one row after another, the last filled up with zeros."""
    return np.pad(samples, (0, -len(samples) % HOP)).reshape(-1, HOP)


@cache
def mel_bands() -> np.ndarray:
    """(N_FOURIER / 2 + 1, N_BANDS) triangles, evenly spaced on the mel scale 2595 log10(1 + f / 700 Hz)."""
    top = 2595 * np.log10(1 + RATE / 2 / 700)
    corners = 700 * (10 ** (np.linspace(0, top, N_BANDS + 2) / 2595) - 1)  # in Hz
    frequencies = np.arange(N_FOURIER // 2 + 1)[:, None] * RATE / N_FOURIER
    left, middle, right = corners[:-2], corners[1:-1], corners[2:]
    rise, fall = (frequencies - left) / (middle - left), (right - frequencies) / (right - middle)
    return np.maximum(0, np.minimum(rise, fall))


@cache
def cosines() -> np.ndarray:
    """(N_BANDS, N_COEFFICIENTS): the first columns of the orthonormal discrete cosine transform."""
    angles = np.pi / N_BANDS * np.outer(np.arange(N_BANDS) + 0.5, np.arange(N_COEFFICIENTS))
    scale = np.where(np.arange(N_COEFFICIENTS) == 0, 1, np.sqrt(2)) / np.sqrt(N_BANDS)
    return np.cos(angles) * scale


def cepstrum(samples: np.ndarray) -> np.ndarray:
    """(n,) samples → (1 + ⌊n / HOP⌋, N_COEFFICIENTS) mel-frequency cepstral coefficients.

    Davis and Mermelstein 1980, doi:10.1109/TASSP.1980.1163420: the cosine transform of the logarithm, in decibels, of
    the power in mel bands. Frame t is centred on sample t · HOP; beyond the ends stands silence.
    """
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    padded = np.pad(samples, N_FOURIER // 2)
    cut = sliding_window_view(padded, N_FOURIER)[::HOP]  # (T, N_FOURIER)
    margin = (N_FOURIER - WINDOW) // 2
    spectrum = np.fft.rfft(cut[:, margin : margin + WINDOW] * hann, N_FOURIER)  # a shift in time: the power is the same
    power = np.abs(spectrum) ** 2 @ mel_bands()  # (T, N_BANDS)
    decibels = 10 * np.log10(np.maximum(power, 1e-10))
    return np.maximum(decibels, decibels.max() - DYNAMIC_RANGE) @ cosines()


def mean_removed(steps: np.ndarray) -> np.ndarray:
    """(T, 13) coefficients less their mean over the frames that are not silent: cepstral mean subtraction.

    A microphone multiplies the spectrum of every frame alike, which adds the same to all coefficients (Furui 1981,
    doi:10.1109/TASSP.1981.1163530). In digital silence all bands lie at the lower end of the range, and all coefficients
    but the first are zero.
    """
    silent = np.abs(steps[:, 1:]).max(1) < 1e-6
    return steps if silent.all() else steps - steps[~silent].mean(0)


def mu_law(samples: np.ndarray) -> np.ndarray:
    """(n,) samples in [-1, 1] → (n,) int64 levels 0 … 255, fine where it is quiet (ITU-T G.711, its formula).

    level = ⌊(sign(x) ln(1 + 255 |x|) / ln 256 + 1) / 2 · 255 + 1/2⌋
    """
    squeezed = np.sign(samples) * np.log1p(MU * np.abs(samples)) / np.log1p(MU)
    return np.floor((squeezed + 1) / 2 * MU + 0.5).astype(np.int64)


def mu_law_inverse(levels: np.ndarray) -> np.ndarray:
    """Levels 0 … 255 of any shape → samples in [-1, 1] float64, each the middle of what `mu_law` gives that level."""
    squeezed = 2 * np.asarray(levels) / MU - 1
    return np.sign(squeezed) * np.expm1(np.abs(squeezed) * np.log1p(MU)) / MU
