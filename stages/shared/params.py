"""params.yaml: what may stand in it, what it means, and the `ensemble` block derived from it.

`Params` is the one description of the parameters: the checks and the table in docs/parameters.md come from it.
"""

import difflib
import os
import re
from pathlib import Path
from typing import Annotated, Literal, TypeVar, get_args

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from stages.shared.errors import UserError

PATH = Path("params.yaml")
NO_WEIGHTS_FILE = "data/weights/README.md"
UNHASHED_KEYS = ("size", "nfiles")  # DVC's run cache takes runs that differ in keys of these names for one
Model = TypeVar("Model", bound="Section")


def normalize_path(path: str) -> str:
    """The one spelling of a path: no dots, no doubled slash and none at the end, relative if it is in the project."""
    path = os.path.normpath(re.sub("/+", "/", path))
    return os.path.relpath(path) if (Path.cwd() / path).is_relative_to(Path.cwd()) else path


Probability = Annotated[float, Field(ge=0, le=1)]
Dropout = Annotated[float, Field(ge=0, lt=1)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**20)]
Count = Annotated[int, Field(ge=1)]
FilePath = Annotated[str, Field(min_length=1), AfterValidator(normalize_path)]


class Section(BaseModel):
    """A block of params.yaml: every key is there, of its type, and no other."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Data(Section):
    source: FilePath = Field(description="folder of class folders; a class is named as its folder")


class PhantomClasses(Section):
    no: Annotated[int, Field(ge=0)] = Field(description="synthetic slices without a tumour")
    yes: Annotated[int, Field(ge=0)] = Field(description="with a tumour of any of the three kinds below")
    glioma: Annotated[int, Field(ge=0)] = Field(description="with an irregular tumour inside the brain")
    meningioma: Annotated[int, Field(ge=0)] = Field(description="with a smooth tumour at the brain's border")
    pituitary: Annotated[int, Field(ge=0)] = Field(description="with a small tumour at the brain's middle")

    @model_validator(mode="after")
    def _two_classes(self):
        if sum(count > 0 for count in self.model_dump().values()) < 2:
            raise ValueError("expected two classes or more with a number above 0")
        return self


class Phantom(Section):
    seed: Seed = Field(description="the same seed draws the same synthetic slices")
    classes: PhantomClasses = Field(description="number of slices of each kind; 0 leaves the class out")


class Ingest(Section):
    compression: Literal["none", "gzip"] = Field(description="of the stored images: gzip takes less room and more time to read")
    crop: bool = Field(description="cut each picture to the head before it is resized")
    image_size: Annotated[int, Field(ge=16, le=1024)] = Field(description="height and width of a stored image, pixels")
    strict: bool = Field(description="a file that can't be used is an error; else it is left out and told")


class Split(Section):
    folds: Annotated[int, Field(ge=2)] = Field(description="number of stratified group folds")
    fold: Annotated[int, Field(ge=0)] = Field(description="which of them is the test fold, counted from 0")
    near_duplicate_bits: Annotated[int, Field(ge=0, le=256)] | None = Field(
        description="images whose perceptual hashes differ in at most so many of 256 bits stay on one side; null: a random"
        " split, only to show what that leaks"
    )

    @model_validator(mode="after")
    def _fold_exists(self):
        if self.fold >= self.folds:
            raise ValueError(f"fold is {self.fold}; expected 0 to {self.folds - 1}, since folds is {self.folds}")
        return self


class Bootstrap(Section):
    scheme: Literal["bootstrap", "subsample", "committee"] = Field(
        description="bootstrap: draws with replacement; subsample: without; committee: members leave out a fold each in turn"
    )


Own = Literal["residual", "residual-sides", "residual-deep", "seed-cnn", "notebook-1", "notebook-2"]
Application = Literal["vgg16", "notebook-3", "resnet50", "densenet121", "mobilenet-v2", "efficientnet-b0"]
SMALLEST_IMAGES = {"seed-cnn": 46, **dict.fromkeys(get_args(Application), 32)}  # pixels, of ingest.image_size


class Network(Section):
    name: Literal[Own, Application] = Field(
        description=f"the members' network: {', '.join(get_args(Own))}; of Keras Applications {', '.join(get_args(Application))}"
    )
    weights: FilePath = Field(
        description="what a network of Keras Applications starts from: none, imagenet (downloaded), or the path of a weights file"
    )
    freeze: bool = Field(description="if it starts from weights, they stay, and only the layers after it learn")

    @model_validator(mode="after")
    def _takes_weights(self):
        if self.weights != "none" and self.name not in get_args(Application):
            known = ", ".join(get_args(Application))
            raise ValueError(f"weights is {self.weights!r}; expected none with {self.name}; weights are for {known}")
        return self

    @property
    def weights_file(self) -> str:
        """What members depend on: the weights file, or where there is none, a file that never changes."""
        return NO_WEIGHTS_FILE if self.weights in ("none", "imagenet") else self.weights


class Augment(Section):
    flip: bool = Field(description="mirror left and right")
    rotation: Annotated[float, Field(ge=0, le=180)] = Field(description="largest turn, degrees")
    shift: Annotated[float, Field(ge=0, le=0.5)] = Field(description="largest shift, as a share of the image's size")
    zoom: Annotated[float, Field(ge=0, le=0.5)] = Field(description="largest zoom in or out, as a share")
    contrast: Annotated[float, Field(ge=0, le=1)] = Field(description="largest change of contrast, as a share")
    brightness: Annotated[float, Field(ge=0, le=1)] = Field(description="largest change of brightness, as a share of white")
    erase: Annotated[float, Field(ge=0, le=0.7)] = Field(description="largest side of a rectangle that is blanked, as a share")


class Train(Section):
    epochs: Count = Field(description="most epochs of a member")
    batch_size: Count = Field(description="images in a batch")
    threads: Count = Field(description="CPU threads of a member; another number rounds differently")
    precision: Literal["auto", "float32", "mixed_float16", "mixed_bfloat16"] = Field(
        description="of the arithmetic; auto: mixed_float16 on GPUs made for it, else float32"
    )
    replicas: Count = Field(description="devices over which a member spreads each batch, of batch_size images each")
    cache: Literal["auto", "memory", "none"] = Field(
        description="pixels in memory, or read from the RAD batch by batch; auto: what memory allows; the result is the same"
    )
    schedule: Literal["cosine", "constant"] = Field(description="learning rate: warm-up and a cosine down to 0, or constant")
    clip_norm: Positive | None = Field(description="largest norm of the gradient, with replicas of each one's; null: not clipped")
    early_stopping: Count | None = Field(
        description="epochs without a better out-of-bag log loss before it stops; the best weights are kept; null: off"
    )
    reduce_lr: Count | None = Field(
        description="epochs without a better out-of-bag log loss before a constant learning rate is halved; null: off"
    )
    label_smoothing: Dropout = Field(description="share of a label spread over all classes; 0: off")
    class_weights: Literal["balanced", "none"] = Field(description="weigh classes by how rare they are in-bag")
    mixup: Annotated[float, Field(ge=0, le=0.5)] = Field(
        description="largest share of another training image, and of its label, that every other one is mixed with; 0: off"
    )
    views: Literal["plain", "mirrored", "zoomed"] = Field(
        description="a member's prediction is the mean over the image; also its mirror image; also both larger and smaller"
    )
    augment: Augment = Field(description="random changes of training images; 0 or false: off")

    @model_validator(mode="after")
    def _one_schedule(self):
        if self.reduce_lr and self.schedule != "constant":
            raise ValueError(
                f"reduce_lr is {self.reduce_lr}, which needs schedule: constant; expected null with schedule: {self.schedule}"
            )
        return self


class Recipe(Section):
    l1: NonNegative = Field(description="L1 penalty on convolution and dense kernels; seed-cnn: on dense kernels alone")
    l2: NonNegative = Field(description="L2 penalty on them")
    dropout: Dropout = Field(description="dropout before the last layer; seed-cnn: after the first dense layer")
    learning_rate: Positive = Field(description="Adam's learning rate at the start")
    augment: Annotated[float, Field(ge=0, le=3)] = Field(description="augmentation strength: factor of `train.augment`")
    fraction: Annotated[float, Field(gt=0, le=4)] = Field(
        description="images drawn for a member, as a fraction of the training images; below 1 unless drawn with replacement"
    )


class Member(Recipe):
    recipe: str = Field(description="name of its recipe")
    seed: int = Field(description="1000 × `seed` + the member's number")
    weights_file: str = Field(description="the file of `network.weights`, a dependency")


class FanOut(Section):
    engine: Literal["local", "dask"] = Field(
        description="where members train: in processes of this machine, or on a Dask cluster; the result is the same"
    )
    scheduler: Annotated[str, Field(min_length=1)] | None = Field(
        description="with engine: dask, the scheduler's address; null: the scheduler-address of Dask's own configuration"
    )
    jobs: Count | Literal["auto"] = Field(description="members trained at a time; auto: what cores, GPUs and memory allow")
    members_per_gpu: Count = Field(description="members that share a GPU at a time")


class Weigh(Section):
    scheme: Literal["uniform", "accuracy", "balanced_accuracy", "auc", "softmax", "log_loss"] = Field(
        description="what a member's vote weighs, from its out-of-bag predictions"
    )
    calibrate: bool = Field(
        description="correct the vote's confidence and its leaning to classes: a temperature and biases from out-of-bag votes"
    )


class Evaluate(Section):
    resamples: Annotated[int, Field(ge=100, le=100_000)] = Field(description="bootstrap resamples behind the 95 % intervals")
    bins: Annotated[int, Field(ge=2, le=100)] = Field(description="bins of the reliability diagram and calibration error")
    threshold: Literal["half", "youden", "sensitivity"] = Field(
        description="of two classes' probability, chosen on out-of-bag predictions: 0.5, best Youden's J, or by min_sensitivity"
    )
    min_sensitivity: Annotated[float, Field(gt=0, le=1)] = Field(
        description="with threshold: sensitivity, the highest threshold that finds at least this share of positives"
    )
    gallery: Annotated[int, Field(ge=1, le=64)] = Field(description="images in the gallery of the most wrong")


class Export(Section):
    false_alarms: Annotated[float, Field(gt=0, le=0.5)] = Field(
        description="share of the training images, left out in turn, of which the model would warn as unlike the others"
    )


class Explain(Section):
    images: Annotated[int, Field(ge=1, le=64)] = Field(
        description="test images whose heat maps are drawn: a third right, a third wrong, a third least certain"
    )


class Inputs(Section):
    """What a person edits: all of params.yaml but its derived block."""

    seed: Seed = Field(description="of the split, the bootstrap samples and the training")
    members: Annotated[int, Field(ge=1, le=999)] = Field(description="number of members in the ensemble")
    data: Data
    phantom: Phantom
    ingest: Ingest
    split: Split
    bootstrap: Bootstrap
    network: Network
    train: Train
    recipes: Annotated[dict[Annotated[str, Field(min_length=1)], Recipe], Field(min_length=1)] = Field(
        description="taken in turn: member 0 has the first, member 1 the second, …"
    )
    fan_out: FanOut
    weigh: Weigh
    evaluate: Evaluate
    export: Export
    explain: Explain

    @model_validator(mode="after")
    def _recipes_are_hashed(self):
        for name in self.recipes:
            if name in UNHASHED_KEYS:
                raise ValueError(f"recipes.{name}: expected another name, since DVC's run cache passes over keys named {name!r}")
        return self

    @model_validator(mode="after")
    def _network_takes_the_images(self):
        smallest = SMALLEST_IMAGES.get(self.network.name, 0)
        if self.ingest.image_size < smallest:
            raise ValueError(
                f"ingest.image_size is {self.ingest.image_size}; expected {smallest} or more with network.name:"
                f" {self.network.name}"
            )
        return self

    @model_validator(mode="after")
    def _samples_leave_some_out(self):
        scheme = self.bootstrap.scheme
        (first, common), *_ = self.recipes.items()
        for name, recipe in self.recipes.items():
            where = f"recipes.{name}.fraction is {recipe.fraction}"
            if scheme != "bootstrap" and recipe.fraction >= 1:
                raise ValueError(f"{where}; expected below 1 with bootstrap.scheme: {scheme}")
            if scheme == "committee" and recipe.fraction != common.fraction:
                raise ValueError(
                    f"{where}; expected {common.fraction}, as in recipes.{first}, with bootstrap.scheme: {scheme},"
                    " whose members share out the same folds"
                )
        return self


class Params(Inputs):
    """The whole of params.yaml."""

    ensemble: dict[str, Member] = Field(
        description="derived from `members`, `recipes`, `seed` and `network.weights` by `dvc exp run`; not to be edited"
    )


REPLACED_TAGS = [f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "timestamp")]


class Loader(yaml.SafeLoader):
    """Reads numbers as DVC does, by YAML 1.2: PyYAML takes 2e-3 for text, and 010 for 8.

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
    r"[-+]?(?:(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|\.(?:inf|Inf|INF))$|\.(?:nan|NaN|NAN)$"
)
Loader.add_implicit_resolver("tag:yaml.org,2002:int", INTEGER, list("-+0123456789"))
Loader.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+0123456789."))
Loader.add_constructor("tag:yaml.org,2002:int", Loader.construct_integer)


