"""Stages from `split` to `evaluate` on synthetic inputs.

What they write is computed again with scikit-learn, NumPy or by hand.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax, xlogy
from sklearn import metrics as sk
from sklearn.model_selection import StratifiedGroupKFold

from brainmri.common.errors import UserError
from brainmri.evaluation import decision_rule, plots
from brainmri.evaluation.predictions import read_predictions, write_predictions
from brainmri.evaluation.summary import Evaluation
from brainmri.evaluation.voting import FITTED_SCHEMES
from brainmri.evaluation.weighting import NOISE
from brainmri.sampling import splitting
from stages import bootstrap_sample, evaluate, split, weigh
from tests.support import workspace

SCHEMES = ["uniform", "accuracy", "balanced_accuracy", "auc", "softmax", "log_loss"]
SEED = 5
SHARPNESS = np.array([1.5, 0.2, 1.0, 0.6])  # of members: unequal skill


@pytest.fixture(params=[2, 3], ids=["two classes", "three classes"])
def made(request, tmp_path, monkeypatch):
    """A workspace of two classes, and one of three."""
    monkeypatch.chdir(tmp_path)
    return workspace.make(tmp_path, request.param)


@pytest.fixture
def two(tmp_path, monkeypatch):
    """A workspace of two classes."""
    monkeypatch.chdir(tmp_path)
    return workspace.make(tmp_path, 2)


def connected(hashes: list[list[str]], bits: int) -> list[int]:
    """Return groups that chains of near rows connect, numbered in order of first appearance."""
    groups: list[int | None] = [None] * len(hashes)
    for start in range(len(hashes)):
        if groups[start] is not None:
            continue
        number = max((group for group in groups if group is not None), default=-1) + 1
        waiting = [start]
        while waiting:
            row = waiting.pop()
            groups[row] = number
            for other, other_hashes in enumerate(hashes):
                distances = [
                    (int(a, 16) ^ int(b, 16)).bit_count()
                    for a, b in zip(hashes[row], other_hashes, strict=True)
                ]
                if groups[other] is None and min(distances) <= bits:
                    waiting.append(other)
    return groups


PREDICTED = "row,none,überall\n4,0.25,0.75\n2,1,0\n"
NOT_A_TABLE = "is not a table of predictions"
OTHER = "is of other images or classes, or damaged; run `dvc repro --force` to make it again"


def test_predictions_are_read_as_written(tmp_path):
    path = tmp_path / "test.csv"
    values = np.array([[0.25, 0.75], [1 / 3, 2 / 3]], np.float32)
    write_predictions(path, [4, 2], values, ["no", "yes"])
    assert path.read_bytes() == b"row,no,yes\n4,0.25,0.75\n2,0.333333343,0.666666687\n"
    odd_names = ["no", "über\r\nall"]
    write_predictions(path, [4, 2], values, odd_names)
    read = read_predictions(path, [4, 2], odd_names)
    np.testing.assert_array_equal(read.astype(np.float32), values)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is missing; run `dvc repro` to make it"),
        (PREDICTED.replace("\n4,", "\n5,"), OTHER),
        (PREDICTED.replace("none", "some"), OTHER),
        ("row,none,überall\n4,0.25\n2,1\n", OTHER),
        (PREDICTED.replace("0.75", "nan"), OTHER),
        ("x\n\n", OTHER),
        (
            PREDICTED.replace("0.75", "x"),
            f"{NOT_A_TABLE} (could not convert string to float: 'x')",
        ),
        ("", NOT_A_TABLE),
    ],
)
def test_predictions_of_other_rows_or_classes(tmp_path, content, message):
    path, arguments = tmp_path / "test.csv", ([4, 2], ["none", "überall"])
    path.write_text(PREDICTED, "utf-8")
    assert read_predictions(path, *arguments).tolist() == [[0.25, 0.75], [1, 0]]
    path.unlink() if content is None else path.write_text(content, "utf-8")
    with pytest.raises(UserError) as raised:
        read_predictions(path, *arguments)
    assert str(raised.value).startswith(f"{path} {message}")


@pytest.mark.parametrize("fold", [None, 0, 1, 3])
def test_split_holds_out_the_fold(made, fold, capsys):
    made.set(split__folds=4, split__fold=fold)
    split.main()
    written = made.read("data/split.json")
    images = made.read("data/rad/metadata.json")["images"]
    hashes = [image["perceptual_hashes"] for image in images]
    assert written["groups"] == made.groups.tolist()
    assert written["groups"] == connected(hashes, 20)
    splitter = StratifiedGroupKFold(4, shuffle=True, random_state=SEED)
    training, test = list(splitter.split(made.labels, made.labels, made.groups))[fold or 0]
    assert written["test"] == test.tolist()
    assert written["training"] == training.tolist()
    assert written["excluded"] == []
    assert not {*made.groups[test]} & {*made.groups[training]}
    printed = capsys.readouterr().out
    assert (
        f"{len(images)} images, {made.groups.max() + 1} groups of near duplicates;"
        f" {len(training)} training images, {len(test)} test images\n"
    ) in printed
    for label, name in enumerate(made.classes):
        in_training, in_test = (np.mean(made.labels[rows] == label) for rows in (training, test))
        assert (
            f"  {name}: {in_training:.1%} of the training images,"
            f" {in_test:.1%} of the test images\n"
        ) in printed


@pytest.mark.parametrize(
    ("bits", "groups"), [(None, "none"), (14, "none"), (15, "chains"), (30, "chains")]
)
def test_split_groups_by_bits(two, bits, groups):
    two.set(split__near_duplicate_bits=bits)
    split.main()
    expected = two.groups.tolist() if groups == "chains" else list(range(len(two.labels)))
    assert two.read("data/split.json")["groups"] == expected


def give_split(made) -> tuple[list[int], list[int]]:
    """Give the images patients, of two groups each, and the images of every third group a split.

    Returns
    -------
    list of int
        Rows of the given test set.
    list of int
        Patients.
    """
    metadata = made.read("data/rad/metadata.json")
    given = [row for row, group in enumerate(made.groups) if group % 6 == 0]
    patients = (made.groups // 2).tolist()
    for row, image in enumerate(metadata["images"]):
        image |= {"split": "test" if row in given else "training", "patient": patients[row]}
    made.write("data/rad/metadata.json", json.dumps(metadata))
    return given, patients


@pytest.mark.parametrize("overlap", ["drop", "keep"])
def test_split_of_a_given_test_set(made, capsys, overlap):
    """Each test patient's other group is excluded, unless it is kept."""
    given, patients = give_split(made)
    made.set(split__overlap=overlap)
    split.main()
    written = made.read("data/split.json")
    same = [row for row, group in enumerate(made.groups) if group % 6 == 1]
    excluded = same if overlap == "drop" else []
    assert written["groups"] == patients
    assert written["test"] == given
    assert written["excluded"] == excluded
    rest = {*range(len(patients))} - {*given, *excluded}
    assert written["training"] == sorted(rest)
    printed = capsys.readouterr().out
    assert f"{len(same)} of {len(patients) - len(given)} training images are near" in printed
    assert f"{max(patients) + 1} groups of near duplicates and patients;" in printed


