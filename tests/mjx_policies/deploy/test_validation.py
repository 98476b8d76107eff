"""Files that are policies, files that pretend to be, and files that somebody or something altered."""

import dataclasses
import hashlib
import json
import os
import random
import subprocess
import sys

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from mjx_policies.deploy import contract as contracts
from mjx_policies.deploy import validation as models
from mjx_policies.deploy.contract import ContractError, State
from mjx_policies.deploy.policy import ExportedPolicy, PolicyError, load_policy
from mjx_policies.deploy.protobuf import Schema, WireError, WireField, read
from mjx_policies.deploy.validation import MODEL, parse_model, read_model


@pytest.fixture(scope="module")
def original(policies):
    """Bytes of a valid file."""
    contract = policies.example_contract()
    model = policies.perceptron(contract)
    return policies.with_text(model, contracts.dumps(policies.complete(contract, model)))


@pytest.fixture(scope="module")
def answer(original):
    """The answer to `ask`."""
    return ask(ExportedPolicy(parse_model(original)))


def ask(policy):
    return policy.step(np.linspace(-1, 1, 47, dtype=np.float32), ())


def varint(value):
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def field(number, wire, content=b""):
    """A field of a message; content of wire type 2 gets its length."""
    return varint(number << 3 | wire) + (varint(len(content)) if wire == 2 else b"") + content


# --- the valid file ---------------------------------------------------------------------------------------------------


def test_a_policy_is_read(policies, tmp_path):
    contract = policies.write_policy(tmp_path / "go2.onnx")
    model = read_model(tmp_path / "go2.onnx")
    assert model.contract == contract and model.opset == 17
    assert model.inputs == {"observation": (47,)} and model.outputs == {"action": (12,), "target": (12,)}
    assert model.operators == {"Gemm", "Tanh", "Reshape", "Identity", "Mul", "Add", "Max", "Min"}
    assert model.data == (tmp_path / "go2.onnx").read_bytes()
    with pytest.raises(dataclasses.FrozenInstanceError):
        model.opset = 18


def equal(ours, theirs):
    """Whether a message that was read by schema says what `onnx` says, field by field."""
    names = set()
    for descriptor, value in theirs.ListFields():
        names.add(descriptor.name)
        found = ours.values[descriptor.name]
        values = list(value) if descriptor.is_repeated else [value]
        found = found if descriptor.is_repeated else [found]
        assert len(found) == len(values), descriptor.full_name
        for one, other in zip(found, values, strict=True):
            if descriptor.message_type is not None:
                equal(one, other)
            else:
                assert (bytes(one) if isinstance(one, memoryview) else one) == other, descriptor.full_name
    assert ours.values.keys() == names


def test_the_reader_agrees_with_onnx(original):
    equal(read(original, MODEL), onnx.load_from_string(original))


def test_the_reader_agrees_with_onnx_on_every_kind_of_field(original):
    model = onnx.load_from_string(original)
    model.model_version, model.doc_string = -3, "hé"
    numbers = {
        TensorProto.FLOAT: [1.5, -2.0],
        TensorProto.DOUBLE: [0.1, 1e300],
        TensorProto.INT32: [-1, 2**31 - 1],
        TensorProto.INT64: [-(2**63), 7],
        TensorProto.UINT64: [2**64 - 1, 0],
    }
    model.graph.initializer.extend(helper.make_tensor(f"t{kind}", kind, [2], v) for kind, v in numbers.items())
    inner = helper.make_graph([helper.make_node("Identity", ["a"], ["b"])], "inner", [], [])
    attributes = {"i": -5, "f": 0.5, "s": b"\xff", "ints": [1, -1], "floats": [0.1], "strings": ["a"], "g": inner}
    attributes |= {"t": model.graph.initializer[0], "graphs": [inner, inner]}
    model.graph.node.append(helper.make_node("If", ["a"], ["b"], domain="x", **attributes))
    model.graph.sparse_initializer.append(
        helper.make_sparse_tensor(model.graph.initializer[0], model.graph.initializer[1], [3])
    )
    equal(read(model.SerializeToString(), MODEL), model)


