"""params.yaml: which parameters there are, what they mean, and the derived block `ensemble`.

`Params` is the one description of the parameters: the checks and docs/parameters.md come from it.
"""

import difflib
import hashlib
import os
import re
from pathlib import Path
from typing import Annotated, Literal, TypeVar, get_args

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from brainmri.common.errors import UserError
from brainmri.common.paths import (
    FEATURES,
    IMAGENET_WEIGHTS,
    NO_FEATURES,
    NO_FURTHER_INPUT,
    NO_WEIGHTS_FILE,
    PARAMS,
)

# DVC's run cache leaves keys of these names out of its key (treeverse/dvc issue 10296).
UNHASHED_KEYS = ("size", "nfiles")
MAX_ERRORS = 5  # in one message
Model = TypeVar("Model", bound="Section")


def normalize_path(path: str) -> str:
    """Return the one spelling of a path: without needless parts, relative in the project."""
    path = os.path.normpath(re.sub("/+", "/", path))
    return os.path.relpath(path) if (Path.cwd() / path).is_relative_to(Path.cwd()) else path


BelowOne = Annotated[float, Field(ge=0, lt=1)]
NEAR_DUPLICATE_BITS = 20  # where images are compared though `split.near_duplicate_bits` is null
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**20)]
Count = Annotated[int, Field(ge=1)]
Epochs = Count | Literal["auto"]
ExportFormat = Literal["keras", "saved_model", "onnx", "litert"]


def check_pattern(pattern: str) -> str:
    """Return a regular expression if it is one and has exactly one group.

    Raises
    ------
    ValueError
        If it is not.
    """
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
    if groups != 1:
        raise ValueError(
            f"{pattern!r} has {groups} groups; expected one, the patient, such as '(P[0-9]+)_'"
        )
    return pattern


FilePath = Annotated[str, Field(min_length=1), AfterValidator(normalize_path)]
PatientPattern = Annotated[str, AfterValidator(check_pattern)]


