"""filter: archives to text in the wanted languages."""

from tasks import funnel
from tasks.node import NodeTask

NODE = NodeTask(
    "filter",
    "Main text of each page, its language, and the rules on length and symbols.",
    funnel.headline,
    funnel.facts,
)
