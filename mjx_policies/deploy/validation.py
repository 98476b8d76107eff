"""A policy's file, read without trusting it: https://onnx.ai, protocol buffers of `onnx.proto`.

A file is refused unless it is a single graph of plain arithmetic whose inputs and outputs are those of the contract
inside it. It cannot read other files, call foreign code, loop, draw random numbers, or choose from what the robot
observes how much memory it takes. The file's hash shows damage, not forgery: whoever writes a file can write its hash.
Axes: B batch, D observation, H horizon, A action.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import math
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mjx_policies.deploy import contract as contracts
from mjx_policies.deploy.contract import Contract, ContractError
from mjx_policies.deploy.protobuf import Message, Schema, WireError, WireField, read
from mjx_policies.text import show, show_all

MAX_BYTES = 64 * 2**20  # of a file
MAX_NUMBERS = 2**20  # of an input or output for one robot
MAX_KERNEL, MAX_POOL = 2**14, 2**10  # numbers of which a convolution and a pooling make one
MIN_OPSET, MAX_OPSET = 17, 23
DOMAINS = ("", "ai.onnx")  # two names of ONNX's own operators
FLOAT, STRING = 1, 8  # TensorProto.DataType
NUMERIC_TYPES = frozenset((1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 16))  # floats, integers, bool: what casts may make

ELEMENT_BY_ELEMENT = (
    "Abs Acos Acosh Add And Asin Asinh Atan Atanh Cast CastLike Ceil Celu Clip Cos Cosh Div Elu Equal Erf Exp Floor "
    "Gelu Greater GreaterOrEqual HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Less LessOrEqual Log Max Mean "
    "Min Mish Mod Mul Neg Not Or PRelu Pow Reciprocal Relu Round Selu Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Sub "
    "Sum Tan Tanh ThresholdedRelu Where Xor"
)
LAYERS = (
    "Attention AveragePool BatchNormalization Conv ConvTranspose Einsum Gemm GlobalAveragePool GlobalMaxPool "
    "GroupNormalization InstanceNormalization LayerNormalization LogSoftmax MatMul MaxPool RMSNormalization "
    "RotaryEmbedding Softmax"
)
ALONG_AXES = (
    "ArgMax ArgMin CumSum ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd "
    "ReduceSum ReduceSumSquare TopK"
)
ARRANGEMENT = (
    "Concat Constant ConstantOfShape Expand Flatten Gather GatherElements GatherND OneHot Pad Range Reshape "
    "ScatterElements ScatterND Shape Size Slice Split Squeeze Tile Transpose Trilu Unsqueeze"
)
OPERATORS = frozenset(" ".join((ELEMENT_BY_ELEMENT, LAYERS, ALONG_AXES, ARRANGEMENT)).split())
"""What a policy may use: functions of numbers alone, that always take as long; no branches, random numbers, loops. Nor
GRU, LSTM and RNN, which loop over a sequence inside: a recurrent policy passes its state from one step to the next."""

WINDOWED = {"Conv": MAX_KERNEL, "ConvTranspose": MAX_KERNEL, "AveragePool": MAX_POOL, "MaxPool": MAX_POOL}
"""Operators of which one number takes as much work as their window has numbers, and the most that one may have: a
single operator cannot be interrupted where a policy is checked. The work of all others is bounded by their memory."""

CONSTANTS = frozenset(("value", "value_float", "value_floats", "value_int", "value_ints"))  # attributes of Constant

SIZING = {"ConstantOfShape": (0,), "Expand": (1,), "OneHot": (1,), "Pad": (1,), "Range": (0, 1, 2), "Tile": (1,)}
"""Which inputs of an operator say how much comes out of it."""


@dataclasses.dataclass(frozen=True)
class Model:
    """A file that was found to be in order.

    Attributes:
      data: its bytes.
      contract: inside it.
      opset: version of ONNX's operators.
      operators: that it uses.
      inputs, outputs: shapes without the batch by name, in the graph's order; all are float32.
    """

    data: bytes = dataclasses.field(repr=False)
    contract: Contract
    opset: int
    operators: frozenset[str]
    inputs: Mapping[str, tuple[int, ...]]
    outputs: Mapping[str, tuple[int, ...]]


def read_model(path: str | os.PathLike[str]) -> Model:
    """Reads a policy's file; see the module.

    Raises:
      ContractError: it is refused, or cannot be read. The message names the file.
    """
    try:
        return parse_model(_read_file(Path(path)))
    except ContractError as error:
        raise ContractError(f"{path}: {error}") from None


def parse_model(data: bytes) -> Model:
    """Like `read_model`, from the file's bytes."""
    if not data:
        raise ContractError("the file is empty. Copy or export it again.")
    try:
        model = read(data, MODEL)
    except WireError as error:
        raise ContractError(f"this is not a policy's ONNX file: {error}. Copy or export it again.") from None
    graph = model.one("graph")
    if graph is None:
        raise ContractError("the file holds no graph. Copy or export it again.")
    if model.all("functions") or model.all("training_info"):
        raise ContractError("the file holds functions or training of its own. Export the policy as one plain graph.")
    found = list(_walk(graph))
    nodes = [message for kind, message in found if kind == "node"]
    _check_tensors([message for kind, message in found if kind in ("tensor", "sparse_tensor")])
    opset = _opset(model, nodes)
    _check_operators(nodes)
    if sum(kind == "graph" for kind, _ in found) > 1:
        raise ContractError("an operator holds a graph of its own. Export the policy without branches and loops.")
    _check_flow(graph)
    _check_windows(graph)
    contract = _contract(model)
    if hashlib.sha256(graph.raw).hexdigest() != contract.graph_sha256:
        raise ContractError(
            "the graph does not match the contract's graph_sha256: it was altered. Copy or export it again."
        )
    shapes = {}
    for kind, expected in (("input", input_shapes(contract)), ("output", output_shapes(contract))):
        _check_names(kind, [value.one("name", "") for value in graph.all(kind)], expected)
        for value in graph.all(kind):
            _check_shape(kind, value, expected[value.one("name")])
        shapes[kind] = {value.one("name"): expected[value.one("name")] for value in graph.all(kind)}
    operators = frozenset(node.one("op_type", "") for node in nodes)
    return Model(bytes(data), contract, opset, operators, shapes["input"], shapes["output"])


