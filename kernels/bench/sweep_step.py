"""Choose how a decode step is launched on an NVIDIA GPU: each candidate checked bit for bit, then timed; winners last.

    python kernels/bench/sweep_step.py [--seconds 150] [--dry]

Run from the repository root. Times are of CUDA graphs. A candidate counts only if logits and stores keep every bit of
the default's. `--dry` goes through all of it on a CPU with a tiny model, under Triton's interpreter.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
import time
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from sweep import COPY_GB_S, DEVICE, DRY, Clock  # isort: skip (sets the path and the interpreter)

import torch
from npc_kernels import StepWeights, product_triton, step_triton
from npc_kernels.product_triton import Tile
from npc_kernels.step_triton import SHARE, StepPlan, quarter
from step_cases import step_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

decode = importlib.import_module("npc_kernels.decode_step")
if DRY:  # the interpreter multiplies no bf16, and fp32 weights would take the kernels for few rows at every size
    norm_linear = importlib.import_module("npc_kernels.norm_linear")
    decode.few_rows = norm_linear.few_rows = lambda rows, _: rows <= step_triton.FEW
DTYPE = torch.float32 if DRY else torch.bfloat16
WORKERS = 14
FEW_ROWS, MANY_ROWS = (1, 5) if DRY else (16, 1024)
"""Up to as many rows the kernels for few compete with each other only; from as many on, those for many."""
BATCHES = (5, 3, 1) if DRY else (128, 8192, 1024, 512, 256, 64, 32, 16, 1)
ANCHORS = {1: 0.288, 16: 0.339, 128: 0.420, 1024: 1.046, 8192: 6.05}
ANCHORS_130M = {1: 0.732, 16: 0.750, 128: 1.010, 1024: 2.96, 8192: 20.75}
HALF_STATE = {("tiny", 8192): 5.99, ("130m", 1024): 2.94, ("130m", 8192): 19.1}
"""Milliseconds of mamba_ssm's greedy step; those with a bf16 state where they were measured apart."""
GOALS = {1: 2.0, 16: 1.8, 128: 1.5, 1024: 1.3, 8192: 1.25}
SIZES = {"tiny": (16, 1, 99) if DRY else (512, 12, 8192), "130m": (32, 1, 99) if DRY else (768, 24, 50280)}

ONE = [
    Tile(128, 128, 8, 3, "one"), Tile(128, 128, 8, 4, "one"), Tile(128, 128, 8, 2, "one", 128),
    Tile(64, 128, 4, 3, "one"), Tile(64, 128, 4, 4, "one"), Tile(128, 64, 4, 3, "one"),
    Tile(128, 128, 8, 3, "persistent"), Tile(128, 128, 8, 4, "persistent"),
]  # fmt: skip
SMALL = [Tile(64, 64, 4, 4, "one"), Tile(64, 32, 4, 4, "one"), Tile(32, 64, 4, 4, "one"), Tile(32, 32, 4, 4, "one")]
SMALL += [Tile(16, 32, 4, 4, "one"), Tile(32, 32, 4, 6, "one"), Tile(16, 64, 4, 4, "one"), Tile(64, 16, 4, 6, "one")]
AHEAD = [Tile(64, 32, 4, 4, "one", 64, True), Tile(32, 32, 4, 4, "one", 64, True), Tile(32, 64, 4, 4, "one", 64, True)]
PLAIN = [Tile(128, 256, 8, 3), Tile(128, 256, 8, 4), Tile(128, 128, 8, 4)]
"""One chain over the whole depth: another sum, timed to know what the order costs."""