class Section(BaseModel):
    """A block of params.yaml: every key is there, of its type, and no other."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Data(Section):
    source: FilePath = Field(
        description="folder of class folders, named as the classes; with `labels`, any folder of"
        " images"
    )
    labels: FilePath | None = Field(
        description="table of the images, CSV or TSV, with the columns path (below `source`) and"
        " class, and optionally patient and split (training or test); null: class folders"
    )
    patient: PatientPattern | None = Field(
        description="regular expression whose one group is the patient in an image's path below"
        " `source`; null: the table's column patient, else DICOM's PatientID, or without one the"
        " study. Images of one patient stay on one side of every split"
    )
    test: FilePath | None = Field(
        description="folder of class folders with the test images; null: those that the table's"
        " column split names, else a fold"
    )

    @model_validator(mode="after")
    def _one_test_set(self):
        if self.labels and self.test:
            raise ValueError(
                f"test is {self.test!r}; expected null with labels: name the test images in the"
                " table's column split"
            )
        if self.test and (
            Path(self.test).is_relative_to(self.source)
            or Path(self.source).is_relative_to(self.test)
        ):
            raise ValueError(
                f"test is {self.test!r} and source is {self.source!r}; expected separate folders,"
                " neither in the other, such as Training and Testing"
            )
        return self

    @property
    def paths(self) -> dict[str, str]:
        """The paths among these parameters that are given, by name."""
        named = {"source": self.source, "labels": self.labels, "test": self.test}
        return {name: path for name, path in named.items() if path}

    @property
    def further_input(self) -> str:
        """What `ingest` depends on besides the source; without it, a file that never changes."""
        return self.labels or self.test or str(NO_FURTHER_INPUT)


class PhantomClasses(Section):
    no: Annotated[int, Field(ge=0)] = Field(description="synthetic slices without a tumor")
    yes: Annotated[int, Field(ge=0)] = Field(
        description="with a tumor of any of the three kinds below"
    )
    glioma: Annotated[int, Field(ge=0)] = Field(
        description="with an irregular tumor inside the brain"
    )
    meningioma: Annotated[int, Field(ge=0)] = Field(
        description="with a smooth tumor at the brain's border"
    )
    pituitary: Annotated[int, Field(ge=0)] = Field(
        description="with a small tumor in the middle of the brain"
    )

    @model_validator(mode="after")
    def _two_classes(self):
        if sum(count > 0 for count in self.model_dump().values()) < 2:
            raise ValueError("expected two classes or more with a number above 0")
        return self


class Phantom(Section):
    seed: Seed = Field(description="random seed of the synthetic slices")
    classes: PhantomClasses = Field(description="slices of each class; 0: no such class")


class Ingest(Section):
    compression: Literal["none", "gzip"] = Field(
        description="of the stored images: gzip takes less space and more time to read"
    )
    crop: bool = Field(description="crop each image to the head before resizing")
    image_size: Annotated[int, Field(ge=16, le=1024)] = Field(
        description="height and width of a stored image, pixels"
    )
    strict: bool = Field(description="an unusable file is an error; else it is skipped with a line")


class Split(Section):
    folds: Annotated[int, Field(ge=2)] = Field(description="number of stratified group folds")
    fold: Annotated[int, Field(ge=0)] | None = Field(
        description="the test fold, counted from 0; null: the given test images (`data.test`, or"
        " the table's column split), or fold 0 where none are given. With a number, given test"
        " images are excluded, as in cross-validation"
    )
    overlap: Literal["drop", "error", "keep"] = Field(
        description="training images that are near duplicates of given test images, or of the same"
        " patient: drop them, end with an error, or keep them"
    )
    near_duplicate_bits: Annotated[int, Field(ge=0, le=256)] | None = Field(
        description="near duplicates, which stay on one side, are images whose perceptual hashes"
        " differ in at most this many of 256 bits, or three quarters of it if one of the two is"
        " flipped; null: a random split, to show what that leaks"
    )

    @model_validator(mode="after")
    def _fold_exists(self):
        if self.fold is not None and self.fold >= self.folds:
            last = self.folds - 1
            raise ValueError(
                f"fold is {self.fold}; expected 0 to {last}, since folds is {self.folds}"
            )
        return self


class Bootstrap(Section):
    scheme: Literal["bootstrap", "subsample", "committee"] = Field(
        description="bootstrap: sample with replacement; subsample: without; committee: members"
        " hold out one fold each, in turn"
    )


OwnNetwork = Literal[
    "residual", "residual-sides", "residual-deep", "seed-cnn", "notebook-1", "notebook-2"
]
KerasApplication = Literal[
    "vgg16", "notebook-3", "resnet50", "densenet121", "mobilenet-v2", "efficientnet-b0"
]
IncludedNetwork = Literal["efficientnet-lite0"]
OWN_NETWORKS, KERAS_APPLICATIONS = get_args(OwnNetwork), get_args(KerasApplication)
PRETRAINED_NETWORKS = (*get_args(IncludedNetwork), *KERAS_APPLICATIONS)
FRACTION_TOLERANCE = 0.01  # of a committee, between a recipe's fraction and that of its folds
MIN_IMAGE_SIZE = {"seed-cnn": 46, **dict.fromkeys(PRETRAINED_NETWORKS, 32)}  # pixels


class Network(Section):
    name: Literal[OwnNetwork, IncludedNetwork, KerasApplication] = Field(
        description=f"the network: {', '.join(OWN_NETWORKS)}; efficientnet-lite0, whose ImageNet"
        f" weights are installed; of Keras Applications {', '.join(KERAS_APPLICATIONS)}"
    )
    weights: FilePath = Field(
        description="pretrained weights of efficientnet-lite0 or a network of Keras Applications:"
        " none; imagenet, which Keras downloads for networks of its own; or the path of a weights"
        " file"
    )
    freeze: bool | Literal["early"] = Field(
        description="which pretrained weights stay: all, so that the last layer alone trains; none;"
        " or those of early layers, whose outputs have a quarter of the images' resolution or more"
    )

    @model_validator(mode="after")
    def _takes_weights(self):
        if self.weights != "none" and self.name not in PRETRAINED_NETWORKS:
            raise ValueError(
                f"weights is {self.weights!r}; expected none with {self.name}; weights are for"
                f" {', '.join(PRETRAINED_NETWORKS)}"
            )
        return self

    @property
    def is_pretrained(self) -> bool:
        """Whether training starts from given weights."""
        return self.weights != "none"

    @property
    def is_frozen(self) -> bool:
        """Whether training leaves all but the last layer as it is."""
        return self.is_pretrained and self.freeze is True

    @property
    def is_fine_tuned(self) -> bool:
        """Whether training changes given weights."""
        return self.is_pretrained and not self.is_frozen

    @property
    def features(self) -> str:
        """The folder of a frozen network's features; without one, a file that never changes."""
        if not self.is_frozen:
            return str(NO_FEATURES)
        digest = hashlib.sha256(self.weights.encode()).hexdigest()
        return str(FEATURES / f"{self.name}-{digest[:8]}")

    @property
    def weights_file(self) -> str:
        """The file that members depend on; without a weights file, one that never changes."""
        if self.weights == "imagenet" and self.name in get_args(IncludedNetwork):
            return str(IMAGENET_WEIGHTS)
        has_file = self.weights not in ("none", "imagenet")
        return self.weights if has_file else str(NO_WEIGHTS_FILE)