def test_the_schema_is_that_of_onnx():
    seen = set()

    def compare(schema, descriptor):
        if schema.name in seen:
            return
        seen.add(schema.name)
        known = {f.number: f for f in descriptor.fields}
        for number, entry in schema.fields.items():
            assert known[number].name == entry.name and known[number].is_repeated == entry.repeated
            if isinstance(entry.kind, Schema):
                compare(entry.kind, known[number].message_type)

    compare(MODEL, onnx.ModelProto.DESCRIPTOR)
    assert len(seen) == 13


def test_a_file_of_any_allowed_version_is_read(policies):
    contract = policies.example_contract()
    for version in range(17, 24):
        model = policies.perceptron(contract)
        model.opset_import[0].version = version
        assert (
            parse_model(policies.with_text(model, contracts.dumps(policies.complete(contract, model)))).opset == version
        )


def test_states_noises_and_plans_are_part_of_the_interface(policies):
    contract = policies.example_contract(
        state=(State("memory", "next_memory", (8,), 0.0),),
        noise=(contracts.NoiseInput("noise", (4, 12), "normal", 0.0),),
        action=contracts.Action("joint_position", 0.0, 20.0, 4),
    )
    model = policies.perceptron(contract)
    found = parse_model(policies.with_text(model, contracts.dumps(policies.complete(contract, model))))
    assert found.inputs == {"observation": (47,), "memory": (8,), "noise": (4, 12)}
    assert found.outputs == {"action": (4, 12), "target": (4, 12), "next_memory": (8,)}


def test_sizes_may_depend_on_the_batch(policies):
    """As where a constant is repeated for each robot."""

    def change(model):
        node("Shape", ["observation"], ("shape",), end=1)(model)
        node("Concat", ["shape", "one"], ("sizes",), axis=0)(model)
        node("Expand", ["default", "sizes"])(model)
        model.graph.initializer.append(numpy_helper.from_array(np.array([1]), "one"))

    assert {"Shape", "Expand"} <= parse_model(seal(policies, change)).operators


# --- files that are refused -------------------------------------------------------------------------------------------


def node(kind, inputs, outputs=("extra",), **attributes):
    return lambda model: model.graph.node.append(helper.make_node(kind, inputs, list(outputs), **attributes))


def outside(tensor):
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def external_weight(model):
    outside(model.graph.initializer[0])


def external_entry_alone(model):
    model.graph.initializer[0].external_data.add(key="location", value="weights.bin")


def external_constant(model):
    tensor = numpy_helper.from_array(np.zeros(3, np.float32), "hidden")
    outside(tensor)
    node("Constant", [], value=tensor)(model)


def external_in_a_branch(model):
    tensor = numpy_helper.from_array(np.zeros(3, np.float32), "deep")
    outside(tensor)
    inner = helper.make_graph([helper.make_node("Identity", ["deep"], ["out"])], "inner", [], [], [tensor])
    node("If", ["observation"], then_branch=inner, else_branch=inner)(model)


def external_sparse(model):
    values, indices = (numpy_helper.from_array(np.zeros(1, kind)) for kind in (np.float32, np.int64))
    outside(values)
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [3]))


def sparse(model):
    values, indices = (numpy_helper.from_array(np.zeros(1, kind)) for kind in (np.float32, np.int64))
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [3]))


def foreign_import(model):
    model.opset_import.add(domain="com.evil", version=1)


def foreign_node_in_a_branch(model):
    inner = helper.make_graph([helper.make_node("Run", [], ["out"], domain="com.evil")], "inner", [], [])
    node("If", ["observation"], then_branch=inner)(model)


def graph_in_a_plain_operator(model):
    inner = helper.make_graph([helper.make_node("Identity", ["observation"], ["out"])], "inner", [], [])
    node("Identity", ["observation"], body=inner)(model)


def text_tensor(model):
    model.graph.initializer.append(helper.make_tensor("text", TensorProto.STRING, [1], [b"a"]))


def function(model):
    model.functions.add(name="f", domain="ours")


def training(model):
    model.training_info.add()


def version(number):
    def change(model):
        model.opset_import[0].version = number

    return change


def without(kind, i):
    def change(model):
        del getattr(model.graph, kind)[i]

    return change


def value_info(kind, name, shape, element=TensorProto.FLOAT):
    return lambda model: getattr(model.graph, kind).append(helper.make_tensor_value_info(name, element, shape))