def test_fold_beside_a_given_test_set(made):
    """As in cross-validation: the given test images are in no part."""
    given, patients = give_split(made)
    made.set(split__folds=3, split__fold=1)
    split.main()
    written = made.read("data/split.json")
    assert written["excluded"] == given
    rest = np.array([row for row in range(len(patients)) if row not in given])
    groups, labels = np.array(patients)[rest], made.labels[rest]
    splitter = StratifiedGroupKFold(3, shuffle=True, random_state=SEED)
    training, test = list(splitter.split(labels, labels, groups))[1]
    assert written["test"] == rest[test].tolist()
    assert written["training"] == rest[training].tolist()


def test_given_test_set_without_usable_images(made):
    metadata = made.read("data/rad/metadata.json")
    for image in metadata["images"]:
        image["split"] = "training"
    made.write("data/rad/metadata.json", json.dumps(metadata))
    with pytest.raises(UserError, match="no image of the given test set can be used"):
        split.main()
    made.set(split__fold=0)
    split.main()
    assert made.read("data/split.json")["excluded"] == []


def test_split_without_a_class(two, monkeypatch):
    """Both test and training images must be of every class."""
    two.set(split__folds=2, split__fold=1, split__near_duplicate_bits=256)
    with pytest.raises(UserError, match="'glioma' has 1 independent group"):
        split.main()
    two.set(split__near_duplicate_bits=20)
    monkeypatch.setattr(splitting, "stratified_group_folds", lambda labels, *_: labels)
    with pytest.raises(UserError) as raised:
        split.main()
    assert str(raised.value) == (
        "fold 1 has no image of class 'glioma'; change split.fold, split.folds or seed"
    )
    assert not (two.folder / "data/split.json").exists()


def test_split_warns_of_a_large_group(two, capsys):
    metadata = two.read("data/rad/metadata.json")
    images = metadata["images"]
    rows = [row for row, image in enumerate(images) if image["class"] == "none"][:9]
    for row in rows:
        images[row]["perceptual_hashes"][1] = images[rows[0]]["perceptual_hashes"][1]
    two.write("data/rad/metadata.json", json.dumps(metadata))
    split.main()
    lines = capsys.readouterr().out.splitlines()
    groups = two.read("data/split.json")["groups"]
    size = groups.count(groups[rows[0]])
    assert size >= 9
    warning = (
        f"warning: {size} of {sum(two.labels == 1)} images of class 'none' are one group of near"
        " duplicates, such as"
    )
    assert sum(line.startswith(warning) for line in lines) == 1


def expected_sample(scheme, labels, groups, fraction, index):
    """Draw a member's sample by hand: in-bag and out-of-bag positions."""
    if scheme == "committee":  # of three folds, assigned again for the fourth member
        seed = 1000 * SEED + (3 if index == 3 else 0)
        splitter = StratifiedGroupKFold(3, shuffle=True, random_state=seed)
        return list(splitter.split(labels, labels, groups))[index % 3]
    rng = np.random.default_rng(1000 * SEED + index)
    positions_of = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    while True:
        drawn = [
            rng.choice(positions, round(fraction * len(positions)), replace=scheme == "bootstrap")
            for positions in positions_of
        ]
        in_bag = np.sort(np.concatenate(drawn))
        in_bag_groups = set(groups[in_bag])
        out_of_bag = [row for row in range(len(labels)) if groups[row] not in in_bag_groups]
        if {*labels[out_of_bag]} == {*labels}:
            return in_bag, np.array(out_of_bag)


@pytest.mark.parametrize("scheme", ["bootstrap", "subsample", "committee"])
def test_samples_by_scheme_fraction_and_seed(made, scheme, capsys):
    test = np.flatnonzero(np.isin(made.groups, [0, 3, 4, 9]))
    training = np.setdiff1d(np.arange(len(made.labels)), test)
    fractions = {"base": 0.67, "strong": 0.67, "light": 0.67}
    if scheme != "committee":
        fractions |= {"base": 0.5, "light": 0.3}
    settings = {f"recipes__{name}__fraction": value for name, value in fractions.items()}
    made.set(bootstrap__scheme=scheme, members=4, **settings)
    made.split(test.tolist())
    bootstrap_sample.main()
    printed = capsys.readouterr().out
    labels, groups = made.labels[training], made.groups[training]
    samples = set()
    for index, recipe in enumerate(["base", "strong", "light", "base"]):
        in_bag, out_of_bag = expected_sample(scheme, labels, groups, fractions[recipe], index)
        name = f"member-{index:02d}"
        assert made.read(f"data/bootstrap/{name}.json") == {
            "in_bag": training[in_bag].tolist(),
            "out_of_bag": training[out_of_bag].tolist(),
        }
        assert (
            f"{name}: {len(in_bag)} draws of {len(set(in_bag))} images,"
            f" {len(out_of_bag)} images out of bag\n"
        ) in printed
        samples.add(tuple(in_bag))
    assert len(samples) == 4  # no two members have the same one


def with_predictions(made, calibrate=True, scheme="log_loss", rule="youden", shared=0.3):
    """Write samples and predictions of four members of unequal skill; return the predictions.

    Members have different out-of-bag rows, and share a fraction of the others'. Of each member, and
    "out_of_bag" or "test": rows, and probabilities.
    """
    made.set(
        weigh__scheme=scheme,
        weigh__calibrate=calibrate,
        decide__rule=rule if len(made.classes) == 2 else "argmax",
    )
    rows = range(len(made.labels))
    test = [row for row in rows if made.groups[row] % 2 == 0]
    training = [row for row in rows if made.groups[row] % 2]
    made.split(test)
    rng = np.random.default_rng(1)
    classes = len(made.classes)
    predictions = {}
    for index, name in enumerate(made.params["ensemble"]):
        out_of_bag = [
            row
            for row in training
            if made.groups[row] % 8 == 2 * index + 1 or rng.random() < shared
        ]
        in_bag = [row for row in training if row not in out_of_bag]
        sample = {"in_bag": in_bag, "out_of_bag": out_of_bag}
        made.write(f"data/bootstrap/{name}.json", json.dumps(sample))
        for part, part_rows in (("out_of_bag", out_of_bag), ("test", test)):
            one_hot = np.eye(classes)[made.labels[part_rows]]
            logits = rng.normal(size=(len(part_rows), classes)) + SHARPNESS[index] * one_hot
            probabilities = softmax(2.5 * logits + np.arange(classes), axis=1)
            predictions[name, part] = part_rows, probabilities
            made.predictions(name, part, part_rows, probabilities)
    return predictions


def expected_score(scheme, labels, probabilities):
    predicted, classes = probabilities.argmax(axis=1), probabilities.shape[1]
    area = sk.roc_auc_score(
        labels, probabilities[:, 1] if classes == 2 else probabilities, multi_class="ovr"
    )
    averaged = {"average": "binary" if classes == 2 else "macro", "zero_division": 0}
    precision, recall, *_ = sk.precision_recall_fscore_support(labels, predicted, **averaged)
    accuracy = sk.accuracy_score(labels, predicted)
    return {
        "uniform": 1,
        "accuracy": accuracy,
        "balanced_accuracy": sk.balanced_accuracy_score(labels, predicted),
        "auc": area,
        "softmax": np.mean([accuracy, area, precision, recall]),
        "log_loss": np.exp(-sk.log_loss(labels, probabilities)),
    }[scheme]