class Features(Section):
    views: Count = Field(
        description="augmented views of each image whose features a frozen network computes, once"
        " for all members"
    )


class Augment(Section):
    flip: bool = Field(description="flip left and right")
    rotation: Annotated[float, Field(ge=0, le=180)] = Field(description="largest rotation, degrees")
    shift: Annotated[float, Field(ge=0, le=0.5)] = Field(
        description="largest shift, as a fraction of the image's size"
    )
    zoom: Annotated[float, Field(ge=0, le=0.5)] = Field(
        description="largest zoom in or out, as a fraction"
    )
    contrast: Annotated[float, Field(ge=0, le=1)] = Field(
        description="largest change of contrast, as a fraction"
    )
    brightness: Annotated[float, Field(ge=0, le=1)] = Field(
        description="largest change of brightness, as a fraction of white"
    )
    erase: Annotated[float, Field(ge=0, le=0.7)] = Field(
        description="random erasing: largest side of the rectangle, as a fraction of the image's"
        " size"
    )


class Train(Section):
    epochs: Epochs = Field(
        description="largest number of epochs of a member; auto: fewer for many images and for"
        " fine-tuning (docs/evaluation.md)"
    )
    batch_size: Count = Field(description="images in a batch")
    threads: Count = Field(description="CPU threads of a member; another number rounds differently")
    precision: Literal["auto", "float32", "mixed_float16", "mixed_bfloat16"] = Field(
        description="floating-point precision of training; auto: mixed_float16 on GPUs with units"
        " for it, else float32"
    )
    replicas: Count = Field(
        description="devices over which a member's batches are spread, batch_size images on each"
    )
    cache: Literal["auto", "memory", "none"] = Field(
        description="pixels in memory, or read from the store batch by batch; auto: as memory"
        " allows; the result is the same"
    )
    schedule: Literal["cosine", "constant"] = Field(
        description="learning rate: warm-up and cosine decay to 0, or constant"
    )
    clip_norm: Positive | None = Field(
        description="largest global norm of the gradient, with replicas of the gradient of each;"
        " null: no clipping"
    )
    early_stopping: Count | None = Field(
        description="patience in epochs without a better out-of-bag log loss; the best weights are"
        " restored, so that out-of-bag votes are optimistic; null: off"
    )
    reduce_lr: Count | None = Field(
        description="patience in epochs without a better out-of-bag log loss before a constant"
        " learning rate is halved; null: off"
    )
    label_smoothing: BelowOne = Field(
        description="fraction of a label spread over all classes; 0: off"
    )
    class_weights: Literal["balanced", "none"] = Field(
        description="weight classes by their inverse frequency in-bag"
    )
    mixup: Annotated[float, Field(ge=0, le=0.5)] = Field(
        description="largest fraction of another image, and of its label, mixed into"
        " every other training image, drawn at random; 0: off"
    )
    views: Literal["plain", "mirrored", "zoomed"] = Field(
        description="test-time augmentation: the mean prediction over the image (plain), also its"
        " mirror image (mirrored), also both zoomed in and out (zoomed)"
    )
    augment: Augment = Field(description="random changes of training images; 0 or false: off")

    @model_validator(mode="after")
    def _one_schedule(self):
        if self.reduce_lr and self.schedule != "constant":
            raise ValueError(
                f"reduce_lr is {self.reduce_lr}, which needs schedule: constant; expected null with"
                f" schedule: {self.schedule}"
            )
        return self


