"""Images, moving digits and hands in videos: their files' parsers, what is in each split, and clips drawn again by hand."""

import gzip
import itertools
import math
import struct
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import datasets
from benchmarks.parameters import InvalidParameter
from benchmarks.tasks import gestures, video, vision
from benchmarks.tasks.classification import digit_parts
from benchmarks.tasks.registry import task
from benchmarks.tasks.vision_files import Frames, gesture_frames, hand_paths, idx_array, pen_digits, pen_strokes
from models.sequences import SequenceBatch


def needs(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not datasets.is_here(name), reason=f"{name} is not in RNNBENCH_DATA")


def idx(values: np.ndarray) -> bytes:
    return gzip.compress(
        bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()
    )


def test_an_idx_file_reads_as_it_was_written() -> None:
    for shape in ((3, 2, 2), (5,), (0, 4)):
        values = np.arange(math.prod(shape), dtype=np.uint8).reshape(shape)
        np.testing.assert_array_equal(idx_array(idx(values), "x"), values)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the first bytes are missing"),
        (b"plain", "not compressed by gzip"),
        (idx(np.zeros(9, np.uint8))[:-9], "not compressed by gzip, or torn"),
        (gzip.compress(b""), "missing"),
        (gzip.compress(b"\0\0\x0d\x01" + bytes(4)), "not those of an idx file of bytes"),
        (gzip.compress(b"\0\0\x08\x02" + bytes(4)), "ends within its header"),
        (gzip.compress(b"\0\0\x08\x01" + struct.pack(">I", 3) + b"ab"), "2 values follow the header, which promises 3"),
    ],
    ids=["empty", "plain", "torn", "nothing in it", "of another type", "short header", "short"],
)
def test_a_broken_idx_file_is_refused_with_a_sentence(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=f"x.gz: .*({message})"):
        idx_array(content, "x.gz")


GESTURES = "lhx,…,phase\r\n" + "".join(
    ",".join([*(str(frame + k / 100) for k in range(18)), str(1_000 + 33 * frame), phase]) + "\r\n"
    for frame, phase in enumerate(["Rest", "Preparação", "Preparation", "Stroke", "Hold", "Retraction"])
)
PATHS = "classLast,91,15,comma\n" + "".join(",".join(["0.25", "0.5"] * 45 + [str(label)]) + "\n" for label in (1, 15))
DIGITS = (
    "% about\n@relation pendigits\n@data\n"
    + " 47,100, 27, 81, 57, 37, 26,  0,  0, 23, 56, 53,100, 90, 40, 98, 8\n% end\n"
)
STROKES = "START\n1.5,-2,0\n3,-4.5,10\nBREAK\n7,-8,90\nBREAK\n"


def test_gesture_frames_hold_joints_times_and_phases_and_know_the_label_left_in_portuguese() -> None:
    for text in (GESTURES, "\ufeff" + GESTURES):
        frames = gesture_frames(text, "a1")
        assert frames.positions.shape == (6, 6, 3) and frames.positions[2, 1].tolist() == [2.03, 2.04, 2.05]
        assert frames.milliseconds.tolist() == [1_000 + 33 * frame for frame in range(6)]
        assert frames.phases.tolist() == [0, 1, 1, 2, 3, 4]


def test_hand_paths_skip_the_header_and_number_classes_from_0() -> None:
    paths, labels = hand_paths(PATHS, "x")
    assert paths.shape == (2, 45, 2) and labels.tolist() == [0, 14] and paths[1, 44].tolist() == [0.25, 0.5]


def test_pen_digits_and_strokes_read_as_they_stand() -> None:
    points, labels = pen_digits(DIGITS, "x")
    assert points[0, :2].tolist() == [[47, 100], [27, 81]] and labels.tolist() == [8]
    strokes = pen_strokes(STROKES, "x")
    assert [stroke.tolist() for stroke in strokes] == [[[1.5, -2], [3, -4.5]], [[7, -8]]]


