"""The house: who may import whom, who may know which library, and a wheel that holds every package."""

from __future__ import annotations

import ast
import re
import sys
from functools import cache
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "npc_runtime"

LEVELS: list[set[str]] = [
    {
        "errors",
        "sampling",
        "constraint",
        "checks",
        "container",
        "state",
        "screen",
        "share",
        "model.config",
        "backends.huge_pages",
        "backends.onnx_proto",
        "backends.spare",
    },
    {
        "config",
        "wire",
        "persona",
        "tokenizer_json",
        "pool",
        "weights",
        "precision",
        "torch_file",
        "parent",
        "auth",
        "sockets",
    },
    {"launch", "options", "pending", "peer", "tokenizer"},
    {"description", "save", "prompt", "verbs", "backends.base"},
    {"bundle", "client", "turn", "npc", "lobby", "gguf_export", "journal"},
    {"importer", "backends.reference", "backends.onnx_graph", "answers", "model.rounding"},
    {"backends.onnx", "model.mamba", "backends.cuda_store", "backends.cuda_tables"},
    {"backends.cuda_reader", "backends.cuda_step"},
    {"backends.cuda_bucket"},
    {"backends.cuda"},
    {"backends"},
    {"burst", "queues"},
    {"scheduler"},
    {"cast"},
    {"archive", "session", "scribe"},
    {"stage"},
    {"runtime", "server"},
    {"talk", "demo", "doctor", "bench_llama", "bench_onnx", "training"},
    {"bench_journal"},
    {"bench", "bench_crowd", "evaluation", "cli_persona", "cli_bundle"},
    {"bench_cuda", "finetune"},
    {"training.__main__"},
    {"cli_model"},
    {"cli"},
    {"__main__"},
]
"""Lowest first. A module imports only from levels above its own line here; equal ones never import each other.

`doctor`, `training` and `evaluation` are rooms: inside one, modules import each other freely but never in a circle.
"""
ROOMS = ("doctor", "training", "evaluation")
CUDA = {"backends.cuda", *(f"backends.cuda_{part}" for part in ("bucket", "reader", "step", "store", "tables"))}
KNOWERS = {
    "torch": {
        "model.mamba",
        "model.rounding",
        "training",
        "training.__main__",
        "evaluation",
        "backends",
        "bench_cuda",
        *CUDA,
    },
    "npc_kernels": {"model.mamba", "training", *CUDA},
    "triton": set(),
    "onnxruntime": {"backends.onnx", "bench", "bench_onnx"},
    "zmq": {"auth", "peer", "client", "server", "lobby", "sockets"},
}
"""Which modules may name which library at all."""

FILES = {
    ".".join(p for p in path.relative_to(PACKAGE).with_suffix("").parts if p != "__init__"): path
    for path in PACKAGE.rglob("*.py")
}


def place(module: str) -> str:
    """The name under which a module stands in LEVELS."""
    room = module.split(".")[0]
    return room if room in ROOMS and not module.endswith("__main__") else module


def imports(path: Path, *, types: bool) -> set[str]:
    """Dotted names imported anywhere in a file; with `types`, those under TYPE_CHECKING too."""
    tree = ast.parse(path.read_text("utf-8"))
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if not types and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@cache
def bare() -> set[str]:
    """Packages whose own file holds at most a docstring: folders, not modules."""
    return {module for module, path in FILES.items() if len(ast.parse(path.read_text("utf-8")).body) <= 1} - {""}


@cache
def ours(path: Path) -> set[str]:
    """Our own modules that a file imports at run time."""
    names = {
        name.removeprefix("npc_runtime.") for name in imports(path, types=False) if name.startswith("npc_runtime.")
    }
    return names & FILES.keys()


def test_every_module_has_a_level_and_every_level_its_modules():
    listed = [module for level in LEVELS for module in level]
    assert len(listed) == len(set(listed))
    assert {place(module) for module in FILES.keys() - bare() - {""}} == set(listed)


@pytest.mark.parametrize("module", sorted(FILES.keys() - {""}))
def test_imports_only_go_down(module):
    level = {name: i for i, names in enumerate(LEVELS) for name in names}
    for other in ours(FILES[module]) - {module}:
        if place(other) == place(module) or other in bare():
            continue
        assert level[place(other)] < level[place(module)], f"`{module}` may not import `{other}`"


def test_no_module_imports_itself_in_a_circle():
    state: dict[str, int] = {}

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert state.get(module) != 1, " -> ".join((*trail, module))
        if module not in state:
            state[module] = 1
            for other in sorted(ours(FILES[module]) - {module, ""}):
                visit(other, (*trail, module))
            state[module] = 2

    for module in FILES:
        visit(module, ())


@pytest.mark.parametrize("library", sorted(KNOWERS))
def test_only_those_who_must_know_a_library(library):
    knowing = {
        place(module)
        for module, path in FILES.items()
        if any(name.split(".")[0] == library for name in imports(path, types=True))
    }
    assert knowing <= KNOWERS[library]


def test_the_kernels_know_nothing_of_the_runtime():
    for path in (ROOT / "kernels" / "npc_kernels").rglob("*.py"):
        assert "npc_runtime" not in path.read_text("utf-8"), path.name


def test_the_name_kernels_is_left_to_the_package_index():
    assert not (ROOT / "kernels" / "__init__.py").exists()  # it would shadow what transformers imports


def test_the_wheel_holds_every_package():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    found = {"npc_runtime.personas", "npc_kernels"}
    found |= {
        ".".join(("npc_runtime", *path.parent.relative_to(PACKAGE).parts)) for path in PACKAGE.rglob("__init__.py")
    }
    assert set(settings["packages"]) == found


def test_every_extra_that_is_named_is_one_and_is_named_alike():
    """Error texts named `npc-runtime[...]`, which no index has, where the README said `.[...]`."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    sources = {
        path: path.read_text("utf-8") for path in [*FILES.values(), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    }
    named: set[str] = set()
    for path, text in sources.items():
        assert "npc-runtime[" not in text, path
        named |= {*re.findall(r'install_hint\([\'"](\w+)', text), *re.findall(r"'\.\[(\w+)\]'", text)}
    assert named == extras.keys()