def out_of_bag_votes(made, predictions, weights):
    """Return rows, and row by row the weighted mean of members for which it is out-of-bag."""
    rows, votes = [], []
    for row in range(len(made.labels)):
        row_probabilities, row_weights = [], []
        for name, weight in weights.items():
            member_rows, probabilities = predictions[name, "out_of_bag"]
            if row in member_rows:
                row_probabilities.append(probabilities[member_rows.index(row)])
                row_weights.append(weight)
        if row_weights:
            rows.append(row)
            votes.append(np.average(row_probabilities, axis=0, weights=row_weights))
    return rows, np.array(votes)


def calibrated(votes, temperature, biases):
    return softmax(np.log(votes) / temperature + np.array(biases), axis=1)


def sharpness_gain(predictions, weights):
    """Compare the effective number of voters of the whole vote with that of out-of-bag votes."""
    weights_of = {}
    for name, weight in weights.items():
        for row in predictions[name, "out_of_bag"][0]:
            weights_of.setdefault(row, []).append(weight)
    numbers = [sum(of_row) ** 2 / np.square(of_row).sum() for of_row in weights_of.values()]
    members = 1 / np.square(list(weights.values())).sum()
    return (1 + NOISE / np.mean(numbers)) / (1 + NOISE / members)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_weights_come_from_out_of_bag_scores(made, scheme, capsys):
    predictions = with_predictions(made, scheme=scheme)
    weigh.main()
    written, printed = made.read("models/weights.json"), capsys.readouterr().out
    scores = {}
    for name in made.params["ensemble"]:
        rows, probabilities = predictions[name, "out_of_bag"]
        scores[name] = expected_score(scheme, made.labels[rows], probabilities)
    power = np.exp if scheme == "softmax" else np.asarray
    total = sum(power(score) for score in scores.values())
    assert written["scheme"] == scheme
    assert [*written["members"]] == [*scores]
    for name, score in scores.items():
        weight = power(score) / total
        assert written["members"][name] == pytest.approx({"score": score, "weight": weight})
        assert f"{name}: score {score:.4f}, weight {weight:.4f}\n" in printed
    assert (len(set(scores.values())) > 1) == (scheme != "uniform")
    assert "out_of_bag_log_loss" not in written
    assert "optimism" not in printed


def greedy_choices(made, predictions):
    """Choose members in 100 rounds, from five choices of each of four on; return the best."""
    true_class = np.zeros((4, len(made.labels)))
    for member, name in enumerate(made.params["ensemble"]):
        rows, probabilities = predictions[name, "out_of_bag"]
        true_class[member, rows] = probabilities[range(len(rows)), made.labels[rows]]
    true_class = true_class[:, true_class.any(axis=0)]

    def loss(choices):
        return -np.log(choices @ true_class / (choices @ (true_class > 0))).mean()

    ensembles = [np.full(4, 5)]
    for _ in range(100):
        ensembles.append(min(ensembles[-1] + np.eye(4, dtype=int), key=loss))
    return min(ensembles, key=loss)


def test_greedy_selection_by_rounds(made):
    predictions = with_predictions(made, scheme="greedy")
    weigh.main()
    choices = greedy_choices(made, predictions)
    assert len(set(choices)) > 2
    members = made.read("models/weights.json")["members"]
    written = [member["weight"] for member in members.values()]
    assert written == pytest.approx(choices / choices.sum())


@pytest.mark.parametrize(("shared", "is_said"), [(0.0, True), (0.3, False)])
@pytest.mark.parametrize("scheme", FITTED_SCHEMES)
def test_weights_can_not_be_fitted_to_votes_of_one_member(made, scheme, capsys, shared, is_said):
    """As of a committee: whatever its weight, each image has the same vote."""
    with_predictions(made, scheme=scheme, shared=shared)
    weigh.main()
    members = made.read("models/weights.json")["members"].values()
    line = f"warning: weigh.scheme: {scheme} leaves all weights equal, since each out-of-bag image"
    assert (line in capsys.readouterr().out) == is_said
    assert (len({member["weight"] for member in members}) == 1) == is_said


@pytest.mark.parametrize("scheme", FITTED_SCHEMES)
def test_optimism_of_fitted_weights(made, scheme, capsys):
    """On the images to which weights are fitted the log loss is lower than cross-fitted."""
    predictions = with_predictions(made, scheme=scheme)
    weigh.main()
    written, printed = made.read("models/weights.json"), capsys.readouterr().out
    weights = {name: member["weight"] for name, member in written["members"].items()}
    rows, votes = out_of_bag_votes(made, predictions, weights)
    losses = written["out_of_bag_log_loss"]
    assert losses["fitted"] == pytest.approx(sk.log_loss(made.labels[rows], votes))
    optimism = losses["cross_fitted"] - losses["fitted"]
    assert 0 < optimism < 0.1
    assert (
        f"out-of-bag log loss of the vote: {losses['fitted']:.4f} with weights fitted to the same"
        f" images, {losses['cross_fitted']:.4f} cross-fitted; optimism {optimism:.4f}\n"
    ) in printed
    for name, member in written["members"].items():
        member_rows, probabilities = predictions[name, "out_of_bag"]
        score = expected_score("log_loss", made.labels[member_rows], probabilities)
        assert member["score"] == pytest.approx(score)


def test_calibrations_minimize_the_penalized_log_loss(made, capsys):
    """That of each voter's out-of-bag votes; the votes of more members are then sharpened."""
    predictions = with_predictions(made)
    weigh.main()
    written = made.read("models/weights.json")
    names = [*made.params["ensemble"]]
    weights = {name: written["members"][name]["weight"] for name in names}
    voters = {
        "ensemble": out_of_bag_votes(made, predictions, weights),
        "uniform vote": out_of_bag_votes(made, predictions, dict.fromkeys(names, 0.25)),
        **{name: predictions[name, "out_of_bag"] for name in names},
    }
    calibrations = written["calibrations"]
    assert calibrations.keys() == voters.keys()
    temperatures = {calibration["temperature"] for calibration in calibrations.values()}
    assert len(temperatures) == len(voters)
    for voter, (rows, votes) in voters.items():
        calibration = calibrations[voter]
        gain = 1
        if voter in ("ensemble", "uniform vote"):
            of_voter = weights if voter == "ensemble" else dict.fromkeys(names, 0.25)
            gain = sharpness_gain(predictions, of_voter)
            assert 1.05 < gain < 1 + NOISE
        temperature, biases = calibration["temperature"] * gain, calibration["biases"]
        best = np.array([np.log(temperature), *(np.array(biases[1:]) / gain)])
        assert biases[0] == 0

        def penalized(values, labels=made.labels[rows], votes=votes):
            probabilities = calibrated(votes, np.exp(values[0]), [0, *values[1:]])
            loss = len(labels) * sk.log_loss(labels, probabilities)
            biases = np.array([0, *values[1:]])
            return loss + (values[0] / 0.5) ** 2 / 2 + ((biases - biases.mean()) ** 2).sum()

        for place, direction in enumerate(np.eye(len(best))):
            for step in (-0.02, 0.02):
                assert penalized(best) < penalized(best + step * direction), (voter, place)
    ensemble = calibrations["ensemble"]
    biases = " ".join(
        f"{name!r} {bias:+.2f}" for name, bias in zip(made.classes, ensemble["biases"], strict=True)
    )
    line = f"calibration: temperature {ensemble['temperature']:.2f} {biases}\n"
    assert line in capsys.readouterr().out