@pytest.mark.parametrize(
    ("parse", "text", "message"),
    [
        (hand_paths, PATHS.replace(",15\n", "\n"), "line 3 has 90 numbers, not 91"),
        (hand_paths, PATHS.replace(",15\n", ",16\n"), "line 3 ends in 16, not in a class from 1 to 15"),
        (hand_paths, PATHS.replace("0.5,15", "nan,15"), "line 3 holds 'nan', which is not finite"),
        (hand_paths, PATHS.replace("0.5,15", "half,15"), "line 3 holds 'half', which is no number"),
        (gesture_frames, GESTURES.replace("Hold", "Rast"), "line 6 ends in 'Rast', which is no phase"),
        (gesture_frames, GESTURES.replace("1033", "999"), "frame 2 is earlier than the frame before it"),
        (gesture_frames, GESTURES.replace("1033", "1e99"), r"line 3 has the time 1e\+99, which is no count"),
        (pen_digits, DIGITS.replace("@data", ""), "no line reads @data"),
        (pen_digits, DIGITS.replace("98, 8", "98, 10"), "line 4 must hold 16 whole numbers from 0 to 100 and a digit"),
        (pen_strokes, STROKES[6:], "line 1 is not START"),
        (pen_strokes, STROKES[:-6], "the last line is not the BREAK of a stroke"),
        (pen_strokes, STROKES + "BREAK\n", "line 7 ends a stroke without points"),
    ],
)
def test_a_broken_file_is_refused_with_a_sentence_that_names_file_and_line(
    parse: Callable, text: str, message: str
) -> None:
    with pytest.raises(ValueError, match=f"^the file: {message}"):
        parse(text, "the file")


TEXTS = {gesture_frames: GESTURES, hand_paths: PATHS, pen_digits: DIGITS, pen_strokes: STROKES}


@settings(max_examples=300, deadline=None)
@given(
    parse=st.sampled_from(list(TEXTS)),
    cuts=st.lists(st.integers(0, 1_200), max_size=3),
    inserted=st.lists(
        st.sampled_from([",", "\n", "nan", "1e400", "-", "BREAK", "x", "\x1c", "é", "", "9" * 30]), max_size=3
    ),
)
def test_whatever_is_wrong_with_a_file_it_parses_or_is_refused_with_a_sentence(
    parse: Callable, cuts: list[int], inserted: list[str]
) -> None:
    text = TEXTS[parse]
    for cut, piece in zip(cuts, inserted, strict=False):
        text = text[: cut % len(text)] + piece + text[cut % len(text) + len(piece) :]
    try:
        parse(text, "the file")
    except ValueError as error:
        assert str(error).startswith("the file: ")


@settings(max_examples=100, deadline=None)
@given(raw=st.binary(max_size=40), compressed=st.booleans())
def test_whatever_is_wrong_with_an_idx_file_it_parses_or_is_refused(raw: bytes, compressed: bool) -> None:
    raw = b"\0\0\x08" + raw if compressed else raw
    try:
        assert idx_array(gzip.compress(raw) if compressed else raw, "x.gz").dtype == np.uint8
    except ValueError as error:
        assert str(error).startswith("x.gz: ")


SMALL = {"n_train": 30, "n_validation": 10, "n_test": 20}


@needs("mnist_t10k")
def test_small_mnist_has_10_000_different_images_and_no_image_is_in_two_splits() -> None:
    images = vision.mnist("t10k")
    assert images.pixels.shape == (10_000, 784) and np.bincount(images.labels).min() >= 800
    assert len(np.unique(images.pixels, axis=0)) == 10_000
    splits = task("mnist_rows_small", {}).splits(0)
    assert [len(split) for split in splits] == [7_500, 500, 2_000]
    parts = [{image.numpy().tobytes() for image in split.inputs} for split in splits]
    assert len(set().union(*parts)) == 10_000
    assert splits.test.targets[:, -1].tolist() == images.labels[8_000:].tolist()


@needs("mnist_t10k")
def test_pixels_rows_and_permuted_pixels_show_the_same_images() -> None:
    pixels, rows, permuted = (
        task(f"mnist_{kind}_small", SMALL).splits(0).test for kind in ("pixels", "rows", "permuted")
    )
    images = vision.mnist("t10k").pixels[8_000:8_020] / 255
    assert pixels.inputs.shape == (20, 784, 1) and rows.inputs.shape == (20, 28, 28)
    np.testing.assert_allclose(pixels.inputs.reshape(20, 784), images, atol=1e-7)
    assert torch.equal(rows.inputs.reshape(20, 784), pixels.inputs.reshape(20, 784))
    order = vision.pixel_order()
    assert sorted(order.tolist()) == list(range(784)) and order.tolist() != list(range(784))
    assert torch.equal(permuted.inputs[:, :, 0], pixels.inputs[:, torch.from_numpy(order), 0])
    assert torch.equal(permuted.targets, pixels.targets)


