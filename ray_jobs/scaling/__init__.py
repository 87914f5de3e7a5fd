"""Scaling laws: from runs of several sizes to the size that a compute budget wants."""

import os

# Before anything imports scipy, whose OpenBLAS reads it once. L-BFGS factors matrices of 20 rows, for which threads of
# its own cost five times what they save, and more on a busy machine.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
