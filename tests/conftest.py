"""Shapes and types of annotations are enforced while tests run, in the packages that work on tensors."""

import os

from tests.checked_types import enforce

# Before torch is loaded. Networks this small are slower on two threads, and much slower where others use the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# As the command line does: threads that wait should sleep soon where cores are shared.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
# Worker processes take seconds to start, more than most runs here; the tests of workers ask for them.
os.environ.setdefault("CERTBENCH_JOBS", "1")

enforce("ensembles", "certifiers")
