"""The ONNX graph of a Bundle: one model for a step, a batched step and prefill, over one copy of the weights.

Everything is 2-D, [rows, channels], with States channels last. Matrices, norms and elementwise
parts are shared; only the convolution and the scan differ by form, inside an `If` each:

    step     one row: one token of one Npc
    batch    B rows: one token of B Npcs, each with its own State
    prefill  T rows: T tokens of one Npc

The arithmetic per row is the same in the three, operation by operation, so that a State does
not depend on the form that computed it. Signs are folded into the weights (the B rows of x_proj
and dt_proj are negated) so that log(sigmoid(-dt)) = -softplus(dt) needs no negation.
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from npc_runtime.backends.onnx_proto import BOOL, FLOAT, INT64, MICROSOFT, UINT8, Graph, model
from npc_runtime.sampling import TOP_K
from npc_runtime.weights import quantize, stored_bits

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from npc_runtime.bundle import Bundle

    Part = Callable[[Graph, list[str]], None]
    """Adds the nodes that compute the named outputs."""

TOP = TOP_K + 24
"""Highest logits given out: enough that banned ids among them seldom leave fewer than `TOP_K`."""
FORMS = ("step", "batch", "prefill")
SAFE_DT = -8.0
"""Below this log(sigmoid(u)) is u to 4e-5; onnxruntime's Sigmoid is 0 from -18 and its logarithm -inf."""


def build(bundle: Bundle, bits: int) -> bytes:
    """ModelProto bytes for weights of `bits` (4, 8 or 32).

    Inputs: `tokens` [rows], `wanted` (rows to take logits of), `is_step` and `is_batch`, and per
    layer i `conv.i` and `ssm.i`: [K-1, E] and [N, E], with a leading B in the batch form.
    Outputs: `conv.i.next`, `ssm.i.next`, `logits` [wanted, V], `top_logits` and `top_ids` [wanted, TOP].
    """
    return _Builder(bundle, bits).model()


