#!/usr/bin/env python3
"""How plainly the code speaks: names of functions, first lines of types' comments, names that two types share.

    ops/language.py           the three figures
    ops/language.py --list    and what stands behind them

Counted is product code: no tests, no test kits, no benches. A function is counted unless a trait that is not ours names it.
"""

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PRODUCT = ("src/", "actors/src/", "actors/engine_plane/src/", "actors/kernel/src/", "actors/runtime/src/")
ONLY_TESTS = ("/tests/", "/tests.rs", "/testkit", "_conformance.rs")
QUESTION = re.compile(r"(what|who|whom|whose|whether|where|when|which|how|why)\b", re.IGNORECASE)
FUNCTION = re.compile(r"^\s*(?:pub(?:\([^)]*\))?\s+)?(?:const\s+)?(?:async\s+)?(?:unsafe\s+)?fn\s+(\w+)")
TYPE = re.compile(r"^\s*(pub(?:\([^)]*\))?\s+)?(?:struct|enum|trait|union)\s+(\w+)")
FOREIGN_TRAIT = re.compile(r"^\s*(?:unsafe\s+)?impl(?:<.*?>)?\s+([\w:]+(?:<.*>)?)\s+for\s")


def product_lines():
    """Every line of product code, as (path, number, line)."""
    listed = subprocess.run(["git", "ls-files", "*.rs"], cwd=ROOT, check=True, capture_output=True, text=True)
    for path in listed.stdout.split():
        if not path.startswith(PRODUCT) or any(part in f"/{path}" for part in ONLY_TESTS):
            continue
        text = (ROOT / path).read_text().split("#[cfg(test)]\nmod tests {")[0]
        yield from ((path, number, line) for number, line in enumerate(text.splitlines(), 1))


def gather():
    """Names of functions, types by name, and first lines of types' comments."""
    functions, types, docs = [], defaultdict(list), []
    comment, foreign_end, seen_path = [], None, None
    for path, number, line in product_lines():
        if path != seen_path:
            comment, foreign_end, seen_path = [], None, path
        stripped = line.strip()
        if stripped.startswith("///"):
            comment.append(stripped[3:].strip())
            continue
        indent = line[: len(line) - len(line.lstrip())]
        if FOREIGN_TRAIT.match(line) and not stripped.endswith("}"):
            foreign_end = f"{indent}}}"
        elif line == foreign_end:
            foreign_end = None
        if (found := FUNCTION.match(line)) and foreign_end is None:
            functions.append((found.group(1), f"{path}:{number}"))
        if found := TYPE.match(line):
            visibility, name = found.groups()
            if visibility:
                types[name].append(f"{path}:{number}")
            if comment:
                docs.append((comment[0], name, f"{path}:{number}"))
        if not stripped.startswith(("#[", "//")):
            comment = []
    return functions, types, docs


def main():
    functions, types, docs = gather()
    one_word = [(name, place) for name, place in functions if "_" not in name.strip("_")]
    questions = [(first, name, place) for first, name, place in docs if QUESTION.match(first)]
    shared = {name: places for name, places in types.items() if 1 < len(places)}
    print(f"functions of one word: {len(one_word)} of {len(functions)}, {100 * len(one_word) / len(functions):.0f} %")
    print(f"types whose comment asks: {len(questions)} of {len(docs)}, {100 * len(questions) / len(docs):.0f} %")
    print(f"names that two types share: {len(shared)}")
    if "--list" in sys.argv[1:]:
        by_name = defaultdict(list)
        for name, place in one_word:
            by_name[name].append(place)
        for name, places in sorted(by_name.items(), key=lambda item: (-len(item[1]), item[0])):
            print(f"  fn {name} ×{len(places)}: {', '.join(places[:4])}")
        for first, name, place in questions:
            print(f"  {place} {name}: {first}")
        for name, places in sorted(shared.items()):
            print(f"  {name}: {', '.join(places)}")


if __name__ == "__main__":
    main()
