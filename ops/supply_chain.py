#!/usr/bin/env python3
"""Checks deny.toml against the locked dependency graphs, of the service and of the fuzzer, without cargo-deny.

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
    """Whether an SPDX expression can be satisfied with `licences`: OR over AND, a slash meaning OR.

    Raises ValueError when it is none.
    """
    tokens = re.findall(r"[()]|\w[\w.+-]*(?: WITH \w[\w.+-]*)?", expression.replace("/", " OR "))

    def alternatives() -> bool:
        satisfied = parts()
        while tokens[:1] == ["OR"]:
            tokens.pop(0)
            satisfied = parts() or satisfied
        return satisfied

    def parts() -> bool:
        satisfied = atom()
        while tokens[:1] == ["AND"]:
            tokens.pop(0)
            satisfied = atom() and satisfied
        return satisfied

    def atom() -> bool:
        token = tokens.pop(0) if tokens else ")"
        if token != "(":
            if token in (")", "OR", "AND"):
                raise ValueError(f"{expression!r} is no SPDX expression")
            return token in licences
        satisfied = alternatives()
        if not tokens or tokens.pop(0) != ")":
            raise ValueError(f"{expression!r} is no SPDX expression")
        return satisfied

    satisfied = alternatives()
    if tokens:
        raise ValueError(f"{expression!r} is no SPDX expression")
    return satisfied


def check(manifest: Path, rules: dict) -> tuple[int, list[str]]:
    """How many packages `manifest` locks for the platforms of the service, and what is wrong with them."""
    licences = set(rules["licenses"]["allow"])
    exceptions = {entry["crate"]: set(entry["allow"]) for entry in rules["licenses"].get("exceptions", [])}
    banned = {entry["crate"] for entry in rules["bans"]["deny"]}
    # Packages that only other platforms build are in the lock file, not in the service.
    platforms = [f"--filter-platform={target}" for target in rules["graph"]["targets"]]
    metadata = subprocess.run(
        ["cargo", "metadata", "--locked", "--format-version", "1", "--manifest-path", str(manifest), *platforms],
        check=False, stdout=subprocess.PIPE, text=True,
    )
    if metadata.returncode != 0:
        return 0, [f"{manifest.parent.name}/Cargo.lock does not say what is built (for fuzz: ops/fuzz --lock)"]
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
        elif not allowed(expression, licences | exceptions.get(package["name"], set())):
            problems.append(f"{name}: licence {expression} is not allowed by deny.toml")
    return len(packages), problems


def main() -> int:
    root = Path(__file__).resolve().parent.parent
    rules = tomllib.loads((root / "deny.toml").read_text())
    # The fuzzer is a package of its own with a lock file of its own.
    count, problems = check(root / "Cargo.toml", rules)
    more, further = check(root / "fuzz" / "Cargo.toml", rules)
    problems += [problem for problem in further if problem not in problems]
    for problem in problems:
        print(f"supply chain: {problem}", file=sys.stderr)
    print(f"supply chain: {count} packages, {more} of the fuzzer, {len(problems)} problems "
          "(advisories need the network: not checked)")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