class Recipe(Section):
    l1: NonNegative = Field(
        description="L1 penalty on convolution and dense kernels; seed-cnn: on dense kernels alone;"
        " efficientnet-lite0 and networks of Keras Applications: on that of the last layer alone"
    )
    l2: NonNegative = Field(description="L2 penalty on them")
    dropout: BelowOne = Field(
        description="dropout before the last layer; seed-cnn: after the first dense layer"
    )
    learning_rate: Positive = Field(
        description="Adam's learning rate; with schedule: cosine, its peak after the warm-up"
    )
    augment: Annotated[float, Field(ge=0, le=3)] = Field(
        description="augmentation strength: factor of the amounts in `train.augment`, but not of"
        " `flip`; without effect on frozen networks, whose features are computed once"
    )
    fraction: Annotated[float, Field(gt=0, le=4)] = Field(
        description="images drawn for a member, as a fraction of the training images; below 1"
        " unless drawn with replacement"
    )
    network: Network | None = Field(
        default=None,
        description="the recipe's own network (`name`, `weights`, `freeze`); without it, the block"
        " `network`",
    )
    epochs: Epochs | None = Field(
        default=None, description="the recipe's own number of epochs; null: `train.epochs`"
    )


class Member(Recipe):
    recipe: str = Field(description="name of its recipe")
    seed: int = Field(description="1000 × `seed` + the member's number")
    network: Network = Field(description="the recipe's network, or the block `network`")
    weights_file: str = Field(description="the file of its network's weights, a dependency")
    features: str = Field(description="the folder of its network's features, a dependency")


class FanOut(Section):
    engine: Literal["local", "dask"] = Field(
        description="where members train: in processes of this machine, or on a Dask cluster; the"
        " result is the same"
    )
    scheduler: Annotated[str, Field(min_length=1)] | None = Field(
        description="with engine: dask, the scheduler's address; null: the scheduler-address of"
        " Dask's own configuration"
    )
    jobs: Count | Literal["auto"] = Field(
        description="members trained at a time; auto: what cores, GPUs and memory allow"
    )
    members_per_gpu: Count = Field(description="members that share a GPU at a time")
    log: Literal["none", "dvclive", "tensorboard"] = Field(
        description="also write each epoch's metrics while members train: dvclive, into the folder"
        " dvclive, which dvc plots show and DVC's extension of VS Code read; tensorboard, into the"
        " folder tensorboard"
    )


class Weigh(Section):
    scheme: Literal[
        "uniform",
        "accuracy",
        "balanced_accuracy",
        "auc",
        "softmax",
        "log_loss",
        "greedy",
        "stacking",
    ] = Field(
        description="the members' voting weights, from their out-of-bag predictions: equal, by a"
        " score of each member, or fitted to the log loss of the vote (greedy ensemble selection,"
        " stacking)"
    )
    calibrate: bool = Field(
        description="calibrate the vote by a temperature and a bias for each class, fitted to"
        " out-of-bag votes, and by a gain, since these are votes of fewer members"
    )


class Decide(Section):
    rule: Literal["argmax", "youden", "sensitivity", "specificity", "costs"] = Field(
        description="the predicted class: the most probable one; by a threshold on the probability"
        " of the positive class, chosen on out-of-bag votes (best Youden's J, or by min_sensitivity"
        " or min_specificity); or the one with the lowest expected cost"
    )
    min_sensitivity: Annotated[float, Field(gt=0, le=1)] = Field(
        description="with rule: sensitivity, the highest threshold with at least this sensitivity"
    )
    min_specificity: Annotated[float, Field(gt=0, le=1)] = Field(
        description="with rule: specificity, the threshold with the best sensitivity of those with"
        " at least this specificity"
    )
    costs: dict[str, dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]]] = Field(
        description="with rule: costs, the cost of each prediction, by true, then by predicted"
        " class, as in -S '+decide.costs.yes={no: 5}', or, where names are numbers, -S"
        " +decide.costs.1.0=5; wrong ones that are not listed cost 1, right"
        " ones 0"
    )
    error: Annotated[float, Field(ge=0.001, le=0.5)] = Field(
        description="error rate of prediction sets: the fraction of the images of each class"
        " whose set may lack it"
    )
    prevalence: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        description="fraction of positives where the ensemble is to be applied, for which"
        " predictive values are computed too"
    )