def input_shapes(contract: Contract) -> dict[str, tuple[int, ...]]:
    """The shapes of the inputs by name, without the batch: the observation, states, noises.

    Raises:
      ContractError: a name occurs twice or a shape is not one.
    """
    named: list[tuple[str, tuple[int, ...]]] = [("observation", (contract.observation_size,))]
    named += [(state.input, state.shape) for state in contract.state]
    named += [(noise.input, noise.shape) for noise in contract.noise]
    return _shapes("inputs", named)


def output_shapes(contract: Contract) -> dict[str, tuple[int, ...]]:
    """The shapes of the outputs, like `input_shapes`: action and target, which are [A] or [H, A], and next states."""
    horizon = contract.action.horizon
    action = (len(contract.joints),) if horizon == 1 else (horizon, len(contract.joints))
    named = [("action", action), ("target", action)]
    return _shapes("outputs", named + [(state.output, state.shape) for state in contract.state])


def _shapes(kind: str, named: list[tuple[str, tuple[int, ...]]]) -> dict[str, tuple[int, ...]]:
    found = dict(named)
    if len(found) != len(named):
        raise ContractError(f"the contract names two {kind} alike. Export the policy again.")
    for name, shape in found.items():
        if any(size < 1 for size in shape) or math.prod(shape) > MAX_NUMBERS:
            raise ContractError(
                f"the contract gives {show(name)} the shape {show(list(shape))}: sizes must be above zero and hold "
                f"{MAX_NUMBERS:,} numbers at most. Export the policy again."
            )
    return found


