"""The nodes that there are: for each, its spec, the job that computes it and the nodes it reads.

The graph of a recipe is made from this table: a recipe's node takes its inputs from the nodes named here unless it says
otherwise. `version` stands with each spec, and is raised when the node's output would change.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from configs.base import Resources, Spec
from configs.classifier import ClassifierSpec
from configs.crawl import CrawlSource, FilterSpec, SnapshotSpec
from configs.dedup import DedupSpec
from configs.evaluate import EvaluateSpec
from configs.external import EvalSetsSource, EvalSetsSpec, LabelsSource, LabelsSpec, ReferenceSource, ReferenceSpec
from configs.long_context import LongContextSpec
from configs.pretrain import EVAL_SETS, PretrainSpec
from configs.quality import NgramLmSpec, QualitySpec
from configs.repeats import RepeatsSpec
from configs.report import ReportSpec
from configs.scrub import ScrubSpec
from configs.semantic import SemanticSpec
from configs.study import EVALUATION, MODEL, ScalingSpec, ScalingStudy
from configs.tokenizer import TokenizerSpec
from configs.tokens import TokensSpec

ALL_OTHERS = "*"


@dataclass(frozen=True)
class NodeKind:
    """How one kind of node is computed."""

    spec: type[Spec]
    job: str
    """module:function of `run(spec, inputs, output, resources) -> Outcome`."""
    inputs: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    """Slot -> the node of a recipe that fills it by default, of several the first that the recipe has; {"*": "*"} takes
    every other node."""
    resources: Resources = field(default_factory=Resources)
    written: type[Spec] | None = None
    """What a recipe holds where the spec itself is made by pinning an external input."""
    pin: str | None = None
    """module:function that makes the spec from what is written, before keys are computed."""
    optional: Mapping[str, str] = field(default_factory=dict)
    """As `inputs`, of slots that stay empty where the recipe has no such node, or says `inputs: {slot: null}`."""
    several: frozenset[str] = frozenset()
    """The slots of `inputs` that take several nodes, each under a name: `inputs: {documents: {october: scrub-2}}` fills
    the slot `documents.october`."""
    retractable: bool = False
    """Its spec's field `retracted` is filled with the retractions that hold in the store."""
    study: type[ScalingStudy] | None = None
    """What a recipe holds instead, where it names no inputs: it stands for the nodes that this one reads as well."""

    @property
    def name(self) -> str:
        return self.spec.node

    @property
    def version(self) -> int:
        return self.spec.version

    @property
    def room(self) -> str:
        return self.job.split(".")[1]

    @property
    def in_recipe(self) -> type[Spec]:
        """The model that a recipe's section is checked against."""
        return self.written or self.spec


ONE_PROCESS = Resources(workers=1)
SEVERAL_SOURCES = frozenset({"documents"})

KINDS = (
    NodeKind(SnapshotSpec, "ray_jobs.crawl.job:snapshot", written=CrawlSource, pin="ray_jobs.crawl.pins:pin"),
    NodeKind(
        ReferenceSpec,
        "ray_jobs.external.job:reference",
        written=ReferenceSource,
        pin="ray_jobs.external.pins:pin_reference",
    ),
    NodeKind(LabelsSpec, "ray_jobs.external.job:labels", written=LabelsSource, pin="ray_jobs.external.pins:pin_labels"),
    NodeKind(
        EvalSetsSpec,
        "ray_jobs.external.job:eval_sets",
        written=EvalSetsSource,
        pin="ray_jobs.external.pins:pin_eval_sets",
        resources=Resources(workers=1),
    ),
    NodeKind(FilterSpec, "ray_jobs.crawl.job:filter", {"crawl": "snapshot"}, Resources(shards_per_task=1)),
    NodeKind(
        DedupSpec, "ray_jobs.dedup.job:run", {"documents": "filter"}, optional={"earlier": "earlier"}, retractable=True
    ),
    NodeKind(SemanticSpec, "ray_jobs.semantic.job:run", {"documents": ("dedup", "filter")}),
    NodeKind(RepeatsSpec, "ray_jobs.repeats.job:run", {"documents": ("semantic", "dedup", "filter")}),
    NodeKind(NgramLmSpec, "ray_jobs.quality.ngram_lm_job:run", {"documents": "reference"}),
    NodeKind(
        ClassifierSpec,
        "ray_jobs.quality.classifier_job:run",
        optional={"reference": "reference", "crawl": "dedup", "labels": "classifier-labels"},
    ),
    NodeKind(
        QualitySpec,
        "ray_jobs.quality.job:run",
        {"documents": ("repeats", "semantic", "dedup", "filter")},
        optional={"language_model": "ngram-lm", "classifier": "classifier", "toxicity": "toxicity"},
    ),
    NodeKind(
        ScrubSpec,
        "ray_jobs.scrub.job:run",
        {"documents": ("quality", "repeats", "semantic", "dedup", "filter")},
        optional={"eval_sets": "eval-sets"},
    ),
    NodeKind(TokenizerSpec, "ray_jobs.tokenizer.job:run", {"documents": "scrub"}, ONE_PROCESS, several=SEVERAL_SOURCES),
    NodeKind(
        TokensSpec,
        "ray_jobs.tokenizer.tokens_job:run",
        {"documents": "scrub", "tokenizer": "tokenizer"},
        several=SEVERAL_SOURCES,
    ),
    NodeKind(
        PretrainSpec,
        "ray_jobs.pretrain.job:run",
        {"tokens": "tokens", "tokenizer": "tokenizer"},
        optional={EVAL_SETS: "eval-sets"},
    ),
    NodeKind(
        EvaluateSpec,
        "ray_jobs.evaluate.job:run",
        {"model": "pretrain", "tokens": "tokens", "tokenizer": "tokenizer"},
        ONE_PROCESS,
    ),
    NodeKind(
        LongContextSpec,
        "ray_jobs.long_context.job:run",
        {MODEL: "pretrain", "tokens": "tokens", "tokenizer": "tokenizer"},
        Resources(shards_per_task=1),
        several=frozenset({MODEL}),
    ),
    NodeKind(
        ScalingSpec,
        "ray_jobs.scaling.job:run",
        {MODEL: "pretrain", EVALUATION: "evaluate"},
        ONE_PROCESS,
        several=frozenset({MODEL, EVALUATION}),
        study=ScalingStudy,
    ),
    NodeKind(ReportSpec, "ray_jobs.report.job:run", {ALL_OTHERS: ALL_OTHERS}, ONE_PROCESS),
)
NODES: dict[str, NodeKind] = {kind.name: kind for kind in KINDS}