class Evaluate(Section):
    resamples: Annotated[int, Field(ge=100, le=100_000)] = Field(
        description="bootstrap resamples behind the 95 % intervals"
    )
    bins: Annotated[int, Field(ge=2, le=100)] = Field(
        description="bins of the reliability diagram and the calibration error"
    )
    positive: Annotated[str, Field(min_length=1)] | None = Field(
        description="the positive class, to which sensitivity, precision and threshold refer; auto:"
        " of two classes the one beside a class named no, normal, healthy or the like; null: none,"
        " so that F1 and average precision are macro averages"
    )
    gallery: Annotated[int, Field(ge=0, le=64)] = Field(
        description="images in the gallery of the hardest test images; 0: no image in the plots"
        " of `evaluate`"
    )
    names: Literal["hashed", "plain"] = Field(
        description="what tables and captions call an image: the start of its SHA-256, by which"
        " data/rad/metadata.json has its path, or the path"
    )


class Export(Section):
    false_alarms: Annotated[float, Field(gt=0, le=0.5)] = Field(
        description="fraction of held-out training images that get a novelty warning"
    )
    training_hashes: bool = Field(
        description="whether the model holds perceptual hashes of the training images, by which"
        " predict --labels excludes their near duplicates"
    )
    formats: Annotated[list[ExportFormat], Field(min_length=1)] = Field(
        description="files that hold the ensemble: keras, which is always written; saved_model for"
        " TensorFlow Serving; onnx; litert (docs/deploy.md). Packages of the last two:"
        " requirements/export.txt"
    )


class Explain(Section):
    images: Annotated[int, Field(ge=0, le=64)] = Field(
        description="test images whose heat maps are drawn: a third correct, a third wrong, a third"
        " least confident; 0: none, and no map is stored"
    )


class EditableParams(Section):
    """What a person edits: all of params.yaml but its derived block."""

    about: str = Field(default="", description="a comment, since `dvc exp run` drops those of YAML")
    seed: Seed = Field(
        description="random seed of the split, the members' samples and the training"
    )
    members: Annotated[int, Field(ge=1, le=999)] = Field(description="members of the ensemble")
    data: Data
    phantom: Phantom
    ingest: Ingest
    split: Split
    bootstrap: Bootstrap
    network: Network
    features: Features
    train: Train
    recipes: Annotated[dict[Annotated[str, Field(min_length=1)], Recipe], Field(min_length=1)] = (
        Field(description="taken in turn: member 0 has the first, member 1 the second, …")
    )
    fan_out: FanOut
    weigh: Weigh
    decide: Decide
    evaluate: Evaluate
    export: Export
    explain: Explain

    @model_validator(mode="after")
    def _recipes_are_hashed(self):
        for name in self.recipes:
            if name in UNHASHED_KEYS:
                raise ValueError(
                    f"recipes.{name}: expected another name, since DVC's run cache ignores keys"
                    f" named {name!r}"
                )
        return self

    @model_validator(mode="after")
    def _network_takes_the_images(self):
        for key, network in self.networks.items():
            smallest = MIN_IMAGE_SIZE.get(network.name, 0)
            if self.ingest.image_size < smallest:
                raise ValueError(
                    f"ingest.image_size is {self.ingest.image_size}; expected {smallest} or more"
                    f" with {key}.name: {network.name}"
                )
        return self

    @property
    def networks(self) -> dict[str, Network]:
        """The networks that members have, by their keys in params.yaml."""
        networks = {}
        for name, recipe in self.recipes.items():
            if recipe.network is None:
                networks["network"] = self.network
            else:
                networks[f"recipes.{name}.network"] = recipe.network
        return networks

    @model_validator(mode="after")
    def _samples_hold_some_out(self):
        scheme = self.bootstrap.scheme
        (first, common), *_ = self.recipes.items()
        for name, recipe in self.recipes.items():
            key = f"recipes.{name}.fraction is {recipe.fraction}"
            if scheme != "bootstrap" and recipe.fraction >= 1:
                raise ValueError(f"{key}; expected below 1 with bootstrap.scheme: {scheme}")
            if scheme != "committee":
                continue
            if recipe.fraction != common.fraction:
                raise ValueError(
                    f"{key}; expected {common.fraction}, as in recipes.{first}, with"
                    f" bootstrap.scheme: {scheme}, whose members hold out the same folds in turn"
                )
            whole = 1 - 1 / committee_folds(recipe.fraction)
            if abs(recipe.fraction - whole) > FRACTION_TOLERANCE:
                raise ValueError(
                    f"{key}; expected 1/2, 2/3, 3/4, 4/5 or the like (0.5, 0.67, 0.75, 0.8) with"
                    f" bootstrap.scheme: {scheme}, whose members hold out a fold each"
                )
        return self


