from __future__ import annotations

from pathlib import Path

from server.bindings.build_info import FILE_NAME, BuildInfo, load_build_info, save_build_info


def test_a_record_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    info = BuildInfo(llama_cpp_version="0.3.36", cmake_args=("-DA=1",), use_extra_bufts=False, self_test="sigill")

    save_build_info(info, tmp_path)

    assert load_build_info(tmp_path) == info
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


def test_without_a_record_the_defaults_hold(tmp_path: Path) -> None:
    assert load_build_info(tmp_path) == BuildInfo()


def test_a_newer_record_is_read_as_far_as_it_is_understood(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text('{"cuda": true, "from_the_future": 1}')

    assert load_build_info(tmp_path) == BuildInfo(cuda=True)


def test_a_damaged_record_counts_as_none(tmp_path: Path) -> None:
    for text in ('{"cuda": tr', "[]"):
        (tmp_path / FILE_NAME).write_text(text)

        assert load_build_info(tmp_path) == BuildInfo()