def _read_file(path: Path) -> bytes:
    try:
        # Neither a link nor a pipe that would keep the reader waiting.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:  # ValueError: a name with a null character
        if isinstance(error, OSError) and error.errno == errno.ELOOP:
            raise ContractError("this is a symbolic link. Name the file itself.") from None
        reason = error.strerror if isinstance(error, OSError) else error
        raise ContractError(f"the file cannot be read: {reason}. Check the path.") from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ContractError("this is not a regular file. Name the policy's ONNX file.")
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ContractError(f"the file cannot be read: {error.strerror}. Check the disk.") from None
    finally:
        os.close(descriptor)
    if len(data) > MAX_BYTES:
        raise ContractError(f"the file is larger than {MAX_BYTES:,} bytes. Export a smaller network.")
    return data


def _walk(graph: Message) -> Iterator[tuple[str, Message]]:
    """Every graph, node and tensor at and below a graph, with its kind."""
    yield "graph", graph
    for tensor in graph.all("initializer"):
        yield "tensor", tensor
    for sparse in graph.all("sparse_initializer"):
        yield from _walk_sparse(sparse)
    for node in graph.all("node"):
        yield "node", node
        for attribute in node.all("attribute"):
            for tensor in _both(attribute, "t", "tensors"):
                yield "tensor", tensor
            for sparse in _both(attribute, "sparse_tensor", "sparse_tensors"):
                yield from _walk_sparse(sparse)
            for inner in _both(attribute, "g", "graphs"):
                yield from _walk(inner)


def _walk_sparse(sparse: Message) -> Iterator[tuple[str, Message]]:
    yield "sparse_tensor", sparse
    for name in ("values", "indices"):
        if sparse.one(name) is not None:
            yield "tensor", sparse.one(name)


def _both(message: Message, single: str, several: str) -> list[Message]:
    one = message.one(single)
    return message.all(several) + ([] if one is None else [one])


def _check_tensors(tensors: list[Message]) -> None:
    for tensor in tensors:
        if tensor.one("data_location", 0) != 0 or tensor.all("external_data"):
            raise ContractError(
                f"the tensor {show(tensor.one('name', ''))} lies outside the file. Export the policy as a single file."
            )
    for tensor in tensors:
        if tensor.one("data_type", 0) == STRING or tensor.all("string_data"):
            raise ContractError(f"the tensor {show(tensor.one('name', ''))} holds text. Export numbers only.")
        if "data_type" not in tensor.values:
            raise ContractError("the file holds a sparse tensor or one without a type. Export plain tensors.")


def _opset(model: Message, nodes: list[Message]) -> int:
    """The version of ONNX's operators, which must be the only ones."""
    imported = model.all("opset_import")
    used = {entry.one("domain", "") for entry in imported} | {node.one("domain", "") for node in nodes}
    foreign = used - set(DOMAINS)
    if foreign:
        raise ContractError(f"the file uses operators of {show_all(foreign)}. Export with ONNX's own operators only.")
    if len(imported) != 1:
        raise ContractError(f"the file names {len(imported)} versions of operators in the place of one. Export again.")
    version = imported[0].one("version", 0)
    if not MIN_OPSET <= version <= MAX_OPSET:
        raise ContractError(
            f"the file uses version {version} of ONNX's operators, this library knows {MIN_OPSET} to {MAX_OPSET}. "
            "Export the policy with one of them."
        )
    return version


def _check_operators(nodes: list[Message]) -> None:
    unknown = {node.one("op_type", "") for node in nodes} - OPERATORS
    if unknown:
        raise ContractError(
            f"the file uses {show_all(unknown)}, which a policy may not. Export it as plain arithmetic."
        )
    for node in nodes:
        kind = node.one("op_type")
        for attribute in node.all("attribute"):
            name = attribute.one("name", "")
            if kind == "Constant" and name not in CONSTANTS:
                raise ContractError(f"a Constant has {show(name)}, it may only hold numbers. Export the policy again.")
            if kind == "Cast" and name == "to" and attribute.one("i") not in NUMERIC_TYPES:
                raise ContractError(
                    f"a Cast makes type {show(attribute.one('i'))}, which is not a plain number. Export again."
                )


