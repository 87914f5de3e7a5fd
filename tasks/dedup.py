"""dedup: exact and near-duplicates of earlier documents are dropped."""

from tasks import funnel
from tasks.node import NodeTask

NODE = NodeTask(
    "dedup", "Drops exact and MinHash near-duplicates of earlier kept documents.", funnel.headline, funnel.facts
)
