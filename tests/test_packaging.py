"""The wheel holds every file of the packages: code, configs, templates and data."""

from __future__ import annotations

import tomllib

from command_line import ROOT


def test_every_file_is_shipped() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {package: ROOT.joinpath(*package.split(".")) for package in setuptools["packages"]}
    shipped = {path for folder in folders.values() for path in folder.glob("*.py")}
    for package, patterns in setuptools["package-data"].items():
        for pattern in patterns:
            found = set(folders[package].glob(pattern))
            assert found, f"{package}: {pattern} matches nothing"
            shipped |= found
    tops = {package.split(".")[0] for package in folders}
    present = {path for top in tops for path in (ROOT / top).rglob("*") if path.is_file()}
    missing = {path for path in present - shipped if "__pycache__" not in path.parts}
    assert not missing, "add these to [tool.setuptools] in pyproject.toml"
