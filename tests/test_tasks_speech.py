"""Speech: wav files, cepstra and mu-law; who is heard in which split; transcripts and their error rate; waveforms."""

import io
import itertools
import math
import wave
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student

from benchmarks import datasets
from benchmarks.experiment import prepare
from benchmarks.figures import trial_figures
from benchmarks.parameters import InvalidParameter
from benchmarks.tasks import sound, speech, transcription, waveforms
from benchmarks.tasks.registry import task
from benchmarks.transcripts import best_path, label_error_rate
from models.sequences import SequenceBatch, valid_steps

needs_fsdd = pytest.mark.skipif(not datasets.is_here("fsdd"), reason="fsdd is not in RNNBENCH_DATA")
SMALL = {"n_train": 12, "n_validation": 6, "n_test": 6}


def wave_file(samples, channels=1, width=2, rate=8000):
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(np.asarray(samples, "<i2").tobytes())
    return buffer.getvalue()


def noise(n, seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, n)


def test_a_wav_file_is_read_sample_by_sample():
    samples = sound.decode_wave(wave_file([0, 1, -32768, 32767]), "a.wav")
    assert samples.tolist() == [0, 1 / 32768, -1, 32767 / 32768]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "a.wav: this is no wav file"),
        (b"RIFF", "a.wav: this is no wav file"),
        (wave_file([1, 2], rate=16000), "a.wav: expected 1 channel of 16 bits at 8000 Hz, got 1 channels .* 16000 Hz"),
        (wave_file([1, 2], channels=2), "got 2 channels of 16 bits"),
        (wave_file([]), "promises 0 samples"),
        (wave_file([1, 2, 3])[:-2], "promises 3 samples and the file holds 2"),
    ],
)
def test_what_is_no_such_wav_file_is_refused_with_its_name(data, told):
    with pytest.raises(ValueError, match=told):
        sound.decode_wave(data, "a.wav")


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_damaged_wav_file_is_read_or_refused_with_a_sentence(data):
    content = bytearray(wave_file(range(20)))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = bytes(content)[: data.draw(st.integers(0, len(content)))]
    try:
        samples = sound.decode_wave(content, "a.wav")
    except ValueError as error:
        assert str(error).startswith("a.wav: ")
    else:
        assert samples.ndim == 1 and len(samples) and np.isfinite(samples).all()


@given(st.text())
def test_a_name_is_a_clip_s_or_is_refused(name):
    try:
        digit, speaker, take = speech.clip_name(name)
    except ValueError as error:
        assert str(error).endswith("a recording is named digit_speaker_take.wav")
    else:
        assert f"{digit}_{speaker}_{take}.wav" == name or name.startswith(f"{digit}_{speaker}_0")


def test_a_clip_s_name_tells_digit_speaker_and_take():
    assert speech.clip_name("7_jackson_32.wav") == (7, "jackson", 32)


def test_the_cepstrum_of_a_frame_is_what_its_definition_gives():
    samples = noise(400)
    frame = 2  # centred on sample 160
    cut = [samples[i] * (0.5 - 0.5 * math.cos(2 * math.pi * k / 200)) for k, i in enumerate(range(60, 260))]
    power = [abs(np.exp(-2j * np.pi * f / 256 * np.arange(200)) @ cut) ** 2 for f in range(129)]
    corners = [700 * (10 ** (m / 2595) - 1) for m in np.linspace(0, 2595 * math.log10(1 + 4000 / 700), 28)]
    decibels = []
    for left, middle, right in zip(corners, corners[1:], corners[2:], strict=False):
        weights = [
            max(0, min((f - left) / (middle - left), (right - f) / (right - middle))) for f in np.arange(129) * 31.25
        ]
        decibels.append(10 * math.log10(np.dot(weights, power)))
    expected = [
        math.sqrt((1 if k == 0 else 2) / 26)
        * sum(d * math.cos(math.pi * k * (j + 0.5) / 26) for j, d in enumerate(decibels))
        for k in range(13)
    ]
    np.testing.assert_allclose(sound.cepstrum(samples)[frame], expected, rtol=1e-9)


@pytest.mark.slow
def test_the_cepstrum_is_librosa_s():
    import librosa

    samples = noise(3000).astype(np.float64)
    mel = librosa.feature.melspectrogram(
        y=samples, sr=8000, n_fft=256, win_length=200, hop_length=80, n_mels=26, htk=True, norm=None
    )
    expected = librosa.feature.mfcc(S=librosa.power_to_db(mel), n_mfcc=13).T
    np.testing.assert_allclose(sound.cepstrum(samples), expected, atol=1e-5)