class Product(NamedTuple):
    """A product of the step."""

    role: str
    rows: int
    depth: int
    features: int

    @property
    def span(self) -> int:
        """The parts of its sum."""
        return {"x_proj": SHARE, "dt": self.depth}.get(self.role, quarter(self.depth))

    def sets(self, count: int) -> list[Call]:
        """Arguments of so many calls, each with weights of its own."""
        out = torch.float32 if self.role in ("out", "head", "x_proj") else DTYPE
        made: list[Call] = []
        for i in range(count):
            w = (torch.randn(self.features, self.depth, device=DEVICE) / self.depth**0.5).to(DTYPE)
            if i >= 2:
                made.append(made[i % 2]._replace(weight=w))
                continue
            x = torch.randn(self.rows, self.depth + 32, device=DEVICE)[:, : self.depth]  # the low rank is a slice
            x = x if self.role == "dt" else x.to(DTYPE).contiguous()
            scale = torch.rand(self.rows, device=DEVICE) if self.role in ("in", "head") else None
            made.append(Call(x, w, torch.zeros(self.rows, self.features, dtype=out, device=DEVICE), scale))
        return made

    def launch(self, call: Call, tile: Tile, plain: bool = False) -> Tensor:
        """Run it; `plain`: as one sum over the whole depth."""
        span = self.depth if plain else self.span
        return product_triton.launch(call.x, call.weight, call.out, tile, span, call.scale, self.role == "out")

    def candidates(self) -> list[tuple[Tile, bool]]:
        """Tiles, and whether they are tried as a plain sum."""
        if DRY:
            return [(ONE[3], False), (ONE[6], False), (AHEAD[0], False)]
        if self.rows < MANY_ROWS or self.role == "x_proj":
            tiles = [ONE[3], *SMALL, *(AHEAD if self.role in ("in", "out") and self.rows < MANY_ROWS else [])]
        else:
            tiles = [*ONE, *(SMALL[:4] if self.role != "head" else [])]
        plain = PLAIN if self.rows >= MANY_ROWS and self.role in ("in", "out", "head") else []
        return [(tile, False) for tile in tiles] + [(tile, True) for tile in plain]


class Call(NamedTuple):
    """Arguments of a product."""

    x: Tensor
    weight: Tensor
    out: Tensor
    scale: Tensor | None


