from __future__ import annotations

from server.api.attachment import attachment


def test_a_download_is_named_by_the_last_part_in_plain_ascii() -> None:
    assert attachment('a/"ü".txt') == "attachment; filename*=utf-8''%22%C3%BC%22.txt"
