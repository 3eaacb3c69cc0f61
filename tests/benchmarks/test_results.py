from __future__ import annotations

from pathlib import Path

from benchmarks.results import load_results, save_section


def test_a_section_replaces_itself_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "chat.json"
    save_section({"rate": 1}, "loads", "a", path=path)
    save_section({"rate": 2}, "loads", "b", path=path)

    save_section({"rate": 3}, "loads", "a", path=path)

    assert load_results(path) == {"loads": {"a": {"rate": 3}, "b": {"rate": 2}}}


def test_nothing_measured_yet_is_no_error(tmp_path: Path) -> None:
    assert load_results(tmp_path / "none.json") == {}
