"""Writes API.md from the `##` comments of the addon: python bindings/godot/tools/make_api.py.

tests/test_godot.py fails when the page differs from what this script makes.
"""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
ADDON = HERE / "addons" / "npc_runtime"
PAGE = HERE / "API.md"
CLASSES = (
    "npc_character",
    "npc_persona",
    "npc_sample",
    "npc_reply",
    "npc_perception",
    "npc_save_slot",
    "npc_host",
    "npc_request",
    "npc_error",
)
"""What games use, in the order of the page; the rest of the addon is not promised."""
_DECLARED = re.compile(r"^(?:@\w+(?:\([^)]*\))? )*(static var|var|const|enum|signal|static func|func) (\w+)(.*)$")
_KINDS = {"signal": "Signals", "var": "Properties", "const": "Constants", "enum": "Constants", "func": "Methods"}


def page() -> str:
    """The text of API.md."""
    parts = ["# API of the Godot addon", "", "Made by `tools/make_api.py` from the `##` comments of the code."]
    for name in CLASSES:
        parts += section((ADDON / f"{name}.gd").read_text("utf-8"))
    return "\n".join(parts) + "\n"


def section(code: str) -> list[str]:
    """The part of one class."""
    found = re.search(r"^class_name (\w+)$", code, re.MULTILINE)
    base = re.search(r"^extends (\w+)$", code, re.MULTILINE)
    if found is None or base is None:
        raise ValueError("a class of the page lacks class_name or extends")
    members, about = read(code)
    parts = ["", f"## {found[1]}", "", f"Extends `{base[1]}`. {about}"]
    for title in dict.fromkeys(_KINDS.values()):
        rows = [f"- `{shape}`{' ' + doc if doc else ''}" for kind, shape, doc in members if _KINDS[kind] == title]
        parts += ["", f"### {title}", "", *rows] if rows else []
    return parts


def read(code: str) -> tuple[list[tuple[str, str, str]], str]:
    """(kind, declaration, comment) of every public member, and the comment of the class."""
    members: list[tuple[str, str, str]] = []
    about, doc = "", []
    lines = iter(joined(code))
    for line in lines:
        if line.startswith("##"):
            doc.append(line[2:].strip())
            continue
        declared = _DECLARED.match(line)
        if declared is not None and not declared[2].startswith("_"):
            kind = declared[1].removeprefix("static ")
            members.append((kind, declaration(declared), prose(doc)))
        elif not members and doc and not about:
            about = prose(doc)
        doc = []
    return members, about


def joined(code: str) -> list[str]:
    """Top-level lines, a declaration of several lines made one."""
    text = re.sub(r"\(\n\t+([^()]*?)\n\)", r"(\1)", code)
    return [line for line in text.split("\n") if not line.startswith(("\t", "class "))]


def declaration(declared: re.Match[str]) -> str:
    """A member as the page shows it: without a property's setter, a method's body or a table's rows."""
    kind, name, rest = declared[1], declared[2], declared[3].split("  #")[0].rstrip()
    if "func" in kind:
        return f"{'static ' if 'static' in kind else ''}{name}{rest.removesuffix(':')}"
    if kind == "const" and rest.endswith(("{", "[")):
        return name
    if kind == "enum":
        return f"enum {name}{rest}"
    return f"{name}{rest.removesuffix(':')}"


def prose(doc: list[str]) -> str:
    """A comment as markdown; its example blocks are left to the README."""
    text = " ".join(doc)
    text = re.sub(r"\s*\[codeblock\].*?\[/codeblock\]", "", text)
    text = re.sub(r"\[/?code\]", "`", text)
    return re.sub(r"\[(?:(?:method|member|signal|param|constant|enum) )?([\w.]+)\](?!\()", r"`\1`", text)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
