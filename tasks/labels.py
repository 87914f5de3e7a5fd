"""labels: labelled texts from outside, which classifiers are trained on."""

from tasks.node import NodeTask
from tasks.reference import facts, headline

NODE = NodeTask("labels", "Reads texts that people have labelled.", headline, facts)