def test_votes_on_test_images_are_refused(made):
    """`weigh` would fit to them."""
    with_predictions(made)
    test = made.read("data/split.json")["test"]
    sample = made.read("data/bootstrap/member-00.json")
    sample = json.dumps({**sample, "out_of_bag": test})
    made.write("data/bootstrap/member-00.json", sample)
    with pytest.raises(UserError, match=r"member-00\.json was not drawn from these images"):
        weigh.main()


@pytest.mark.parametrize("classes", [10, 11])
def test_printed_biases(tmp_path, monkeypatch, capsys, classes):
    """Those of more than ten classes are printed as a range."""
    monkeypatch.chdir(tmp_path)
    made = workspace.make(tmp_path, classes)
    with_predictions(made)
    weigh.main()
    printed_lines = capsys.readouterr().out.splitlines()
    ensemble = made.read("models/weights.json")["calibrations"]["ensemble"]
    biases = ensemble["biases"]
    printed = f"biases of {classes} classes {min(biases):+.2f} to {max(biases):+.2f}"
    if classes == 10:
        printed = " ".join(
            f"{name!r} {bias:+.2f}" for name, bias in zip(made.classes, biases, strict=True)
        )
    assert f"calibration: temperature {ensemble['temperature']:.2f} {printed}" in printed_lines


def evaluate_patients(made, monkeypatch, patients_of: int) -> np.ndarray:
    """Evaluate patients with so many groups of images; return the patient of each image."""
    with_predictions(made)
    patients = made.groups // (2 * patients_of) * 2 + made.groups % 2
    metadata = made.read("data/rad/metadata.json")
    for image, patient in zip(metadata["images"], patients.tolist(), strict=True):
        image["patient"] = patient
    made.write("data/rad/metadata.json", json.dumps(metadata))
    weigh.main()
    names = [*made.params["ensemble"]]
    for name in names:
        out_of_bag = {"accuracy": 0.5, "log_loss": 0.6, "images": 9}
        made.write(f"metrics/members/{name}.json", json.dumps({"out_of_bag": out_of_bag}))
        made.write(f"models/members/{name}/history.csv", HISTORY.format(0.6))
    for module, function in FIGURES.values():
        monkeypatch.setattr(module, function, lambda *_: b"PNG")
    evaluate.main()
    return patients


@pytest.mark.parametrize("patients_of", [2, 3, 10**6])
def test_metrics_by_patient(made, monkeypatch, patients_of):
    """Those with images of two classes don't count."""
    patients = evaluate_patients(made, monkeypatch, patients_of)
    slices: dict[int, list] = {}
    predictions = iter(made.table("plots/data/predictions.csv"))
    for line in made.table("plots/data/votes.csv"):
        if line["voter"] == "ensemble":
            votes = [float(line[f"probability of {name}"]) for name in made.classes]
            line["decided"] = next(predictions)["predicted of the patient"]
            slices.setdefault(int(patients[int(line["row"])]), []).append((line, votes))
    truth, means, groups = [], [], []
    for lines in slices.values():
        classes = {line["class"] for line, _ in lines}
        [decided] = {line["decided"] for line, _ in lines}
        mean = np.mean([votes for _, votes in lines], axis=0)
        assert decided == (made.classes[mean.argmax()] if len(classes) == 1 else "")
        if len(classes) == 1:
            truth.append(made.classes.index(classes.pop()))
            means.append(mean)
            groups.append(lines[0][0]["group"])
    written = made.read("metrics/ensemble.json")["by_patient"]
    assert written["patients"] == len(truth)
    assert written["mixed_patients"] == len(slices) - len(truth) > 0
    if not truth:
        assert [*written] == ["patients", "mixed_patients"]
        return
    truth, means = np.array(truth), np.array(means)
    accuracy, balanced_accuracy, _ = headlines(truth, means)
    log_loss = -xlogy(np.eye(len(made.classes))[truth], means).sum(axis=1).mean()
    assert written["accuracy"] == pytest.approx(accuracy)
    assert written["balanced_accuracy"] == pytest.approx(balanced_accuracy)
    assert written["log_loss"] == pytest.approx(log_loss, rel=1e-5)
    independent = {
        name: len({group for group, label in zip(groups, truth, strict=True) if label == number})
        for number, name in enumerate(made.classes)
    }
    assert written["independent_groups"] == independent
    metrics = made.read("metrics/ensemble.json")
    evaluate.main()
    assert made.read("metrics/ensemble.json") == metrics


@pytest.mark.parametrize("patients_of", [1, 2])
def test_prediction_sets_of_patients(made, monkeypatch, capsys, patients_of):
    """From p-values in the table; a patient with images of two classes has none."""
    made.set(decide__error=0.2)
    patients = evaluate_patients(made, monkeypatch, patients_of)
    test_rows = made.read("data/split.json")["test"]
    rows = dict(zip(patients[test_rows], made.table("plots/data/predictions.csv"), strict=True))
    covered = []
    for row in rows.values():
        p_values = [row[f"patient's p-value of {name}"] for name in made.classes]
        if row["predicted of the patient"]:
            is_predicted = row["class"] == row["predicted of the patient"]
            covered.append(is_predicted or float(p_values[made.classes.index(row["class"])]) > 0.2)
        else:
            assert set(p_values) == {""}
    written = made.read("metrics/ensemble.json")["by_patient"]
    calibrating = made.read("models/weights.json")["decision"]["patients"]
    counts = {name: len(listed) for name, listed in calibrating.items()}
    assert written["calibration_groups"] == counts
    assert ("prediction_sets" in written) == (min(counts.values()) >= 4) == (patients_of == 1)
    printed = capsys.readouterr().out
    assert ("by patient, no prediction sets with an error rate of 0.2" in printed) == (
        patients_of == 2
    )
    if patients_of == 1:
        assert written["prediction_sets"]["coverage"] == pytest.approx(np.mean(covered))


def test_no_metrics_by_unknown_patients(evaluated):
    assert "by_patient" not in evaluated.read("metrics/ensemble.json")


def test_no_calibration(made):
    with_predictions(made, calibrate=False)
    weigh.main()
    calibrations = made.read("models/weights.json")["calibrations"]
    assert len(calibrations) == 6
    for calibration in calibrations.values():
        assert calibration == {"temperature": 1, "biases": [0] * len(made.classes)}


