"""The run's report."""

from typing import ClassVar

from pydantic import Field

from configs.base import Spec


class ReportSpec(Spec):
    """One self-contained HTML page over all nodes of a run."""

    node: ClassVar[str] = "report"
    version: ClassVar[int] = 1

    num_samples: int = Field(default=5, ge=0, le=50)
    """Kept and dropped documents shown for each rule, and generated samples shown."""
