"""Biology and medicine: parsers, counts, splits that keep relatives and patients together, and references."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import datasets
from benchmarks.parameters import InvalidParameter
from benchmarks.tasks import biology, medicine
from benchmarks.tasks.biology import ProteinStructure, Splice
from benchmarks.tasks.biology_files import (
    VISIT_CATEGORIES,
    VISIT_NUMBERS,
    SpliceExample,
    fasta,
    liver_visits,
    splice_examples,
)
from benchmarks.tasks.medicine import ClinicalVisits
from benchmarks.tasks.registry import task


def needs(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not datasets.is_here(name), reason=f"{name} is not in RNNBENCH_DATA")


BASES = "ACGT" * 14 + "NDRS"
ARFF = f"% comment\n@attribute 'Class' {{ EI, IE, N}}\n@data\nHUM-DONOR-1 ,{', '.join(BASES)},   EI \n"
FASTA = ">1es5-A SET=train VALIDATION=False\nCCHH\nEE\n>2a6h-E SET=test VALIDATION=False\nCC\n"
COLUMNS = ["id", "year", *VISIT_NUMBERS, *VISIT_CATEGORIES, "status"]
VISIT = ["2", "0.5", "56.4", "1.1", "NA", "4.1", "7395", "113", "221", "10.6", "3", "placebo", "female", "NA", "Yes"]
VISITS = "\n".join([",".join(COLUMNS), ",".join([*VISIT, "No", "No edema", "dead"])]) + "\n"


def test_each_parser_reads_what_the_format_promises() -> None:
    assert splice_examples(ARFF, "f") == [SpliceExample("HUM", BASES, "EI")]
    assert list(fasta(FASTA, "f").values()) == ["CCHHEE", "CC"]
    table = liver_visits(VISITS, "f")
    assert table.shape == (1, 17) and table["id"].tolist() == [2] and "status" not in table
    assert table["serChol"].isna().all() and table["ascites"].isna().all() and table["serBilir"].tolist() == [1.1]


@pytest.mark.parametrize(
    ("read", "text", "sentence"),
    [
        (splice_examples, "@attribute\n", "f: there is no line @data"),
        (splice_examples, ARFF.replace("N, D", "N, X"), "f: line 4 does not hold 60 of the bases"),
        (splice_examples, ARFF.replace("N, D", "N"), "f: line 4 does not hold 60"),
        (splice_examples, ARFF.replace("EI \n", "II\n"), "line 4 has the class 'II', not one of N, EI, IE"),
        (fasta, "CC\n>a\nC\n", "f: line 1 comes before any header"),
        (fasta, ">a\nC\n>a\nC\n", "f: line 3: a header must be there, and only once"),
        (fasta, ">a\n>b\nC\n", "f: a has no sequence"),
        (liver_visits, "", "f: not a table"),
        (liver_visits, "id,year\n1,2\n", "f: line 1 has no column age"),
        (liver_visits, VISITS.replace("1.1", "NA"), "f: line 2: serBilir cannot be nan"),
        (liver_visits, VISITS.replace("1.1", "0"), "line 2: serBilir cannot be '0'"),
        (liver_visits, VISITS.replace("56.4", "old"), "line 2: age cannot be 'old'"),
        (liver_visits, VISITS.replace("\n2,", "\ninf,"), "line 2: id cannot be 'inf'"),
        (liver_visits, VISITS.replace("\n2,", "\n2.5,"), "line 2: id cannot be '2.5'"),
    ],
)
def test_what_the_format_does_not_promise_is_refused_in_a_sentence(read: Callable, text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        read(text, "f")


@settings(max_examples=300, deadline=None)
@given(
    source=st.sampled_from([(splice_examples, ARFF), (fasta, FASTA), (liver_visits, VISITS)]),
    junk=st.text(st.characters(codec="utf-8"), max_size=12)
    | st.sampled_from(["NA", "1e999", ",", "\n>", '"', "@data"]),
    place=st.floats(0, 1),
    cut=st.integers(0, 20),
)
def test_a_parser_either_reads_or_says_why_not(source: tuple, junk: str, place: float, cut: int) -> None:
    read, text = source
    at = round(place * len(text))
    try:
        read(text[:at] + junk + text[at + cut :], "f.txt")
    except ValueError as error:
        assert str(error).startswith("f.txt: ")


@settings(max_examples=100, deadline=None)
@given(junk=st.text(max_size=6), place=st.floats(0, 1), which=st.integers(0, 2))
def test_files_of_proteins_that_disagree_are_refused_in_a_sentence(junk: str, place: float, which: int) -> None:
    files = [">1es5-A\nVTKPTI\n>2a6h-E\nMX\n", FASTA, ">1es5-A\n001111\n>2a6h-E\n01\n"]
    chains = biology.read_chains(*files)
    assert [len(chains[split]) for split in ("train", "validation", "test")] == [1, 0, 1]
    assert chains["train"][0].folds.tolist() == [2, 2, 0, 0, 1, 1] and chains["test"][0].residues.tolist() == [10, 20]
    assert chains["train"][0].scored.tolist() == [False, False, True, True, True, True]
    at = round(place * len(files[which]))
    files[which] = files[which][:at] + junk + files[which][at:]
    try:
        biology.read_chains(*files)
    except ValueError as error:
        assert ".fasta: " in str(error)


def test_repeated_and_contradictory_windows_are_dropped() -> None:
    a, b, c = BASES, BASES[::-1], "A" * 60
    given_examples = [
        SpliceExample("x", a, "N"),
        SpliceExample("y", b, "EI"),
        SpliceExample("z", a, "N"),
        SpliceExample("w", c, "IE"),
        SpliceExample("v", c, "N"),
    ]
    assert biology.distinct(given_examples) == given_examples[:2]


def test_windows_of_one_entry_or_with_48_equal_bases_are_one_family() -> None:
    tokens = np.random.default_rng(0).integers(0, 4, (5, 60))
    tokens[1] = tokens[0]
    tokens[1, :12] = (tokens[0, :12] + 1) % 4  # 48 are equal
    tokens[2] = tokens[1]
    tokens[2, 12:25] = (tokens[1, 12:25] + 1) % 4  # 47 are
    families = biology.families(tokens, ["a", "b", "c", "c", "d"])
    assert families[0] == families[1] and families[2] == families[3]
    assert len(set(families.tolist())) == 3


@needs("splice_uci")
def test_splice_has_the_described_windows_and_no_relatives_in_two_splits() -> None:
    windows = biology.splice_windows()
    assert len(windows.labels) == 3_004 and np.bincount(windows.labels).tolist() == [1_653, 679, 672]
    assert len(np.unique(windows.tokens, axis=0)) == 3_004 and len(np.unique(windows.families)) == 1_424
    path = datasets.path("splice_uci", "splice.arff")
    examples = splice_examples(path.read_text(), path.name)
    assert len(examples) == 3_190 and len({example.bases for example in examples}) == 3_005
    splits = Splice().splits(0)
    assert sum(map(len, splits)) == 3_004
    hot = [torch.nn.functional.one_hot(split.inputs, 5)[:, :, :4].flatten(1).float() for split in splits]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert float((hot[i] @ hot[j].T).max()) < biology.RELATED


@needs("splice_uci")
def test_the_junction_is_in_the_middle() -> None:
    tokens, labels = biology.splice_windows()[:2]
    donors, acceptors = tokens[labels == 1], tokens[labels == 2]
    assert (donors[:, 30:32] == [2, 3]).all(1).mean() > 0.95  # GT begins the intron
    assert (acceptors[:, 28:30] == [0, 2]).all(1).mean() > 0.95  # AG ends it


@needs("splice_uci")
def test_the_reference_of_splice_is_naive_bayes() -> None:
    development, test = Splice().parts()
    right = 0
    for row, label in zip(test.tokens[:60], test.labels[:60], strict=True):
        scores = []
        for kind in range(3):
            own = development.tokens[development.labels == kind]
            score = np.log(len(own) / len(development.labels))
            for place, base in enumerate(row):
                score += np.log(((own[:, place] == base).sum() + 0.5) / (len(own) + 2.5))
            scores.append(score)
        right += int(np.argmax(scores) == label)
    whole = Splice.parts
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Splice, "parts", lambda self: (whole(self)[0], whole(self)[1].where(np.arange(60))))
        assert Splice().reference.value == pytest.approx(right / 60)


@needs("flip_secondary_structure")
def test_proteins_are_those_of_the_description_and_every_scored_test_residue_counts() -> None:
    chains = biology.chains()
    assert {split: len(part) for split, part in chains.items()} == {"train": 9_712, "validation": 1_080, "test": 364}
    lengths = [len(chain.residues) for part in chains.values() for chain in part]
    assert (min(lengths), max(lengths)) == (20, 1_632)
    for max_length in (50, 256, 2_000):
        test = ProteinStructure(n_train=1, n_validation=1, max_length=max_length).splits(0).test
        assert int(test.scored.sum()) == sum(int(chain.scored.sum()) for chain in chains["test"])
        assert int(test.lengths.max()) <= max_length
    assert len(test) == 364


@needs("flip_secondary_structure")
def test_no_protein_is_in_two_splits() -> None:
    chains = biology.chains()
    sequences = [{chain.residues.tobytes() for chain in part} for part in chains.values()]
    assert sum(map(len, sequences)) == len(set().union(*sequences)) == 11_156


def test_long_chains_are_cut_into_equal_parts_and_parts_without_a_score_left_out() -> None:
    scored = np.ones(10, dtype=bool)
    scored[4:7] = False
    chain = biology.Chain(np.arange(10), np.arange(10) % 3, scored)
    batch = biology.chain_batch([chain, chain], 4)
    assert batch.lengths.tolist() == [4, 3] * 2 and batch.inputs.tolist() == [[0, 1, 2, 3], [7, 8, 9, 0]] * 2
    assert batch.targets.tolist() == [[0, 1, 2, 0], [1, 2, 0, 0]] * 2
    batch.validate()


def test_residues_beyond_the_ends_have_a_letter_of_their_own() -> None:
    chain = biology.Chain(np.array([3, 4, 5]), np.zeros(3, dtype=np.int64), np.array([False, True, True]))
    around = biology._surroundings(chain)
    assert around.shape == (2, 17) and around[0].tolist() == [21] * 7 + [3, 4, 5] + [21] * 7


@needs("pbc2")
def test_visits_are_those_of_the_description() -> None:
    path = datasets.path("pbc2", "pbc2.csv")
    table = liver_visits(path.read_text(), path.name)
    sizes = table.groupby("id").size()
    assert (len(table), len(sizes), sizes.min(), sizes.max()) == (1_945, 312, 1, 16)
    assert (len(medicine.visits().table), len(medicine.visits().patients)) == (1_633, 285)


@needs("pbc2")
def test_no_patient_is_in_two_splits_and_the_targets_are_the_changes_of_bilirubin() -> None:
    development, test, preparation = medicine.visit_parts()
    assert not set(development.patients) & set(test.patients)
    assert len(set(development.patients) | set(test.patients)) == 285
    path = datasets.path("pbc2", "pbc2.csv")
    table = pd.read_csv(path).sort_values(["id", "year"], kind="stable")
    splits = ClinicalVisits().splits(0)
    assert sum(int(split.scored.sum()) for split in splits) == 1_633 and sum(map(len, splits)) == 285
    expected = sorted(
        (np.diff(np.log(own["serBilir"])) / medicine._change_scale()).astype(np.float32).tolist()
        for _, own in table.groupby("id")
        if len(own) > 1
    )
    ours = sorted(
        targets[:length, 0].tolist()
        for split in splits
        for targets, length in zip(split.targets, split.lengths.tolist(), strict=True)
    )
    assert len(ours) == len(expected)
    np.testing.assert_allclose(np.concatenate(ours), np.concatenate(expected), atol=1e-5)
    assert not {"years", "status", "status2"} & set(preparation.channels)
    assert [preparation.channels[i] for i in preparation.masks] == [
        f"{name}, known" for name in ("serChol", "alkaline", "platelets", "ascites", "hepatomegaly", "spiders")
    ]


@needs("pbc2")
def test_the_reference_of_clinical_visits_equals_that_of_scikit_learn() -> None:
    from sklearn.linear_model import Ridge

    development, test, preparation = medicine.visit_parts()

    def features(part: medicine.Visits) -> list[np.ndarray]:
        rows, before = [], None
        for row, patient in zip(preparation.apply(part.table), part.table["id"], strict=True):
            rows.append(np.r_[row, row - before[0] if before is not None and before[1] == patient else 0 * row])
            before = (row, patient)
        return rows

    model = Ridge(alpha=100).fit(np.array(features(development), dtype=float), development.change)
    error = model.predict(np.array(features(test), dtype=float)) - test.change
    assert ClinicalVisits().reference.value == pytest.approx(np.sqrt((error**2).mean()), rel=1e-5)


@needs("pbc2")
def test_the_error_of_clinical_visits_is_in_logarithms() -> None:
    test = ClinicalVisits().splits(0).test
    rmse, mae = ClinicalVisits().metrics
    off = test.targets + 0.3 / medicine._change_scale()
    assert rmse.value(rmse.parts(off, test)) == pytest.approx(0.3, rel=1e-5)
    assert mae.value(mae.parts(off, test)) == pytest.approx(0.3, rel=1e-5)
    splits = ClinicalVisits().splits(0)
    train, test_changes = (x.targets[x.scored].double().numpy() for x in (splits.train, splits.test))
    expected = np.sqrt(((test_changes - train.mean()) ** 2).mean()) * medicine._change_scale()
    assert ClinicalVisits().floor(0) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("field", ["n_train", "n_validation", "max_length"])
def test_wrong_parameters_are_refused(field: str) -> None:
    with pytest.raises(InvalidParameter, match=f"protein_structure: {field} must be an integer of at least 1"):
        task("protein_structure", {field: 0})


@needs("flip_secondary_structure")
def test_extreme_parameters_that_are_accepted_work() -> None:
    for parameters in ({"n_train": 1, "n_validation": 1, "max_length": 1}, {"n_train": 10**6, "max_length": 5_000}):
        for batch in ProteinStructure(**parameters).splits(0):
            batch.validate()
            assert 1 <= batch.lengths.max() <= parameters["max_length"]