@pytest.mark.parametrize(
    ("rule", "min_rate"),
    [("youden", 0.9), ("sensitivity", 0.9), ("sensitivity", 0.6), ("specificity", 0.8)],
)
def test_threshold_is_chosen_on_out_of_bag_votes(two, rule, min_rate, capsys, monkeypatch):
    """On those of the ensemble, calibrated."""
    monkeypatch.setattr(decision_rule, "MIN_GROUPS", 5)
    predictions = with_predictions(two, rule=rule)
    settings = {"decide__min_sensitivity": 0.99, "decide__min_specificity": 0.99}
    two.set(**settings | ({} if rule == "youden" else {f"decide__min_{rule}": min_rate}))
    weigh.main()
    written = two.read("models/weights.json")
    weights = {name: member["weight"] for name, member in written["members"].items()}
    rows, votes = out_of_bag_votes(two, predictions, weights)
    positive = calibrated(votes, **written["calibrations"]["ensemble"])[:, 1]
    is_positive = two.labels[rows] == 1
    rates = {}
    for threshold in positive:
        predicted = positive >= threshold - 1e-9
        rates[threshold] = np.mean(predicted[is_positive]), np.mean(~predicted[~is_positive])
    sensitive = [threshold for threshold, (rate, _) in rates.items() if rate >= min_rate]
    specific = [threshold for threshold, (_, rate) in rates.items() if rate >= min_rate]
    most_sensitive = max(rates[threshold][0] for threshold in specific)
    expected = {
        "youden": max(rates, key=lambda threshold: sum(rates[threshold])),
        "sensitivity": max(sensitive),
        "specificity": max(value for value in specific if rates[value][0] == most_sensitive),
    }
    assert written["decision"]["rule"] == {
        "name": rule,
        "threshold": pytest.approx(expected[rule]),
        "costs": None,
    }
    threshold = written["decision"]["rule"]["threshold"]
    line = f"decision rule: {rule}, 'none' from a probability of {threshold:.3f} on\n"
    assert line in capsys.readouterr().out


def test_costs_are_those_of_the_settings(two):
    with_predictions(two, rule="costs")
    first, second = two.classes
    two.set(decide__costs={first: {second: 3}})
    weigh.main()
    rule = {"name": "costs", "threshold": None, "costs": [[0, 3], [1, 0]]}
    assert two.read("models/weights.json")["decision"]["rule"] == rule


@pytest.mark.parametrize("name", ["early_stopping", "reduce_lr"])
def test_warning_of_epochs_that_follow_out_of_bag_images(two, capsys, name):
    with_predictions(two)
    weigh.main()
    assert "warning" not in capsys.readouterr().out
    two.set(**{f"train__{name}": 3, "train__schedule": "constant"})
    weigh.main()
    assert "reduce_lr has followed the out-of-bag images" in capsys.readouterr().out


def test_threshold_needs_groups_and_a_positive_class(two, capsys):
    with_predictions(two, rule="youden")
    split = two.read("data/split.json")
    split["groups"] = (np.array(split["groups"]) % 30).tolist()
    two.write("data/split.json", json.dumps(split))
    weigh.main()
    assert two.read("models/weights.json")["decision"]["rule"]["name"] == "argmax"
    assert "decide.rule: youden needs 20 or more independent groups" in capsys.readouterr().out
    two.set(evaluate__positive=None)
    with pytest.raises(UserError, match="rule is youden, which needs a positive class"):
        weigh.main()
    two.set(decide__rule="argmax", decide__prevalence=0.01)
    with pytest.raises(UserError, match=r"prevalence is 0\.01, which needs a positive class"):
        weigh.main()


def test_calibration_of_prediction_sets(made):
    """Of each row that is out-of-bag: the members, and the probability of the true class."""
    predictions = with_predictions(made)
    weigh.main()
    written = made.read("models/weights.json")
    names = [*written["members"]]
    weights = {name: member["weight"] for name, member in written["members"].items()}
    rows, votes = out_of_bag_votes(made, predictions, weights)
    expected: dict[str, list] = {name: [] for name in made.classes}
    for row, vote in zip(rows, votes, strict=True):
        members = [names.index(name) for name in names if row in predictions[name, "out_of_bag"][0]]
        label = made.labels[row]
        expected[made.classes[label]].append((members, vote[label]))
    for name, listed in written["decision"]["images"].items():
        collected = [
            (group["out_of_bag"], probability)
            for group in listed
            for probability in group["probabilities"]
        ]
        wanted = expected[name]
        for place in (0, 1):
            values = sorted(pair[place] for pair in collected)
            expected_values = sorted(pair[place] for pair in wanted)
            assert values == (pytest.approx(expected_values) if place else expected_values)
    assert written["decision"]["patients"] is None


MEMBER_LOSSES = [0.9, 0.4, 0.7, 0.5]
BEST_MEMBER = "member-01"  # whose out-of-bag log loss is the lowest
WEIGHTS = [0.1, 0.2, 0.3, 0.4]
TEMPERATURES = [0.8, 1.3, 1.0, 1.1, 0.7, 1.6]
THRESHOLD = 0.35
COSTS = [[0, 1, 1], [3, 0, 1], [1, 2, 0]]  # of three classes
HISTORY = """\
epoch,loss,in_bag_log_loss,in_bag_accuracy,out_of_bag_log_loss,out_of_bag_accuracy,learning_rate
1,0.9,0.8,0.5,0.7,0.6,0.01
2,0.6,0.5,0.75,0.4,{},0.02
"""
FIGURES = {  # they are drawn in test_plots.py
    "confusion": (plots.confusion, "draw_confusion_matrix"),
    "learning_curves": (plots.curves, "draw_learning_curves"),
    "roc_precision_recall": (plots.curves, "draw_class_curves"),
    "risk_coverage": (plots.risk_coverage, "draw_risk_coverage"),
    "reliability": (plots.reliability, "draw_reliability"),
    "members": (plots.accuracies, "draw_accuracies"),
    "gallery": (plots.grids, "draw_gallery"),
}


@pytest.fixture
def evaluated(made, monkeypatch, capsys):
    """A workspace in which `evaluate` has run, with the votes that it should have counted."""
    predictions = with_predictions(made)
    made.set(
        evaluate__resamples=100, evaluate__bins=7, evaluate__gallery=5, evaluate__names="plain"
    )
    names = [*made.params["ensemble"]]
    voters = ["ensemble", "uniform vote", *names]
    calibrations = {}
    for index, voter in enumerate(voters):
        biases = [0, *np.linspace(-0.5, 0.4, len(made.classes) - 1) * (index + 1) / 3]
        calibrations[voter] = {"temperature": TEMPERATURES[index], "biases": biases}
    write_evaluated(made, names, calibrations)
    made.drawn = {}
    for figure, (module, function) in FIGURES.items():
        monkeypatch.setattr(
            module,
            function,
            lambda *values, name=figure: made.drawn.update({name: values}) or name.encode(),
        )
    evaluate.main()
    made.printed = capsys.readouterr().out
    of_members = np.stack([predictions[name, "test"][1] for name in names])
    votes = {
        "ensemble": np.average(of_members, axis=0, weights=WEIGHTS),
        "uniform vote": of_members.mean(axis=0),
        **dict(zip(names, of_members, strict=True)),
    }
    made.votes = {voter: calibrated(votes[voter], **calibrations[voter]) for voter in voters}
    made.test = predictions[names[0], "test"][0]
    made.truth = made.labels[made.test]
    return made