def _check_flow(graph: Message) -> None:
    """Checks that names are computed once and before their use, and that sizes do not depend on what is observed."""
    inputs = [value.one("name", "") for value in graph.all("input")]
    initializers = [tensor.one("name", "") for tensor in graph.all("initializer")]
    known: set[str] = set()
    for name in (*inputs, *initializers):
        _define(name, known)
    varying = set(inputs)  # with the numbers that go in, not only with how many they are
    for node in graph.all("node"):
        kind, used = node.one("op_type"), node.all("input")
        unknown = {name for name in used if name} - known
        if unknown:
            raise ContractError(f"{kind} uses {show_all(unknown)} before it is computed. Export the policy again.")
        if any(used[i] in varying for i in SIZING.get(kind, ()) if i < len(used)):
            raise ContractError(
                f"{kind} makes an array whose size depends on the numbers observed. Export a policy with fixed sizes."
            )
        outputs = [name for name in node.all("output") if name]
        for name in outputs:
            _define(name, known)
        if kind not in ("Shape", "Size") and not varying.isdisjoint(used):
            varying.update(outputs)
    for value in graph.all("output"):
        if value.one("name", "") not in known:
            raise ContractError(f"the output {show(value.one('name', ''))} is not computed. Export the policy again.")


def _check_windows(graph: Message) -> None:
    """Checks that no operator makes a number from too many, see `WINDOWED`."""
    shapes = {tensor.one("name", ""): tensor.all("dims") for tensor in graph.all("initializer")}
    for node in graph.all("node"):
        kind = node.one("op_type")
        if kind not in WINDOWED:
            continue
        if WINDOWED[kind] == MAX_KERNEL:
            weights = [*node.all("input"), "", ""][1]
            if weights not in shapes:
                raise ContractError(f"the weights of a {kind} are computed. Export a policy whose weights are fixed.")
            window = shapes[weights][1:]
        else:
            window = next((a.all("ints") for a in node.all("attribute") if a.one("name") == "kernel_shape"), [])
        if math.prod(max(1, size) for size in window) > WINDOWED[kind]:
            raise ContractError(
                f"a {kind} makes each number from {show(list(window))} others, {WINDOWED[kind]:,} at most are allowed. "
                "Export a smaller network."
            )


def _define(name: str, known: set[str]) -> None:
    if not name or name in known:
        raise ContractError(f"the graph defines {show(name)} twice or without a name. Export the policy again.")
    known.add(name)


def _contract(model: Message) -> Contract:
    texts = [
        entry.one("value", "") for entry in model.all("metadata_props") if entry.one("key") == contracts.METADATA_KEY
    ]
    if not texts:
        raise ContractError(
            f"the file holds no contract ({contracts.METADATA_KEY} in its metadata): it was not exported by this "
            "library. Export it with mjx_policies.export."
        )
    if len(texts) > 1:
        raise ContractError(f"the file holds {len(texts)} contracts in the place of one. Export the policy again.")
    try:
        return contracts.loads(texts[0])
    except ContractError as error:  # may quote the file
        text = "".join(letter if letter.isprintable() else "?" for letter in str(error)[:400])
        raise ContractError(f"{text}. Export the policy again, or use the library that wrote it.") from None


def _check_names(kind: str, found: list[str], expected: Mapping[str, Any]) -> None:
    missing, unknown = expected.keys() - found, set(found) - expected.keys()
    if missing:
        raise ContractError(f"the graph lacks the {kind} {show_all(missing)} of its contract. Export the policy again.")
    if unknown:
        raise ContractError(
            f"the graph has the {kind} {show_all(unknown)}, which its contract does not name. Export the policy again."
        )
    if len(found) != len(expected):
        raise ContractError(f"the graph has an {kind} twice. Export the policy again.")


def _check_shape(kind: str, value: Message, expected: tuple[int, ...]) -> None:
    """Checks that an input or output is float32 [B, *expected] with any B."""
    name = show(value.one("name"))
    tensor = value.one("type").one("tensor_type") if value.one("type") else None
    if tensor is None or tensor.one("elem_type") != FLOAT:
        raise ContractError(f"the {kind} {name} must be a tensor of float32. Export the policy again.")
    shape = tensor.one("shape")
    # A size that depends on the call has a name or nothing at all.
    found = ["?"] if shape is None else [dim.one("dim_value", "?") for dim in shape.all("dim")]
    if found != ["?", *expected]:
        wanted = f"[B{''.join(f', {size}' for size in expected)}]"
        raise ContractError(
            f"the {kind} {name} has the shape [{', '.join(map(str, found[:8]))}], the contract says {wanted} with any "
            "B. Export the policy again."
        )


