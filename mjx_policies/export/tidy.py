"""An exported graph in the form that other tools expect, which quantise it or convert its numbers.

It computes the same up to rounding. Axes: B batch, I inputs and O outputs of a layer.
"""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx


def tidy(model: onnx.ModelProto) -> None:
    """Changes a graph in its place, in three ways.

    A layer is one `Gemm` with factors 1 and a bias [O], where jax2onnx writes a `Gemm` with factor 0 for a scalar and
    an `Add`; quantisers take the first only. No output is read inside the graph, since a converter that gives outputs
    another type would change what is read. Types are told of values that the graph computes, and of nothing else.
    """
    _join_layers(model.graph)
    _free_outputs(model.graph)
    inside = {name for node in model.graph.node for name in node.output}
    inside -= {value.name for value in model.graph.output}
    told = [value for value in model.graph.value_info if value.name in inside]
    del model.graph.value_info[:]
    model.graph.value_info.extend(told)
    used = {name for node in model.graph.node for name in node.input}
    weights = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(weights)


def _join_layers(graph: onnx.GraphProto) -> None:
    """`Gemm` and the `Add` of its bias as one; a `Gemm` without a bias as `MatMul`."""
    from onnx import helper, numpy_helper

    constants = {tensor.name: tensor for tensor in graph.initializer}
    readers = _readers(graph)
    outputs = {value.name for value in graph.output}
    gone = set()
    for node in graph.node:
        factors = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        plain = factors.get("alpha", 1.0) == 1.0 and not factors.get("transA") and not factors.get("transB")
        if node.op_type != "Gemm" or not plain or (len(node.input) == 3 and factors.get("beta", 1.0) != 0.0):
            continue
        product, weights = node.output[0], constants.get(node.input[1])
        following = readers[product]
        bias = None
        if weights is not None and len(following) == 1 and following[0].op_type == "Add" and product not in outputs:
            (other,) = [name for name in following[0].input if name != product] or [product]
            bias = constants.get(other)
        if bias is None or weights is None or list(bias.dims) not in ([weights.dims[1]], [1, weights.dims[1]]):
            node.op_type = "MatMul"
            del node.attribute[:], node.input[2:]
            continue
        if len(bias.dims) == 2 and len(readers[bias.name]) == 1:
            bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias)[0], bias.name))
        del node.attribute[:], node.input[2:]
        node.input.append(bias.name)
        node.output[0] = following[0].output[0]
        gone.add(id(following[0]))
    kept = [node for node in graph.node if id(node) not in gone]
    _replace_nodes(graph, kept)


def _free_outputs(graph: onnx.GraphProto) -> None:
    """Gives outputs that are read inside the graph another name there, and copies them to the output."""
    from onnx import helper

    readers = _readers(graph)
    renamed = {value.name: f"{value.name}_inside" for value in graph.output if readers[value.name]}
    for node in graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                names[i] = renamed.get(name, name)
    graph.node.extend(helper.make_node("Identity", [inside], [name]) for name, inside in renamed.items())


def _readers(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto]]:
    """The nodes that read each value, a node as often as it does."""
    found = collections.defaultdict(list)
    for node in graph.node:
        for name in node.input:
            found[name].append(node)
    return found


def _replace_nodes(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