def test_what_a_microphone_does_to_every_frame_is_removed_and_silence_does_not_count():
    voice = noise(1600)
    with_silence = sound.cepstrum(np.concatenate([voice, np.zeros(1600)]))
    heard = sound.mean_removed(with_silence)
    silent = np.abs(with_silence[:, 1:]).max(1) < 1e-6
    assert 15 <= silent.sum() <= 20
    np.testing.assert_allclose(heard[~silent].mean(0), 0, atol=1e-9)
    louder = sound.mean_removed(sound.cepstrum(10 * voice))
    np.testing.assert_allclose(louder, sound.mean_removed(sound.cepstrum(voice)), atol=1e-9)
    assert np.isfinite(sound.mean_removed(sound.cepstrum(np.zeros(500)))).all()


@given(st.lists(st.floats(-1, 1), min_size=1))
def test_mu_law_gives_every_amplitude_its_nearest_level(amplitudes):
    samples = np.array(amplitudes)
    levels = sound.mu_law(samples)
    assert levels.min() >= 0 and levels.max() <= 255
    for x, level in zip(amplitudes, levels, strict=True):
        squeezed = math.copysign(math.log1p(255 * abs(x)) / math.log(256), x)
        assert abs((squeezed + 1) / 2 * 255 - level) <= 0.5 + 1e-9
    assert np.array_equal(sound.mu_law(sound.mu_law_inverse(levels)), levels)


def test_mu_law_is_fine_where_it_is_quiet():
    steps = np.diff(sound.mu_law_inverse(np.arange(256)))
    assert (steps > 0).all() and steps[127] < 0.0002 and steps[0] > 0.04
    assert sound.mu_law_inverse(np.array([0, 255])).tolist() == pytest.approx([-1, 1])


def test_frames_and_levels():
    assert sound.frames(np.arange(81)).shape == (2, 80) and sound.frames(np.arange(81))[1].tolist() == [80, *[0] * 79]
    assert np.mean(sound.levelled(noise(100)) ** 2) == pytest.approx(1)
    assert sound.levelled(np.zeros(3)).tolist() == [0, 0, 0]


@needs_fsdd
def test_the_corpus_holds_what_it_should():
    clips = speech.clips()
    assert len(clips) == 3000
    assert Counter((clip.digit, clip.speaker) for clip in clips) == dict.fromkeys(
        itertools.product(range(10), speech.SPEAKERS), 50
    )
    seconds = [len(clip.samples) / 8000 for clip in clips]
    assert min(seconds) == pytest.approx(0.14, abs=0.005) and max(seconds) == pytest.approx(2.28, abs=0.005)
    assert sum(len(clip.samples) > 7999 for clip in clips) == 20


@needs_fsdd
@pytest.mark.parametrize("seed", [0, 1])
def test_no_speaker_is_heard_in_two_splits(seed):
    whose = {sound.frames(speech.speech(clip)).astype(np.float32).tobytes(): clip for clip in speech.clips()}
    found = []
    for batch in task("spoken_digits_raw", {"test_speaker": "theo"}).splits(seed):
        rows = zip(batch.inputs.numpy(), batch.lengths.tolist(), batch.targets.tolist(), strict=True)
        clips = [(whose[steps[:length].tobytes()], targets[length - 1]) for steps, length, targets in rows]
        assert all(clip.digit == answer for clip, answer in clips)
        found.append(Counter(clip.speaker for clip, _ in clips))
    train, validation, test = found
    assert test == {"theo": 500} and list(validation.values()) == [500]
    assert set(train) == set(speech.SPEAKERS) - {"theo"} - set(validation) and set(train.values()) == {500}


@needs_fsdd
def test_coefficients_are_standardised_by_the_other_speakers():
    built = task("spoken_digits", {"test_speaker": "lucas"})
    steps = np.concatenate(
        [values for values, clip in zip(speech.cepstra(), speech.clips(), strict=True) if clip.speaker != "lucas"]
    )
    test = built.splits(0).test
    clip = next(i for i, clip in enumerate(speech.clips()) if clip.speaker == "lucas")
    expected = (speech.cepstra()[clip] - steps.mean(0)) / steps.std(0)
    np.testing.assert_allclose(test.inputs[0, : len(expected)], expected, atol=1e-4)


@needs_fsdd
def test_the_discriminant_hears_more_than_chance_of_every_speaker_and_is_no_miracle():
    for speaker in speech.SPEAKERS:
        assert 0.4 < task("spoken_digits", {"test_speaker": speaker}).reference.value < 0.95


