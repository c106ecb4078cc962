"""The code hash: the same for the same code anywhere, another one for any change."""

from __future__ import annotations

import support  # isort: skip # noqa: F401 - puts the engines on the import path.

import functools
import tempfile
import unittest
from pathlib import Path

from orchestrator_engine.source_hash import code_hash, sources_of


class SourceHashTest(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)

    def package(self, place: str, files: dict[str, str]) -> Path:
        folder = self.root / place / "engine"
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        return folder

    def test_the_same_code_in_another_folder_has_the_same_hash(self) -> None:
        first = self.package("here", {"a.py": "1", "b/c.yaml": "2"})
        second = self.package("there", {"b/c.yaml": "2", "a.py": "1"})
        self.assertEqual(code_hash([first]), code_hash([second]))

    def test_every_change_of_content_name_or_border_changes_the_hash(self) -> None:
        variants = (
            {"a.py": "1", "b.py": "2"},
            {"a.py": "1", "b.py": "3"},
            {"a.py": "1", "c.py": "2"},
            {"a.py": "12", "b.py": ""},
            {"a.py": "1", "b.py": "2", "c.py": ""},
            {"a.py": "1", "b/b.py": "2"},
        )
        hashes = {code_hash([self.package(str(number), files)]) for number, files in enumerate(variants)}
        self.assertEqual(len(hashes), len(variants))

    def test_caches_and_hidden_files_do_not_count(self) -> None:
        plain = self.package("plain", {"a.py": "1"})
        used = self.package("used", {"a.py": "1", "__pycache__/a.pyc": "x", "b.pyc": "x", ".mypy_cache/y": "z"})
        self.assertEqual(code_hash([plain]), code_hash([used]))

    def test_two_files_of_one_name_both_count(self) -> None:
        files = [self.package("x", {"e.py": "1"}) / "e.py", self.package("y", {"e.py": "2"}) / "e.py"]
        self.assertEqual(code_hash(files), code_hash(reversed(files)))
        self.assertNotEqual(code_hash(files), code_hash(files[:1]))
        self.assertNotEqual(code_hash(files), code_hash(files[1:]))

    def test_the_source_of_a_function_is_found_behind_wrappers(self) -> None:
        here = Path(__file__).resolve()
        wrapped = functools.partial(functools.lru_cache(_function), 1)
        self.assertEqual([path.resolve() for path in sources_of(_function, wrapped, _Callable())], [here] * 3)

    def test_no_source_is_refused(self) -> None:
        for sources in ([], [self.root / "absent.py"]):
            with self.assertRaises(ValueError):
                code_hash(sources)


def _function(_: int) -> None: ...


class _Callable:
    def __call__(self, _: int) -> None: ...


if __name__ == "__main__":
    unittest.main()