def retyped(kind, i, shape, element=TensorProto.FLOAT):
    def change(model):
        value = getattr(model.graph, kind)[i]
        value.CopyFrom(helper.make_tensor_value_info(value.name, element, shape))

    return change


def untyped_input(model):
    model.graph.input[0].ClearField("type")


def sequence_input(model):
    value = model.graph.input[0]
    value.CopyFrom(helper.make_tensor_sequence_value_info(value.name, TensorProto.FLOAT, None))


def weight_as_input(model):
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((1, 47), np.float32), "observation"))


def reversed_nodes(model):
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def output_from_nowhere(model):
    model.graph.node[-1].output[0] = "elsewhere"


def size_from_observation(model):
    node("Cast", ["observation"], ("sizes",), to=TensorProto.INT64)(model)
    node("Expand", ["lower", "sizes"])(model)


def convolution(size):
    def change(model):
        model.graph.initializer.append(numpy_helper.from_array(np.zeros((1, size, 1), np.float32), "kernel"))
        node("Conv", ["observation", "kernel"])(model)

    return change


def computed_kernel(model):
    node("Identity", ["weight_0"], ("kernel",))(model)
    node("Conv", ["observation", "kernel"])(model)


IN_GRAPH = {  # changes of the graph that its hash agrees with
    "external weight": (external_weight, "'weight_0' lies outside the file"),
    "external entry": (external_entry_alone, "lies outside the file"),
    "external constant": (external_constant, "'hidden' lies outside the file"),
    "external in a branch": (external_in_a_branch, "'deep' lies outside the file"),
    "external sparse": (external_sparse, "lies outside the file"),
    "sparse": (sparse, "sparse"),
    "foreign domain": (node("Elu", ["observation"], domain="com.evil"), "operators of 'com.evil'"),
    "foreign import": (foreign_import, "operators of 'com.evil'"),
    "foreign domain in a branch": (foreign_node_in_a_branch, "operators of 'com.evil'"),
    "loop": (node("Loop", ["", "", "observation"]), "uses 'Loop', which a policy may not"),
    "branch": (node("If", ["observation"]), "uses 'If'"),
    "scan": (node("Scan", ["observation"], num_scan_inputs=1), "uses 'Scan'"),
    "random": (node("RandomNormal", [], shape=[1]), "uses 'RandomNormal'"),
    "drop-out": (node("Dropout", ["observation"]), "uses 'Dropout'"),
    "text operator": (node("StringNormalizer", ["observation"]), "uses 'StringNormalizer'"),
    "list operator": (node("SequenceEmpty", []), "uses 'SequenceEmpty'"),
    "invented operator": (node("Walk\nnow\x1b[2J", ["observation"]), r"uses 'Walk\\nnow\\x1b\[2J'"),
    "nameless operator": (node("", ["observation"]), "uses ''"),
    "many operators": (lambda m: [node(f"Op{i}", [])(m) for i in range(100)], "and 92 more"),
    "graph in a plain operator": (graph_in_a_plain_operator, "a graph of its own"),
    "text": (text_tensor, "'text' holds text"),
    "text constant": (node("Constant", [], value_string="a"), "may only hold numbers"),
    "cast to text": (node("Cast", ["observation"], to=TensorProto.STRING), "a Cast makes type 8"),
    "function": (function, "functions or training"),
    "training": (training, "functions or training"),
    "too new": (version(24), "version 24 of ONNX's operators, this library knows 17 to 23"),
    "too old": (version(11), "version 11"),
    "no version": (lambda model: model.ClearField("opset_import"), "names 0 versions"),
    "two versions": (lambda model: model.opset_import.add(domain="ai.onnx", version=18), "names 2 versions"),
    "no input": (without("input", 0), "uses 'observation' before it is computed"),
    "another input": (value_info("input", "password", ["B", 1]), "has the input 'password', which its contract"),
    "input twice": (value_info("input", "observation", ["B", 47]), "defines 'observation' twice"),
    "no output": (without("output", 1), "lacks the output 'target' of its contract"),
    "another output": (value_info("output", "free", ["B", 12]), "has the output 'free'"),
    "output twice": (value_info("output", "action", ["B", 12]), "has an output twice"),
    "output from nowhere": (output_from_nowhere, "'target' is not computed"),
    "integer input": (retyped("input", 0, ["B", 47], TensorProto.INT64), "'observation' must be a tensor of float32"),
    "double output": (retyped("output", 0, ["B", 12], TensorProto.DOUBLE), "'action' must be a tensor of float32"),
    "untyped input": (untyped_input, "must be a tensor of float32"),
    "list input": (sequence_input, "TypeProto has no field 4"),
    "other size": (retyped("input", 0, ["B", 46]), r"shape \[\?, 46\], the contract says \[B, 47\] with any B"),
    "open size": (retyped("input", 0, ["B", "D"]), r"shape \[\?, \?\]"),
    "one robot only": (retyped("input", 0, [1, 47]), r"shape \[1, 47\]"),
    "no batch": (retyped("output", 1, [12]), r"shape \[12\]"),
    "any shape": (retyped("output", 1, None), r"shape \[\?\]"),
    "weight as input": (weight_as_input, "defines 'observation' twice"),
    "name used twice": (node("Identity", ["observation"], ("flat",)), "defines 'flat' twice"),
    "out of order": (reversed_nodes, "before it is computed"),
    "loop over a sequence": (node("LSTM", ["observation", "weight_0", "weight_1"]), "uses 'LSTM'"),
    "wide convolution": (convolution(2**14 + 1), r"a Conv makes each number from \[16385, 1\] others, 16,384 at most"),
    "computed convolution": (computed_kernel, "the weights of a Conv are computed"),
    "wide pooling": (node("MaxPool", ["observation"], kernel_shape=[40, 40]), "a MaxPool makes each number from"),
    "size from observation": (size_from_observation, "Expand makes an array whose size depends on the numbers"),
}


