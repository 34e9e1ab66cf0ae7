"""Shapes and types of annotations are enforced while tests run, in the packages that work on tensors."""

from jaxtyping import install_import_hook

_HOOK = install_import_hook(["ensembles", "certifiers"], "beartype.beartype")
