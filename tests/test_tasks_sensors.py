"""Sensors and monitoring: parsers, counts, splits that do not leak, failures, metrics and references."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import datasets
from benchmarks.parameters import InvalidParameter
from benchmarks.tasks import monitoring, sensor_files, sensors
from benchmarks.tasks.classification import labelled_batch
from benchmarks.tasks.monitoring import Occupancy, RemainingLife
from benchmarks.tasks.registry import task
from benchmarks.tasks.sensors import Activity, IndoorMovement, SensorFusion
from models import registry
from models.sequences import SequenceBatch


def needs(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not datasets.is_here(name), reason=f"{name} is not in RNNBENCH_DATA")


HOUR = "date,a,b,c,d,e,f,g\n2016-07-01 00:00:00,1,2,3,4,5,6,7.5\n"
CYCLES = "".join(f"{e} {c} " + " ".join(["0.5"] * 24) + "  \n" for e, c in ((1, 1), (1, 2), (2, 1)))
MINUTES = '"date","T","H","L","C","R","Occupancy"\r\n"1","2015-02-04 17:51:00",23.2,27.3,426,721,0.005,1\r\n'
STEPS = "# Task: bending1\r\n# Columns: time,a,b\r\n0,1,2,3,4,5,6\r\n250,1,2,3,4,5,6.5,\r\n"
PARSERS = {
    "transformer": (sensor_files.transformer_temperature, HOUR),
    "cycles": (sensor_files.turbofan_cycles, CYCLES),
    "remaining": (sensor_files.remaining_cycles, "112 \n98 \n"),
    "occupancy": (sensor_files.room_occupancy, MINUTES),
    "signals": (sensor_files.signal_strengths, "#RSS_anchor1, RSS_anchor2\n-0.9,-0.5,0.3,0.3\n"),
    "labels": (sensor_files.numbered_labels, "#sequence_ID, class_label\n1,1\n2,-1\n"),
    "body": (sensor_files.body_sensors, STEPS),
}


def test_each_parser_reads_what_the_format_promises() -> None:
    assert sensor_files.transformer_temperature(HOUR, "f").tolist() == [[1, 2, 3, 4, 5, 6, 7.5]]
    assert sensor_files.turbofan_cycles(CYCLES, "f")[:, :3].tolist() == [[1, 1, 0.5], [1, 2, 0.5], [2, 1, 0.5]]
    assert sensor_files.remaining_cycles("112 \n98 \n", "f").tolist() == [112, 98]
    minutes = sensor_files.room_occupancy(MINUTES, "f")
    assert minutes.values.tolist() == [[23.2, 27.3, 426, 721, 0.005]] and minutes.labels.tolist() == [1]
    assert sensor_files.signal_strengths(PARSERS["signals"][1], "f").tolist() == [[-0.9, -0.5, 0.3, 0.3]]
    assert sensor_files.numbered_labels(PARSERS["labels"][1], "f") == {1: 1, 2: -1}
    assert sensor_files.body_sensors(STEPS, "f").tolist() == [[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6.5]]
    blanks = STEPS.replace(",", " ").replace("\r", "")
    np.testing.assert_array_equal(sensor_files.body_sensors(blanks, "f"), sensor_files.body_sensors(STEPS, "f"))


@pytest.mark.parametrize(
    ("parser", "text", "sentence"),
    [
        ("transformer", HOUR.replace("7.5", "x"), "f.txt: line 2: could not convert"),
        ("transformer", HOUR.replace(",7.5", ""), "f.txt: line 2 has 7 fields, not 8"),
        ("transformer", "date\n", "f.txt: there is no row of numbers in it"),
        ("cycles", CYCLES.replace("1 2 ", "1 3 "), "f.txt: row 2 is cycle 3 of engine 1, after which cycle 2"),
        ("cycles", CYCLES.replace("2 1 ", "3 1 "), "row 3 is cycle 1 of engine 3"),
        ("remaining", "112\nnan\n", "f.txt: line 2 holds a number that is not finite"),
        ("occupancy", MINUTES.replace(",1\r", ",2\r"), "f.txt: 2 is not 0 or 1"),
        ("signals", "1,2,3\n", "f.txt: line 1 has 3 numbers, not 4"),
        ("labels", "1,1\n1,2\n", "f.txt: a sequence is labelled twice"),
        ("labels", "1,1.5\n", "1.5 is not a whole number"),
        ("body", "# only comments\n", "there is no row"),
    ],
)
def test_what_the_format_does_not_promise_is_refused_in_a_sentence(parser: str, text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        PARSERS[parser][0](text, "f.txt")


@settings(max_examples=300, deadline=None)
@given(
    parser=st.sampled_from(sorted(PARSERS)),
    junk=st.text(st.characters(codec="utf-8"), max_size=12)
    | st.sampled_from(["nan", "-1", "1e999", ",,", "\n", '"', "#"]),
    place=st.floats(0, 1),
    cut=st.integers(0, 20),
)
def test_a_parser_either_reads_or_says_why_not(parser: str, junk: str, place: float, cut: int) -> None:
    read, text = PARSERS[parser]
    at = round(place * len(text))
    try:
        read(text[:at] + junk + text[at + cut :], "f.txt")
    except ValueError as error:
        assert str(error).startswith("f.txt: ")


@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=60), keep=st.floats(0, 1), flip=st.integers(0, 10_000))
def test_a_broken_electrocardiogram_is_refused_in_a_sentence(content: bytes, keep: float, flip: int) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, ecg=np.arange(900, 1100, dtype=np.uint16))
    whole = buffer.getvalue()
    assert sensor_files.electrocardiogram(whole, "f")[[0, 124]].tolist() == [-0.62, 0]
    damaged = bytearray(whole)
    damaged[flip % len(damaged)] ^= 0xFF
    for broken in (content, whole[: int(keep * len(whole))], bytes(damaged)):
        try:
            sensor_files.electrocardiogram(broken, "f.dat")
        except ValueError as error:
            assert str(error).startswith("f.dat: ")


@needs("indoor_movement")
def test_the_walks_are_those_of_the_description() -> None:
    walks = sensors.walks()
    lengths = [len(walk.signals) for walk in walks]
    assert (len(walks), min(lengths), max(lengths), sum(lengths)) == (314, 19, 129, 13_197)
    assert [sum(walk.rooms == rooms for walk in walks) for rooms in (1, 2, 3)] == [104, 106, 104]


@needs("indoor_movement")
def test_the_tested_rooms_are_in_no_other_split() -> None:
    for rooms in (1, 2, 3):
        splits = IndoorMovement(test_rooms=rooms).splits(0)
        there = [walk for walk in sensors.walks() if walk.rooms == rooms]
        assert len(splits.test) == len(there) and sum(map(len, splits)) == 314
        assert splits.test.lengths.tolist() == [len(walk.signals) for walk in there]
        assert splits.test.targets[splits.test.scored].tolist() == [int(walk.changes) for walk in there]


@needs("arem_uci")
def test_no_recording_is_in_two_splits_nor_a_copy_of_one() -> None:
    recordings = sensors.recordings()
    assert len(recordings) == 81 and {len(r.values) for r in recordings} == {479, 480}
    assert np.bincount([r.activity for r in recordings if r.is_test]).tolist() == [4, 3, 3, 3, 3, 3]
    # Unscaled, the pieces of each split come from recordings of their own, and no second of one is in another.
    parts, origin = sensors.activity_parts(120)
    assert len(origin) == len(parts.development.labels) == 4 * 62 and len(parts.test.labels) == 4 * 19
    splits = Activity().splits(0)
    runs = [
        {
            run
            for x, n in zip(split.inputs, split.lengths, strict=True)
            for run in sensors.varied_runs(x[:n].numpy(), 40)
        }
        for split in splits
    ]
    assert all(runs) and not runs[0] & runs[1] and not (runs[0] | runs[1]) & runs[2]


@needs("arem_uci")
def test_all_pieces_of_a_recording_are_in_one_split() -> None:
    _, origin = sensors.activity_parts(120)
    labelled = sensors.pieces([r for r in sensors.recordings() if not r.is_test], 120)[0]
    numbered = labelled._replace(values=np.broadcast_to(origin[:, None, None] + 1.0, labelled.values.shape))
    parts = sensors.classification.Parts(numbered, numbered)
    train, validation, _ = sensors.recording_splits(parts, origin, np.random.default_rng(0))
    groups = [{round(float(x[0, 0]), 4) for x in split.inputs} for split in (train, validation)]
    assert not groups[0] & groups[1] and len(groups[1]) == 2 * 4 + 2 + 1
    assert len(validation) == 4 * len(groups[1])


def test_recordings_are_cut_without_losing_more_than_a_short_rest() -> None:
    recording = sensors.Recording(np.arange(22.0).reshape(11, 2), 3, is_test=False)
    for length, sizes in ((4, [4, 4, 3]), (5, [5, 5]), (11, [11]), (20, [11])):
        part, origin = sensors.pieces([recording], length)
        assert part.lengths.tolist() == sizes and set(part.labels) == {3} and not origin.any()


def walking(n: int, length: int = 12) -> SequenceBatch:
    values = np.random.default_rng(0).normal(size=(n, length, 6))
    return labelled_batch(sensors.Labelled(values, np.full(n, length), np.arange(n) % 6))


@settings(max_examples=30, deadline=None)
@given(share=st.floats(0, 1), seed=st.integers(0, 99))
def test_a_failed_sensor_keeps_its_last_value_and_the_others_go_on(share: float, seed: int) -> None:
    batch = walking(20)
    failed = sensors.fail(batch, share, np.random.default_rng(seed))
    works = failed.inputs[:, :, 6:]
    assert int((works == 0).any(2).any(1).sum()) == round(share * 20)
    for before, after in zip(batch.inputs.tolist(), failed.inputs.tolist(), strict=True):
        dead = [next((t for t in range(12) if after[t][6 + sensor] == 0), None) for sensor in range(3)]
        assert sum(since is not None for since in dead) <= 1
        for t in range(12):
            for sensor in range(3):
                since = dead[sensor]
                held = t if since is None or t < since else since - 1
                assert after[t][2 * sensor : 2 * sensor + 2] == before[held][2 * sensor : 2 * sensor + 2]
                assert after[t][6 + sensor] == float(since is None or t < since)


def test_nothing_stands_in_the_padding_of_a_failing_sequence() -> None:
    batch = replace(walking(20), lengths=torch.full((20,), 7))
    batch.inputs[:, 7:] = 0
    assert not sensors.fail(batch, 1.0, np.random.default_rng(0)).inputs[:, 7:].any()


def test_accuracy_after_failure_counts_the_sequences_with_a_failure_alone() -> None:
    batch = sensors.fail(walking(12), 0.5, np.random.default_rng(1))
    failed = (batch.inputs[:, -1, 6:] == 0).any(1).tolist()
    outputs = torch.nn.functional.one_hot(torch.arange(12) % 4, 6).float()[:, None].expand(-1, 12, -1)
    right = [k % 4 == k % 6 for k in range(12)]
    parts = sensors.after_failure.parts(outputs, batch)
    expected = sum(r and f for r, f in zip(right, failed, strict=True)) / sum(failed)
    assert sensors.after_failure.value(parts) == pytest.approx(expected)
    whole = sensors.accuracy.parts(outputs, batch)
    assert sensors.accuracy.value(whole) == pytest.approx(np.mean(right))
    missing = sensors.after_failure.parts(outputs * torch.nan, batch)
    assert np.isnan(sensors.after_failure.value(missing))


@needs("arem_uci")
def test_the_test_failures_are_the_same_for_every_seed_and_half_of_all() -> None:
    built = SensorFusion()
    one, two = (built.splits(seed).test.inputs for seed in (0, 1))
    assert torch.equal(one, two) and int((one[:, :, 6:] == 0).any(2).any(1).sum()) == 38
    assert [metric.name for metric in SensorFusion(failing=0).metrics] == ["accuracy", "cross_entropy"]


@pytest.mark.parametrize("name", ["hmm", "gmm_hmm", "neural_hmm"])
def test_markov_models_do_not_describe_masks(name: str) -> None:
    built, entry = SensorFusion(), registry.entry(name)
    config = replace(entry.config, n_states=3)
    predictor = registry.build(entry, built.input, built.target, built.causal, config, 0).eval()
    batch = sensors.fail(walking(24), 0.5, np.random.default_rng(0))
    if entry.fit.name == "OWN":
        predictor.fit(batch, batch, torch.Generator().manual_seed(0))  # type: ignore[operator]
    other = batch.inputs.clone()
    other[:, :, 6:] = 1 - other[:, :, 6:]
    assert torch.equal(predictor(batch.inputs)[0], predictor(other)[0])
    other[:, :, 0] += 1
    assert not torch.equal(predictor(batch.inputs)[0], predictor(other)[0])


@needs("cmapss_fd001")
def test_the_engines_are_those_of_the_description() -> None:
    train, test = monitoring.engines()
    assert (len(train.table), len(test.table)) == (20_631, 13_096)
    lengths = test.table.groupby("engine").size()
    assert (lengths.min(), lengths.max(), len(lengths)) == (31, 303, 100)
    assert len(monitoring.engine_preparation().channels) == 17


@needs("cmapss_fd001")
def test_remaining_life_counts_down_from_the_cap_to_the_truth() -> None:
    truth = sensor_files.remaining_cycles(datasets.path("cmapss_fd001", "RUL_FD001.txt").read_text(), "RUL_FD001.txt")
    splits = RemainingLife().splits(0)
    for row, length in enumerate(splits.test.lengths.tolist()):
        expected = [min(125.0, truth[row] + length - 1 - t) for t in range(length)]
        np.testing.assert_allclose(splits.test.targets[row, :length, 0] * 125, expected, atol=1e-3)
    for batch in (splits.train, splits.validation):
        ends = batch.targets[torch.arange(len(batch)), batch.lengths - 1, 0]
        assert not ends.any()
        assert torch.equal(batch.scored.sum(1), batch.lengths)
    assert sorted(splits.train.lengths.tolist() + splits.validation.lengths.tolist()) == sorted(
        monitoring.engines()[0].table.groupby("engine").size()
    )


@needs("cmapss_fd001")
def test_no_engine_is_in_two_splits() -> None:
    splits = RemainingLife().splits(3)
    assert [len(split) for split in splits] == [80, 20, 100]
    first = [{tuple(x[0].tolist()) for x in split.inputs} for split in splits]
    assert sum(map(len, first)) == 200 == len(set().union(*first))


def test_errors_of_remaining_life_are_in_cycles_and_the_final_one_is_of_the_last_step() -> None:
    lengths = torch.tensor([3, 2])
    scored = torch.arange(3) < lengths[:, None]
    batch = SequenceBatch(torch.zeros(2, 3, 17), torch.zeros(2, 3, 1), lengths, scored)
    outputs = torch.tensor([[3.0, 4, 5], [6, 7, 99]])[..., None] / 125
    rmse, final, mae = RemainingLife().metrics
    assert rmse.value(rmse.parts(outputs, batch)) == pytest.approx(np.sqrt((9 + 16 + 25 + 36 + 49) / 5))
    assert final.value(final.parts(outputs, batch)) == pytest.approx(np.sqrt((25 + 49) / 2))
    assert mae.value(mae.parts(outputs, batch)) == pytest.approx(5)


@needs("cmapss_fd001")
def test_the_reference_of_remaining_life_is_a_regression_on_recent_means() -> None:
    part = monitoring.engines()[1]
    means = monitoring._recent_means(part)
    channels = monitoring.engine_preparation().apply(part.table)
    for row in (0, 10, 30, 31, 40, 13_095):
        engine = part.table["engine"].to_numpy()
        first = max(np.flatnonzero(engine == engine[row])[0], row - 29)
        np.testing.assert_allclose(means[row, 1:], channels[first : row + 1].mean(0), atol=1e-4)


@needs("occupancy_uci")
def test_the_minutes_of_occupancy_are_counted_once_and_in_order_of_time() -> None:
    built = Occupancy()
    splits = built.splits(0)
    assert int(splits.test.scored.sum()) == 2_665 + 9_752
    assert int(splits.validation.scored.sum()) == 8_143 - 8_143 * 4 // 5
    training, _, tests = built.rows()
    np.testing.assert_array_equal(
        splits.test.targets[splits.test.scored], np.concatenate([rows.labels for rows in tests])
    )
    np.testing.assert_array_equal(
        splits.test.inputs[splits.test.scored], np.concatenate([rows.values for rows in tests]).astype(np.float32)
    )
    np.testing.assert_allclose(training.values.mean(0), 0, atol=1e-9)
    assert splits.train.inputs[:, :, 0].max() <= training.values[:, 0].max() + 1e-6
    starts = splits.train.inputs[:, 0].numpy()
    np.testing.assert_array_equal(starts, training.values[::60].astype(np.float32)[: len(starts)])


def test_pieces_of_a_record_hold_its_end_in_the_last() -> None:
    record = monitoring.Rows(np.arange(10.0)[:, None], np.arange(10) % 2)
    batch = monitoring._pieces([record, record], length=4, stride=3)
    rows = [x[:n, 0].tolist() for x, n in zip(batch.inputs, batch.lengths.tolist(), strict=True)]
    assert rows == 2 * [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]
    assert monitoring._pieces([record], length=4, stride=4).lengths.tolist() == [4, 4, 2]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 1)), min_size=1, max_size=30))
def test_the_best_level_is_the_best_of_all(rows: list[tuple[int, int]]) -> None:
    values, labels = np.array([v for v, _ in rows], dtype=float), np.array([label for _, label in rows])
    found = monitoring._best_level(values, labels)
    right = {level: int(((values > level) == labels).sum()) for level in values}
    assert right[found] == max(right.values())
    assert found == min(level for level in values if right[level] == right[found])


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("indoor_movement", {"test_rooms": 4}, "test_rooms must be 1, 2 or 3, got 4"),
        ("activity", {"length": 481}, "a recording has 480 steps"),
        ("sensor_fusion", {"failing": 1.5}, "failing must lie in 0 … 1, got 1.5"),
        ("sensor_fusion", {"failing": True}, "failing must lie in 0 … 1"),
        ("occupancy", {"length": 3_000}, "length must be at most the 2665"),
        ("occupancy", {"light": 1}, "light must be true or false"),
    ],
)
def test_wrong_parameters_are_refused(name: str, parameters: dict, message: str) -> None:
    with pytest.raises(InvalidParameter, match=message):
        task(name, parameters)


EXTREME = [
    ("indoor_movement", {"test_rooms": 1}),
    ("arem_uci", {"length": 2}),
    ("arem_uci", {"length": 480, "failing": 1.0}),
    ("occupancy_uci", {"length": 4}),
    ("occupancy_uci", {"length": 2_665, "light": False}),
]
NAMES = {"indoor_movement": "indoor_movement", "arem_uci": "sensor_fusion", "occupancy_uci": "occupancy"}


@pytest.mark.parametrize(("data", "parameters"), EXTREME, ids=str)
def test_extreme_parameters_that_are_accepted_work(data: str, parameters: dict) -> None:
    if not datasets.is_here(data):
        pytest.skip(f"{data} is not in RNNBENCH_DATA")
    built = task(NAMES[data], parameters)
    for batch in built.splits(0):
        batch.validate()
    assert np.isfinite(built.floor(0))
