"""Audits in the store: rows beside those of a cell, and the counterexamples that refute.

    OUTPUT/cells/<key>/audit-<first image>-<digest>.parquet        what attacks on certificates found
    OUTPUT/cells/<key>/witness-<image>-<digest>.safetensors        image and counterexample of a refuted certificate

The rows of the cell itself are never rewritten.
"""

import io
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.torch
from torch import Tensor

from bench.store import Store, write_file
from leaderboards.audits import AUDIT_SCHEMA, audit_name
from leaderboards.verified_files import CELL_METADATA, digest_of


def write_audits(store: Store, key: str, rows: pd.DataFrame) -> Path:
    """Store the audits of some certificates of a cell.

    Raises:
        StoreError: the disk is full or not writable; what was stored before is untouched.
    """
    columns = {item.name: pa.array(rows[item.name], type=item.type) for item in AUDIT_SCHEMA}
    table = pa.table(columns).replace_schema_metadata({CELL_METADATA: key.encode()})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, write_page_checksum=True, compression="zstd")
    path = store.cell(key) / audit_name(buffer.getvalue(), int(rows["image_id"].iloc[0]))
    write_file(path, buffer.getvalue())
    return path


def write_witness(
    store: Store, key: str, image_id: int, image: Tensor, witness: Tensor, facts: Mapping[str, object]
) -> Path:
    """Store an image and the input that refutes its certificate, as tensors `image` and `witness` of one file.

    Raises:
        StoreError: the disk is full or not writable.
    """
    tensors = {"image": image.detach().cpu().contiguous(), "witness": witness.detach().cpu().contiguous()}
    described = {"key": key, "image_id": image_id, **facts}
    content = safetensors.torch.save(tensors, {name: str(value) for name, value in described.items()})
    path = store.cell(key) / f"witness-{image_id:06d}-{digest_of(content)}.safetensors"
    write_file(path, content)
    return path
