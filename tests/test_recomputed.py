"""Stages between `ingest` and the report on made inputs: what they write is recomputed with scikit-learn, NumPy or by hand."""

import json

import numpy as np
import pytest
import workspace
from scipy.special import softmax, xlogy
from sklearn import metrics as sk
from sklearn.model_selection import StratifiedGroupKFold

from stages import bootstrap_sample, evaluate, split, weigh
from stages.shared.errors import UserError
from stages.shared.members import read_predictions, write_predictions

SCHEMES = ["uniform", "accuracy", "balanced_accuracy", "auc", "softmax", "log_loss"]
SEED = 5
SHARPNESS = np.array([1.5, 0.2, 1.0, 0.6])  # of members: unequal skill


@pytest.fixture(params=[2, 3], ids=["two classes", "three classes"])
def made(request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return workspace.make(tmp_path, request.param)


@pytest.fixture
def two(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return workspace.make(tmp_path, 2)


def joined(hashes: list[list[bytes]], bits: int) -> list[int]:
    """Groups of rows that a chain of near ones connects, numbered in order of first appearance."""
    groups: list[int | None] = [None] * len(hashes)
    for start in range(len(hashes)):
        if groups[start] is not None:
            continue
        number = max((group for group in groups if group is not None), default=-1) + 1
        waiting = [start]
        while waiting:
            row = waiting.pop()
            groups[row] = number
            for other, theirs in enumerate(hashes):
                apart = [(int(a, 16) ^ int(b, 16)).bit_count() for a, b in zip(hashes[row], theirs, strict=True)]
                if groups[other] is None and min(apart) <= bits:
                    waiting.append(other)
    return groups


PREDICTED = "row,none,überall\n4,0.25,0.75\n2,1,0\n"
AGAIN = "does not fit the images and classes it should be of; run `dvc repro --force` to make it again"


def test_predictions_are_read_as_they_were_written(tmp_path):
    values = np.array([[0.25, 0.75], [1 / 3, 2 / 3]], np.float32)
    write_predictions(tmp_path / "made.csv", [4, 2], values, ["no", "yes"])
    assert (tmp_path / "made.csv").read_bytes() == b"row,no,yes\n4,0.25,0.75\n2,0.333333343,0.666666687\n"
    odd = ["no", "über\r\nall"]
    write_predictions(tmp_path / "made.csv", [4, 2], values, odd)
    np.testing.assert_array_equal(read_predictions(tmp_path / "made.csv", [4, 2], odd).astype(np.float32), values)


@pytest.mark.parametrize(
    ("content", "reported"),
    [
        (None, "is missing; run `dvc repro` to make it"),
        (PREDICTED.replace("\n4,", "\n5,"), AGAIN),
        (PREDICTED.replace("none", "some"), AGAIN),
        ("row,none,überall\n4,0.25\n2,1\n", AGAIN),
        (PREDICTED.replace("0.75", "nan"), AGAIN),
        (PREDICTED.replace("0.75", "x"), "is not a table of predictions (could not convert string to float: 'x')"),
        ("", "is not a table of predictions"),
    ],
)
def test_predictions_of_other_rows_or_classes_are_refused(tmp_path, content, reported):
    path, arguments = tmp_path / "test.csv", ([4, 2], ["none", "überall"])
    path.write_text(PREDICTED, "utf-8")
    assert read_predictions(path, *arguments).tolist() == [[0.25, 0.75], [1, 0]]
    path.unlink() if content is None else path.write_text(content, "utf-8")
    with pytest.raises(UserError) as raised:
        read_predictions(path, *arguments)
    assert str(raised.value).startswith(f"{path} {reported}")


@pytest.mark.parametrize("fold", [0, 1, 3])
def test_split_holds_out_the_fold_that_was_asked_for(made, fold, capsys):
    made.set(split__folds=4, split__fold=fold)
    split.main()
    written = made.read("data/split.json")
    images = made.read("data/rad/metadata.json")["images"]
    assert written["groups"] == made.groups.tolist() == joined([[i["perceptual_hash"], i["whole_hash"]] for i in images], 20)
    folds = StratifiedGroupKFold(4, shuffle=True, random_state=SEED).split(made.labels, made.labels, made.groups)
    training, test = list(folds)[fold]
    assert (written["test"], written["training"]) == (test.tolist(), training.tolist())
    assert not {*made.groups[test]} & {*made.groups[training]}
    printed = capsys.readouterr().out
    count = len(images)
    assert (
        f"{count} images, {made.groups.max() + 1} groups of near duplicates; {len(training)} to train on, {len(test)} to"
        in printed
    )
    for label, name in enumerate(made.classes):
        fractions = [np.mean(made.labels[rows] == label) for rows in (training, test)]
        assert "  {}: {:.1%} of the training images, {:.1%} of the test images\n".format(name, *fractions) in printed


@pytest.mark.parametrize(("bits", "groups"), [(None, "none"), (14, "none"), (15, "chains"), (30, "chains")])
def test_split_groups_images_within_the_bits_that_were_asked_for(two, bits, groups):
    two.set(split__near_duplicate_bits=bits)
    split.main()
    assert two.read("data/split.json")["groups"] == (two.groups.tolist() if groups == "chains" else list(range(len(two.labels))))


def test_split_without_a_class_on_one_side_is_refused(two, monkeypatch):
    two.set(split__folds=2, split__fold=1, split__near_duplicate_bits=256)
    with pytest.raises(UserError, match="'glioma' has 1 independent image"):
        split.main()
    two.set(split__near_duplicate_bits=20)
    monkeypatch.setattr(split, "stratified_group_folds", lambda labels, *_: labels)
    with pytest.raises(UserError) as raised:
        split.main()
    assert str(raised.value) == "fold 1 has no image of class 'glioma', or all; change split.fold, split.folds or seed"
    assert not (two.folder / "data/split.json").exists()


def test_split_warns_of_a_large_group(two, capsys):
    images = two.read("data/rad/metadata.json")
    rows = [row for row, image in enumerate(images["images"]) if image["class"] == "none"][:9]
    for row in rows:
        images["images"][row]["whole_hash"] = images["images"][rows[0]]["whole_hash"]
    two.write("data/rad/metadata.json", json.dumps(images))
    split.main()
    lines, count = capsys.readouterr().out.splitlines(), sum(two.labels == 1)
    groups = two.read("data/split.json")["groups"]
    size = groups.count(groups[rows[0]])
    assert size >= 9
    warning = f"warning: {size} of {count} images of class 'none' are one group of near duplicates, such as"
    assert sum(line.startswith(warning) for line in lines) == 1


@pytest.mark.parametrize("scheme", ["bootstrap", "subsample", "committee"])
def test_samples_are_drawn_from_training_groups_by_scheme_fraction_and_seed(made, scheme, capsys):
    test = np.flatnonzero(np.isin(made.groups, [0, 3, 4, 9]))
    training = np.setdiff1d(np.arange(len(made.labels)), test)
    fractions = {"base": 0.7, "strong": 0.7, "light": 0.7}  # a committee of three folds, dealt again for the fourth member
    if scheme != "committee":
        fractions |= {"base": 0.5, "light": 0.3}
    made.set(bootstrap__scheme=scheme, members=4, **{f"recipes__{name}__fraction": value for name, value in fractions.items()})
    made.split(test.tolist())
    bootstrap_sample.main()
    printed = capsys.readouterr().out
    labels, groups = made.labels[training], made.groups[training]
    drawn = {}
    for index, recipe in enumerate(["base", "strong", "light", "base"]):
        fraction = fractions[recipe]
        if scheme == "committee":
            seed = 1000 * SEED + (3 if index == 3 else 0)
            folds = StratifiedGroupKFold(3, shuffle=True, random_state=seed).split(labels, labels, groups)
            in_bag, out_of_bag = list(folds)[index % 3]
        else:
            rng = np.random.default_rng(1000 * SEED + index)
            while True:
                of_class = [np.flatnonzero(labels == label) for label in range(len(made.classes))]
                picks = [rng.choice(rows, round(fraction * len(rows)), replace=scheme == "bootstrap") for rows in of_class]
                in_bag = np.sort(np.concatenate(picks))
                out_of_bag = np.array([row for row in range(len(labels)) if groups[row] not in set(groups[in_bag])])
                if {*labels[out_of_bag]} == {*labels}:
                    break
        name = f"member-{index:02d}"
        expected = {"in_bag": training[in_bag].tolist(), "out_of_bag": training[out_of_bag].tolist()}
        assert made.read(f"data/bootstrap/{name}.json") == expected
        line = f"{name}: {len(in_bag)} draws of {len(set(in_bag))} images, {len(out_of_bag)} images out of bag\n"
        assert line in printed
        drawn[tuple(in_bag)] = name
    assert len(drawn) == 4  # no two members have the same sample


def with_predictions(made, calibrate=True, scheme="log_loss", threshold="youden"):
    """Samples and out-of-bag and test predictions of four members of unequal skill, whose out-of-bag rows differ."""
    made.set(weigh__scheme=scheme, weigh__calibrate=calibrate, evaluate__threshold=threshold)
    test = [row for row in range(len(made.labels)) if made.groups[row] % 2 == 0]
    made.split(test)
    rng, training = np.random.default_rng(1), [row for row in range(len(made.labels)) if made.groups[row] % 2]
    parts = {}
    for index, name in enumerate(made.params["ensemble"]):
        out_of_bag = [row for row in training if made.groups[row] % 8 == 2 * index + 1 or rng.random() < 0.3]
        in_bag = [row for row in training if row not in out_of_bag]
        made.write(f"data/bootstrap/{name}.json", json.dumps({"in_bag": in_bag, "out_of_bag": out_of_bag}))
        for part, rows in (("out_of_bag", out_of_bag), ("test", test)):
            logits = (
                rng.normal(size=(len(rows), len(made.classes))) + SHARPNESS[index] * np.eye(len(made.classes))[made.labels[rows]]
            )
            parts[name, part] = rows, softmax(2.5 * logits + np.arange(len(made.classes)), axis=1)
            made.predictions(name, part, *parts[name, part])
    return parts


def expected_score(scheme, labels, probabilities):
    predicted, classes = probabilities.argmax(axis=1), probabilities.shape[1]
    area = sk.roc_auc_score(labels, probabilities[:, 1] if classes == 2 else probabilities, multi_class="ovr")
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


def out_of_bag_votes(made, parts, shares):
    """Row by row: the weighted mean of the members to whom the row is out-of-bag."""
    rows, votes = [], []
    for row in range(len(made.labels)):
        of_row = [
            (share, probabilities[known.index(row)])
            for name, share in shares.items()
            for known, probabilities in [parts[name, "out_of_bag"]]
            if row in known
        ]
        if of_row:
            rows.append(row)
            votes.append(np.average([p for _, p in of_row], axis=0, weights=[share for share, _ in of_row]))
    return rows, np.array(votes)


def calibrated(votes, temperature, biases):
    return softmax(np.log(votes) / temperature + np.array(biases), axis=1)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_weights_are_the_scores_of_each_members_own_out_of_bag_rows(made, scheme, capsys):
    parts = with_predictions(made, scheme=scheme)
    weigh.main()
    written, printed = made.read("models/weights.json"), capsys.readouterr().out
    scores = {}
    for name in made.params["ensemble"]:
        rows, probabilities = parts[name, "out_of_bag"]
        scores[name] = expected_score(scheme, made.labels[rows], probabilities)
    power = np.exp if scheme == "softmax" else np.asarray
    total = sum(power(score) for score in scores.values())
    assert written["scheme"] == scheme
    assert [*written["members"]] == [*scores]
    for name, score in scores.items():
        assert written["members"][name]["score"] == pytest.approx(score)
        assert written["members"][name]["weight"] == pytest.approx(power(score) / total)
        assert f"{name}: score {score:.4f}, weight {power(score) / total:.4f}\n" in printed
    assert (len(set(scores.values())) > 1) == (scheme != "uniform")


def test_calibrations_minimize_the_penalized_log_loss_of_each_voters_out_of_bag_votes(made, capsys):
    parts = with_predictions(made)
    weigh.main()
    written = made.read("models/weights.json")
    names = [*made.params["ensemble"]]
    voters = {
        "ensemble": out_of_bag_votes(made, parts, {name: written["members"][name]["weight"] for name in names}),
        "uniform vote": out_of_bag_votes(made, parts, dict.fromkeys(names, 0.25)),
        **{name: parts[name, "out_of_bag"] for name in names},
    }
    assert written["calibrations"].keys() == voters.keys()
    assert len({calibration["temperature"] for calibration in written["calibrations"].values()}) == len(voters)
    for voter, (rows, votes) in voters.items():
        calibration = written["calibrations"][voter]
        best = np.array([np.log(calibration["temperature"]), *calibration["biases"][1:]])
        assert calibration["biases"][0] == 0

        def penalized(values, rows=rows, votes=votes):
            loss = len(rows) * sk.log_loss(made.labels[rows], calibrated(votes, np.exp(values[0]), [0, *values[1:]]))
            return loss + (values[0] / 0.5) ** 2 / 2 + (values[1:] ** 2).sum() / 2

        for place in range(len(best)):
            for step in (-0.02, 0.02):
                assert penalized(best) < penalized(best + step * np.eye(len(best))[place]), (voter, place)
    ensemble = written["calibrations"]["ensemble"]
    biases = " ".join(f"{name} {bias:+.2f}" for name, bias in zip(made.classes, ensemble["biases"], strict=True))
    assert capsys.readouterr().out.endswith(f"calibration: temperature {ensemble['temperature']:.2f} {biases}\n")


@pytest.mark.parametrize("classes", [10, 11])
def test_biases_of_many_classes_are_printed_as_a_range(tmp_path, monkeypatch, capsys, classes):
    monkeypatch.chdir(tmp_path)
    made = workspace.make(tmp_path, classes)
    with_predictions(made)
    weigh.main()
    *_, last = capsys.readouterr().out.splitlines()
    ensemble = made.read("models/weights.json")["calibrations"]["ensemble"]
    biases = ensemble["biases"]
    printed = f"biases of {classes} classes {min(biases):+.2f} to {max(biases):+.2f}"
    if classes == 10:
        printed = " ".join(f"{name} {bias:+.2f}" for name, bias in zip(made.classes, biases, strict=True))
    assert last == f"calibration: temperature {ensemble['temperature']:.2f} {printed}"


def test_without_calibration_votes_stay_as_they_are(made):
    with_predictions(made, calibrate=False)
    weigh.main()
    assert len(made.read("models/weights.json")["calibrations"]) == 6
    for calibration in made.read("models/weights.json")["calibrations"].values():
        assert calibration == {"temperature": 1, "biases": [0] * len(made.classes)}


@pytest.mark.parametrize(
    ("rule", "min_sensitivity"), [("half", 0.9), ("youden", 0.9), ("sensitivity", 0.9), ("sensitivity", 0.6)]
)
def test_threshold_is_chosen_on_calibrated_out_of_bag_votes(two, rule, min_sensitivity):
    parts = with_predictions(two, threshold=rule)
    two.set(evaluate__min_sensitivity=min_sensitivity)
    weigh.main()
    written = two.read("models/weights.json")
    rows, votes = out_of_bag_votes(two, parts, {name: member["weight"] for name, member in written["members"].items()})
    positive, yes = calibrated(votes, **written["calibrations"]["ensemble"])[:, 1], two.labels[rows] == 1
    rates = {t: (np.mean(positive[yes] >= t - 1e-9), np.mean(positive[~yes] < t - 1e-9)) for t in positive}
    expected = {
        "half": 0.5,
        "youden": max(rates, key=lambda t: sum(rates[t])),
        "sensitivity": max(t for t, (sensitivity, _) in rates.items() if sensitivity >= min_sensitivity),
    }[rule]
    assert written["threshold"] == pytest.approx(expected)


def test_three_classes_have_no_threshold(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = workspace.make(tmp_path, 3)
    with_predictions(made)
    weigh.main()
    assert "threshold" not in made.read("models/weights.json")


@pytest.fixture
def evaluated(made, monkeypatch, capsys):
    """A workspace in which `evaluate` has run, with the votes that it should have counted."""
    parts = with_predictions(made)
    made.set(evaluate__resamples=100, evaluate__bins=7, evaluate__gallery=5)
    names = [*made.params["ensemble"]]
    weights, temperatures = [0.1, 0.2, 0.3, 0.4], [0.8, 1.3, 1.0, 1.1, 0.7, 1.6]
    biases = [[0, *np.linspace(-0.5, 0.4, len(made.classes) - 1) * (index + 1) / 3] for index in range(6)]
    voters = ["ensemble", "uniform vote", *names]
    made.write(
        "models/weights.json",
        json.dumps(
            {
                "scheme": "log_loss",
                "calibrations": {
                    voter: {"temperature": temperature, "biases": bias}
                    for voter, temperature, bias in zip(voters, temperatures, biases, strict=True)
                },
                **({"threshold": 0.35} if len(made.classes) == 2 else {}),
                "members": {name: {"score": weight, "weight": weight} for name, weight in zip(names, weights, strict=True)},
            }
        ),
    )
    for name, loss in zip(names, (0.9, 0.4, 0.7, 0.5), strict=True):
        made.write(
            f"metrics/members/{name}.json",
            json.dumps({"out_of_bag": {"accuracy": 1 - loss, "log_loss": loss, "images": 9}}),
        )
        header = "epoch,loss,in_bag_log_loss,in_bag_accuracy,out_of_bag_log_loss,out_of_bag_accuracy,learning_rate"
        made.write(
            f"models/members/{name}/history.csv", f"{header}\n1,0.9,0.8,0.5,0.7,0.6,0.01\n2,0.6,0.5,0.75,0.4,{loss},0.02\n"
        )
    made.drawn = {}
    for name in ("confusion", "learning_curves", "curves", "reliability", "members", "gallery"):  # drawn in test_plots.py
        monkeypatch.setattr(
            evaluate.pictures, name, lambda *values, name=name: made.drawn.update({name: values}) or name.encode()
        )
    evaluate.main()
    made.printed = capsys.readouterr().out
    of_members = np.stack([parts[name, "test"][1] for name in names])
    votes = {"ensemble": np.average(of_members, axis=0, weights=weights), "uniform vote": of_members.mean(axis=0)}
    votes |= dict(zip(names, of_members, strict=True))
    made.votes = {
        voter: calibrated(vote, temperature, bias)
        for (voter, vote), temperature, bias in zip(votes.items(), temperatures, biases, strict=True)
    }
    made.test = parts[names[0], "test"][0]
    made.truth = made.labels[made.test]
    return made


def headlines(labels, probabilities):
    """Accuracy, balanced accuracy and ROC AUC, the last two over the classes that occur, as a bootstrap draw may lack one."""
    predicted, classes = probabilities.argmax(axis=1), probabilities.shape[1]
    recalls = [np.mean(predicted[labels == label] == label) for label in np.unique(labels)]
    shown = [label for label in ([1] if classes == 2 else range(classes)) if 0 < np.sum(labels == label) < len(labels)]
    areas = [sk.roc_auc_score(labels == label, probabilities[:, label]) for label in shown]
    return np.mean(predicted == labels), np.mean(recalls), np.mean(areas)


def test_metrics_of_the_vote_are_scikit_learns(evaluated):
    written, truth, votes = evaluated.read("metrics/ensemble.json"), evaluated.truth, evaluated.votes["ensemble"]
    predicted, two = votes.argmax(axis=1), len(evaluated.classes) == 2
    one_hot = np.eye(len(evaluated.classes))[truth]
    expected = {
        "accuracy": sk.accuracy_score(truth, predicted),
        "balanced_accuracy": sk.balanced_accuracy_score(truth, predicted),
        "roc_auc": sk.roc_auc_score(truth, votes[:, 1] if two else votes, multi_class="ovr"),
        "average_precision": sk.average_precision_score(truth if two else one_hot, votes[:, 1] if two else votes),
        "f1": sk.f1_score(truth, predicted, average="binary" if two else "macro"),
        "log_loss": -xlogy(one_hot, votes).sum(axis=1).mean(),
        "brier_score": sk.brier_score_loss(truth, votes[:, 1]) if two else ((votes - one_hot) ** 2).sum(axis=1).mean(),
    }
    assert {name: written[name] for name in expected} == pytest.approx(expected)
    recall = sk.recall_score(truth, predicted, average=None)
    assert written["recall"] == pytest.approx(dict(zip(evaluated.classes, recall, strict=True)))
    assert len({*recall}) == len(recall)
    assert written["test_images"] == len(truth)
    groups = evaluated.groups[evaluated.test]
    assert written["independent_groups"] == {name: len({*groups[truth == k]}) for k, name in enumerate(evaluated.classes)}
    sure, right = votes.max(axis=1), predicted == truth
    places = np.floor(sure * 7)
    bins = [(sure[places == b], right[places == b]) for b in range(7) if np.any(places == b)]
    error = sum(abs(confidence.mean() - hits.mean()) * len(hits) for confidence, hits in bins) / len(truth)
    assert written["expected_calibration_error"] == pytest.approx(error)
    table = evaluated.table("plots/data/reliability.csv")
    rows = [[float(row[key]) for key in ("confidence", "accuracy", "images")] for row in table]
    np.testing.assert_allclose(rows, [[confidence.mean(), hits.mean(), len(hits)] for confidence, hits in bins], rtol=1e-5)
    assert len(rows) > 2


def test_intervals_are_percentiles_of_draws_of_whole_groups(evaluated):
    written, truth, votes = evaluated.read("metrics/ensemble.json"), evaluated.truth, evaluated.votes["ensemble"]
    groups = evaluated.groups[evaluated.test]
    names, rng, draws = np.unique(groups), np.random.default_rng(SEED), []
    for _ in range(100):
        rows = [row for group in names[rng.integers(0, len(names), len(names))] for row in np.flatnonzero(groups == group)]
        draws.append(headlines(truth[rows], votes[rows]))
    low, high = np.percentile(draws, [2.5, 97.5], axis=0)
    for place, name in enumerate(("accuracy", "balanced_accuracy", "roc_auc")):
        assert written["interval"][name] == pytest.approx([low[place], high[place]]), name
    assert [*written["interval"]] == ["accuracy", "balanced_accuracy", "roc_auc"]


def test_sensitivity_is_of_the_second_class_and_specificity_of_the_first(evaluated):
    written = evaluated.read("metrics/ensemble.json")
    assert ("at_threshold" in written) == (len(evaluated.classes) == 2)
    if "at_threshold" in written:
        positive = evaluated.votes["ensemble"][:, 1]
        sensitivity, specificity = np.mean(positive[evaluated.truth == 1] >= 0.35), np.mean(positive[evaluated.truth == 0] < 0.35)
        assert written["at_threshold"] == pytest.approx(
            {"threshold": 0.35, "sensitivity": sensitivity, "specificity": specificity}
        )
        assert sensitivity != specificity


def test_metrics_are_printed_with_intervals_and_the_mean_member(evaluated):
    written = evaluated.read("metrics/ensemble.json")
    lines = []
    for name in ("accuracy", "balanced_accuracy", "roc_auc"):
        low, high = written["interval"][name]
        lines.append(
            f"{name.replace('_', ' ')}: {written[name]:.3f} (95 % interval {low:.3f} to {high:.3f});"
            f" mean member {written['mean_member'][name]:.3f}"
        )
    assert evaluated.printed.splitlines() == lines


def test_areas_of_curves_need_five_groups_of_the_class_and_of_the_rest(evaluated):
    truth, votes = evaluated.truth, evaluated.votes["ensemble"]
    for per_class, enough in ((4, False), (5, True)):
        groups = 100 * truth + np.arange(len(truth)) % per_class
        evaluate.draw_curves(truth, votes, groups, evaluated.classes)
        *_, areas = evaluated.drawn["curves"]
        if len(evaluated.classes) == 2:
            assert [area is not None for area in areas["none"]] == [enough] * 2
    evaluate.draw_curves(truth, votes, 100 * (truth == 1) + np.arange(len(truth)) % 4, evaluated.classes)
    assert evaluated.drawn["curves"][2]["none"] == (None, None)


def test_a_class_that_no_test_image_has_keeps_its_row(evaluated):
    count = len(evaluated.classes)
    evaluate.draw_confusion(np.array([0, 0]), np.array([0, 0]), evaluated.classes)
    counts, _ = evaluated.drawn["confusion"]
    assert counts.shape == (count, count)
    assert (counts[0, 0], counts.sum()) == (2, 2)


def test_a_history_of_one_epoch_is_drawn(evaluated):
    for name in evaluated.params["ensemble"]:
        history = evaluated.folder / f"models/members/{name}/history.csv"
        history.write_text("\n".join(history.read_text().splitlines()[:2]) + "\n")
    evaluate.draw_learning_curves([*evaluated.params["ensemble"]])
    table = evaluated.table("plots/data/learning_curves.csv")
    assert [(row["curve"], row["epoch"]) for row in table] == [(name, "1") for name in evaluated.params["ensemble"]]


def test_images_of_equal_probability_are_in_the_gallery_in_their_order(evaluated):
    rows = [*range(len(evaluated.labels))]
    equal = np.full((len(rows), len(evaluated.classes)), 1 / len(evaluated.classes))
    evaluate.draw_gallery(evaluated.read("data/rad/metadata.json"), rows, evaluated.labels, equal, evaluated.classes, 6)
    images, *_ = evaluated.drawn["gallery"]
    np.testing.assert_array_equal(images, evaluated.images[:6, ..., 0])


def test_tables_hold_paths_that_are_not_utf_8(evaluated):
    evaluate.write_table("odd.csv", ["path"], [["scan-\udce9.png"], ["café.png"]])
    assert (evaluated.folder / "plots/data/odd.csv").read_bytes() == "path\nscan-\\udce9.png\ncafé.png\n".encode()


def test_missing_metrics_are_explained(evaluated, capsys):
    """All test images in two groups."""
    rows = evaluated.read("data/split.json")["test"]
    evaluated.split(rows, (evaluated.labels % 2).tolist())
    evaluate.main()
    *_, last = capsys.readouterr().out.splitlines()
    assert last.startswith("no ROC AUC, average precision or 95 % intervals: expected 5 or more independent groups")
    assert last.endswith("; `make crossval` tests on all images")
    assert evaluated.read("metrics/ensemble.json")["best_member"]["roc_auc"] is None


def test_compared_voters_are_recomputed(evaluated):
    written, votes, names = evaluated.read("metrics/ensemble.json"), evaluated.votes, [*evaluated.params["ensemble"]]

    def row(voter):
        return [*headlines(evaluated.truth, votes[voter]), sk.log_loss(evaluated.truth, votes[voter])]

    keys = ["accuracy", "balanced_accuracy", "roc_auc", "log_loss"]
    assert written["best_member"].pop("name") == "member-01"  # whose out-of-bag log loss is the lowest
    for entry, expected in (
        ("best_member", row("member-01")),
        ("uniform_vote", row("uniform vote")),
        ("mean_member", np.mean([row(name) for name in names], axis=0)),
    ):
        assert written[entry] == pytest.approx(dict(zip(keys, expected, strict=True))), entry
    accuracies = {voter: np.mean(vote.argmax(axis=1) == evaluated.truth) for voter, vote in votes.items()}
    table = {row["voter"]: float(row["accuracy"]) for row in evaluated.table("plots/data/members.csv")}
    assert table == pytest.approx(accuracies, abs=1e-5)


def test_tables_hold_the_classes_and_votes_of_each_test_row(evaluated):
    votes, classes = evaluated.votes, evaluated.classes
    paths = [f"{classes[evaluated.labels[row]]}/{row:03d}.png" for row in evaluated.test]
    predicted = [classes[vote.argmax()] for vote in votes["ensemble"]]
    columns = [f"probability of {name}" for name in classes]
    table = evaluated.table("plots/data/predictions.csv")
    assert "\r" not in (evaluated.folder / "plots/data/predictions.csv").read_bytes().decode()
    assert [row["path"] for row in table] == paths
    assert [row["class"] for row in table] == [classes[label] for label in evaluated.truth]
    assert [row["predicted"] for row in table] == predicted
    np.testing.assert_allclose([[float(row[key]) for key in columns] for row in table], votes["ensemble"], atol=1e-5)
    confusion = evaluated.table("plots/data/confusion.csv")
    assert [(row["class"], row["predicted"]) for row in confusion] == [(row["class"], row["predicted"]) for row in table]

    table = evaluated.table("plots/data/votes.csv")
    expected = votes | {"best member": votes["member-01"]}
    assert {row["voter"] for row in table} == expected.keys()
    for voter, of_voter in expected.items():
        rows = [row for row in table if row["voter"] == voter]
        assert [int(row["row"]) for row in rows] == evaluated.test
        assert [int(row["group"]) for row in rows] == evaluated.groups[evaluated.test].tolist()
        assert [row["class"] for row in rows] == [classes[label] for label in evaluated.truth]
        np.testing.assert_allclose([[float(row[key]) for key in columns] for row in rows], of_voter, atol=1e-5)


def test_plots_are_drawn_of_what_was_computed(evaluated):
    drawn, votes, truth = evaluated.drawn, evaluated.votes["ensemble"], evaluated.truth
    for name in drawn:
        path = "roc_precision_recall" if name == "curves" else name
        assert (evaluated.folder / f"plots/{path}.png").read_bytes() == name.encode()
    assert len(drawn) == 6
    predicted, written = votes.argmax(axis=1), evaluated.read("metrics/ensemble.json")
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
    assert accuracies == pytest.approx({voter: np.mean(vote.argmax(axis=1) == truth) for voter, vote in evaluated.votes.items()})
    assert interval == written["interval"]["accuracy"]
    roc, precision_recall, areas = drawn["curves"]
    for label in [1] if len(classes) == 2 else range(3):
        positive, probability = truth == label, votes[:, label]
        expected = sk.roc_auc_score(positive, probability), sk.average_precision_score(positive, probability)
        assert areas[classes[label]] == pytest.approx(expected)
    assert roc.keys() == precision_recall.keys() == areas.keys()


def test_the_gallery_shows_the_test_images_whose_class_got_the_least(evaluated):
    images, captions, mistaken = evaluated.drawn["gallery"]
    of_truth = evaluated.votes["ensemble"][np.arange(len(evaluated.truth)), evaluated.truth]
    places = np.argsort(of_truth)[:5]
    rows = np.array(evaluated.test)[places]
    np.testing.assert_array_equal(images, evaluated.images[rows][..., 0])
    names = [evaluated.classes[label] for label in evaluated.truth[places]]
    assert captions == [
        f"{name}/{row:03d}.png\n{name}: probability {probability:.2f}"
        for name, row, probability in zip(names, rows, of_truth[places], strict=True)
    ]
    predicted = evaluated.votes["ensemble"][places].argmax(axis=1)
    assert mistaken == (predicted != evaluated.truth[places]).tolist()
    assert any(mistaken)
    assert evaluate.path_end("a" * 30) == "…" + "a" * 27
    assert evaluate.path_end("a" * 28) == "a" * 28


def test_curves_are_scikit_learns(evaluated):
    classes, votes = evaluated.classes, evaluated.votes["ensemble"]
    shown = {1: classes[1]} if len(classes) == 2 else dict(enumerate(classes))
    for path, curve, keys in (
        ("roc", sk.roc_curve, ("false_positive_rate", "true_positive_rate")),
        ("precision_recall", sk.precision_recall_curve, ("precision", "recall")),
    ):
        table = evaluated.table(f"plots/data/{path}.csv")
        assert {row["curve"] for row in table} == {*shown.values()}
        for label, name in shown.items():
            expected = np.stack(curve(evaluated.truth == label, votes[:, label])[:2], axis=1)
            rows = [[float(row[key]) for key in keys] for row in table if row["curve"] == name]
            np.testing.assert_allclose(rows, expected if path == "roc" else expected[::-1], atol=1e-5)
    table = evaluated.table("plots/data/learning_curves.csv")
    assert [row["curve"] for row in table] == [name for name in evaluated.params["ensemble"] for _ in range(2)]
    assert [row["epoch"] for row in table[:2]] == ["1", "2"]
    assert [float(row["in_bag_log_loss"]) for row in table[:2]] == [0.8, 0.5]
    assert [float(row["in_bag_accuracy"]) for row in table[:2]] == [0.5, 0.75]
    assert [float(row["out_of_bag_log_loss"]) for row in table[:2]] == [0.7, 0.4]
    assert [float(row["out_of_bag_accuracy"]) for row in table[1::2]] == [0.9, 0.4, 0.7, 0.5]