def write_evaluated(made, names, calibrations):
    """Write the weights, metrics and histories that `evaluate` reads."""
    vote = {
        "scheme": "log_loss",
        "calibrations": calibrations,
        "members": {
            name: {"score": weight, "weight": weight}
            for name, weight in zip(names, WEIGHTS, strict=True)
        },
    }
    has_threshold = len(made.classes) == 2
    vote["decision"] = {
        "positive": made.classes[1] if has_threshold else None,
        "rule": {"name": "youden", "threshold": THRESHOLD, "costs": None}
        if has_threshold
        else {"name": "costs", "threshold": None, "costs": COSTS},
        "patient_rule": None,
        "prevalence": 0.1 if has_threshold else None,
        "error": 0.2,
        "images": {
            name: [
                {"out_of_bag": [0, place % 4], "probabilities": [0.1 * place, 0.08 * place]}
                for place in range(1, 9)
            ]
            for name in made.classes
        },
        "patients": None,
    }
    made.write("models/weights.json", json.dumps(vote))
    for name, loss in zip(names, MEMBER_LOSSES, strict=True):
        out_of_bag = {"accuracy": 1 - loss, "log_loss": loss, "images": 9}
        made.write(f"metrics/members/{name}.json", json.dumps({"out_of_bag": out_of_bag}))
        made.write(f"models/members/{name}/history.csv", HISTORY.format(loss))


def headlines(labels, probabilities):
    """Compute accuracy, balanced accuracy and ROC AUC, of the classes that occur.

    A bootstrap draw may lack one.
    """
    predicted, classes = probabilities.argmax(axis=1), probabilities.shape[1]
    recalls = [np.mean(predicted[labels == label] == label) for label in np.unique(labels)]
    areas = []
    for label in [1] if classes == 2 else range(classes):
        if 0 < np.sum(labels == label) < len(labels):
            areas.append(sk.roc_auc_score(labels == label, probabilities[:, label]))
    return np.mean(predicted == labels), np.mean(recalls), np.mean(areas)


def test_metrics_are_scikit_learns(evaluated):
    written = evaluated.read("metrics/ensemble.json")
    truth, votes = evaluated.truth, evaluated.votes["ensemble"]
    predicted, has_two_classes = votes.argmax(axis=1), len(evaluated.classes) == 2
    one_hot = np.eye(len(evaluated.classes))[truth]
    squared = ((votes - one_hot) ** 2).sum(axis=1).mean()
    if has_two_classes:
        targets, scores, average = truth, votes[:, 1], "binary"
        brier_score = sk.brier_score_loss(truth, votes[:, 1])
    else:
        targets, scores, average = one_hot, votes, "macro"
        brier_score = squared
    expected = {
        "accuracy": sk.accuracy_score(truth, predicted),
        "balanced_accuracy": sk.balanced_accuracy_score(truth, predicted),
        "roc_auc": sk.roc_auc_score(truth, scores, multi_class="ovr"),
        "average_precision": sk.average_precision_score(targets, scores),
        "f1": sk.f1_score(truth, predicted, average=average),
        "log_loss": -xlogy(one_hot, votes).sum(axis=1).mean(),
        "brier_score": brier_score,
    }
    assert {name: written[name] for name in expected} == pytest.approx(expected)
    recall = sk.recall_score(truth, predicted, average=None)
    assert written["recall"] == pytest.approx(dict(zip(evaluated.classes, recall, strict=True)))
    assert len({*recall}) == len(recall)
    assert written["test_images"] == len(truth)
    groups = evaluated.groups[evaluated.test]
    for label, name in enumerate(evaluated.classes):
        assert written["independent_groups"][name] == len({*groups[truth == label]})


def test_reliability_bins(evaluated):
    truth, votes = evaluated.truth, evaluated.votes["ensemble"]
    confidence, is_correct = votes.max(axis=1), votes.argmax(axis=1) == truth
    bin_of = np.floor(confidence * 7)
    bins = [bin_of == index for index in range(7) if np.any(bin_of == index)]
    expected = [[confidence[b].mean(), is_correct[b].mean(), b.sum()] for b in bins]
    error = sum(abs(mean - accuracy) * images for mean, accuracy, images in expected) / len(truth)
    written = evaluated.read("metrics/ensemble.json")
    assert written["expected_calibration_error"] == pytest.approx(error)
    table = evaluated.table("plots/data/reliability.csv")
    rows = [[float(row[key]) for key in ("confidence", "accuracy", "images")] for row in table]
    np.testing.assert_allclose(rows, expected, rtol=1e-5)
    assert len(rows) > 2


def test_intervals_draw_whole_groups(evaluated):
    written = evaluated.read("metrics/ensemble.json")
    truth, votes = evaluated.truth, evaluated.votes["ensemble"]
    groups = evaluated.groups[evaluated.test]
    names, rng, draws = np.unique(groups), np.random.default_rng(SEED), []
    for _ in range(100):
        drawn = names[rng.integers(0, len(names), len(names))]
        rows = np.concatenate([np.flatnonzero(groups == group) for group in drawn])
        draws.append(headlines(truth[rows], votes[rows]))
    low, high = np.percentile(draws, [2.5, 97.5], axis=0)
    for place, name in enumerate(("accuracy", "balanced_accuracy", "roc_auc")):
        assert written["interval"][name] == pytest.approx([low[place], high[place]]), name
    assert [*written["interval"]] == ["accuracy", "balanced_accuracy", "roc_auc"]


def decided_classes(evaluated) -> np.ndarray:
    """The classes by the rule of `write_evaluated`."""
    votes = evaluated.votes["ensemble"]
    if len(evaluated.classes) == 2:
        return (votes[:, 1] >= THRESHOLD).astype(int)
    return np.argmin([[vote @ column for column in np.transpose(COSTS)] for vote in votes], axis=1)


def test_decision_rule(evaluated):
    """Rates are of the positive class; with costs, the mean cost counts."""
    rule, truth = evaluated.read("metrics/ensemble.json")["decision_rule"], evaluated.truth
    decided = decided_classes(evaluated)
    assert np.any(decided != evaluated.votes["ensemble"].argmax(axis=1))
    assert rule["accuracy"] == pytest.approx(sk.accuracy_score(truth, decided))
    if len(evaluated.classes) == 3:
        assert rule["mean_cost"] == pytest.approx(np.mean(np.array(COSTS)[truth, decided]))
        assert "rates" not in rule
        return
    rates = {
        "sensitivity": sk.recall_score(truth, decided),
        "specificity": sk.recall_score(truth, decided, pos_label=0),
        "ppv": sk.precision_score(truth, decided),
        "npv": sk.precision_score(truth, decided, pos_label=0),
    }
    assert (rule["threshold"], rule["rates"].pop("positive")) == (THRESHOLD, evaluated.classes[1])
    intervals = rule["rates"].pop("interval")
    assert rule["rates"] == pytest.approx(rates)
    for name, (low, high) in intervals.items():
        assert low < rates[name] < high
    positive, negative = 0.1 * rates["sensitivity"], 0.9 * rates["specificity"]
    assert rule["at_prevalence"]["ppv"] == pytest.approx(positive / (positive + 0.9 - negative))


