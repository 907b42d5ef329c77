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
from npc_runtime.weights import dense_shapes, quantize, stored_bits

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


def build(bundle: Bundle, bits: int, given: dict[str, NDArray[Any]] | None = None) -> bytes:
    """ModelProto bytes for weights of `bits` (4, 8 or 32).

    `given` receives the larger constants, which the session is then to be handed; without it they are
    written into the model. The matrices stay in the Bundle's file in any case.

    Inputs: `tokens` [rows], `wanted` (rows to take logits of), `is_<form>` for all forms but the last, and per
    layer i `conv.i` and `ssm.i`: [K-1, E] and [N, E], with a leading B in the batch form.
    Outputs: `conv.i.next`, `ssm.i.next`, `logits` [wanted, V], `top_logits` and `top_ids` [wanted, TOP].
    """
    return _Builder(bundle, bits, given).model()


class _Builder:
    def __init__(self, bundle: Bundle, bits: int, given: dict[str, NDArray[Any]] | None) -> None:
        self.bundle = bundle
        self.bits = bits
        self.config = bundle.config
        self.graph = Graph("npc", given=given)
        self.stored = bundle.offsets()

    def model(self) -> bytes:
        g, c = self.graph, self.config
        g.input("tokens", INT64, ["rows"])
        g.input("wanted", INT64, ["wanted"])
        for form in FORMS[:-1]:
            g.input(f"is_{form}", BOOL, [])
        for i in range(c.n_layer):
            for part in ("conv", "ssm"):
                g.input(f"{part}.{i}", FLOAT)
                g.output(f"{part}.{i}.next", FLOAT)
        hidden, residual = self.embed(), ""
        for i in range(c.n_layer):
            hidden, residual = self.layer(i, hidden, residual)
        self.head(hidden, residual)
        return model(g)

    # -- weights

    def external(self, name: str, shape: tuple[int, ...] = ()) -> str:
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
        codes, scale = self._codes(name, self.bits, negated)
        rows_of_weight, columns = dense_shapes(self.config, tied=False)[name]
        return g.node(
            "MatMulNBits", rows, codes, scale, domain=MICROSOFT,
            K=columns, N=rows_of_weight, bits=self.bits, block_size=self.bundle.block, accuracy_level=4,
        )  # fmt: skip

    def _dense(self, name: str, negated: slice | None) -> str:
        dense = self.bundle.dense(name).copy()
        if negated is not None:
            dense[negated] *= -1
        return self.constant(name, dense.T)

    def _codes(self, name: str, bits: int, negated: slice | None = None, flat: bool = False) -> tuple[str, str]:
        """Codes (rows, blocks, bytes), or with `flat` (rows, bytes), and scales: the Bundle's own where bits agree."""
        scale_name = f"{name}.scale"
        if stored_bits(name, self.bundle.bits) == bits:
            shape = self.stored[name].shape
            codes = self.external(name, (shape[0], shape[1] * shape[2]) if flat else shape)
            if negated is None:
                return codes, self.external(scale_name)
            scale = self.bundle.tensor(scale_name).copy()
        else:
            values, scale = quantize(self.bundle.dense(name), bits, self.bundle.block)
            codes = self.graph.constant(name, values.reshape(len(values), -1) if flat else values)
        if negated is not None:
            scale[negated] *= -1
        return codes, self.constant(scale_name, scale)

    def constant(self, name: str, value: NDArray[Any] | float) -> str:
        return self.graph.constant(name, np.asarray(value, np.float32))

    def ints(self, *values: int) -> str:
        """A constant of whole numbers: shapes, and where slices begin and end."""
        return self.graph.constant("ints_" + "_".join(map(str, values)), np.array(values, np.int64))

    # -- parts

    def embed(self) -> str:
        """tokens [M] -> [M, D]; 8-bit rows are looked up where they lie, so that only those touched are resident."""
        g, c, block = self.graph, self.config, self.bundle.block
        if self.bits == 32:
            return g.node("Gather", self.constant("embedding", self.bundle.dense("embedding")), "tokens")
        codes, scale = self._codes("embedding", 8, flat=True)
        rows = g.node(
            "GatherBlockQuantized", codes, "tokens", scale, domain=MICROSOFT,
            bits=8, block_size=block, gather_axis=0, quantize_axis=1,
        )  # fmt: skip
        if c.d_model % block == 0:
            return rows
        return g.node("Slice", rows, self.ints(0), self.ints(c.d_model), self.ints(1))

    def layer(self, i: int, hidden: str, residual: str) -> tuple[str, str]:
        """(output [M, D], residual [M, D]) of layer i; sets conv.i.next and ssm.i.next."""
        g, p = self.graph, f"layers.{i}."
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

    def by_form(self, outputs: list[str], parts: dict[str, Part]) -> None:
        """Computes `outputs` by the part of the form in hand."""
        self._choose(self.graph, FORMS, outputs, parts)

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
        p, conv, width, ints = f"layers.{i}.", f"conv.{i}", self.config.d_conv, self.ints
        taps, end = self.bundle.dense(f"{p}conv_weight").T, ints(1 << 60)
        bias = self.constant(f"{p}conv_bias", self.bundle.dense(f"{p}conv_bias")[None])

        def step(g: Graph, to: list[str]) -> None:
            weights = self.constant(f"{p}conv_taps", np.concatenate([taps, np.ones_like(taps[:1])]))
            line = g.node("Concat", conv, x, bias, axis=0)
            ones = self.constant("ones", np.ones((1, width + 1)))
            g.node("MatMul", ones, g.node("Mul", line, weights), to=to[1])
            g.node("Slice", line, ints(1), ints(-1), ints(0), to=to[0])

        def batch(g: Graph, to: list[str]) -> None:
            line = g.node("Concat", conv, g.node("Reshape", x, ints(-1, 1, self.config.d_inner)), axis=1)
            terms = g.node("Mul", line, self.constant(f"{p}conv_weight", taps))
            y = g.node("Add", g.node("MatMul", self.constant("ones_but_bias", np.ones((1, width))), terms), bias)
            g.node("Reshape", y, ints(-1, self.config.d_inner), to=to[1])
            g.node("Slice", line, ints(1), end, ints(1), to=to[0])

        def prefill(g: Graph, to: list[str]) -> None:
            line = g.node("Concat", conv, x, axis=0)
            terms = []
            for k, tap in enumerate(taps):
                last = ints(k + 1 - width) if k + 1 < width else end
                weights = self.constant(f"{p}conv_tap.{k}", tap)
                terms.append(g.node("Mul", g.node("Slice", line, ints(k), last, ints(0)), weights))
            y = reduce(lambda total, term: g.node("Add", total, term), terms)
            g.node("Add", y, bias, to=to[1])
            g.node("Slice", line, ints(1 - width), end, ints(0), to=to[0])

        self.by_form([f"{conv}.next", f"{p}convolved"], {"step": step, "batch": batch, "prefill": prefill})
        return f"{p}convolved"

    def select(self, p: str, x: str) -> list[str]:
        """What a scan takes from the activated x [M, E]: -Δ and -Δ · x [M, E], -B and C [M, N], D · x [M, E]."""
        g, c = self.graph, self.config
        parts = self.ints(c.dt_rank, c.d_state, c.d_state)
        b_rows = slice(c.dt_rank, c.dt_rank + c.d_state)
        low, minus_b, cc = g.nodes("Split", 3, self.matrix(f"{p}x_proj", x, b_rows), parts, axis=1)
        weight = self.constant(f"{p}dt_proj", -self.bundle.dense(f"{p}dt_proj").T)
        u = g.node("Gemm", low, weight, self.constant(f"{p}dt_bias", -self.bundle.dense(f"{p}dt_bias")))
        log = g.node("Log", g.node("Sigmoid", g.node("Clip", u, self.constant("safe_dt", SAFE_DT))))
        minus_dt = g.node("Min", log, u)
        skip = g.node("Mul", x, self.constant(f"{p}D", self.bundle.dense(f"{p}D")))
        return [minus_dt, g.node("Mul", minus_dt, x), minus_b, cc, skip]

    def scan(self, i: int, rows: list[str]) -> str:
        """Selective scan [M, E] -> [M, E] with the skip; sets ssm.i.next.

        A batch advances each row from its own State, prefill from what the row before left.
        """
        p, h, e, n = f"layers.{i}.", f"ssm.{i}", self.config.d_inner, self.config.d_state
        a = self.constant(f"{p}A", np.exp(self.bundle.dense(f"{p}A_log")).T)
        shapes = {"h": (n, e), "minus_dt": (1, e), "drive": (1, e), "minus_b": (1, n), "c": (1, n), "skip": (1, e)}

        def step(g: Graph, to: list[str]) -> None:
            _advance(g, [a, h, *rows], to)

        def many(form: str) -> Part:
            def scan(g: Graph, to: list[str]) -> None:
                body = g.child("advance")
                inputs = [body.input(f"{p}{form}.{name}", FLOAT, shape) for name, shape in shapes.items()]
                outputs = [f"{p}{form}.h.next", f"{p}{form}.y"]
                _advance(body, [a, *inputs], outputs)
                body.output(outputs[0], FLOAT, (n, e))
                body.output(outputs[1], FLOAT, (1, e))
                each = [g.node("Unsqueeze", row, self.ints(1)) for row in rows]
                y = f"{p}{form}.scanned"
                scanned = len(each) + (form == "batch")
                g.nodes("Scan", 2, h, *each, to=[to[0], y], body=body, num_scan_inputs=scanned)
                g.node("Reshape", y, self.ints(-1, e), to=to[1])

            return scan

        parts: dict[str, Part] = {"step": step, "batch": many("batch"), "prefill": many("prefill")}
        self.by_form([f"{h}.next", f"{p}scanned"], parts)
        return f"{p}scanned"

    def head(self, hidden: str, residual: str) -> None:
        """Logits of the wanted rows, and their highest."""
        g = self.graph
        normed, _ = self.norm(hidden, residual, "norm_f")
        logits = g.node("Identity", self.matrix("head", normed), to="logits")
        g.nodes("TopK", 2, logits, self.ints(min(TOP, self.config.vocab_size)), to=["top_logits", "top_ids"])
        g.output("logits", FLOAT, ["wanted", self.config.vocab_size])
        g.output("top_logits", FLOAT)
        g.output("top_ids", INT64)


def _advance(g: Graph, inputs: list[str], to: list[str]) -> None:
    """The new h [N, E] and y [1, E] of one token (Algorithm 2, one turn of its scan)."""
    a, h, minus_dt, drive, minus_b, c, skip = inputs
    decay = g.node("Exp", g.node("Mul", minus_dt, a))
    g.node("Gemm", minus_b, drive, g.node("Mul", decay, h), transA=1, to=to[0])
    g.node("Gemm", c, to[0], skip, to=to[1])
