"""Shapes and types of annotations are enforced while tests run, in the packages that work on tensors."""

import os

from jaxtyping import install_import_hook

# As the command line does, before torch is loaded: threads that wait should sleep soon where cores are shared.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

_HOOK = install_import_hook(["ensembles", "certifiers"], "beartype.beartype")
