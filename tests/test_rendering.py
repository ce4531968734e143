"""What is made for ears: MIDI and wav files say what the roll and the levels say."""

import io
import math

import mido
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from benchmarks import rendering
from benchmarks.figures import sound_figures
from benchmarks.tasks import sound


def played(file):
    """The keys that are down in each frame of a MIDI file, as a player would hear it."""
    track, down, rows, now = file.tracks[0], set(), [], 0
    for message in track:
        frames, rest = divmod(message.time, rendering.TICKS)
        assert rest == 0
        rows += [set(down)] * frames
        now += frames
        if message.type == "note_on":
            assert message.note not in down
            down.add(message.note)
        elif message.type == "note_off":
            down.remove(message.note)
    assert not down
    return rows


@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 12), st.just(88)), elements=st.integers(0, 1)))
def test_a_midi_file_plays_the_roll(roll):
    file = rendering.midi(roll)
    expected = [{rendering.FIRST_KEY + int(key) for key in np.flatnonzero(frame)} for frame in roll]
    assert played(file) == expected


def test_a_midi_file_lasts_as_long_as_its_frames(tmp_path):
    roll = np.zeros((8, 88), dtype=np.uint8)
    roll[2:4, 39] = 1
    path = rendering.save_midi(roll, tmp_path / "a" / "b.mid", frame_seconds=0.25)
    again = mido.MidiFile(path)
    assert again.length == pytest.approx(2.0)
    notes = [(message.type, message.note) for message in again.tracks[0] if not message.is_meta]
    assert notes == [("note_on", 60), ("note_off", 60)]


@pytest.mark.parametrize("roll", [np.zeros((3, 87)), np.zeros(88), 2 * np.ones((3, 88))])
def test_what_is_no_roll_is_refused(roll):
    with pytest.raises(ValueError, match="a piano roll is zeros and ones of shape"):
        rendering.midi(roll)


def test_keys_have_their_names():
    assert [rendering.note_name(key) for key in (0, 3, 39, 48, 87)] == ["A0", "C1", "C4", "A4", "C8"]


@given(st.lists(st.integers(0, 255), min_size=1))
def test_a_wav_file_holds_what_the_levels_say(levels):
    samples = rendering.levels_to_samples(np.array(levels))
    heard = sound.decode_wave(rendering.wav(samples), "a.wav")
    for level, x in zip(levels, heard, strict=True):
        y = 2 * level / 255 - 1
        assert x == pytest.approx(math.copysign((256 ** abs(y) - 1) / 255, y), abs=1e-4)


@pytest.mark.parametrize("levels", [[[1, 2]], [256], [-1]])
def test_what_are_no_levels_is_refused(levels):
    with pytest.raises(ValueError, match="whole numbers from 0 to 255"):
        rendering.levels_to_samples(np.array(levels))


def test_a_wav_file_is_written_and_clips_what_is_too_loud(tmp_path):
    path = rendering.save_wav(np.array([0.0, 2.0, -2.0]), tmp_path / "a" / "b.wav")
    assert sound.decode_wave(path.read_bytes(), "b.wav").tolist() == [0, 32767 / 32768, -32767 / 32768]


def test_rolls_and_spectrograms_are_drawn():
    roll = np.zeros((20, 88))
    roll[::2, 40] = roll[1::2, 52] = 1
    rolls = sound_figures.rolls({"real": roll, "generated": roll}, prompt=5)
    tone = np.sin(np.arange(4000) / 8000 * 2 * np.pi * 440)
    spectrograms = sound_figures.spectrograms({"real": tone, "generated": tone / 2})
    for figure, n_axes in ((rolls, 2), (spectrograms, 4)):
        figure.savefig(io.BytesIO(), dpi=50)
        assert figure.get_suptitle() == "real and generated" and len(figure.axes) == n_axes
    sound_figures.rolls({"silence": np.zeros((5, 88))}).savefig(io.BytesIO(), dpi=50)
