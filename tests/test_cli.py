"""The command line: what is printed where, with which status, and how little it imports."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import pytest
from bundles import CONFIG, random_weights, tiny_bundle, tokenizer_bytes

from npc_runtime import __version__, cli, cli_bundle, options
from npc_runtime.bundle import Bundle, write_bundle
from npc_runtime.config import Config

if TYPE_CHECKING:
    from pathlib import Path

HEAVY = {"numpy", "zmq", "msgpack", "onnxruntime", "torch", "sentencepiece", "safetensors"}
GOOD = (
    'name = "Perrin Auld"\nrole = "ferryman"\nopening = "Three pennies."\n'
    'knows = ["the ford is deep", "secret: he cannot swim"]\n'
)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Calls `npc-runtime` in this process: (status, stdout, stderr)."""

    def called(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["npc-runtime", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    for name in [name for name in os.environ if name.startswith("NPC_RUNTIME_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TERM", "dumb")
    return called


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("cli"), bits=8)


# ---- help


@pytest.mark.parametrize(
    "arguments", [["--help"], ["serve", "--help"], ["doctor", "--help"], ["persona"], ["--version"]]
)
def test_help_imports_nothing_heavy(arguments):
    code = f"""
import sys, json
sys.argv = ["npc-runtime", *{arguments!r}]
from npc_runtime.cli import main
try:
    main()
except SystemExit:
    print("\\n" + json.dumps(sorted({{name.partition(".")[0] for name in sys.modules}})))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip(), done.stderr
    assert HEAVY & set(json.loads(done.stdout.splitlines()[-1])) == set()


def test_every_limit_has_an_option_with_default_variable_and_unit(run):
    help_text = cli.help_texts()["npc-runtime serve"]
    assert list(options.LIMITS) == [field.name for field in fields(Config)]
    told = re.sub(r"\s+", " ", help_text)
    for name in options.LIMITS:
        flag = "--" + name.replace("_", "-")
        default = getattr(Config(), name)
        shown = "none" if default == "" else str(default).lower()
        assert re.search(rf"{flag}\b.*?env var: NPC_RUNTIME_{name.upper()}; default: \({re.escape(shown)}\)", told), (
            name
        )


def test_every_command_has_help_with_an_example():
    texts = cli.help_texts()
    commands = {name for name, text in texts.items() if "COMMAND [ARGS]" not in text}
    assert {"npc-runtime serve", "npc-runtime talk", "npc-runtime demo", "npc-runtime doctor"} <= commands
    assert {"npc-runtime persona check", "npc-runtime persona show", "npc-runtime persona list"} <= commands
    assert {"npc-runtime bundle info", "npc-runtime bundle verify", "npc-runtime bundle import"} <= commands
    for name in commands:
        assert f"Example: `{name}" in re.sub(r"\s+", " ", texts[name]), name


def test_help_texts_do_not_depend_on_the_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    narrow = cli.help_texts()
    monkeypatch.setenv("COLUMNS", "200")
    assert cli.help_texts() == narrow
    assert max(len(line) for text in narrow.values() for line in text.splitlines()) <= 100


def test_version(run):
    assert run("--version") == (0, f"npc-runtime {__version__}\n", "")


# ---- errors


@pytest.mark.parametrize(
    "arguments", [["frobnicate"], ["serve", "--no-such"], ["serve", "--port", "x"], ["persona", "check"]]
)
def test_wrong_usage_is_status_2_on_stderr(run, arguments):
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert "Usage: npc-runtime" in err


def test_a_typed_error_is_two_lines_on_stderr_and_status_1(run, tmp_path):
    status, out, err = run("bundle", "info", tmp_path / "missing")
    assert (status, out) == (1, "")
    error, hint = err.splitlines()
    assert error.startswith("error: no Bundle `")
    assert hint == "hint: Install the Bundle again, or check it with `npc-runtime bundle verify DIR`"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["persona", "list", "--personas", "nowhere"], "error: persona folder `nowhere` is not a folder"),
        (["persona", "check", "marta", "--personas", "nowhere"], "error: persona folder `nowhere` is not a folder"),
        (["persona", "show", "marta", "--personas", "nowhere"], "error: persona folder `nowhere` is not a folder"),
        (
            ["talk", "--connect", "tcp://127.0.0.1:1", "--bundle", "x"],
            "error: `--bundle` and `--backend` are of no use",
        ),
        (["talk", "--key", "k" * 32], "error: `--key` is of no use without `--connect`"),
        (["talk", "--session", "mine"], "error: `--session` is of no use without `--connect`"),
    ],
)
def test_an_option_is_not_passed_over_in_silence(run, arguments, told):
    status, out, err = run(*arguments)
    assert (status, out) == (1, "")
    assert err.startswith(told)


@pytest.mark.parametrize(
    "line",
    [
        "serve --bundle {}",
        "persona check {}",
        "persona check {}.toml",
        "persona show {}.toml",
        "persona list --personas {}",
        "talk --personas {}",
        "bundle verify {}",
        "bundle import {} made",
        "train {} --data here --out there",
        "evaluate --corpus {}",
    ],
)
def test_a_path_too_long_for_the_system_is_no_defect(run, line):
    status, out, err = run(*line.format("x" * 300).split())
    assert (status, out) == (1, "")
    assert "error: " in err
    assert "defect" not in err


def test_a_defect_is_no_traceback_unless_asked_for(run, monkeypatch):
    def defect(*_: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(cli_bundle, "_facts", defect)
    status, out, err = run("bundle", "info")
    assert (status, out) == (1, "")
    assert err.splitlines()[0] == "error: a defect of npc-runtime: ZeroDivisionError('oh')"
    assert "NPC_RUNTIME_DEBUG=1" in err
    assert "Traceback" not in err
    monkeypatch.setenv("NPC_RUNTIME_DEBUG", "1")
    assert "Traceback" in run("bundle", "info")[2]


def test_a_wrong_limit_names_itself(run, tmp_path, monkeypatch):
    file = tmp_path / "limits.toml"
    file.write_text("burst = 0\n", "utf-8")
    assert run("serve", "--config", file)[2].startswith("error: `burst` must be at least 1, got 0\n")
    monkeypatch.setenv("NPC_RUNTIME_MAX_BATCH", "many")
    status, _, err = run("serve")
    assert status == 2
    assert "NPC_RUNTIME_MAX_BATCH" in err


# ---- serve


def test_options_reach_the_daemon(run, monkeypatch, tmp_path):
    called: dict[str, Any] = {}

    def serve(bundle: object, config: Config, **more: Any) -> int:
        called.update(more, bundle=bundle, config=config)
        return 0

    monkeypatch.setattr("npc_runtime.server.serve", serve)
    file = tmp_path / "limits.toml"
    file.write_text("burst = 4\nmax_npcs = 7\nthreads = 3\n", "utf-8")
    monkeypatch.setenv("NPC_RUNTIME_MAX_NPCS", "8")
    monkeypatch.setenv("NPC_RUNTIME_THREADS", "5")
    status, out, err = run(
        "serve", "--bundle", "b", "--backend", "onnx", "--personas", "p", "--personas", "q", "--config", file,
        "--host", "::1", "--port", "5555", "--key", "k" * 20, "--parent", "12", "--threads", "2", "--no-keep-npcs",
        "--curve-secret", "s", "--curve-clients", "c",
    )  # fmt: skip
    assert (status, out, err) == (0, "", "")
    assert called.pop("config") == Config(burst=4, max_npcs=8, threads=2, keep_npcs=False)
    assert {name: str(value) for name, value in called.items() if name != "personas"} == {
        "bundle": "b", "backend": "onnx", "host": "::1", "port": "5555", "key": "k" * 20, "parent": "12",
        "curve_secret": "s", "curve_clients": "c",
    }  # fmt: skip
    assert [str(folder) for folder in called["personas"]] == ["p", "q"]


def test_serve_prints_its_ready_line_and_ends_with_its_parent(bundle):
    from npc_runtime.client import Client

    with Client.start(bundle.path, options=["--max-npcs", "3"]) as game:
        assert game.ready["bundle"]["hash"] == bundle.hash
        assert game.hello["limits"]["max_npcs"] == 3
        assert game.spawn("marta", "marta").name == "Marta Thwaite"


# ---- personas


def test_persona_check_tells_every_fault(run, tmp_path):
    (tmp_path / "good.toml").write_text(GOOD, "utf-8")
    (tmp_path / "bad.toml").write_text('role = 3\ntraits = ["a, b", "c", ""]\n', "utf-8")
    (tmp_path / "worse.toml").write_text("name = ", "utf-8")
    status, out, err = run("persona", "check", tmp_path)
    assert status == 1
    assert out == f"ok {tmp_path / 'good.toml'}: Perrin Auld, knows 2, 1 secret\n"
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    bad, places = (
        f"error: `{tmp_path / 'bad.toml'}`: ",
        ("`name` is", "`role` must", "`traits` item 1", "`traits` item 3"),
    )
    assert len(errors) == 5
    for line, place in zip(errors, places, strict=False):
        assert line.startswith(bad + place)
    assert "worse.toml" in errors[4]
    assert err.count("hint: personas/README.md shows every field by example") == 2


def test_persona_check_of_the_shipped_ones_holds(run):
    status, out, err = run("persona", "check", "marta", "bram")
    assert (status, err) == (0, "")
    assert out == "ok marta: Marta Thwaite, knows 7\nok bram: Bram Nuttall, knows 7\n"


def test_persona_check_of_an_empty_folder_is_an_error(run, tmp_path):
    assert run("persona", "check", tmp_path)[0] == 1


def test_persona_show_prints_what_the_model_reads(run, tmp_path):
    (tmp_path / "perrin.toml").write_text(GOOD, "utf-8")
    status, out, _ = run("persona", "show", "perrin", "--personas", tmp_path)
    assert status == 0
    lines = out.splitlines()
    assert lines[:2] == ["name: Perrin Auld", "role: ferryman"]
    assert "opening (neutral): Three pennies." in lines
    table = json.loads(run("persona", "show", tmp_path / "perrin.toml", "--json")[1])
    assert (table["name"], table["opening"]) == ("Perrin Auld", "Three pennies.")


def test_persona_list_holds_folders_of_ones_own(run, tmp_path):
    (tmp_path / "perrin.toml").write_text(GOOD, "utf-8")
    status, out, _ = run("persona", "list", "--personas", tmp_path)
    assert status == 0
    assert re.search(r"^perrin +Perrin Auld, ferryman$", out, re.MULTILINE)
    assert re.search(r"^marta +Marta Thwaite, blacksmith$", out, re.MULTILINE)
    rows = json.loads(run("persona", "list", "--personas", tmp_path, "--json")[1])
    assert {"id": "perrin", "name": "Perrin Auld", "role": "ferryman", "path": str(tmp_path / "perrin.toml")} in rows


def test_persona_list_goes_on_after_a_bad_file(run, tmp_path):
    (tmp_path / "bad.toml").write_text("name = 1\n", "utf-8")
    status, out, err = run("persona", "list", "--personas", tmp_path)
    assert status == 1
    assert "Marta Thwaite" in out
    assert "bad.toml" in err


# ---- bundles


def test_bundle_info_and_verify(run, bundle):
    status, out, _ = run("bundle", "info", bundle.path, "--json")
    facts = json.loads(out)
    assert status == 0
    assert facts["hash"] == bundle.hash
    assert facts["parameters"] == bundle.config.parameters
    assert facts["state_bytes"] == bundle.spec.nbytes
    assert f"hash        {bundle.hash}\n" in run("bundle", "info", bundle.path)[1]
    assert run("bundle", "verify", bundle.path) == (0, f"ok {bundle.path}: tiny 1, {bundle.hash}\n", "")


def test_bundle_verify_finds_a_changed_file(run, tmp_path):
    made = tiny_bundle(tmp_path, bits=8)
    data = bytearray(made.weights_path.read_bytes())
    data[-1] ^= 1
    made.weights_path.write_bytes(data)
    status, out, err = run("bundle", "verify", made.path)
    assert (status, out) == (1, "")
    assert "was changed" in err


def test_bundle_import_makes_a_bundle(run, tmp_path, monkeypatch):
    (tmp_path / "tokenizer.model").write_bytes(tokenizer_bytes())
    asked: dict[str, Any] = {}

    def import_checkpoint(source: Path, target: Path, **more: Any) -> Bundle:
        asked.update(more, source=source)
        tokenizer = tmp_path / "tokenizer.model"
        weights = random_weights(CONFIG)
        return write_bundle(target, "made", CONFIG, weights, more["bits"], tokenizer, "control-1", "MIT", "# Made\n")

    monkeypatch.setattr("npc_runtime.importer.import_checkpoint", import_checkpoint)
    status, out, err = run("bundle", "import", tmp_path / "from", tmp_path / "to", "--bits", 4, "--license", "MIT")
    assert status == 0
    assert asked == {"source": tmp_path / "from", "bits": 4, "name": None, "license": "MIT", "tokenizer": None}
    made = Bundle.load(tmp_path / "to")
    assert out == f"ok {made.path}: made, {made.config.parameters:,} parameters, {made.hash}\n"
    assert "4-bit" in err


# ---- doctor


def test_doctor_in_json_is_one_object_and_the_status_tells(run, bundle, monkeypatch):
    status, out, err = run("doctor", "--bundle", bundle.path, "--only", "batch", "--only", "chunks", "--json")
    report = json.loads(out)
    assert (status, err) == (0, "")
    assert report["passed"] is True
    assert report["backend"].startswith("onnx: ")
    assert [item["name"] for item in report["checks"]] == ["chunks", "batch"]
    monkeypatch.setattr("npc_runtime.doctor.forms.FORM_BOUNDS", {"int8": -1.0})
    assert run("doctor", "--bundle", bundle.path, "--only", "chunks")[0] == 1


def test_doctor_refuses_a_check_that_is_none(run, bundle):
    status, _, err = run("doctor", "--bundle", bundle.path, "--only", "nope")
    assert status == 1
    assert err.startswith("error: there is no check `nope`")