class _Builder:
    def __init__(self, bundle: Bundle, bits: int, forms: tuple[str, ...] = FORMS) -> None:
        self.bundle = bundle
        self.bits = bits
        self.forms = forms
        self.config = bundle.config
        self.graph = Graph("npc")
        self.stored = bundle.offsets()

    def model(self) -> bytes:
        g, c = self.graph, self.config
        g.input("tokens", INT64, ["rows"])
        g.input("wanted", INT64, ["wanted"])
        for form in self.forms[:-1]:
            g.input(f"is_{form}", BOOL, [])
        for i in range(c.n_layer):
            for part in ("conv", "ssm"):
                g.input(f"{part}.{i}", FLOAT)
                g.output(f"{part}.{i}.next", FLOAT)
        self._shared_constants()
        hidden, residual = self.embed(), ""
        for i in range(c.n_layer):
            hidden, residual = self.layer(i, hidden, residual)
        self.head(hidden, residual)
        return model(g)

    def _shared_constants(self) -> None:
        g, c = self.graph, self.config
        numbers = {"zero": 0, "one": 1, "minus_one": -1, "first": -(c.d_conv - 1), "far": 1 << 60}
        for name, value in numbers.items():
            g.constant(name, np.array([value], np.int64))
        for k in range(c.d_conv):
            g.constant(f"tap.{k}", np.array([k], np.int64))
            g.constant(f"tap_end.{k}", np.array([k - c.d_conv + 1 or 1 << 60], np.int64))
        g.constant("ones", np.ones((1, c.d_conv + 1), np.float32))
        g.constant("ones_but_bias", np.ones((1, c.d_conv), np.float32))
        g.constant("safe_dt", np.array(SAFE_DT, np.float32))
        g.constant("x_parts", np.array([c.dt_rank, c.d_state, c.d_state], np.int64))
        g.constant("as_rows", np.array([-1, c.d_inner], np.int64))
        g.constant("one_row_each", np.array([-1, 1, c.d_inner], np.int64))
        g.constant("top_k", np.array([min(TOP, c.vocab_size)], np.int64))

    # -- weights

    def external(self, name: str, shape: tuple[int, ...] | None = None) -> str:
        """A stored tensor, mapped from the Bundle's own file."""
        entry = self.stored[name]
        element = UINT8 if entry.dtype == "U8" else FLOAT
        path = self.bundle.weights_path.name
        return self.graph.external(name, element, shape or entry.shape, path, entry.offset, entry.nbytes)

    def matrix(self, name: str, rows: str, negated: slice | None = None) -> str:
        """rows [M, K] times the transpose of a weight (N, K); the rows `negated` of the weight change sign."""
        g = self.graph
        if self.bits == 32:
            return g.node("MatMul", rows, self._dense(name, negated))
        codes, scale, shape = self._codes(name, negated)
        return g.node(
            "MatMulNBits", rows, codes, scale, domain=MICROSOFT,
            K=shape[1], N=shape[0], bits=self.bits, block_size=self.bundle.block, accuracy_level=4,
        )  # fmt: skip

    def _dense(self, name: str, negated: slice | None) -> str:
        dense = self.bundle.dense(name).copy()
        if negated is not None:
            dense[negated] *= -1
        return self.constant(name, dense.T)

    def _codes(self, name: str, negated: slice | None) -> tuple[str, str, tuple[int, int]]:
        columns = self.config.d_inner if name.endswith(("x_proj", "out_proj")) else self.config.d_model
        if stored_bits(name, self.bundle.bits) == self.bits:
            rows = self.stored[name].shape[0]
            codes = self.external(name)
            if negated is None:
                return codes, self.external(f"{name}.scale"), (rows, columns)
            scale = self.bundle.tensor(f"{name}.scale").copy()
        else:
            values, scale = quantize(self.bundle.dense(name), self.bits, self.bundle.block)
            rows, codes = values.shape[0], self.graph.constant(name, values)
        if negated is not None:
            scale[negated] *= -1
        return codes, self.graph.constant(f"{name}.scale", scale), (rows, columns)

    def constant(self, name: str, value: NDArray[Any]) -> str:
        return self.graph.constant(name, np.asarray(value, np.float32))

    # -- parts

    def embed(self) -> str:
        """tokens [M] -> [M, D]; 8-bit rows are looked up where they lie, so that only those touched are resident."""
        g, c, block = self.graph, self.config, self.bundle.block
        if self.bits == 32 or self.stored["embedding"].dtype != "U8":
            return g.node("Gather", self.constant("embedding", self.bundle.dense("embedding")), "tokens")
        blocks = self.stored["embedding"].shape[1]
        codes = self.external("embedding", (c.vocab_size, blocks * block))
        rows = g.node(
            "GatherBlockQuantized", codes, "tokens", self.external("embedding.scale"), domain=MICROSOFT,
            bits=8, block_size=block, gather_axis=0, quantize_axis=1,
        )  # fmt: skip
        if blocks * block == c.d_model:
            return rows
        width = g.constant("d_model", np.array([c.d_model], np.int64))
        return g.node("Slice", rows, "zero", width, "one")

    def layer(self, i: int, hidden: str, residual: str) -> tuple[str, str]:
        """(output [M, D], residual [M, D]) of layer i; sets conv.i.next and ssm.i.next."""
        g, p = self.graph, f"layers.{i}."
        self._layer_constants(p)
        normed, residual = self.norm(hidden, residual, f"{p}norm")
        x, z = g.nodes("Split", 2, self.matrix(f"{p}in_proj", normed), axis=1, num_outputs=2)
        x = g.node("QuickGelu", self.convolution(i, x), domain=MICROSOFT, alpha=1.0)
        y = self.scan(i, self.select(p, x))
        if i == self.config.n_layer - 1:  # nothing after the last scan is kept but the wanted rows
            y, z, residual = (g.node("Gather", rows, "wanted", axis=0) for rows in (y, z, residual))
        y = g.node("Mul", y, g.node("QuickGelu", z, domain=MICROSOFT, alpha=1.0))
        return self.matrix(f"{p}out_proj", y), residual

    def norm(self, hidden: str, residual: str, name: str) -> tuple[str, str]:
        """(normed, hidden + residual), each [M, D]."""
        weight = self.constant(name, self.bundle.dense(name))
        eps = self.config.norm_eps
        if not residual:
            return self.graph.node("SimplifiedLayerNormalization", hidden, weight, epsilon=eps, axis=-1), hidden
        normed, _, _, total = self.graph.nodes(
            "SkipSimplifiedLayerNormalization", 4, hidden, residual, weight, domain=MICROSOFT, epsilon=eps,
            to=[f"{name}.normed", "", "", f"{name}.residual"],
        )  # fmt: skip
        return normed, total

    def _layer_constants(self, p: str) -> None:
        dense = self.bundle.dense
        taps, bias = dense(f"{p}conv_weight").T, dense(f"{p}conv_bias")[None]
        self.constant(f"{p}conv_bias", bias)
        self.constant(f"{p}conv_weight", taps)
        self.constant(f"{p}conv_taps", np.concatenate([taps, np.ones_like(bias)]))
        for k, tap in enumerate(taps):
            self.constant(f"{p}conv_tap.{k}", tap)
        self.constant(f"{p}A", np.exp(dense(f"{p}A_log")).T)
        self.constant(f"{p}D", dense(f"{p}D"))
        self.constant(f"{p}dt_proj", -dense(f"{p}dt_proj").T)
        self.constant(f"{p}dt_bias", -dense(f"{p}dt_bias"))

    def by_form(self, outputs: list[str], parts: dict[str, Part]) -> None:
        """Computes `outputs` by the part of the form in hand."""
        self._choose(self.graph, self.forms, outputs, parts)

    def _choose(self, g: Graph, forms: tuple[str, ...], outputs: list[str], parts: dict[str, Part]) -> None:
        if len(forms) == 1:
            parts[forms[0]](g, outputs)
            return
        branches = []
        for some in (forms[:1], forms[1:]):
            branch, names = g.child(some[0]), [f"{name}.{some[0]}" for name in outputs]
            self._choose(branch, some, names, parts)
            for name in names:
                branch.output(name, FLOAT)
            branches.append(branch)
        flag = f"is_{forms[0]}"
        g.nodes("If", len(outputs), flag, to=outputs, then_branch=branches[0], else_branch=branches[1])

    def convolution(self, i: int, x: str) -> str:
        """Causal depthwise convolution [M, E] -> [M, E] before its activation; sets conv.i.next.

        Terms are added one after another, oldest input first and the bias last, in every form.
        """
        p, conv, taps = f"layers.{i}.", f"conv.{i}", range(self.config.d_conv)

        def step(g: Graph, to: list[str]) -> None:
            line = g.node("Concat", conv, x, f"{p}conv_bias", axis=0)
            g.node("MatMul", "ones", g.node("Mul", line, f"{p}conv_taps"), to=to[1])
            g.node("Slice", line, "one", "minus_one", "zero", to=to[0])

        def batch(g: Graph, to: list[str]) -> None:
            line = g.node("Concat", conv, g.node("Reshape", x, "one_row_each"), axis=1)
            y = g.node("MatMul", "ones_but_bias", g.node("Mul", line, f"{p}conv_weight"))
            g.node("Reshape", g.node("Add", y, f"{p}conv_bias"), "as_rows", to=to[1])
            g.node("Slice", line, "one", "far", "one", to=to[0])

        def prefill(g: Graph, to: list[str]) -> None:
            line = g.node("Concat", conv, x, axis=0)
            parts = [g.node("Slice", line, f"tap.{k}", f"tap_end.{k}", "zero") for k in taps]
            terms = [g.node("Mul", part, f"{p}conv_tap.{k}") for k, part in enumerate(parts)]
            y = reduce(lambda total, term: g.node("Add", total, term), terms)
            g.node("Add", y, f"{p}conv_bias", to=to[1])
            g.node("Slice", line, "first", "far", "zero", to=to[0])

        self.by_form([f"{conv}.next", f"{p}convolved"], {"step": step, "batch": batch, "prefill": prefill})
        return f"{p}convolved"

    def select(self, p: str, x: str) -> list[str]:
        """What a scan takes from the activated x [M, E]: -Δ and -Δ · x [M, E], -B and C [M, N], D · x [M, E]."""
        g, c = self.graph, self.config
        b_rows = slice(c.dt_rank, c.dt_rank + c.d_state)
        low, minus_b, cc = g.nodes("Split", 3, self.matrix(f"{p}x_proj", x, b_rows), "x_parts", axis=1)
        u = g.node("Gemm", low, f"{p}dt_proj", f"{p}dt_bias")
        log = g.node("Log", g.node("Sigmoid", g.node("Clip", u, "safe_dt")))
        minus_dt = g.node("Min", log, u)
        return [minus_dt, g.node("Mul", minus_dt, x), minus_b, cc, g.node("Mul", x, f"{p}D")]

    def scan(self, i: int, rows: list[str]) -> str:
        """Selective scan [M, E] -> [M, E] with the skip; sets ssm.i.next.

        A batch advances each row from its own State, prefill from what the row before left.
        """
        p, h, e, n = f"layers.{i}.", f"ssm.{i}", self.config.d_inner, self.config.d_state
        shapes = {"h": (n, e), "minus_dt": (1, e), "drive": (1, e), "minus_b": (1, n), "c": (1, n), "skip": (1, e)}

        def step(g: Graph, to: list[str]) -> None:
            _advance(g, [f"{p}A", h, *rows], to)

        def many(form: str) -> Part:
            def scan(g: Graph, to: list[str]) -> None:
                body = g.child("advance")
                inputs = [body.input(f"{p}{form}.{name}", FLOAT, shape) for name, shape in shapes.items()]
                outputs = [f"{p}{form}.h.next", f"{p}{form}.y"]
                _advance(body, [f"{p}A", *inputs], outputs)
                body.output(outputs[0], FLOAT, (n, e))
                body.output(outputs[1], FLOAT, (1, e))
                each = [g.node("Unsqueeze", row, "one") for row in rows]
                y = f"{p}{form}.scanned"
                scanned = len(each) + (form == "batch")
                g.nodes("Scan", 2, h, *each, to=[to[0], y], body=body, num_scan_inputs=scanned)
                g.node("Reshape", y, "as_rows", to=to[1])

            return scan

        parts: dict[str, Part] = {"step": step, "batch": many("batch"), "prefill": many("prefill")}
        self.by_form([f"{h}.next", f"{p}scanned"], parts)
        return f"{p}scanned"

    def head(self, hidden: str, residual: str) -> None:
        """Logits of the wanted rows, and their highest."""
        g = self.graph
        normed, _ = self.norm(hidden, residual, "norm_f")
        logits = g.node("Identity", self.matrix("head", normed), to="logits")
        g.nodes("TopK", 2, logits, "top_k", to=["top_logits", "top_ids"])
        g.output("logits", FLOAT, ["wanted", self.config.vocab_size])
        g.output("top_logits", FLOAT)
        g.output("top_ids", INT64)


def _advance(g: Graph, inputs: list[str], to: list[str]) -> None:
    """The new h [N, E] and y [1, E] of one token (Algorithm 2, one turn of its scan)."""
    a, h, minus_dt, drive, minus_b, c, skip = inputs
    decay = g.node("Exp", g.node("Mul", minus_dt, a))
    g.node("Gemm", minus_b, drive, g.node("Mul", decay, h), transA=1, to=to[0])
    g.node("Gemm", c, to[0], skip, to=to[1])
