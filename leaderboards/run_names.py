"""Names of runs: each becomes that of a folder, in a store and among published boards, and must not lead elsewhere."""

import re

#: What a spec or an import may be called, as a regular expression.
RUN_NAME = "[a-z0-9][a-z0-9._-]{0,79}"

# A limit and a search append to that (`-limit3`, `-selection-DRT`); a name of a file has at most 255 bytes.
_STORED = re.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,249}")


def is_run_name(name: object) -> bool:
    """Whether a stored run may have this name: it is one part of a path, below the folder that it is joined to."""
    return isinstance(name, str) and _STORED.fullmatch(name) is not None
