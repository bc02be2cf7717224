"""The results of a run of the pipeline, as the report page and the model card show them."""

from collections import Counter
from dataclasses import dataclass

from brainmri.common.params import Params
from brainmri.common.paths import PHANTOM
from brainmri.evaluation.intervals import missing_metrics
from brainmri.evaluation.results import (
    EnsembleMetrics,
    ExplainMetrics,
    ExportMetrics,
    MemberWeight,
    OutOfBag,
)
from brainmri.sampling.files import Split
from brainmri.store.metadata import Metadata


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
    def is_synthetic(self) -> bool:
        """Whether the images are those that the pipeline draws itself."""
        return self.params.data.source == str(PHANTOM)

    @property
    def image_counts(self) -> dict[str, int]:
        """Number of images of each class."""
        counts = Counter(image["class"] for image in self.metadata["images"])
        return {name: counts[name] for name in self.metadata["classes"]}

    @property
    def test_counts(self) -> dict[str, int]:
        """Number of test images of each class."""
        images = self.metadata["images"]
        counts = Counter(images[row]["class"] for row in self.split["test"])
        return {name: counts[name] for name in self.metadata["classes"]}

    @property
    def missing_metrics(self) -> str | None:
        """Which metrics are None, and why; see `intervals.missing_metrics`."""
        return missing_metrics(self.ensemble["independent_groups"])
