"""The short way into `serve` does what the command line does, or leaves it to that."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from npc_runtime import cli, server
from npc_runtime.__main__ import main, plain_serve
from npc_runtime.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULTS: dict[str, Any] = {
    "bundle": None, "backend": "auto", "personas": (), "host": "127.0.0.1", "port": 0, "key": None, "parent": None,
    "curve_secret": None, "curve_clients": None,
}  # fmt: skip


def called(run: Callable[[], None], words: list[str], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `server.serve` is called with when `run` is given these words."""
    calls: list[dict[str, Any]] = []

    def serve(bundle: Any = None, config: Any = None, **options: Any) -> int:
        calls.append({**DEFAULTS, "bundle": bundle, "config": config, **options})
        return 0

    monkeypatch.setattr(server, "serve", serve)
    monkeypatch.setattr(sys, "argv", ["npc-runtime", *words])
    with pytest.raises(SystemExit) as ended:
        run()
    assert ended.value.code == 0
    return calls[0]


@pytest.mark.parametrize(
    "line",
    [
        "serve",
        "serve --parent 4711",
        "serve --bundle tiny --backend onnx --personas one --personas two --port 4000 --host 127.0.0.2",
        "serve --state-budget-mb 64 --pace-tokens-per-s 12.5 --save-dir saves --heartbeat-s 0",
    ],
)
def test_both_ways_call_the_server_alike(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = line.split()
    assert plain_serve(words, {}) is not None
    assert called(main, words, monkeypatch) == called(cli.main, words, monkeypatch)


@pytest.mark.parametrize(
    "line",
    [
        "", "talk", "serve --help", "serve --port", "serve --port many", "serve --bits 5", "serve --no-keep-npcs",
        "serve --config file.toml", "serve --config --port", "serve tiny now", "serve --dance yes", "--version",
    ],
)  # fmt: skip
def test_anything_else_is_left_to_the_command_line(line: str) -> None:
    assert plain_serve(line.split(), {}) is None


def test_variables_count_on_both_ways() -> None:
    assert plain_serve(["serve"], {"NPC_RUNTIME_KEY": "k" * 32}) is None
    options = plain_serve(["serve"], {"NPC_RUNTIME_BURST": "4"})
    assert options is not None
    assert options["config"].burst == 4


def test_an_error_is_told_by_the_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def serve(*args: Any, **options: Any) -> int:
        raise BundleError("no Bundle `nowhere`")

    monkeypatch.setattr(server, "serve", serve)
    monkeypatch.setattr(sys, "argv", ["npc-runtime", "serve", "--bundle", "nowhere"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: no Bundle `nowhere`\nhint: ")
