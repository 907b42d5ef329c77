"""Writes the .meta file of every file and folder of the package: python bindings/unity/tools~/metas.py.

The GUID is the MD5 of the path, so it is the same for everyone and never changes while the path does not.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "com.npcruntime.client"
ASSET = "  externalObjects: {}\n  userData: \n  assetBundleName: \n  assetBundleVariant: \n"
IMPORTERS = {".md": "TextScriptImporter", ".asmdef": "AssemblyDefinitionImporter", ".json": "PackageManifestImporter"}


def guid(path: Path) -> str:
    """32 hex digits that stand for a path in Unity."""
    return hashlib.md5(f"com.npcruntime.client/{path.relative_to(PACKAGE).as_posix()}".encode()).hexdigest()


def meta(path: Path) -> str:
    """The text of a path's .meta file."""
    head = f"fileFormatVersion: 2\nguid: {guid(path)}\n"
    if path.is_dir():
        return f"{head}folderAsset: yes\nDefaultImporter:\n{ASSET}"
    if path.suffix == ".cs":
        script = "  serializedVersion: 2\n  defaultReferences: []\n  executionOrder: 0\n  icon: {instanceID: 0}\n"
        return f"{head}MonoImporter:\n  externalObjects: {{}}\n{script}" + ASSET.split("\n", 1)[1]
    return f"{head}{IMPORTERS.get(path.suffix, 'DefaultImporter')}:\n{ASSET}"


def assets() -> list[Path]:
    """Every file and folder that Unity imports; of a sample, what lies in its folder."""
    hidden = [part for part in PACKAGE.rglob("*") if part.suffix != ".meta" and not part.name.startswith(".")]
    return sorted(path for path in hidden if not path.name.endswith("~"))


def beside(path: Path) -> Path:
    """Where the .meta of a path lies."""
    return path.with_name(path.name + ".meta")


if __name__ == "__main__":
    for path in assets():
        beside(path).write_text(meta(path), "utf-8")