def read_params(path: Path = PATH) -> dict:
    """Read params.yaml, unchecked.

    Raises
    ------
    UserError
        If it is missing, is no YAML, or is no mapping.
    """
    try:
        content = yaml.load(path.read_text("utf-8"), Loader)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run this from the project's root") from None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        raise UserError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds {type(content).__name__}; expected a mapping of parameters")
    return content


def load_params() -> Params:
    """Read and check params.yaml in the current folder.

    Raises
    ------
    UserError
        If a parameter is missing, unknown, of a wrong type or out of range, or if the `ensemble` block does not fit the
        others because params.yaml was edited by hand and `dvc repro` does not compose it.
    """
    params = check(read_params(), Params)
    expected = derive_ensemble(params)
    if {key: member.model_dump() for key, member in params.ensemble.items()} != expected:
        raise UserError(
            f"{PATH}: the derived block `ensemble` ({len(params.ensemble)} members) does not fit members: {params.members},"
            " recipes, seed and network.weights, as happens when they are edited by hand; run `dvc exp run` once, which derives"
            " it again"
        )
    return params.model_copy(update={"ensemble": {name: params.ensemble[name] for name in expected}})  # DVC heeds no order


def check(content: object, model: type[Model]) -> Model:
    """The content as an instance of the model.

    Raises
    ------
    UserError
        Naming the first parameters that are wrong, what they are, and what was expected.
    """
    try:
        _check_keys(content, "")
        return model.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{PATH}: " + "; ".join(_tell(problem, model) for problem in error.errors()[:5])) from None