def _schema(message: str, one_of: str = "", /, **fields: tuple[Any, ...]) -> Schema:
    """A schema whose fields are written `name=(number, kind)` or `name=(number, kind, True)` if repeated."""
    return Schema(
        message, {field[0]: WireField(key, *field[1:]) for key, field in fields.items()}, frozenset(one_of.split())
    )


ENTRY = _schema("StringStringEntryProto", key=(1, "string"), value=(2, "string"))
OPSET = _schema("OperatorSetIdProto", domain=(1, "string"), version=(2, "int64"))
DIMENSION = _schema(
    "Dimension", "dim_value dim_param", dim_value=(1, "int64"), dim_param=(2, "string"), denotation=(3, "string")
)
SHAPE = _schema("TensorShapeProto", dim=(1, DIMENSION, True))
TENSOR_TYPE = _schema("Tensor", elem_type=(1, "int32"), shape=(2, SHAPE))
TYPE = _schema("TypeProto", tensor_type=(1, TENSOR_TYPE), denotation=(6, "string"))  # no lists, maps and so on
VALUE = _schema(
    "ValueInfoProto",
    name=(1, "string"),
    type=(2, TYPE),
    doc_string=(3, "string"),
    metadata_props=(4, ENTRY, True),
)
TENSOR = _schema(
    "TensorProto",
    dims=(1, "int64", True),
    data_type=(2, "int32"),
    float_data=(4, "float", True),
    int32_data=(5, "int32", True),
    string_data=(6, "bytes", True),
    int64_data=(7, "int64", True),
    name=(8, "string"),
    raw_data=(9, "bytes"),
    double_data=(10, "double", True),
    uint64_data=(11, "uint64", True),
    doc_string=(12, "string"),
    external_data=(13, ENTRY, True),
    data_location=(14, "int32"),
    metadata_props=(16, ENTRY, True),
)
SPARSE = _schema("SparseTensorProto", values=(1, TENSOR), indices=(2, TENSOR), dims=(3, "int64", True))
ATTRIBUTE = _schema(
    "AttributeProto",
    name=(1, "string"),
    f=(2, "float"),
    i=(3, "int64"),
    s=(4, "bytes"),
    t=(5, TENSOR),
    floats=(7, "float", True),
    ints=(8, "int64", True),
    strings=(9, "bytes", True),
    tensors=(10, TENSOR, True),
    doc_string=(13, "string"),
    type=(20, "int32"),
    sparse_tensor=(22, SPARSE),
    sparse_tensors=(23, SPARSE, True),
)
NODE = _schema(
    "NodeProto",
    input=(1, "string", True),
    output=(2, "string", True),
    name=(3, "string"),
    op_type=(4, "string"),
    attribute=(5, ATTRIBUTE, True),
    doc_string=(6, "string"),
    domain=(7, "string"),
    metadata_props=(9, ENTRY, True),
)
GRAPH = _schema(
    "GraphProto",
    node=(1, NODE, True),
    name=(2, "string"),
    initializer=(5, TENSOR, True),
    doc_string=(10, "string"),
    input=(11, VALUE, True),
    output=(12, VALUE, True),
    value_info=(13, VALUE, True),
    sparse_initializer=(15, SPARSE, True),
    metadata_props=(16, ENTRY, True),
)
ATTRIBUTE.fields |= {6: WireField("g", GRAPH), 11: WireField("graphs", GRAPH, True)}
ANYTHING = "bytes"  # of what is refused unread
MODEL = _schema(
    "ModelProto",
    ir_version=(1, "int64"),
    producer_name=(2, "string"),
    producer_version=(3, "string"),
    domain=(4, "string"),
    model_version=(5, "int64"),
    doc_string=(6, "string"),
    graph=(7, GRAPH),
    opset_import=(8, OPSET, True),
    metadata_props=(14, ENTRY, True),
    training_info=(20, ANYTHING, True),
    functions=(25, ANYTHING, True),
)