def seal(policies, change=None, edit=None):
    """A file whose graph was changed before its hash was taken, and whose contract was edited."""
    contract = policies.example_contract()
    model = policies.perceptron(contract)
    contract = policies.complete(contract, model)
    if change is not None:
        change(model)
    data = json.loads(contracts.dumps(dataclasses.replace(contract, graph_sha256=policies.graph_hash(model))))
    if edit is not None:
        edit(data)
        if "sha256" in data:  # whoever edits on purpose renews it
            blank = json.dumps(data | {"sha256": ""}, sort_keys=True, separators=(",", ":"))
            data["sha256"] = hashlib.sha256(blank.encode()).hexdigest()
    return policies.with_text(model, json.dumps(data, sort_keys=True, separators=(",", ":")))


@pytest.mark.parametrize("name", ["upper", "effort", "stiffness", "default"])
def test_a_limit_that_changed_by_accident_is_noticed(policies, name):
    contract = policies.example_contract()
    model = policies.perceptron(contract)
    text = contracts.dumps(policies.complete(contract, model))
    data = json.loads(text)
    data["joints"][3][name] += 0.01
    refused(policies.with_text(model, json.dumps(data)), "does not match its own sha256")


@pytest.mark.parametrize("change, sentence", IN_GRAPH.values(), ids=IN_GRAPH.keys())
def test_a_graph_beyond_plain_arithmetic_is_refused(policies, change, sentence):
    refused(seal(policies, change), sentence)


def refused(data, sentence):
    with pytest.raises(ContractError, match=sentence) as caught:
        parse_model(data)
    text = str(caught.value)
    assert "\n" not in text and len(text) < 600 and text.isprintable()


def put(*path, value):
    def edit(data):
        for key in path[:-1]:
            data = data[key]
        data[path[-1]] = value

    return edit


def remove(*path):
    def edit(data):
        for key in path[:-1]:
            data = data[key]
        del data[path[-1]]

    return edit


STATE = {"input": "memory", "output": "next_memory", "shape": [8], "reset": 0.0}