def derive_ensemble(inputs: Inputs) -> dict[str, dict]:
    """The params of each member: its recipe's values, the recipe's name, its seed, the file of its first weights.

    They depend on the member's number, never on how many members there are.
    """
    recipes = list(inputs.recipes.items())
    ensemble = {}
    for index in range(inputs.members):
        name, recipe = recipes[index % len(recipes)]
        ensemble[member_name(index)] = {
            "recipe": name,
            "seed": member_seed(inputs.seed, index),
            "weights_file": inputs.network.weights_file,
            **recipe.model_dump(),
        }
    return ensemble


def member_name(index: int) -> str:
    """Such as "member-07"."""
    return f"member-{index:02d}"


def member_seed(seed: int, index: int) -> int:
    """The seed of a member: no two members of any two ensembles share one."""
    return 1000 * seed + index


def _check_keys(content: object, prefix: str) -> None:
    """Refuse a key that YAML takes for something else than text."""
    for key, value in content.items() if isinstance(content, dict) else []:
        if isinstance(key, bool):
            words = "yes, on and true" if key else "no, off and false"
            quoted = "'yes'" if key else "'no'"
            raise UserError(
                f"{PATH}: {prefix}{str(key).lower()} is a boolean, as YAML reads {words} without quotes; expected a name:"
                f" quote it, such as {quoted}:"
            )
        if not isinstance(key, str):
            raise UserError(f"{PATH}: {prefix}{key} is not text; expected a name: quote it, as '{key}':")
        _check_keys(value, f"{prefix}{key}.")


