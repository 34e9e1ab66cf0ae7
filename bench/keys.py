"""Keys: the digest of everything that decides a result, and of nothing else.

Device, batch size, threads, versions and the time are provenance: they must not change a verdict, and a result
computed under others is the same result.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def canonical_json(value: Any) -> str:
    """JSON in one spelling: sorted keys, no spaces, finite numbers only.

    Raises:
        ValueError: a number is NaN or infinite.
        TypeError: a value is not JSON.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)


def digest(fields: Mapping[str, Any]) -> str:
    """SHA-256, in hexadecimal, of the canonical JSON of the fields."""
    return hashlib.sha256(canonical_json(fields).encode()).hexdigest()
