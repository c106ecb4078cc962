#!/usr/bin/env python3
"""Checks deny.toml against the locked dependency graph, without network and without cargo-deny.

It covers what can be known from the lock file and the packages' own metadata: licences, banned crates and sources.
`cargo deny check` does the same and more; `ops/test` prefers it where it is installed.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path


def allowed(expression: str, licences: set[str]) -> bool:
    """Whether an SPDX expression can be satisfied with `licences`: OR over AND, a slash meaning OR."""
    text = expression.replace("/", " OR ")
    atoms = re.split(r"(\(|\)|\bOR\b|\bAND\b)", text)
    python = "".join(
        {"OR": " or ", "AND": " and "}.get(atom, atom) if atom in ("(", ")", "OR", "AND")
        else (str(atom.strip() in licences) if atom.strip() else "")
        for atom in atoms
    )
    # Only True, False, and, or and parentheses are left.
    return bool(eval(python, {"__builtins__": {}}, {}))  # noqa: S307


def main() -> int:
    root = Path(__file__).resolve().parent.parent
    rules = tomllib.loads((root / "deny.toml").read_text())
    licences = set(rules["licenses"]["allow"])
    banned = {entry["crate"] for entry in rules["bans"]["deny"]}
    # Packages that only other platforms build are in the lock file, not in the service.
    platforms = [f"--filter-platform={target}" for target in rules["graph"]["targets"]]
    metadata = subprocess.run(
        ["cargo", "metadata", "--locked", "--format-version", "1", *platforms],
        cwd=root, check=True, capture_output=True, text=True,
    )
    problems: list[str] = []
    packages = json.loads(metadata.stdout)["packages"]
    for package in packages:
        name = f"{package['name']} {package['version']}"
        source = package["source"]
        if source is None:
            continue
        if not source.startswith("registry+"):
            problems.append(f"{name}: source {source} is not a package registry")
        if package["name"] in banned:
            problems.append(f"{name}: banned by deny.toml")
        expression = package["license"]
        if not expression:
            problems.append(f"{name}: no licence expression")
        elif not allowed(expression, licences):
            problems.append(f"{name}: licence {expression} is not allowed by deny.toml")
    for problem in problems:
        print(f"supply chain: {problem}", file=sys.stderr)
    print(f"supply chain: {len(packages)} packages, {len(problems)} problems (advisories need the network: not checked)")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
