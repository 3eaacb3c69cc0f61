"""What `hearth doctor --check-index` tells: whether what is stored of vector stores fits together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from server.errors import StorageError
from server.rag.index_check import FileState, check_index
from server.rag.upload_check import check_uploads
from server.services.diagnosis import Finding

_REMEDY = "restore a backup, or delete the vector store and put its files into a new one"
_LOST_REMEDY = "restore a backup, or delete the file and send it again; what was read in it is still found"
_STATES: dict[FileState, str] = {
    "current": "its index file fits",
    "behind": "its index file is behind and will be made again",
    "missing": "its index file will be made when it is searched",
    "unusable": "its index file is damaged and will be made again",
}


def check_data(data_dir: Path) -> Iterator[Finding]:
    """Read everything, also beside a running server; seconds for each 100,000 chunks."""
    if not data_dir.exists():
        yield Finding("data", f"nothing is stored yet in {data_dir}")
        return
    try:
        report, lost = check_index(data_dir), check_uploads(data_dir)
    except StorageError as exc:
        yield Finding("data", exc.message, "see `server.data_dir` of models.yaml, or restore a backup")
        return
    for store in report.stores:
        facts = f"{store.num_chunks} chunks, generation {store.generation}; {_STATES[store.file]}"
        yield Finding(f"vector store {store.store_id}", facts)
    for problem in report.problems:
        yield Finding("data", problem, _REMEDY)
    for problem in lost:
        yield Finding("data", problem, _LOST_REMEDY)
    if not report.problems and not lost:
        yield Finding("data", "uploads, chunks, vectors, words and index files fit together")