class Params(EditableParams):
    """The whole of params.yaml."""

    ensemble: dict[str, Member] = Field(
        description="derived from `members`, `recipes`, `seed` and `network` by"
        " `dvc exp run`; not to be edited"
    )
    further_input: str = Field(
        description="derived from `data.labels` and `data.test`: what `ingest` depends on besides"
        " `data.source`"
    )


REPLACED_TAGS = [f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "timestamp")]


class Loader(yaml.SafeLoader):
    """Read numbers as DVC does, by YAML 1.2: PyYAML takes 2e-3 for text, and 010 for 8.

    Booleans stay those of YAML 1.1 (yes, no, on, off), as `dvc exp run` reads them; dates are text.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012, as PyYAML declares it
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in REPLACED_TAGS]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_integer(self, node: yaml.ScalarNode) -> int:
        digits = node.value.replace("_", "")
        return int(digits, 0 if re.match("[-+]?0[box]", digits) else 10)


INTEGER = re.compile("[-+]?(?:0b[01_]+|0o[0-7_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*)$")
FLOAT = re.compile(
    r"[-+]?(?:(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|\.(?:inf|Inf|INF))$"
    r"|\.(?:nan|NaN|NAN)$"
)
Loader.add_implicit_resolver("tag:yaml.org,2002:int", INTEGER, list("-+0123456789"))
Loader.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+0123456789."))
Loader.add_constructor("tag:yaml.org,2002:int", Loader.construct_integer)


def read_params(path: Path = PARAMS) -> dict:
    """Read params.yaml without checking it.

    Raises
    ------
    UserError
        If it is missing, is not YAML, or is not a mapping.
    """
    try:
        content = yaml.load(path.read_text("utf-8"), Loader)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run this from the project's root") from None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        raise UserError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise UserError(f"{path} holds {kind}; expected a mapping of parameters")
    return content


def load_params() -> Params:
    """Read and check params.yaml in the current folder.

    Raises
    ------
    UserError
        If a parameter is missing, unknown, of another type or out of range; or if `ensemble` or
        `further_input` do not fit the others, because params.yaml was edited by hand and
        `dvc repro` does not compose it.
    """
    params = validate(read_params(), Params)
    expected = derive_ensemble(params)
    if {name: member.model_dump() for name, member in params.ensemble.items()} != expected:
        raise UserError(
            f"{PARAMS}: the derived block `ensemble` ({len(params.ensemble)} members) does not fit"
            f" members: {params.members}, recipes, seed and network, as happens when they"
            " are edited by hand; run `dvc exp run` once, which derives it again"
        )
    if params.further_input != params.data.further_input:
        raise UserError(
            f"{PARAMS}: the derived key `further_input` ({params.further_input}) does not fit"
            " data.labels and data.test, as happens when they are edited by hand; run `dvc exp run`"
            " once, which derives it again"
        )
    # In the members' order: DVC keeps none.
    return params.model_copy(
        update={"ensemble": {name: params.ensemble[name] for name in expected}}
    )


def validate(content: object, model: type[Model]) -> Model:
    """Return the content as an instance of the model.

    Raises
    ------
    UserError
        Naming the first invalid parameters, their values, and what was expected.
    """
    try:
        _check_keys(content, "")
        return model.model_validate(content)
    except ValidationError as error:
        problems = [_describe(problem, content, model) for problem in error.errors()[:MAX_ERRORS]]
        raise UserError(f"{PARAMS}: " + "; ".join(problems)) from None


def derive_ensemble(params: EditableParams) -> dict[str, dict]:
    """Derive each member's parameters: its recipe and that recipe's values, its seed, its weights
    file.

    They depend on the member's number, never on how many members there are.
    """
    recipes = list(params.recipes.items())
    ensemble = {}
    for index in range(params.members):
        name, recipe = recipes[index % len(recipes)]
        network = recipe.network or params.network
        ensemble[member_name(index)] = {
            "recipe": name,
            "seed": member_seed(params.seed, index),
            **recipe.model_dump(),
            "network": network.model_dump(),
            "weights_file": network.weights_file,
            "features": network.features,
        }
    return ensemble


def committee_folds(fraction: float) -> int:
    """Return into how many folds a committee divides the images, of which members draw a fraction.

    Parameters
    ----------
    fraction : float
        Below 1.
    """
    return max(2, round(1 / (1 - fraction)))


def member_name(index: int) -> str:
    """Return a member's name, such as "member-07"."""
    return f"member-{index:02d}"