@needs("mnist_t10k")
def test_the_reference_of_mnist_is_the_digit_of_the_nearest_image_searched_plainly() -> None:
    reference = task("mnist_pixels_small", SMALL).reference
    images = vision.mnist("t10k")
    known, right = images.pixels[:8_000].astype(np.int64), 0
    for image, label in zip(images.pixels[8_000:8_020].astype(np.int64), images.labels[8_000:8_020], strict=True):
        right += images.labels[((known - image) ** 2).sum(1).argmin()] == label
    assert reference is not None and reference.value == right / 20


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_train": 7_501}, r"n_train \+ n_validation must be at most 8000"),
        ({"n_test": 2_001}, "n_test must be at most 2000, got 2001"),
        ({"n_train": 0}, "n_train must be an integer of at least 1"),
    ],
)
def test_more_images_than_there_are_are_refused(parameters: dict, message: str) -> None:
    with pytest.raises(InvalidParameter, match=message):
        task("mnist_rows_small", parameters)
    assert task("mnist_rows", {"n_train": 7_501}).name == "mnist_rows"


def centre(frame: torch.Tensor) -> np.ndarray:
    """(16, 16) ink on a canvas whose edges are joined → the angles of its centre, row and column."""
    turns = np.exp(2j * np.pi * np.arange(16) / 16)
    ink = frame.double().numpy()
    return np.angle([(ink.sum(1) * turns).sum(), (ink.sum(0) * turns).sum()])


def test_a_digit_moves_a_pixel_a_frame_in_the_direction_that_is_the_target() -> None:
    batch = task("moving_digits_direction", SMALL).splits(0).train
    for clip, target in zip(batch.inputs.reshape(-1, 12, 16, 16), batch.targets[:, -1], strict=True):
        move = tuple(video.MOVES[int(target)].tolist())
        for before, after in itertools.pairwise(clip):
            assert torch.equal(after, before.roll(move, (0, 1)))
        moved = np.angle(np.exp(1j * (centre(clip[1]) - centre(clip[0])))) * 16 / (2 * np.pi)
        words = set(video.DIRECTIONS[int(target)].split())
        assert words == {word for word, step in zip(("down", "right"), moved, strict=True) if step > 0.5} | {
            word for word, step in zip(("up", "left"), moved, strict=True) if step < -0.5
        }


def test_no_shift_of_a_digit_looks_like_another_so_that_the_ceiling_is_1() -> None:
    canvases = np.zeros((1_797, 16, 16))
    canvases[:, :8, :8] = np.concatenate([part.values.reshape(-1, 8, 8) for part in digit_parts()])
    for move in video.MOVES:
        for other in video.MOVES:
            if tuple(move) != tuple(other):
                a, b = (np.roll(canvases, tuple(m), (1, 2)) for m in (move, other))
                assert (a != b).any((1, 2)).all()
    assert task("moving_digits_direction", {}).ceiling() == 1
    assert task("moving_digits_direction", {"hidden": 0.5}).ceiling() is None


def test_no_digit_is_in_clips_of_two_splits_and_hidden_pixels_are_a_share() -> None:
    development, test = digit_parts()
    known = {
        image.tobytes(): number
        for number, image in enumerate(np.concatenate([development.values, test.values]).astype(np.float32) / 16)
    }
    shown = []
    for batch in task("moving_digits_direction", SMALL | {"n_train": 300}).splits(0):
        digits = set()
        for frame in batch.inputs[:, 0].reshape(-1, 16, 16):
            # The shift under which the frame is a known digit in the corner of an otherwise empty canvas.
            shifts = (frame.roll((-row, -column), (0, 1)) for row in range(16) for column in range(16))
            found = (known.get(shift[:8, :8].numpy().tobytes()) for shift in shifts if not shift[8:].any())
            digits.add(next(number for number in found if number is not None))
        shown.append(digits)
    assert not shown[0] & shown[1] and not (shown[0] | shown[1]) & shown[2]
    assert min(shown[2]) >= len(development.labels) > max(shown[0] | shown[1])
    whole, hidden = (
        task("moving_digits_digit", {"hidden": share, "n_test": 200}).splits(0).test for share in (0, 0.75)
    )
    assert float((hidden.inputs > 0).sum() / (whole.inputs > 0).sum()) == pytest.approx(0.25, abs=0.01)
    assert torch.equal(hidden.inputs, whole.inputs * (hidden.inputs > 0))


