"""How well a score tells two classes apart: ROC curve, area under it, and a threshold with its confusion table.

Fawcett, "An introduction to ROC analysis" (2006): a text is called positive where its score is at least the threshold.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Roc:
    """One point for each distinct score, from the threshold that calls none positive to the one that calls all."""

    thresholds: Floats
    """Falling; the first is infinite."""
    true_positives: npt.NDArray[np.int64]
    false_positives: npt.NDArray[np.int64]

    @property
    def num_positives(self) -> int:
        return int(self.true_positives[-1])

    @property
    def num_negatives(self) -> int:
        return int(self.false_positives[-1])

    @property
    def recall(self) -> Floats:
        """Also called the true positive rate."""
        return self.true_positives / self.num_positives

    @property
    def false_positive_rate(self) -> Floats:
        return self.false_positives / self.num_negatives

    @property
    def auc(self) -> float:
        """The chance that a positive has the higher score of a pair, ties counting half."""
        return float(np.trapezoid(self.recall, self.false_positive_rate))

    def at(self, threshold: float) -> "Confusion":
        """What becomes of the texts where those from `threshold` on are called positive."""
        place = int(np.searchsorted(-self.thresholds, -threshold, side="right")) - 1
        true, false = int(self.true_positives[place]), int(self.false_positives[place])
        return Confusion(true, false, self.num_positives - true, self.num_negatives - false)

    def thinned(self, most: int) -> "Roc":
        """At most so many points, the ends and those evenly spaced along the curve."""
        if len(self.thresholds) <= most:
            return self
        way = np.cumsum(np.abs(np.diff(self.recall, prepend=0)) + np.abs(np.diff(self.false_positive_rate, prepend=0)))
        chosen = np.unique(np.searchsorted(way, np.linspace(0, way[-1], most)).clip(0, len(way) - 1))
        return Roc(self.thresholds[chosen], self.true_positives[chosen], self.false_positives[chosen])


@dataclass(frozen=True)
class Confusion:
    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int

    @property
    def recall(self) -> float:
        return self.true_positives / max(1, self.true_positives + self.false_negatives)

    @property
    def precision(self) -> float:
        """1 where nothing is called positive."""
        called = self.true_positives + self.false_positives
        return self.true_positives / called if called else 1.0


def roc(scores: npt.NDArray[np.floating], positive: npt.NDArray[np.bool_]) -> Roc:
    """The curve of n scores, [n], whose classes are `positive`, [n].

    Raises:
        ValueError: one class has no text.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if not positive.any() or positive.all():
        raise ValueError("a ROC curve needs texts of both classes: hold out more")
    order = np.argsort(-scores, kind="stable")
    true = np.cumsum(positive[order])
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # the last text of each score
    true = true[ends].astype(np.int64)
    false = (ends + 1 - true).astype(np.int64)
    return Roc(
        np.concatenate(([np.inf], scores[order][ends])),
        np.concatenate(([0], true)),
        np.concatenate(([0], false)),
    )


def threshold_for_recall(curve: Roc, wanted: float) -> float:
    """The highest threshold whose recall is at least `wanted`."""
    place = int(np.argmax(curve.recall >= wanted - 1e-12))
    return float(curve.thresholds[max(1, place)])


def threshold_for_precision(curve: Roc, wanted: float) -> float:
    """The threshold of most recall among those whose precision is at least `wanted`.

    Raises:
        ValueError: there is none.
    """
    called = curve.true_positives + curve.false_positives
    precision = curve.true_positives[1:] / called[1:]
    enough = np.flatnonzero(precision >= wanted - 1e-12)
    if not len(enough):
        raise ValueError(
            f"no threshold has a precision of {wanted} on the held-out texts; the most is {precision.max():.3f}: ask "
            "for less, or train on more"
        )
    return float(curve.thresholds[1 + enough[-1]])


def threshold_for_kept_share(scores: npt.NDArray[np.floating], share: float) -> float:
    """The score from which on the share of the texts lies, equal scores taken together so that no less is kept."""
    ordered = np.sort(np.asarray(scores, dtype=np.float64))[::-1]
    return float(ordered[max(0, min(len(ordered), int(np.ceil(share * len(ordered)))) - 1)])