def _tell(problem: dict, model: type[Section]) -> str:
    """One of pydantic's problems in one sentence."""
    where = [str(part) for part in problem["loc"] if not str(part).startswith(("literal", "constrained", "function"))]
    where = [part if part.isprintable() else repr(part) for part in where]
    where = [part for part in where if part not in ("int", "float", "none", "[key]")]
    name = ".".join(where) or "the file"
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(where[-1], _keys_at(model, where[:-1]), n=1)
        return f"{name} is unknown" + (f"; did you mean {near[0]}?" if near else "")
    if problem["type"] == "missing":
        return f"{name} is missing"
    if problem["type"] == "value_error":
        return f"{name}: {problem['ctx']['error']}" if where else str(problem["ctx"]["error"])
    expected = (
        problem["msg"].replace("Input should be ", "").replace("greater", "a number greater").replace("less", "a number less")
    )
    return f"{name} is {problem['input']!r}; expected {expected}"


def _keys_at(model: type[BaseModel], where: list[str]) -> list[str]:
    """The keys that the model knows at a place."""
    for part in where:
        kind = model.model_fields[part].annotation if part in model.model_fields else None
        arguments = getattr(kind, "__args__", ())
        model = arguments[-1] if arguments else kind if kind else model
    return list(model.model_fields)
