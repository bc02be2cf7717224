"""The results of a run of the pipeline, as the report page and the model card show them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from brainmri.common.params import Network, Params
from brainmri.common.paths import PHANTOM
from brainmri.evaluation.intervals import explain_missing
from brainmri.evaluation.results import (
    EnsembleMetrics,
    ExplainMetrics,
    ExportMetrics,
    MemberWeight,
    OutOfBag,
)
from brainmri.sampling.files import Split, kind_of_groups
from brainmri.store.metadata import Metadata, has_given_split


@dataclass(frozen=True)
class Run:
    """Parameters, data and results of a run.

    Attributes
    ----------
    params : Params
    metadata : Metadata
        Of the store.
    split : Split
    ensemble : EnsembleMetrics
    weights : dict of str to MemberWeight
        By member.
    out_of_bag : dict of str to OutOfBag
        By member.
    explain : ExplainMetrics
    export : ExportMetrics
    """

    params: Params
    metadata: Metadata
    split: Split
    ensemble: EnsembleMetrics
    weights: dict[str, MemberWeight]
    out_of_bag: dict[str, OutOfBag]
    explain: ExplainMetrics
    export: ExportMetrics

    @property
    def networks(self) -> list[tuple[int, str, str]]:
        """Number of members of each network, its name, and how it was trained."""
        networks = [member.network for member in self.params.ensemble.values()]
        counts = Counter((network.name, describe_start(network)) for network in networks)
        return [(count, name, start) for (name, start), count in counts.items()]

    @property
    def uses_imagenet(self) -> bool:
        """Whether a member starts from weights of ImageNet."""
        members = self.params.ensemble.values()
        return any(member.network.weights == "imagenet" for member in members)

    @property
    def is_synthetic(self) -> bool:
        """Whether the images are those that the pipeline draws itself."""
        return self.params.data.source == str(PHANTOM)

    @property
    def image_counts(self) -> dict[str, int]:
        """Number of images of each class."""
        return self._count(range(len(self.metadata["images"])))

    @property
    def test_counts(self) -> dict[str, int]:
        """Number of test images of each class."""
        return self._count(self.split["test"])

    @property
    def training_counts(self) -> dict[str, int]:
        """Number of training images of each class."""
        return self._count(self.split["training"])

    @property
    def knows_patients(self) -> bool:
        """Whether the images' patients are known."""
        return "patient" in self.metadata["images"][0]

    @property
    def groups_near_duplicates(self) -> bool:
        """Whether near duplicates are in one group; otherwise they may be on both sides."""
        return self.params.split.near_duplicate_bits is not None

    @property
    def kind_of_groups(self) -> str:
        """What the images of a group have in common; "" if each image is a group."""
        return kind_of_groups(self.groups_near_duplicates, self.knows_patients)

    @property
    def test_set(self) -> str:
        """How the test images were chosen."""
        split = self.params.split
        if split.fold is None and has_given_split(self.metadata):
            return "given test set"
        return f"fold {split.fold or 0} of {split.folds}"

    @property
    def is_independent(self) -> bool:
        """Whether no test image is in a group with a training image."""
        groups = self.split["groups"]
        training = {groups[row] for row in self.split["training"]}
        return training.isdisjoint(groups[row] for row in self.split["test"])

    @property
    def missing_metrics(self) -> str | None:
        """Which metrics are None, and why; see `intervals.explain_missing`."""
        return explain_missing(self.ensemble)

    def _count(self, rows: Sequence[int]) -> dict[str, int]:
        images = self.metadata["images"]
        counts = Counter(images[row]["class"] for row in rows)
        return {name: counts[name] for name in self.metadata["classes"]}


def describe_start(network: Network) -> str:
    """Describe how a network was trained, such as "from scratch"."""
    if not network.is_pretrained:
        return "from scratch"
    source = "ImageNet" if network.weights == "imagenet" else network.weights
    return f"{'on frozen features' if network.is_frozen else 'fine-tuned'} from weights of {source}"
