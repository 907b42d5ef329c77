"""The protobuf writer against the `onnx` package, and the graph against ONNX's own checker."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from bundles import CONFIG, ODD, tiny_bundle

from npc_runtime.backends.onnx_graph import FORMS, TOP, build
from npc_runtime.backends.onnx_proto import BOOL, FLOAT, INT64, MICROSOFT, UINT8, Graph, model, varint

if TYPE_CHECKING:
    from pathlib import Path

onnx = pytest.importorskip("onnx", reason="the `onnx` package, a dev dependency, is not installed")


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (0, "00"),
        (1, "01"),
        (127, "7f"),
        (128, "8001"),
        (300, "ac02"),
        (-1, "ffffffffffffffffff01"),
        (1 << 60, "80" * 8 + "10"),
    ],
)
def test_varints_are_those_of_protobuf(value: int, encoded: str) -> None:
    assert varint(value).hex() == encoded


def make_checkable(graph: onnx.GraphProto) -> None:
    """Gives every value of any rank two dimensions: the checker wants a rank, onnxruntime does without.

    And onnxruntime registers SimplifiedLayerNormalization among ONNX's own operators, where the checker misses it.
    """
    for value in (*graph.input, *graph.output):
        if not value.type.tensor_type.HasField("shape"):
            for _ in range(2):
                value.type.tensor_type.shape.dim.add()
    for node in graph.node:
        if node.op_type == "SimplifiedLayerNormalization":
            node.domain = MICROSOFT
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                make_checkable(attribute.g)


def every_node(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    inner = [a.g for node in graph.node for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
    return [*graph.node, *(node for each in inner for node in every_node(each))]


def small_graph() -> Graph:
    """out = x + 2 where `flag`, else x * 3, by way of every kind of field."""
    g = Graph("small")
    g.input("x", FLOAT, ["rows", 4])
    g.input("flag", BOOL, [])
    g.constant("two", np.full((1, 4), 2, np.float32))
    g.constant("three", np.array(3, np.float32))
    then, other = g.child("then"), g.child("other")
    then.output(then.node("Add", "x", "two"), FLOAT)
    other.output(other.node("Mul", "x", "three"), FLOAT, ["rows", 4])
    y = g.node("If", "flag", then_branch=then, else_branch=other)
    parts = g.nodes("Split", 2, y, axis=1, num_outputs=2)
    g.node("Concat", *parts, axis=1, to="out")
    g.output("out", FLOAT)
    return g


def test_onnx_reads_and_runs_what_is_written() -> None:
    from onnx.reference import ReferenceEvaluator

    loaded = onnx.load_from_string(model(small_graph()))
    make_checkable(loaded.graph)
    onnx.checker.check_model(loaded, full_check=True)
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    run = ReferenceEvaluator(loaded).run
    np.testing.assert_array_equal(run(None, {"x": x, "flag": np.array(True)})[0], x + 2)
    np.testing.assert_array_equal(run(None, {"x": x, "flag": np.array(False)})[0], x * 3)


def test_every_field_arrives() -> None:
    g = Graph("fields")
    g.input("any", INT64)
    g.external("codes", UINT8, (2, 3), "weights.bin", 64, 6)
    g.external("codes", UINT8, (2, 3), "weights.bin", 64, 6)
    g.nodes("Thing", 2, "any", "", domain=MICROSOFT, to=["a", ""], ratio=0.5, count=-7, sizes=[1, -2])
    g.output("a", FLOAT, [2, "n"])
    read = onnx.ModelProto.FromString(model(g))
    [node], [codes], [given], [out] = read.graph.node, read.graph.initializer, read.graph.input, read.graph.output
    assert (node.op_type, node.domain, list(node.input), list(node.output)) == (
        "Thing",
        MICROSOFT,
        ["any", ""],
        ["a", ""],
    )
    assert {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute} == {
        "ratio": 0.5, "count": -7, "sizes": [1, -2],
    }  # fmt: skip
    assert (codes.data_type, list(codes.dims), codes.data_location) == (UINT8, [2, 3], onnx.TensorProto.EXTERNAL)
    assert {e.key: e.value for e in codes.external_data} == {"location": "weights.bin", "offset": "64", "length": "6"}
    assert not given.type.tensor_type.HasField("shape")
    assert [d.dim_value or d.dim_param for d in out.type.tensor_type.shape.dim] == [2, "n"]


@pytest.mark.parametrize("value", ["text", None, {}])
def test_other_attributes_are_refused(value: object) -> None:
    with pytest.raises(TypeError, match="attribute `mode` must be"):
        Graph("g").node("Thing", mode=value)


@pytest.mark.parametrize("config", [CONFIG, ODD], ids=["even", "odd"])
@pytest.mark.parametrize("bits", [4, 8, 32])
def test_the_models_graph_is_valid(tmp_path: Path, bits: int, config: object) -> None:
    bundle = tiny_bundle(tmp_path, bits, config)  # type: ignore[arg-type]
    path = bundle.path / "model.onnx"
    read = onnx.ModelProto.FromString(build(bundle, bits))
    make_checkable(read.graph)
    path.write_bytes(read.SerializeToString())
    onnx.checker.check_model(str(path))  # by path, so that the external data is looked up too
    layers = range(bundle.config.n_layer)
    assert [i.name for i in read.graph.input] == [
        "tokens", "wanted", *(f"is_{form}" for form in FORMS[:-1]),
        *(f"{part}.{i}" for i in layers for part in ("conv", "ssm")),
    ]  # fmt: skip
    assert {o.name for o in read.graph.output} == {
        "logits", "top_logits", "top_ids", *(f"{part}.{i}.next" for i in layers for part in ("conv", "ssm")),
    }  # fmt: skip
    outside = [t.name for t in read.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
    assert ("layers.0.in_proj" in outside) == (bits < 32)


def test_external_tensors_are_the_bundles_own(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path, 4)
    path = bundle.path / "model.onnx"
    path.write_bytes(build(bundle, 4))
    read = onnx.load(str(path))
    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in read.graph.initializer}
    for name in ("layers.0.in_proj", "layers.2.x_proj", "head", "head.scale", "embedding.scale"):
        assert tensors[name].tobytes() == bundle.tensor(name).tobytes()
    first = CONFIG.dt_rank
    signs = np.ones((first + 2 * CONFIG.d_state, 1), np.float32)
    signs[first : first + CONFIG.d_state] = -1
    np.testing.assert_array_equal(tensors["layers.2.x_proj.scale"], signs * bundle.tensor("layers.2.x_proj.scale"))


def test_large_constants_can_be_handed_over_instead(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path, 4, replace(CONFIG, d_model=256))
    given: dict[str, np.ndarray] = {}
    written = build(bundle, 4, given=given)
    read = {tensor.name: tensor for tensor in onnx.ModelProto.FromString(written).graph.initializer}
    inline = {tensor.name: tensor for tensor in onnx.ModelProto.FromString(build(bundle, 4)).graph.initializer}
    assert read.keys() == inline.keys()
    assert {"layers.0.A", "layers.1.dt_proj"} <= given.keys()
    for name, array in given.items():
        assert read[name].data_location == onnx.TensorProto.EXTERNAL
        assert inline[name].raw_data == array.tobytes()
    used = {name for node in every_node(onnx.ModelProto.FromString(written).graph) for name in node.input}
    assert read.keys() <= used  # onnxruntime drops what is not used, and then refuses to be handed it
    assert all(len(tensor.raw_data) <= 4096 for tensor in read.values())


def test_more_candidates_come_out_than_are_drawn_from() -> None:
    from npc_runtime.sampling import TOP_K

    assert TOP > TOP_K