IN_CONTRACT = {
    "newer schema": (put("schema_version", value="2.0"), "schema version '2.0'"),
    "missing key": (remove("gait"), "lacks gait"),
    "unknown key": (put("robot", "wings", value=2), "contract.robot has unknown keys wings"),
    "terminal codes": (put("robot", "a\n\x1b[2J" + "x" * 10_000, value=2), r"has unknown keys a\?\?\[2Jxxx"),
    "wrong type": (put("joints", 0, "scale", value="0.5"), "scale must be a finite number"),
    "limits": (put("joints", 0, "soft_upper", value=9.0), "FL_hip has limits out of order"),
    "example": (put("golden", "outputs", "action", 0, 0, value=0.5), "the file was altered"),
    "tolerance": (put("golden", "tolerance", value=1.0), "tolerance must lie between"),
    "hash": (put("graph_sha256", value="0" * 64), "does not match the contract's graph_sha256"),
    "state": (put("state", value=[STATE]), "lacks the input 'memory'"),
    "state named as the observation": (
        put("state", value=[{**STATE, "input": "observation"}]),
        "names two inputs alike",
    ),
    "state named as the action": (put("state", value=[{**STATE, "output": "action"}]), "names two outputs alike"),
    "huge state": (put("state", value=[{**STATE, "shape": [2**40]}]), "numbers at most"),
    "negative state": (put("state", value=[{**STATE, "shape": [-1, -1]}]), "sizes must be above zero"),
    "joint less": (remove("joints", 11), r"the contract says \[B, 11\]"),
    "term more": (put("observation", 0, "history", value=2), r"the contract says \[B, 50\]"),
    "plan": (put("action", "horizon", value=4), r"the contract says \[B, 4, 12\]"),
    "endless plan": (put("action", "horizon", value=10**30), "numbers at most"),
}


@pytest.mark.parametrize("edit, sentence", IN_CONTRACT.values(), ids=IN_CONTRACT.keys())
def test_a_contract_that_the_graph_does_not_fulfil_is_refused(policies, edit, sentence):
    refused(seal(policies, edit=edit), sentence)


def metadata(key, value):
    return field(14, 2, field(1, 2, key.encode()) + field(2, 2, value))


def nested(levels):
    """Graphs in attributes of nodes of graphs."""
    graph = b""
    for _ in range(levels):
        graph = field(1, 2, field(5, 2, field(6, 2, graph)))
    return field(7, 2, graph)


KEY = contracts.METADATA_KEY
IN_BYTES = {  # changes of the bytes of a valid file
    "empty": (lambda data: b"", "the file is empty"),
    "text": (lambda data: b"# a policy\nimport os\n", "not a policy's ONNX file"),
    "zip": (lambda data: b"PK\x03\x04" + bytes(100), "not a policy's ONNX file"),
    "pickle": (lambda data: b"\x80\x04\x95" + bytes(100), "not a policy's ONNX file"),
    "zeros": (lambda data: bytes(100), "ModelProto has no field 0"),
    "half": (lambda data: data[: len(data) // 2], "cut off or damaged"),
    "last byte gone": (lambda data: data[:-1], "cut off or damaged"),
    "byte behind": (lambda data: data + b"\x08", "a number is cut off"),
    "twice": (lambda data: data + data, "occurs twice"),
    "second graph": (lambda data: data + field(7, 2), "ModelProto.graph occurs twice"),
    "second ir version": (lambda data: data + field(1, 0, b"\x08"), "ir_version occurs twice"),
    "no graph": (lambda data: field(1, 0, b"\x08"), "holds no graph"),
    "unknown field": (lambda data: data + field(99, 2, b"x"), "ModelProto has no field 99"),
    "group": (lambda data: data + field(2, 3), "wire type 3 in the place of 2"),
    "number for text": (lambda data: data + field(3, 0, b"\x01"), "wire type 0 in the place of 2"),
    "not text": (lambda data: data + field(3, 2, b"\xff\xfe"), "producer_version is not UTF-8 text"),
    "huge length": (lambda data: data + varint(3 << 3 | 2) + varint(2**63), "ends beyond what it is in"),
    "endless number": (lambda data: data + varint(5 << 3) + b"\xff" * 20, "a number is too long"),
    "padded number": (lambda data: data + varint(5 << 3) + b"\x81\x00", "a number is too long"),
    "number beyond 64 bits": (lambda data: data + varint(5 << 3) + b"\xff" * 9 + b"\x02", "a number is too long"),
    "deep": (lambda data: nested(1000), "nested in each other"),
    "many fields": (lambda data: field(7, 2, field(1, 2) * 200_001), "more than 200,000 fields"),
    "many numbers": (
        lambda data: field(7, 2, field(5, 2, field(1, 2, b"\1" * 200_001))),
        "more than 200,000 fields",
    ),
    "type beyond 32 bits": (
        lambda data: field(7, 2, field(5, 2, field(2, 0, varint(2**32 + 1)))),
        "data_type does not fit into 32 bits",
    ),
    "location unknown to onnx": (
        lambda data: field(7, 2, field(5, 2, field(14, 0, b"\x07"))),
        "lies outside the file",
    ),
    "size given twice": (
        lambda data: field(
            7, 2, field(11, 2, field(2, 2, field(1, 2, field(2, 2, field(1, 2, b"\x08\x01\x12\x01a")))))
        ),
        "more than one of dim_param, dim_value",
    ),
    "two contracts": (lambda data: data + metadata(KEY, b"{}"), "holds 2 contracts"),
    "contract renamed": (lambda data: data.replace(KEY.encode(), KEY.upper().encode()), "holds no contract"),
}


@pytest.mark.parametrize("change, sentence", IN_BYTES.values(), ids=IN_BYTES.keys())
def test_bytes_that_are_no_such_file_are_refused(original, change, sentence):
    refused(change(original), sentence)


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("", "not valid JSON"),
        ("[]", "not a JSON object"),
        ("[" * 100_000, "not valid JSON"),
        ('{"a":1,"a":1}', "a key appears twice"),
        ('{"schema_version":NaN}', "NaN"),
        (" " * (contracts.MAX_BYTES + 1), "more than the"),
    ],
)
def test_metadata_that_is_no_contract_is_refused(policies, text, sentence):
    refused(policies.with_text(policies.perceptron(policies.example_contract()), text), sentence)