def test_the_floor_of_directions_is_an_eighth() -> None:
    built = task("moving_digits_direction", {"n_frames": 2, "n_test": 20_000})
    assert built.floor(0) == pytest.approx(1 / 8, abs=0.01)


@pytest.mark.parametrize("hidden", [1, -0.1, float("nan"), "x", True])
def test_a_share_that_is_none_is_refused(hidden: object) -> None:
    with pytest.raises(InvalidParameter, match="hidden must be a number from 0 to less than 1"):
        task("moving_digits_digit", {"hidden": hidden})


@needs("libras_uci")
def test_libras_holds_330_different_paths_of_15_classes_and_none_is_in_two_splits() -> None:
    paths = gestures.signs()
    assert paths.values.shape == (330, 45, 2) and len(np.unique(paths.labels)) == 15
    splits = task("libras", {}).splits(0)
    assert sum(map(len, splits)) == 330
    parts = [{path.numpy().tobytes() for path in split.inputs} for split in splits]
    assert len(set().union(*parts)) == 330
    assert all(n >= 4 for n in Counter(splits.test.targets[:, -1].tolist()).values())


def whole(batch: SequenceBatch) -> torch.Tensor:
    """(frames, 24): all scored frames one after the other."""
    return batch.inputs[batch.scored]


@needs("gesture_phase_uci")
def test_every_frame_of_the_seven_videos_is_in_one_split_and_no_video_in_two() -> None:
    videos = gestures.gesture_videos()
    lengths = {"a1": 1747, "a2": 1264, "a3": 1834, "b1": 1073, "b3": 1424, "c1": 1111, "c3": 1448}
    assert {name: len(frames.phases) for name, frames in videos.items()} == lengths
    assert sorted([*gestures.TRAINING, gestures.VALIDATION, gestures.TEST]) == sorted(videos)
    for length in (60, 7):
        splits = task("gesture_phase", {"length": length}).splits(0)
        names = (gestures.TRAINING, [gestures.VALIDATION], [gestures.TEST])
        for batch, part in zip(splits, names, strict=True):
            phases = np.concatenate([videos[name].phases for name in part])
            np.testing.assert_array_equal(batch.targets[batch.scored].numpy(), phases)
    both = torch.cat([whole(splits.train), whole(splits.validation)])
    torch.testing.assert_close(both.mean(0), torch.zeros(24), atol=1e-4, rtol=0)
    torch.testing.assert_close(both.std(0, correction=0), torch.ones(24), atol=1e-4, rtol=0)


def test_pieces_end_at_pauses_and_speed_does_not_reach_over_them() -> None:
    generator = np.random.default_rng(0)
    times = np.array([0, 33, 66, 100, 5_000, 5_033, 5_066, 5_100, 5_133])
    recording = Frames(generator.normal(size=(9, 6, 3)), times, np.arange(9) % 5)
    cut = gestures.pieces(recording, 3)
    assert [phases.tolist() for _, phases in cut] == [[0, 1, 2], [3], [4, 0, 1], [2, 3]]
    features = np.concatenate([features for features, _ in cut])
    joints = [recording.positions[t, [0, 1, 4, 5]] - recording.positions[t, 3] for t in range(9)]
    for t, before in enumerate([0, 0, 0, 0, 4, 4, 4, 4, 5]):
        np.testing.assert_allclose(features[t], np.r_[joints[t].ravel(), (joints[t] - joints[before]).ravel()])


@needs("gesture_phase_uci")
def test_the_reference_of_gestures_is_a_vote_of_the_nearest_frames_searched_plainly() -> None:
    train, validation, test = task("gesture_phase", {"length": 10_000}).splits(0)
    known = torch.cat([whole(train), whole(validation)]).double().numpy()
    phases = torch.cat([train.targets[train.scored], validation.targets[validation.scored]]).numpy()
    right = []
    for frame, phase in zip(whole(test)[:150].double().numpy(), test.targets[test.scored][:150].tolist(), strict=True):
        nearest = ((known - frame) ** 2).sum(1).argsort()[:15]
        right.append(np.bincount(phases[nearest], minlength=5).argmax() == phase)
    ours = gestures.voted_phases(train, validation, test)[:150] == test.targets[test.scored][:150]
    assert np.mean(ours.numpy() == np.array(right)) > 0.98  # ties and rounding may differ in single frames
