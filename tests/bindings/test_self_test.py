from __future__ import annotations

import signal
from pathlib import Path

from server.bindings.self_test import explain_exit, run_self_test


def test_llama_cpp_decodes_random_weights_with_and_without_extra_buffers() -> None:
    """The one unit test that loads llama.cpp, in a child: the build itself is under test."""
    for use_extra_bufts in (True, False):
        test = run_self_test(use_extra_bufts=use_extra_bufts)

        assert test.is_ok, test.detail
        assert "CPU" in test.detail


def test_a_file_that_is_no_model_fails_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF but not really")

    test = run_self_test(tmp_path / "broken.gguf")

    assert (test.outcome, test.detail) == ("failed", "llama.cpp cannot load broken.gguf")


def test_a_child_that_hangs_is_given_up() -> None:
    assert run_self_test(timeout_s=0).outcome == "timeout"


def test_sigill_is_explained() -> None:
    test = explain_exit(-signal.SIGILL, "", "")

    assert test.outcome == "sigill"
    assert "miscompiled" in test.detail


def test_other_signals_are_named_with_the_last_words() -> None:
    test = explain_exit(-signal.SIGABRT, "", "loading\nGGML_ASSERT(x) failed\n\n")

    assert (test.outcome, test.detail) == ("crashed", "llama.cpp died of SIGABRT: GGML_ASSERT(x) failed")
