"""The weights of a BERT cross-encoder out of an ONNX file, as transformers names and lays them out.

Integer weights become float32 again: that is exact, because each stood for one multiple of its scale. What such a
network loses besides, by rounding its activations at run time, is not in the file and so does not come along.

Where the exporter kept no name for a matrix, that of the bias which is added to its product tells whose it is.
Nothing is proved here: the caller compares scores with those of the network itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from server.encoders.onnx_graph import Graph, Node, Tensor, read_graph

Float32 = npt.NDArray[np.float32]

_FIRST_QUERY = "bert.encoder.layer.0.attention.self.query.bias"


@dataclass(frozen=True)
class ClassifierWeights:
    """What `BertForSequenceClassification` is made of.

    Attributes:
        shape: Of `BertConfig`, what differs between models; the rest is as BERT has it.
        tensors: float32 by transformers' names, owned by the receiver; matrices are [outputs, inputs].
    """

    shape: dict[str, int]
    tensors: dict[str, Float32]


def read_classifier(path: Path) -> ClassifierWeights:
    """Read and de-quantise a cross-encoder; takes a fraction of a second.

    Raises:
        ValueError: The file is damaged, or not that of a BERT with a classifier.
    """
    graph = read_graph(path)
    try:
        tensors = _named_floats(graph) | _embeddings(graph) | _matrices(graph)
        return ClassifierWeights(_shape(graph, tensors), tensors)
    except (KeyError, StopIteration) as exc:
        raise ValueError(f"{path.name} is not laid out as a BERT with a classifier") from exc


def _named_floats(graph: Graph) -> dict[str, Float32]:
    """Norms, biases and whatever else was left as it was."""
    return {
        name: np.array(tensor, np.float32)
        for name, tensor in graph.tensors.items()
        if name.startswith(("bert.", "classifier.")) and name.endswith((".weight", ".bias"))
    }


def _embeddings(graph: Graph) -> dict[str, Float32]:
    """Gather(X_quantized, ids) -> DequantizeLinear(_, scale, zero point)"""
    found = {}
    for node in graph.nodes:
        gather = graph.producer(node.inputs[0]) if node.op == "DequantizeLinear" else None
        if gather and gather.op == "Gather" and gather.inputs[0] in graph.tensors:
            name = gather.inputs[0].removesuffix("_quantized")
            found[name] = _dequantized(graph, gather.inputs[0], *node.inputs[1:3])
    return found


def _matrices(graph: Graph) -> dict[str, Float32]:
    """MatMul(x, W) -> Add(_, bias), or in integers:

    MatMulInteger(x, W, x's zero point, W's zero point) -> Cast -> Mul(_, Mul(x's scale, W's scale)) -> Add(_, bias)
    """
    found = {}
    for node in graph.nodes:
        if node.op not in ("MatMul", "MatMulInteger") or node.inputs[1] not in graph.tensors:
            continue
        product = node
        weights: Tensor = graph.tensors[node.inputs[1]]
        if node.op == "MatMulInteger":
            product = _next(graph, _next(graph, node, "Cast"), "Mul")
            weights = _dequantized(graph, node.inputs[1], _weight_scale(graph, product), *node.inputs[3:4])
        bias = next(name for name in _next(graph, product, "Add").inputs if name in graph.tensors)
        # A product multiplies from the right, a layer of transformers from the left.
        found[f"{bias.removesuffix('.bias')}.weight"] = np.array(weights.T, np.float32, order="C")
    return found


def _next(graph: Graph, node: Node, op: str) -> Node:
    return next(consumer for consumer in graph.consumers(node.outputs[0]) if consumer.op == op)


def _weight_scale(graph: Graph, product: Node) -> str:
    scales = next(node for name in product.inputs if (node := graph.producer(name)) and node.op == "Mul")
    return next(name for name in scales.inputs if name in graph.tensors)


def _dequantized(graph: Graph, weights: str, scale: str, zero_point: str | None = None) -> Float32:
    """Scale and zero point are of the whole tensor, or one for each column."""
    numbers = graph.tensors[weights].astype(np.float32)
    if zero_point is not None:
        numbers -= graph.tensors[zero_point].astype(np.float32)
    numbers *= graph.tensors[scale]
    return numbers


def _shape(graph: Graph, tensors: dict[str, Float32]) -> dict[str, int]:
    num_layers = sum(name.endswith(".intermediate.dense.weight") for name in tensors)
    vocabulary, width = tensors["bert.embeddings.word_embeddings.weight"].shape
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "num_hidden_layers": num_layers,
        "num_attention_heads": _num_heads(graph, width),
        "intermediate_size": len(tensors["bert.encoder.layer.0.intermediate.dense.weight"]),
        "max_position_embeddings": len(tensors["bert.embeddings.position_embeddings.weight"]),
        "type_vocab_size": len(tensors["bert.embeddings.token_type_embeddings.weight"]),
        "num_labels": len(tensors["classifier.weight"]),
    }


def _num_heads(graph: Graph, width: int) -> int:
    """How the first layer's queries are split: Reshape(_, [batch, length, heads, width of a head])"""
    [query] = graph.consumers(_FIRST_QUERY)
    shape = _next(graph, query, "Reshape").inputs[1]
    parts = [shape] if shape in graph.tensors else (graph.producer(shape) or query).inputs
    numbers = [int(number) for name in parts if name in graph.tensors for number in graph.tensors[name].flat]
    return next(heads for heads, head in pairwise(numbers) if heads * head == width)
