"""What a model makes, as files that people can play: a piano roll as MIDI, levels of amplitude as a wav file."""

from __future__ import annotations

import io
import wave
from pathlib import Path

import mido
import numpy as np

from benchmarks.tasks.sound import RATE, mu_law_inverse

FIRST_KEY = 21
"""MIDI number of the lowest key of a piano, A0; key k is FIRST_KEY + k."""
TICKS = 480
"""Per frame."""
NAMES = ("C", "C♯", "D", "E♭", "E", "F", "F♯", "G", "A♭", "A", "B♭", "B")


def note_name(key: int) -> str:
    """Key 39 → "C4", middle C."""
    octave, step = divmod(key + FIRST_KEY, 12)
    return f"{NAMES[step]}{octave - 1}"


def midi(roll: np.ndarray, frame_seconds: float = 0.5) -> mido.MidiFile:
    """(T, 88) zeros and ones → a MIDI file of one track, T frames long.

    A key that is down in several frames running is one long note: a roll does not say whether it was struck again.
    """
    if roll.ndim != 2 or roll.shape[1] != 88 or not np.isin(roll, (0, 1)).all():
        raise ValueError(f"a piano roll is zeros and ones of shape (T, 88), and this has shape {roll.shape}")
    file = mido.MidiFile(ticks_per_beat=TICKS)
    track = mido.MidiTrack()
    file.tracks.append(track)
    track.append(mido.MetaMessage("set_tempo", tempo=round(frame_seconds * 1e6)))  # a frame is a beat of MIDI's
    padded = np.pad(roll.astype(np.int8), ((1, 1), (0, 0)))  # silence before and after
    changes = np.diff(padded, axis=0)  # (T + 1, 88): 1 where a key goes down, -1 where it comes up
    last = 0
    # Keys that come up before those that go down, so that no two notes of a key overlap.
    for frame, key in sorted(
        zip(*map(list, changes.nonzero()), strict=True), key=lambda at: (at[0], changes[at], at[1])
    ):
        kind = "note_on" if changes[frame, key] > 0 else "note_off"
        message = mido.Message(kind, note=int(key) + FIRST_KEY, velocity=64, time=int(frame - last) * TICKS)
        track.append(message)
        last = frame
    track.append(mido.MetaMessage("end_of_track", time=int(len(roll) - last) * TICKS))
    return file


def levels_to_samples(levels: np.ndarray) -> np.ndarray:
    """(n,) mu-law levels 0 … 255 → (n,) float64 samples in [-1, 1]."""
    levels = np.asarray(levels)
    if levels.ndim != 1 or levels.min(initial=0) < 0 or levels.max(initial=0) > 255:
        raise ValueError("levels of amplitude are one row of whole numbers from 0 to 255")
    return mu_law_inverse(levels)


def wav(samples: np.ndarray) -> bytes:
    """(n,) samples in [-1, 1] at 8 kHz → a wav file, 16 bits, mono."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(np.rint(np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return buffer.getvalue()


def save_midi(roll: np.ndarray, path: Path, frame_seconds: float = 0.5) -> Path:
    """Writes `midi` to ``path``, and returns it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    midi(roll, frame_seconds).save(path)
    return path


def save_wav(samples: np.ndarray, path: Path) -> Path:
    """Writes `wav` to ``path``, and returns it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(wav(samples))
    return path