def products(model: str, rows: int) -> list[Product]:
    width, _, words = SIZES[model]
    rank = -(-width // 16)
    shapes = [("in", width, 4 * width), ("out", 2 * width, width), ("head", width, words)]
    shapes += [("x_proj", 2 * width, rank + 32), ("dt", rank, 2 * width)]
    return [Product(role, rows, depth, features) for role, depth, features in shapes]


class Option(NamedTuple):
    """A way to launch a step: StepPlan's fields that differ, FEW, and whether products take the tiles chosen."""

    name: str
    plan: dict[str, Any]
    few: int = 128
    tiles: bool = True


BASE = Option("default", {}, tiles=False)
EARLY = Option("", {"middle": 512}, 16)
"""For products alone."""
Tiles = dict[tuple[str, int], Tile]


@cache
def model_weights(model: str, most: int = 99) -> StepWeights:
    """Random weights, with at most so many layers."""
    width, layers, words = SIZES[model]
    return step_weights(width, min(most, layers), words, dtype=DTYPE, device=DEVICE)


def apply(option: Option, tiles: Tiles) -> None:
    """Let everything launched from now on take this option."""
    step_triton.PLAN = StepPlan(**option.plan)
    step_triton.FEW = {16: 1, 128: 3}[option.few] if DRY else option.few
    step_triton.options.cache_clear()
    product_triton.tile_for = chosen(tiles) if option.tiles and tiles else DEFAULT_TILE


DEFAULT_TILE = product_triton.tile_for


def chosen(tiles: Tiles) -> Callable[[int, int, int, bool], Tile]:
    """The tile that was the fastest for the nearest number of rows."""

    def tile_for(rows: int, depth: int, features: int, narrow: bool) -> Tile:
        role = ("x_proj" if depth > features else "dt") if narrow else "out" if depth > features else "head"
        role = "in" if not narrow and features == 4 * depth else role
        sizes = [size for name, size in tiles if name == role]
        if not sizes:
            return DEFAULT_TILE(rows, depth, features, narrow)
        return tiles[role, min(sizes, key=lambda size: abs(size.bit_length() - rows.bit_length()))]

    return tile_for


def options_for(rows: int) -> list[Option]:
    """The candidates for so many rows, the default first."""
    few = [Option(f"few, {n}", plan, tiles=False) for n, plan in few_plans()]
    if rows <= FEW_ROWS:
        return [BASE, *few][:2] if DRY else [BASE, *few]
    if rows < MANY_ROWS:
        middle: dict[str, Any] = {"middle": 512}
        made = [BASE, Option("few, early", {"early": True}, tiles=False)]
        for kind in ("many", "shares", "mixed"):
            for early in (False, True) if kind != "many" else (True,):
                plan = middle | {"middle_layer": kind, "early": early, "conv_rows": 16}
                made.append(Option(f"middle {kind}{', early' if early else ''}", plan, 16))
        for state in ((128, 4, 1), (64, 2, 1), (128, 2, 2), (256, 4, 1)):
            plan = middle | {"middle_layer": "shares", "early": True, "conv_rows": 16, "state_middle": state}
            made.append(Option(f"middle shares, early, state {state}", plan, 16))
        made.append(Option("many, no early start", {}, 16))
        if rows >= 256:
            made += [Option("many, late", {"late": True}, 16), *parts(rows, 16)]
        return [made[i] for i in (0, 2, 4, 6)] if DRY else made
    made = [BASE, Option("tiles", {}), Option("tiles, evict", {"evict": "evict_first"})]
    made += [Option("tiles, late", {"late": True}), Option("default tiles, parts 2", {"parts": (2, 1)}, tiles=False)]
    if rows <= MANY_ROWS:
        for kind in ("many", "shares"):
            made.append(Option(f"middle {kind}, early", {"middle": 1024, "middle_layer": kind, "early": True}))
    return (made + list(parts(rows, 128)))[:: 2 if DRY else 1]


def few_plans() -> Iterator[tuple[str, dict[str, Any]]]:
    yield "early", {"early": True}
    for state in ((64, 2, 1), (128, 2, 1), (64, 4, 1), (32, 2, 1)):
        yield f"early, state {state}", {"early": True, "state_few": state}


def parts(rows: int, few: int) -> Iterator[Option]:
    if DRY:
        return
    for count in (2, 4) if rows >= 1024 else (2,):
        for aside in (False, True):
            for evict in ("", "evict_first") if rows >= 1024 else ("",):
                name = f"tiles, parts {count}{', aside' if aside else ''}{', evict' if evict else ''}"
                yield Option(name, {"parts": (count, 1), "aside": aside, "evict": evict}, few)


def microseconds(calls: list[Callable[[], object]], repeats: int = 12) -> float:
    """Median of one call, all captured in one graph."""
    if DRY:
        begun = time.perf_counter()
        calls[0]()
        return (time.perf_counter() - begun) * 1e6
    from bench_step import graph_us

    return graph_us(calls, repeats)[1]


class Sweep(Clock):
    """The run: its clock and what it found."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.tiles: Tiles = {}
        self.best: dict[str, tuple[float, Option]] = {}

    def product(self, product: Product) -> None:
        """Time every tile of one product; the fastest with the default's bits is kept."""
        apply(EARLY, {})
        calls = product.sets(4 if product.rows >= 4096 or product.role == "head" else 12)
        before = calls[0].out.clone()
        default = DEFAULT_TILE(product.rows, product.depth, product.features, product.role in ("x_proj", "dt"))
        expected = product.launch(calls[0]._replace(out=before.clone()), default)
        times: dict[Tile, float] = {}
        for tile, plain in [(default, False), *product.candidates()]:
            try:
                same = torch.equal(product.launch(calls[0]._replace(out=before.clone()), tile, plain), expected)
                us = microseconds([lambda c=c, t=tile, p=plain: product.launch(c, t, p) for c in calls])
            except Exception as error:  # a tile that does not fit the machine loses, nothing more
                self.say("product", *product, tuple(tile), repr(error)[:90])
                continue
            if same and not plain:
                times[tile] = us
            else:
                self.say("product", *product, tuple(tile), f"{us:.2f} us", "PLAIN" if plain else "OTHER BITS")
        ranked = sorted(times, key=lambda tile: times[tile])
        self.tiles[product.role, product.rows] = ranked[0]
        best = (f"{tuple(tile)} {times[tile]:.2f};" for tile in ranked[:4])
        self.say("product", *product, f"default {times[default]:.2f} us;", *best)

    def steps(self, model: str, rows: int, ssm: torch.dtype, options: list[Option]) -> None:
        """Time whole greedy steps of every option whose bits are the default's."""
        case = f"{model} {rows} {str(ssm).removeprefix('torch.')}"
        small = model_weights(model, 2)
        state = Stores.of(small, rows, ssm, random=True)
        apply(BASE, {})
        expected = state.run_twice(small)
        good = []
        for option in options:
            apply(option, self.tiles)
            try:
                if state.run_twice(small).equal(expected):
                    good.append(option)
                else:
                    self.say("step", case, option.name, "OTHER BITS")
            except Exception as error:
                self.say("step", case, option.name, repr(error)[:120])
        del state, expected
        weights = model_weights(model)
        state = Stores.of(weights, rows, ssm)
        times: dict[str, tuple[float, Option]] = {}
        for option in good:
            if self.late():
                break
            apply(option, self.tiles)
            try:
                us = microseconds([lambda: state.greedy(weights)] * (4 if rows <= 128 else 1))
            except Exception as error:
                self.say("step", case, option.name, repr(error)[:120])
                continue
            times[option.name] = us, option
            self.say("step", case, f"{option.name}: {us:.1f} us")
        if times:
            self.best[case] = min(times.values(), key=lambda found: found[0])
            self.report(case, model, rows, ssm, times.get(BASE.name, (-1.0, BASE))[0])

    def report(self, case: str, model: str, rows: int, ssm: torch.dtype, default: float) -> None:
        """Say who won."""
        us, option = self.best[case]
        anchor = (ANCHORS if model == "tiny" else ANCHORS_130M).get(rows)
        anchor = HALF_STATE.get((model, rows), anchor) if ssm == torch.bfloat16 else anchor
        ratio = "" if anchor is None else f"{anchor * 1000 * COPY_GB_S / self.copy / us:.2f}x the anchor"
        goal = f"(goal {GOALS[rows]})" if rows in GOALS else ""
        self.say("WINNER", case, f"{us:.1f} us, default {default:.1f} us, {ratio} {goal}: {option.name}", option.plan)

    def rows_alone(self, model: str) -> None:
        """Whether the winners of all batches give one row the same bits."""
        weights = model_weights(model, 2)
        whole = Stores.of(weights, max(BATCHES), torch.float32, random=True)
        made = {}
        for rows in sorted(BATCHES):
            found = self.best.get(f"{model} {rows} float32")
            apply(BASE if found is None else found[1], self.tiles)
            made[rows] = whole.first(rows).run_twice(weights)
        last = made[max(BATCHES)]
        different = [rows for rows, one in made.items() if not one.equal(last.first(rows))]
        self.say("BITS", model, "a row is the same at", sorted(BATCHES), "" if not different else f"EXCEPT {different}")


class Stores(NamedTuple):
    """What a step reads and moves on; or, once run, its logits and what it left."""

    tokens: Tensor
    slots: Tensor
    conv: Tensor
    ssm: Tensor

    @classmethod
    def of(cls, weights: StepWeights, rows: int, ssm: torch.dtype, random: bool = False) -> Stores:
        """Random tokens and stores (or zeros) of so many slots."""
        torch.manual_seed(7)
        layers, (channels, taps), states = len(weights.layers), weights.layers[0].conv_weight.shape, 16
        make = torch.randn if random else torch.zeros
        conv = make(layers, rows, taps - 1, channels, device=DEVICE).to(DTYPE)
        store = torch.empty(layers, rows, states, channels, dtype=ssm, device=DEVICE)
        for layer in store:
            layer.copy_(make(rows, states, channels, device=DEVICE))
        tokens = torch.randint(0, weights.head.shape[0], (rows,), device=DEVICE)
        return cls(tokens, torch.randperm(rows, device=DEVICE).int(), conv, store)

    def first(self, rows: int) -> Stores:
        """Its first rows."""
        return self._replace(tokens=self.tokens[:rows], slots=self.slots[:rows])

    def step(self, weights: StepWeights) -> Tensor:
        """Logits of one step."""
        if not DRY:
            logits: Tensor = decode.decode_step(self.tokens, self.slots, self.conv, self.ssm, weights)
            return logits
        made = torch.empty(self.tokens.shape[0], weights.head.shape[0])
        return decode._step(self.tokens, self.slots, self.conv, self.ssm, weights, made)

    def greedy(self, weights: StepWeights) -> None:
        """One step, and the choice of the next tokens."""
        self.tokens.copy_(self.step(weights).argmax(1))

    def run_twice(self, weights: StepWeights) -> Stores:
        """Logits of two steps, and what these rows' slots then hold, in the order of the rows."""
        own = self._replace(conv=self.conv.clone(), ssm=self.ssm.clone())
        logits = torch.cat([own.step(weights), own.step(weights)], 1)
        at = self.slots.long()
        return Stores(logits, self.slots, own.conv[:, at].transpose(0, 1), own.ssm[:, at].transpose(0, 1))

    def equal(self, other: Stores) -> bool:
        """Whether every bit is the same."""
        return all(torch.equal(a, b) for a, b in zip(self, other, strict=True) if a is not self.slots)


def warm(index: int) -> None:
    """Compile one worker's share of everything, into Triton's cache on disk."""
    jobs: list[Callable[[], object]] = []
    sweep = Sweep(60)
    sweep.say = lambda *words: None  # type: ignore[method-assign]
    weights = model_weights("tiny", 1)
    for product in [*products("tiny", 256), *products("tiny", MANY_ROWS)]:
        for tile, plain in product.candidates():
            jobs.append(lambda p=product, t=tile, n=plain: compile_tile(p, t, n))
    for rows, ssm in ((1024, torch.float32), (128, torch.float32), (16, torch.float32), (1024, torch.bfloat16)):
        for option in options_for(rows):
            jobs.append(lambda r=rows, s=ssm, o=option: compile_step(weights, r, s, o))
    for job in jobs[index::WORKERS]:
        try:
            job()
        except Exception as error:
            print("warming:", repr(error)[:200], flush=True)
    torch.cuda.synchronize()


def compile_tile(product: Product, tile: Tile, plain: bool) -> None:
    """Run it once."""
    apply(EARLY, {})
    product.launch(product.sets(1)[0], tile, plain)


def compile_step(weights: StepWeights, rows: int, ssm: torch.dtype, option: Option) -> None:
    """Run it once."""
    apply(option, {})
    Stores.of(weights, rows, ssm).greedy(weights)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=150.0)
    parser.add_argument("--dry", action="store_true")
    parser.add_argument("--warm", type=int)
    chosen_options = parser.parse_args()
    if chosen_options.warm is not None:
        warm(chosen_options.warm)
        return 0
    sweep = Sweep(chosen_options.seconds)
    workers = [] if DRY else [subprocess.Popen([sys.executable, __file__, "--warm", str(i)]) for i in range(WORKERS)]
    for worker in workers:
        try:
            worker.wait(max(1.0, 45 - (time.time() - sweep.started)))
        except subprocess.TimeoutExpired:
            worker.kill()
    sweep.say("compiled")
    sweep.ceiling(lambda call: microseconds([call]) / 1e3)
    for rows in sorted(set(BATCHES) | (set() if DRY else {2048, 4096})):
        for product in products("tiny", rows) if rows >= 64 or DRY else ():
            if not sweep.late(75):
                sweep.product(product)
    for rows in BATCHES:
        if not sweep.late(25):
            sweep.steps("tiny", rows, torch.float32, options_for(rows))
    sweep.rows_alone("tiny")
    for rows in BATCHES[1:3]:
        if not sweep.late(15):
            sweep.steps("tiny", rows, torch.bfloat16, options_for(rows))
    for ssm in (torch.float32, torch.bfloat16):
        for rows in (3,) if DRY else (128, 8192, 1024, 1, 16):
            found = sweep.best.get(f"tiny {rows} {str(ssm).removeprefix('torch.')}")
            if found is not None and not sweep.late(5):
                sweep.steps("130m", rows, ssm, [BASE, found[1]])
    sweep.rows_alone("130m")
    print(json.dumps({"copy_gb_s": round(sweep.copy), "tiles": {f"{r} {n}": t for (r, n), t in sweep.tiles.items()}}))
    print(json.dumps({case: [round(us, 1), option.name, option.plan] for case, (us, option) in sweep.best.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