@pytest.mark.parametrize("name", ["spoken_digits", "spoken_digits_raw", "digit_strings"])
@pytest.mark.parametrize("value", ["George", "", 3, None])
def test_only_a_speaker_can_be_held_out(name, value):
    with pytest.raises(InvalidParameter, match="test_speaker must be one of george, "):
        task(name, {"test_speaker": value})


def test_the_other_parameters_of_speech_are_checked():
    with pytest.raises(InvalidParameter, match="waveform: digit must be at most 9, got 10"):
        task("waveform", {"digit": 10})
    with pytest.raises(InvalidParameter, match="digit_strings: max_gap must be an integer of at least 0"):
        task("digit_strings", {"max_gap": -1})


@needs_fsdd
@pytest.mark.parametrize("seed", [0, 1])
def test_a_string_is_clips_of_one_speaker_with_silence_between(seed):
    built = task("digit_strings", SMALL)
    clips = speech.clips()
    strings = built.test_strings()
    assert {clips[i].speaker for string in strings for i in string.members} == {"george"}
    test = built.splits(seed).test
    for row, string in enumerate(strings):
        pieces = []
        for place, i in enumerate(string.members):
            pieces += [*speech.speech(clips[i])]
            pieces += [0.0] * (80 * string.gaps[place]) if place < len(string.gaps) else []
        assert transcription.spoken(string).tolist() == pieces
        assert int(test.lengths[row]) == math.ceil((1 + len(pieces) // 80) / 3)
        digits = [clips[i].digit for i in string.members]
        assert test.targets[row].tolist() == [d + 1 for d in digits] + [-1] * (test.targets.shape[1] - len(digits))
        assert int(test.target_lengths[row]) == len(digits)
    assert torch.equal(test.scored, valid_steps(test.lengths, test.inputs.shape[1]))


@needs_fsdd
def test_drawn_strings_are_of_every_length_and_of_the_speakers_asked_for():
    strings = transcription.draw_strings(["theo", "lucas"], 300, 3, 5, np.random.default_rng(0))
    assert {len(string.members) for string in strings} == {1, 2, 3}
    assert {gap for string in strings for gap in string.gaps} == set(range(6))
    speakers = [{speech.clips()[i].speaker for i in string.members} for string in strings]
    assert all(len(names) == 1 for names in speakers) and set().union(*speakers) == {"theo", "lucas"}


@needs_fsdd
def test_the_empty_transcript_is_the_floor():
    built = task("digit_strings", SMALL)
    assert built.floor(0) == 1.0  # the empty transcript: one edit for every digit
    assert 0 < task("digit_strings", {}).reference.value < 0.6


def edits(a, b):
    """Levenshtein, by the recurrence."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(before + (x != y), row[j] + 1, row[j - 1] + 1)
    return row[-1]


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(0, 3), min_size=1, max_size=8), st.lists(st.integers(1, 3), min_size=1, max_size=4)
        ),
        min_size=1,
        max_size=4,
    )
)
def test_the_label_error_rate_is_what_plain_python_counts(rows):
    paths, truths = zip(*rows, strict=True)
    lengths = torch.tensor([len(path) for path in paths])
    longest, most = int(lengths.max()), max(map(len, truths))
    outputs = torch.nn.functional.one_hot(
        torch.tensor([[*path, *[2] * (longest - len(path))] for path in paths]), 4
    ).float()  # padded with a symbol, which must not count
    batch = SequenceBatch(
        inputs=torch.zeros(len(rows), longest, 1),
        targets=torch.tensor([[*truth, *[-1] * (most - len(truth))] for truth in truths]),
        lengths=lengths,
        scored=valid_steps(lengths, longest),
        target_lengths=torch.tensor([len(truth) for truth in truths]),
    )
    said = [[symbol for symbol, _ in itertools.groupby(path) if symbol] for path in paths]
    assert best_path(outputs, lengths) == said
    parts = label_error_rate.parts(outputs, batch)
    assert parts.over.tolist() == [edits(a, b) for a, b in zip(said, truths, strict=True)]
    assert parts.under.tolist() == [len(truth) for truth in truths]
    assert label_error_rate.value(parts) == pytest.approx(sum(parts.over.tolist()) / sum(map(len, truths)))
    outputs[0, 0, 0] = torch.nan
    assert label_error_rate.parts(outputs, batch).over[0].isnan()


@needs_fsdd
def test_a_transcript_is_fitted_evaluated_and_drawn(tmp_path):
    experiment = prepare(
        "digit_strings", "gru", 0, 500, "cpu", SMALL, fit={"n_steps": 4, "evaluate_every": 2}, run_folder=str(tmp_path)
    )
    experiment.fit()
    experiment.evaluate()
    assert experiment.result.test["label_error_rate"] > 0 and experiment.result.floor == 1.0
    figure = trial_figures.answers(experiment)
    figure.canvas.draw()
    assert "test sequences are right as a whole" in figure.get_suptitle()
    assert experiment.finish().score is not None


@needs_fsdd
def test_models_that_cannot_transcribe_say_so(tmp_path):
    for model in ("hmm", "neural_hmm", "boosted_trees", "ngram", "mlp"):
        with pytest.raises(ValueError, match=f"{model} cannot do digit_strings: "):
            prepare("digit_strings", model, 0, 500, "cpu", SMALL, run_folder=str(tmp_path))


@needs_fsdd
def test_the_floor_hears_nothing(tmp_path):
    experiment = prepare("digit_strings", "floor", 0, None, "cpu", SMALL, run_folder=str(tmp_path))
    experiment.fit()
    experiment.evaluate()
    assert experiment.result.equals_floor


@needs_fsdd
def test_a_waveform_is_every_sample_of_clips_that_no_other_split_has():
    splits = task("waveform", {"digit": 8, "speaker": "theo"}).splits(3)
    clips = sorted((c for c in speech.clips() if (c.digit, c.speaker) == (8, "theo")), key=lambda c: c.take)
    levels = {sound.mu_law(c.samples / np.abs(c.samples).max()).tobytes(): c.take for c in clips}
    takes = []
    for batch in splits:
        batch.validate()
        assert torch.equal(batch.targets[:, :-1][batch.scored[:, 1:]], batch.inputs[:, 1:][batch.scored[:, 1:]])
        rows = zip(batch.inputs, batch.targets, batch.lengths.tolist(), strict=True)
        takes.append([levels[torch.cat([x[:1], y[:n]]).numpy().tobytes()] for x, y, n in rows])
    train, validation, test = takes
    assert test == [0, 1, 2, 3, 4] and len(validation) == 5 and len(train) == 40
    assert sorted(train + validation) == list(range(5, 50))


@needs_fsdd
def test_the_reference_of_a_waveform_is_counted_right():
    development, test = waveforms.recordings(1, "yweweler")

    def steps(clip):
        samples = [0.0] * 15 + sound.mu_law_inverse(clip).tolist()
        return [(samples[i : i + 16], samples[i + 16]) for i in range(len(samples) - 16)]

    known = [step for clip in development for step in steps(clip)]
    past, come = np.array([x for x, _ in known]), np.array([y for _, y in known])
    weights = np.linalg.solve(past.T @ past, past.T @ come)
    bits = []
    for clip in test:
        width = np.abs(come - past @ weights).mean()
        for (x, y), level in zip(steps(clip), clip[1:].tolist(), strict=True):
            middle = float(np.dot(weights, x))
            ends = [-np.inf if level == 0 else sound.mu_law_inverse(level - 0.5), np.inf]
            ends[1] = np.inf if level == 255 else sound.mu_law_inverse(level + 0.5)
            low, high = student.cdf((np.array(ends) - middle) / max(width, 2e-4), 3)
            bits.append(-math.log2((high - low) * (1 - 1 / 4000) + 1 / 4000 / 256))
            width = 0.9 * width + 0.1 * abs(y - middle)
    assert task("waveform", {"digit": 1, "speaker": "yweweler"}).reference.value == pytest.approx(
        np.mean(bits), rel=1e-6
    )


def test_bits_are_nats_over_the_logarithm_of_two():
    outputs, targets = torch.randn(7, 256), torch.arange(7)
    nats = torch.nn.functional.cross_entropy(outputs, targets)
    assert waveforms.bits_per_sample(outputs, targets) == pytest.approx(float(nats) / math.log(2), rel=1e-5)


@needs_fsdd
def test_a_waveform_is_fitted_in_windows_and_drawn(tmp_path):
    fit = {"n_steps": 2, "evaluate_every": 2, "batch_size": 8}
    experiment = prepare("waveform", "gru", 0, 500, "cpu", fit=fit, run_folder=str(tmp_path))
    experiment.fit()
    experiment.evaluate()
    figure = trial_figures.answers(experiment)
    figure.canvas.draw()
    assert "bits per sample" in figure.get_suptitle()