def test_a_file_of_another_exporter_is_refused(policies):
    refused(policies.perceptron(policies.example_contract()).SerializeToString(), "was not exported by this library")


def test_a_weight_that_changed_is_noticed(original):
    model = onnx.load_from_string(original)
    raw = bytearray(model.graph.initializer[0].raw_data)
    raw[10] ^= 1
    model.graph.initializer[0].raw_data = bytes(raw)
    refused(model.SerializeToString(deterministic=True), "graph_sha256: it was altered")


def test_only_regular_files_are_read(policies, tmp_path, monkeypatch):
    policies.write_policy(tmp_path / "go2.onnx")
    (tmp_path / "link.onnx").symlink_to(tmp_path / "go2.onnx")
    os.mkfifo(tmp_path / "pipe.onnx")
    (tmp_path / "empty.onnx").write_bytes(b"")
    for name, sentence in {
        "link.onnx": "symbolic link",
        "pipe.onnx": "not a regular file",
        "": "not a regular file",
        "absent.onnx": "No such file",
        "go2.onnx/inside": "Not a directory",
        "null\0": "cannot be read",
        "empty.onnx": "is empty",
    }.items():
        with pytest.raises(ContractError, match=sentence) as caught:
            read_model(tmp_path / name)
        assert str(caught.value).startswith(str(tmp_path / name))
    with pytest.raises(ContractError, match="not a regular file"):
        read_model("/dev/zero")
    monkeypatch.setattr(models, "MAX_BYTES", 1000)
    with pytest.raises(ContractError, match="larger than 1,000 bytes"):
        read_model(tmp_path / "go2.onnx")


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    with open(tmp_path / "large.onnx", "wb") as file:
        file.truncate(models.MAX_BYTES + 1)
    with pytest.raises(ContractError, match="larger than"):
        read_model(tmp_path / "large.onnx")


# --- fuzzing ----------------------------------------------------------------------------------------------------------


