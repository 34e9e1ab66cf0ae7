"""Seeds, derived by hashing, so that every random choice of a run hangs on one base seed.

PyTorch's CPU generator keeps only the low 32 bits of the seed it is given (`manual_seed(s)` and
`manual_seed(s + 2**32)` draw the same numbers), so a derived seed is a full-range 32-bit number: what is not
used cannot silently collide.
"""

import hashlib
import json

import torch


def derive_seed(base: int, *labels: str | int) -> int:
    """A seed in [0, 2^32) from a base seed and labels that say what it is for.

    The first 32 bits of SHA-256 of the canonical JSON list `[base, *labels]`.
    """
    text = json.dumps([base, *labels], separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def seeded_generator(base: int, *labels: str | int) -> torch.Generator:
    """A CPU generator seeded by `derive_seed(base, *labels)`."""
    return torch.Generator().manual_seed(derive_seed(base, *labels))
