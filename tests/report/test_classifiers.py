"""The classifiers' section, of nodes as they are computed."""

from pathlib import Path

from configs.classifier import ClassifierSpec, ThresholdSpec
from configs.quality import QualitySpec
from configs.report import ReportSpec
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.store import Store
from ray_jobs.report.job import page_of
from ray_jobs.report.nodes import Nodes
from ray_jobs.report.page import render
from tests.dedup.corpus import computed, document_table, published
from tests.quality.test_classifier_job import MILL, SPAM, texts, weights


def shown(nodes: dict[str, Checkpoint]) -> str:
    return render(page_of(Nodes(nodes), ReportSpec())).decode()


def test_a_classifier_shows_its_curve_its_scores_and_its_confusion_table(store: Store, tmp_path: Path) -> None:
    inputs = {
        "reference": published(store, [document_table(texts(MILL, 60, 1), crawl="REF")], "reference"),
        "crawl": published(store, [document_table([*texts(SPAM, 50, 2), *texts(MILL, 10, 3)])], "crawl"),
    }
    spec = ClassifierSpec(num_buckets=100, heldout_share=0.4, threshold=ThresholdSpec(recall=0.8))
    node = computed(spec, inputs, store)
    page = shown({"classifier": node})
    assert 'id="classifiers"' in page and "recall over false positive rate" in page and "histogram of score" in page
    assert f"area under it {node.manifest.metrics['auc']:.3f}" in page and "chosen threshold" in page

    path = tmp_path / "classifier.safetensors"
    path.write_bytes(node.read(node.file("classifier.safetensors")))
    given = computed(ClassifierSpec(weights=weights(path)), {}, store)
    judged = computed(QualitySpec(quality_threshold=0.4), {"documents": inputs["crawl"], "classifier": node}, store)
    audited = shown({"classifier": node, "quality": judged})
    assert "Scores in quality" in audited and "60 documents; threshold 0.400" in audited

    both = shown({"classifier": node, "toxicity": given})
    assert "There were no documents to measure it on." in both and "<h3>toxicity</h3>" in both
