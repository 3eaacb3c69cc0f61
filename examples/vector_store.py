"""The whole life of a vector store, with the openai SDK: made, filled, searched, asked, deleted.

    python examples/vector_store.py "How do I restore a backup?" manual.pdf notes.md

Needs `pip install openai` and a running `hearth serve`; OPENAI_BASE_URL says where, if not here.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from openai import OpenAI

CHAT_MODEL = os.environ.get("CHAT_MODEL", "smollm2-135m-instruct")

client = OpenAI(base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1"), api_key="none")
question, *paths = sys.argv[1:]

# Made. What nobody has used for a day goes by itself.
store = client.vector_stores.create(name="example", expires_after={"anchor": "last_active_at", "days": 1})

# Filled: uploaded, put into the store, waited for. What is completed is found by the next search.
uploads = [client.files.create(file=Path(path), purpose="assistants") for path in paths]
batch = client.vector_stores.file_batches.create_and_poll(store.id, file_ids=[upload.id for upload in uploads])
print(f"{batch.file_counts.completed} of {batch.file_counts.total} files are in the store")
for document in client.vector_stores.files.list(store.id, filter="failed"):
    print(f"{client.files.retrieve(document.id).filename}: {document.last_error.message}")

# Searched: by meaning and by word at once. What OpenAI has no field for is under `x`.
for hit in client.vector_stores.search(store.id, query=question, max_num_results=3):
    place = hit.x["heading"] or f"characters {hit.x['start']} to {hit.x['end']}"
    page = f", page {hit.x['page']}" if hit.x["page"] else ""
    print(f"{hit.score:.2f}  {hit.filename}{page}: {place}")

# Asked. `file_search` is a tool of chat completions here, which the SDK's types do not know: hence `extra_body`.
completion = client.chat.completions.create(
    model=CHAT_MODEL,
    messages=[{"role": "user", "content": question}],
    temperature=0,
    max_tokens=200,
    extra_body={"tools": [{"type": "file_search", "vector_store_ids": [store.id]}]},
)
answer = completion.choices[0].message
print(f"\n{answer.content}\n")
for citation in answer.annotations or []:
    page = f", page {citation.x['page']}" if citation.x["page"] else ""
    check = "" if citation.x["supported"] else "  (not borne out by its words)"
    print(f"[{citation.x['number']}] {citation.filename}{page}: {citation.x['section']}{check}")

# Deleted: files are the client's own and stay when a store goes.
for upload in uploads:
    client.files.delete(upload.id)
print("\nstore deleted:", client.vector_stores.delete(store.id).deleted)