def test_prediction_sets_in_the_table(evaluated):
    """Those with an error rate of 0.2 are what the metrics are of."""
    written, classes = evaluated.read("metrics/ensemble.json"), evaluated.classes
    sets = []
    for row in evaluated.table("plots/data/predictions.csv"):
        values = {name: float(row[f"p-value of {name}"]) for name in classes}
        sets.append({row["predicted"]})
        sets[-1] |= {name for name in classes if values[name] > 0.2}
    covered = [
        classes[label] in listed for label, listed in zip(evaluated.truth, sets, strict=True)
    ]
    single = [len(listed) == 1 for listed in sets]
    metrics = written["prediction_sets"]
    assert metrics["coverage"] == pytest.approx(np.mean(covered))
    assert metrics["mean_size"] == pytest.approx(np.mean([len(listed) for listed in sets]))
    assert metrics["decided"] == pytest.approx(np.mean(single))
    assert metrics["mean_size"] > 1
    for label, name in enumerate(classes):
        of_class = np.array(covered)[evaluated.truth == label]
        assert metrics["by_class"][name]["coverage"] == pytest.approx(of_class.mean())
    if any(single):
        assert metrics["decided_accuracy"] == pytest.approx(np.array(covered)[single].mean())


def test_printed_metrics(evaluated):
    written = evaluated.read("metrics/ensemble.json")
    lines = []
    names = {
        "accuracy": "accuracy",
        "balanced_accuracy": "balanced accuracy",
        "roc_auc": "ROC AUC",
    }
    for name, printed in names.items():
        low, high = written["interval"][name]
        interval = f"(95 % interval {low:.3f} to {high:.3f})"
        mean_member = f"mean member {written['mean_member'][name]:.3f}"
        lines.append(f"{printed}: {written[name]:.3f} {interval}; {mean_member}")
    printed = evaluated.printed.splitlines()
    assert printed[:3] == lines
    assert printed[-1].startswith("prediction sets for an error rate of 0.2: coverage of ")
    has_rates = len(evaluated.classes) == 2
    assert printed[3].startswith("class 'none': sensitivity ") == has_rates
    assert len(printed) == 4 + has_rates


def test_areas_need_five_groups(evaluated):
    """Both of the class and of the rest."""
    truth, votes = evaluated.truth, evaluated.votes["ensemble"]
    classes, numbers = evaluated.classes, np.arange(len(truth))
    for per_class, are_enough in ((4, False), (5, True)):
        plots.write_class_curves(truth, votes, 100 * truth + numbers % per_class, classes, None)
        *_, areas = evaluated.drawn["roc_precision_recall"]
        if len(classes) == 2:
            assert [area is not None for area in areas["none"]] == [are_enough] * 2
    plots.write_class_curves(truth, votes, 100 * (truth == 1) + numbers % 4, classes, 1)
    *_, areas = evaluated.drawn["roc_precision_recall"]
    assert areas["none"] == (None, None)


@pytest.mark.filterwarnings("error")
def test_no_curves_of_a_class_without_test_images(tmp_path, monkeypatch):
    """Nor of one that all have: scikit-learn returns NaN or an invented curve."""
    monkeypatch.chdir(tmp_path)
    votes, groups = np.full((4, 3), 1 / 3), np.arange(4)
    plots.write_class_curves(np.array([0, 0, 1, 1]), votes, groups, ["a", "b", "c"], None)
    for name in ("roc.csv", "precision_recall.csv"):
        rows = Path("plots/data", name).read_text().splitlines()[1:]
        assert {row.partition(",")[0] for row in rows} == {"a", "b"}
    plots.write_class_curves(np.array([1, 1, 1, 1]), votes[:, :2], groups, ["a", "b"], 1)
    assert Path("plots/data/roc.csv").read_text() == (
        "curve,false_positive_rate,true_positive_rate\n"
    )
    assert Path("plots/evaluation/roc_precision_recall.png").stat().st_size > 1000


def test_confusion_matrix_has_every_class(evaluated):
    """Also those that no test image has."""
    count = len(evaluated.classes)
    plots.write_confusion_matrix(np.array([0, 0]), np.array([0, 0]), evaluated.classes)
    counts, _ = evaluated.drawn["confusion"]
    assert counts.shape == (count, count)
    assert counts[0, 0] == counts.sum() == 2


def test_history_of_one_epoch(evaluated):
    names = [*evaluated.params["ensemble"]]
    for name in names:
        history = evaluated.folder / f"models/members/{name}/history.csv"
        history.write_text("\n".join(history.read_text().splitlines()[:2]) + "\n")
    plots.write_learning_curves(names)
    table = evaluated.table("plots/data/learning_curves.csv")
    assert [(row["curve"], row["epoch"]) for row in table] == [(name, "1") for name in names]


def test_gallery_of_no_images(evaluated):
    evaluated.set(evaluate__gallery=0)
    evaluate.main()
    images, captions, is_wrong = evaluated.drawn["gallery"]
    assert (len(images), captions, is_wrong) == (0, [], [])


def test_gallery_keeps_the_order_of_equals(evaluated):
    rows = [*range(len(evaluated.labels))]
    classes = evaluated.classes
    equal = np.full((len(rows), len(classes)), 1 / len(classes))
    votes = {"ensemble": equal}
    evaluation = Evaluation(
        classes=classes,
        rows=rows,
        labels=evaluated.labels,
        groups=evaluated.groups,
        votes=votes,
        best=BEST_MEMBER,
        predictions=np.stack([equal] * 4),
        voting=evaluated.read("models/weights.json"),
    )
    plots.write_gallery(evaluation, evaluated.read("data/rad/metadata.json")["images"], 6)
    images, *_ = evaluated.drawn["gallery"]
    np.testing.assert_array_equal(images, evaluated.images[:6, ..., 0])


def test_tables_with_paths_that_are_not_utf_8(evaluated):
    plots.write_table("odd.csv", ["path"], [["scan-\udce9.png"], ["café.png"]])
    written = (evaluated.folder / "plots/data/odd.csv").read_bytes()
    assert written == "path\nscan-\\udce9.png\ncafé.png\n".encode()


def test_missing_metrics_are_explained(evaluated, capsys):
    """All test images are in two groups."""
    rows = evaluated.read("data/split.json")["test"]
    evaluated.split(rows, (evaluated.labels % 2).tolist())
    evaluate.main()
    *_, last = capsys.readouterr().out.splitlines()
    assert last.startswith(
        "no ROC AUC, average precision or bootstrap intervals: expected 5 or more independent"
    )
    assert last.endswith("; `make crossval` tests on all images")
    assert evaluated.read("metrics/ensemble.json")["best_member"]["roc_auc"] is None