def member_seed(seed: int, index: int) -> int:
    """Return a member's seed; no two members of any two ensembles have the same."""
    return 1000 * seed + index


def _check_keys(content: object, prefix: str) -> None:
    """Refuse a key that YAML does not take for text."""
    for key, value in content.items() if isinstance(content, dict) else []:
        if isinstance(key, bool):
            words = "yes, on and true" if key else "no, off and false"
            quoted = "'yes'" if key else "'no'"
            raise UserError(
                f"{PARAMS}: {prefix}{str(key).lower()} is a boolean, as YAML reads {words} without"
                f" quotes; expected a name: quote it, such as {quoted}:"
            )
        if not isinstance(key, str):
            raise UserError(
                f"{PARAMS}: {prefix}{key} is not text; expected a name: quote it, as '{key}':"
            )
        _check_keys(value, f"{prefix}{key}.")


def _describe(problem: dict, content: object, model: type[Section]) -> str:
    """Describe one of pydantic's errors in one sentence."""
    keys = [key if key.isprintable() else repr(key) for key in _keys_in(content, problem["loc"])]
    name = ".".join(keys) or "the file"
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(keys[-1], _keys_at(model, keys[:-1]), n=1)
        return f"{name} is unknown" + (f"; did you mean {near[0]}?" if near else "")
    if problem["type"] == "missing":
        return f"{name} is missing"
    if problem["type"] == "value_error":
        reason = str(problem["ctx"]["error"])
        return f"{name}: {reason}" if keys else reason
    if problem["type"] == "string_type" and isinstance(problem["input"], (int, float)):
        return f"{name} is {problem['input']!r}; expected text: quote it, -S \"{name}='NAME'\""
    expected = problem["msg"].replace("Input should be ", "")
    for comparison in ("greater", "less"):
        expected = expected.replace(comparison, f"a number {comparison}")
    return f"{name} is {problem['input']!r}; expected {expected}"


def _keys_in(content: object, location: tuple[str | int, ...]) -> list[str]:
    """Return the keys of a location in the content, without pydantic's own names of types."""
    keys = []
    for part in location:
        if isinstance(content, dict) and part != "[key]":
            keys.append(str(part))
            content = content.get(part)
        elif isinstance(content, list) and isinstance(part, int):
            keys.append(str(part))
            content = content[part]
    return keys


def _keys_at(model: type[BaseModel], keys: list[str]) -> list[str]:
    """Return the keys that the model has at a place."""
    for key in keys:
        kind = model.model_fields[key].annotation if key in model.model_fields else None
        # The block of a section, of `Section | None`, or of the values of a dictionary
        sections = [part for part in (kind, *get_args(kind)) if hasattr(part, "model_fields")]
        model = sections[0] if sections else model
    return list(model.model_fields)