def mutated(data, rng):
    """A file after a few accidents."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(6):
            case 0 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 1 if at < len(data):
                data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
            case 2:
                del data[at:]
            case 3:
                del data[at : at + rng.randrange(1, 20)]
            case 4:
                data[at:at] = rng.randbytes(rng.randrange(1, 20))
            case _:
                start = rng.randrange(len(data) + 1)
                data[at:at] = data[start : start + rng.randrange(1, 200)]
        if not data:
            break
    return bytes(data)


def same_or_refused(data, answer):
    """True if the file loads; then it must answer as the original does."""
    try:
        policy = ExportedPolicy(parse_model(data))
    except (ContractError, PolicyError) as error:
        assert str(error) and "\n" not in str(error)
        return False
    for one, other in zip(ask(policy)[:2], answer[:2], strict=True):
        np.testing.assert_array_equal(one, other)
    return True


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.integers(0, 2**32))
def test_accidents_are_refused_or_change_nothing(original, answer, seed):
    same_or_refused(mutated(original, random.Random(seed)), answer)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.integers(0, 2**32))
def test_accidents_with_the_frame_of_the_file_are_refused_or_change_nothing(original, answer, seed):
    """Most bytes are weights and contract; here every accident hits what lies around them, or is a field again."""
    rng = random.Random(seed)
    fields = [original[start:stop] for start, stop in spans(original)]
    for _ in range(rng.randrange(1, 3)):
        i = rng.randrange(len(fields))
        match rng.randrange(3):
            case 0:
                fields.insert(rng.randrange(len(fields) + 1), fields[i])
            case 1:
                fields.insert(rng.randrange(len(fields)), fields.pop(i))
            case _:
                fields[i] = mutated(fields[i][:4], rng) + fields[i][4:]
    same_or_refused(b"".join(fields), answer)


def spans(data):
    """The places where the fields of a message begin and end, for messages of short tags."""
    position = 0
    while position < len(data):
        start, wire = position, data[position] & 7
        size, position = length(data, position + 1)
        position += size if wire == 2 else 0
        yield start, position


def length(data, position):
    value = shift = 0
    while True:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position


def test_moving_fields_changes_nothing(original, answer):
    fields = [original[start:stop] for start, stop in spans(original)]
    assert b"".join(fields) == original
    assert same_or_refused(b"".join(fields[::-1]), answer)


def test_a_forged_hash_does_not_make_the_file_dangerous(policies):
    """Whoever alters the graph can write its hash, too: then onnxruntime sees the graph."""
    contract = policies.example_contract()
    model = policies.perceptron(contract)
    contract = policies.complete(contract, model)
    graph = model.graph.SerializeToString(deterministic=True)
    model.ClearField("graph")
    reached = 0
    for seed in range(300):
        forged = mutated(graph, random.Random(seed))
        sealed = dataclasses.replace(contract, graph_sha256=hashlib.sha256(forged).hexdigest())
        try:
            parsed = parse_model(policies.with_text(model, contracts.dumps(sealed)) + field(7, 2, forged))
        except ContractError:
            continue
        reached += 1
        try:
            ExportedPolicy(parsed)
        except (ContractError, PolicyError) as error:
            assert "\n" not in str(error)
    assert reached > 50


# --- the reader, and what is imported ---------------------------------------------------------------------------------


def test_packed_and_single_numbers_are_the_same():
    schema = Schema(
        "Numbers", {1: WireField("a", "int64", True), 2: WireField("b", "float", True), 3: WireField("c", "double")}
    )
    half = np.float32(0.5).tobytes()
    singly = field(1, 0, b"\x05") + field(1, 0, b"\x06") + field(2, 5, half) + field(2, 5, half)
    packed = field(1, 2, b"\x05\x06") + field(2, 2, half + half)
    assert read(singly, schema).values == read(packed, schema).values == {"a": [5, 6], "b": [0.5, 0.5]}
    for data, sentence in {
        field(2, 2, half + b"\0"): "ends within a number",
        field(2, 5, half[:3]): "ends beyond",
        field(1, 2, b"\x80"): "cut off",
        field(3, 2, bytes(8)): "wire type 2",
    }.items():
        with pytest.raises(WireError, match=sentence):
            read(data, schema)


def test_nothing_heavy_is_imported():
    script = (
        "import sys; import mjx_policies.deploy.policy; "
        "print([m for m in ('jax', 'flax', 'onnx', 'mujoco', 'google.protobuf', 'scipy') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


def test_the_error_names_the_file(policies, tmp_path):
    path = tmp_path / "go2.onnx"
    path.write_bytes(b"")
    with pytest.raises(ContractError, match=r"go2\.onnx: the file is empty"):
        load_policy(path)
