from __future__ import annotations

import hashlib
import subprocess
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from server.models.digest import digest, list_files, split_parts


def test_digest_of_a_file_is_its_own(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(b"weights")

    assert digest(file, list_files(file)) == hashlib.sha256(b"weights").hexdigest()


def test_digest_of_a_folder_is_the_one_that_a_shell_computes(tmp_path: Path) -> None:
    for name in ("b", "a/b", "a.c", "a-b", "-n", "Z", "é", "two words", ".hidden/x"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)

    script = r"find . -type f -printf '%P\n' | LC_ALL=C sort | xargs -d '\n' sha256sum -- | sha256sum"
    shell = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert digest(tmp_path, list_files(tmp_path)) == shell.stdout.split()[0]


@given(st.dictionaries(st.from_regex(r"[a-zé-]{1,6}", fullmatch=True), st.binary(max_size=9), min_size=1), st.data())
@settings(max_examples=50, deadline=None)
def test_any_change_in_a_folder_changes_its_digest(files: dict[str, bytes], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, content in files.items():
            (folder / file).write_bytes(content)
        before = digest(folder, list_files(folder))
        changed = folder / data.draw(st.sampled_from(sorted(files)))
        action = data.draw(st.sampled_from(["append", "rename", "remove"]))
        if action == "append":
            changed.write_bytes(changed.read_bytes() + b"!")
        elif action == "rename":
            changed.rename(folder / "NEW")
        else:
            changed.unlink()

        assert digest(folder, list_files(folder)) != before


def test_digest_of_a_folder_with_one_file_is_that_of_a_listing(tmp_path: Path) -> None:
    (tmp_path / tmp_path.name).write_bytes(b"weights")

    listing = f"{hashlib.sha256(b'weights').hexdigest()}  {tmp_path.name}\n"
    assert digest(tmp_path, list_files(tmp_path)) == hashlib.sha256(listing.encode()).hexdigest()


def test_first_part_of_a_split_gguf_stands_for_all() -> None:
    assert split_parts("q-00001-of-00003.gguf") == [f"q-0000{part}-of-00003.gguf" for part in (1, 2, 3)]
    assert split_parts("q-00002-of-00003.gguf") == ["q-00002-of-00003.gguf"]
    assert split_parts("q.gguf") == ["q.gguf"]


def test_bytes_are_counted_while_hashing(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 3_000_000)
    counted: list[int] = []

    digest(tmp_path, ["a"], on_bytes=counted.append)

    assert sum(counted) == 3_000_000