def test_compared_voters(evaluated):
    written, votes = evaluated.read("metrics/ensemble.json"), evaluated.votes
    truth, names = evaluated.truth, [*evaluated.params["ensemble"]]

    def compute(voter):
        return [*headlines(truth, votes[voter]), sk.log_loss(truth, votes[voter])]

    assert written["best_member"].pop("name") == BEST_MEMBER
    keys = ["accuracy", "balanced_accuracy", "roc_auc", "log_loss"]
    for entry, values in (
        ("best_member", compute(BEST_MEMBER)),
        ("uniform_vote", compute("uniform vote")),
        ("mean_member", np.mean([compute(name) for name in names], axis=0)),
    ):
        assert written[entry] == pytest.approx(dict(zip(keys, values, strict=True))), entry
    accuracies = {voter: np.mean(vote.argmax(axis=1) == truth) for voter, vote in votes.items()}
    rows = evaluated.table("plots/data/members.csv")
    table = {row["voter"]: float(row["accuracy"]) for row in rows}
    assert table == pytest.approx(accuracies, abs=1e-5)


def test_tables_of_predictions(evaluated):
    votes, classes = evaluated.votes["ensemble"], evaluated.classes
    paths = [f"{classes[evaluated.labels[row]]}/{row:03d}.png" for row in evaluated.test]
    columns = [f"probability of {name}" for name in classes]
    table = evaluated.table("plots/data/predictions.csv")
    assert "\r" not in (evaluated.folder / "plots/data/predictions.csv").read_bytes().decode()
    assert [row["image"] for row in table] == paths
    assert [row["class"] for row in table] == [classes[label] for label in evaluated.truth]
    assert [row["predicted"] for row in table] == [
        classes[label] for label in decided_classes(evaluated)
    ]
    values = [[float(row[key]) for key in columns] for row in table]
    np.testing.assert_allclose(values, votes, atol=1e-5)
    confusion = evaluated.table("plots/data/confusion.csv")
    assert [(row["class"], row["predicted"]) for row in confusion] == [
        (row["class"], row["predicted"]) for row in table
    ]


def test_table_of_votes(evaluated):
    classes = evaluated.classes
    columns = [f"probability of {name}" for name in classes]
    table = evaluated.table("plots/data/votes.csv")
    expected = evaluated.votes | {"best member": evaluated.votes[BEST_MEMBER]}
    assert {row["voter"] for row in table} == expected.keys()
    for voter, votes in expected.items():
        rows = [row for row in table if row["voter"] == voter]
        assert [int(row["row"]) for row in rows] == evaluated.test
        assert [int(row["group"]) for row in rows] == evaluated.groups[evaluated.test].tolist()
        assert [row["class"] for row in rows] == [classes[label] for label in evaluated.truth]
        values = [[float(row[key]) for key in columns] for row in rows]
        np.testing.assert_allclose(values, votes, atol=1e-5)


def test_figures_show_what_was_computed(evaluated):
    drawn, votes, truth = evaluated.drawn, evaluated.votes["ensemble"], evaluated.truth
    assert drawn.keys() == FIGURES.keys()
    for name in drawn:
        path = evaluated.folder / f"plots/evaluation/{name}.png"
        assert path.read_bytes() == name.encode()
    predicted, written = decided_classes(evaluated), evaluated.read("metrics/ensemble.json")
    counts, classes = drawn["confusion"]
    assert counts.tolist() == sk.confusion_matrix(truth, predicted).tolist()
    assert classes == evaluated.classes
    [histories] = drawn["learning_curves"]
    assert [*histories] == [*evaluated.params["ensemble"]]
    assert histories["member-02"]["out_of_bag_accuracy"].tolist() == [0.6, 0.7]
    bins, error = drawn["reliability"]
    assert sum(count for _, _, count in bins) == len(truth)
    assert error == written["expected_calibration_error"]
    accuracies, interval = drawn["members"]
    assert accuracies == pytest.approx(
        {voter: np.mean(vote.argmax(axis=1) == truth) for voter, vote in evaluated.votes.items()}
    )
    assert interval == written["interval"]["accuracy"]
    roc, precision_recall, areas = drawn["roc_precision_recall"]
    for label in [1] if len(classes) == 2 else range(3):
        is_positive, probability = truth == label, votes[:, label]
        roc_auc = sk.roc_auc_score(is_positive, probability)
        average_precision = sk.average_precision_score(is_positive, probability)
        assert areas[classes[label]] == pytest.approx((roc_auc, average_precision))
    assert roc.keys() == precision_recall.keys() == areas.keys()


def test_gallery_shows_the_hardest_images(evaluated):
    images, captions, is_wrong = evaluated.drawn["gallery"]
    of_truth = evaluated.votes["ensemble"][np.arange(len(evaluated.truth)), evaluated.truth]
    places = np.argsort(of_truth)[:5]
    rows = np.array(evaluated.test)[places]
    np.testing.assert_array_equal(images, evaluated.images[rows][..., 0])
    names = [evaluated.classes[label] for label in evaluated.truth[places]]
    predicted = decided_classes(evaluated)[places]
    guesses = [evaluated.classes[label] for label in predicted]
    votes = evaluated.votes["ensemble"][places]
    votes = votes[range(5), predicted, np.newaxis]
    assert [caption.removesuffix(", unsure") for caption in captions] == [
        f"{name}/{row:03d}.png\ntrue {name}, predicted {guess} (p = {vote.max():.2f})"
        for name, row, guess, vote in zip(names, rows, guesses, votes, strict=True)
    ]
    assert is_wrong == (predicted != evaluated.truth[places]).tolist()
    assert any(is_wrong)
    assert plots.shorten_path("a" * 30) == "…" + "a" * 27
    assert plots.shorten_path("a" * 28) == "a" * 28


def test_curves_are_scikit_learns(evaluated):
    classes, votes = evaluated.classes, evaluated.votes["ensemble"]
    names = {1: classes[1]} if len(classes) == 2 else dict(enumerate(classes))
    for path, curve, keys in (
        ("roc", sk.roc_curve, ("false_positive_rate", "true_positive_rate")),
        ("precision_recall", sk.precision_recall_curve, ("precision", "recall")),
    ):
        table = evaluated.table(f"plots/data/{path}.csv")
        assert {row["curve"] for row in table} == {*names.values()}
        for label, name in names.items():
            expected = np.stack(curve(evaluated.truth == label, votes[:, label])[:2], axis=1)
            if path == "precision_recall":
                expected = expected[::-1]
            rows = [[float(row[key]) for key in keys] for row in table if row["curve"] == name]
            np.testing.assert_allclose(rows, expected, atol=1e-5)


def test_table_of_learning_curves(evaluated):
    table = evaluated.table("plots/data/learning_curves.csv")
    names = [*evaluated.params["ensemble"]]
    assert [row["curve"] for row in table] == [name for name in names for _ in range(2)]
    assert [row["epoch"] for row in table[:2]] == ["1", "2"]
    expected = {
        "in_bag_log_loss": [0.8, 0.5],
        "in_bag_accuracy": [0.5, 0.75],
        "out_of_bag_log_loss": [0.7, 0.4],
    }
    for column, values in expected.items():
        assert [float(row[column]) for row in table[:2]] == values
    assert [float(row["out_of_bag_accuracy"]) for row in table[1::2]] == MEMBER_LOSSES
