"""The default reranker for peers that read safetensors: its int8 ONNX weights, de-quantised as Hearth does.

python -m benchmarks.peers.reranker_weights   # write them and print where they are
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from safetensors.numpy import save_file

from server.encoders.onnx_weights import read_classifier
from server.models.cache_folder import cache_folder

SOURCE = Path(__file__).resolve().parents[2] / "weights" / "ms-marco-minilm-l12-v2" / "reranker_en"
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


def dequantised_reranker() -> Path:
    """Return a folder that transformers and sentence-transformers load, writing it anew."""
    weights = read_classifier(SOURCE / "model.onnx")
    folder = cache_folder() / "peers" / "ms-marco-minilm-l12-v2-float32"
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights.tensors, folder / "model.safetensors", metadata={"format": "pt"})
    labels = range(weights.shape["num_labels"])
    config = {
        "architectures": ["BertForSequenceClassification"],
        "model_type": "bert",
        **{name: size for name, size in weights.shape.items() if name != "num_labels"},
        # transformers counts labels by their names
        "id2label": {str(label): f"LABEL_{label}" for label in labels},
        "label2id": {f"LABEL_{label}": label for label in labels},
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    for name in TOKENIZER:
        shutil.copy(SOURCE / name, folder)
    return folder


if __name__ == "__main__":
    print(dequantised_reranker())
