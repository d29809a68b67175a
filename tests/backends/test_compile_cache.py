"""The compile cache: whole entries or none, whatever happened to the writer or to the file."""

from __future__ import annotations

import logging
import multiprocessing
import os
import time
from pathlib import Path

import pytest

from omniop.backends import compile_cache
from omniop.backends.compile_cache import CompileCache, cache_key


@pytest.fixture(autouse=True)
def _directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNIOP_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("OMNIOP_CACHE", raising=False)


def entries(cache: CompileCache) -> list[Path]:
    assert cache.directory is not None
    return sorted(cache.directory.iterdir())


def test_round_trip_across_instances_and_kinds() -> None:
    CompileCache("a").put("key", b"payload")
    assert CompileCache("a").get("key") == b"payload"
    assert CompileCache("a").get("other") is None
    assert CompileCache("b").get("key") is None


def test_the_last_writer_wins_and_empty_payloads_are_payloads() -> None:
    cache = CompileCache("kind")
    cache.put("key", b"first")
    cache.put("key", b"")
    assert cache.get("key") == b""
    assert len(entries(cache)) == 1


def test_parts_follow_each_other_and_can_be_mapped() -> None:
    cache = CompileCache("kind")
    assert cache.mapped("key") is None
    cache.put("key", b"first ", memoryview(b"second"))
    assert cache.get("key") == b"first second"
    mapped = cache.mapped("key")
    assert mapped is not None
    cache.put("key", b"another")
    (entry,) = entries(cache)
    entry.unlink()
    assert mapped == b"first second"


@pytest.mark.parametrize("size", [0, 10, 100])
def test_a_damaged_entry_is_not_mapped(size: int) -> None:
    cache = CompileCache("kind")
    cache.put("key", b"payload" * 100)
    (entry,) = entries(cache)
    entry.write_bytes(entry.read_bytes()[:size])
    assert cache.mapped("key") is None


def test_path_is_a_file_that_begins_with_the_payload() -> None:
    cache = CompileCache("kind")
    assert cache.path("key") is None
    cache.put("key", b"\x7fELF...")
    path = cache.path("key")
    assert path is not None
    assert path.read_bytes().startswith(b"\x7fELF...")


def test_keys_depend_on_where_their_parts_end() -> None:
    assert cache_key("ab", "c") != cache_key("a", "bc")
    assert cache_key("a", b"b") == cache_key(b"a", "b")


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "swap"])
def test_a_damaged_entry_is_a_miss_and_is_rebuilt(damage: str) -> None:
    cache = CompileCache("kind")
    cache.put("key", b"payload" * 100)
    path = cache.path("key")
    assert path is not None
    whole = path.read_bytes()
    if damage == "swap":  # a whole entry, of another key
        cache.put("other", b"else")
        other = cache.path("other")
        assert other is not None
        os.replace(other, path)
    else:
        path.write_bytes({"cut": whole[:300], "flip": b"X" + whole[1:], "empty": b""}[damage])
    assert cache.get("key") is None
    assert not path.exists()
    cache.put("key", b"again")
    assert cache.get("key") == b"again"


def test_a_writer_killed_half_way_leaves_no_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = CompileCache("kind")
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *_: os._exit(9))  # the moment before the entry would appear
        child = multiprocessing.get_context("fork").Process(target=cache.put, args=("key", b"payload"))
        child.start()
        child.join()
    assert child.exitcode == 9
    (temporary,) = entries(cache)
    assert cache.get("key") is None
    cache.put("key", b"payload")
    assert cache.get("key") == b"payload"
    assert temporary.exists()  # it could be another process's that still writes
    long_ago = time.time() - 86400
    os.utime(temporary, (long_ago, long_ago))
    CompileCache("kind").put("another", b"")
    assert not temporary.exists()


def _write_and_read(barrier: object, payload: bytes) -> None:
    cache = CompileCache("kind")
    barrier.wait()  # type: ignore[attr-defined]
    for _ in range(100):
        cache.put("key", payload)
        seen = cache.get("key")
        if seen is None or seen.strip(seen[:1]):  # not whole, or a mix of two writers
            os._exit(1)


def test_processes_that_write_the_same_key_at_once_see_whole_entries() -> None:
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    children = [context.Process(target=_write_and_read, args=(barrier, letter * 50_000)) for letter in (b"a", b"b")]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0]
    assert len(entries(CompileCache("kind"))) == 1


def test_a_directory_that_cannot_be_made_is_logged_once_and_does_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OMNIOP_CACHE_DIR", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING):
        for kind in ("kind", "kind", "other"):
            cache = CompileCache(kind)
            cache.put("key", b"payload")
            assert cache.get("key") is None
            assert cache.path("key") is None
    assert len(caplog.records) == 1
    assert "cannot be used" in caplog.text


def test_a_full_disk_is_logged_once_and_old_entries_are_still_read(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache = CompileCache("kind")
    cache.put("old", b"payload")

    def full(_source: str, _target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with caplog.at_level(logging.WARNING):
        cache.put("new", b"payload")
        cache.put("newer", b"payload")
    assert len(caplog.records) == 1
    assert cache.get("new") is None
    assert cache.get("old") == b"payload"
    assert len(entries(cache)) == 1  # no temporary stays behind


def test_a_directory_that_everybody_may_write_to_is_not_trusted(caplog: pytest.LogCaptureFixture) -> None:
    cache = CompileCache("kind")
    cache.put("key", b"payload")
    assert cache.directory is not None
    cache.directory.chmod(0o777)
    assert CompileCache("kind").get("key") is None
    assert "every user may write" in caplog.text


@pytest.mark.parametrize("value", ["0", "off", "no"])
def test_it_can_be_turned_off(value: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OMNIOP_CACHE", value)
    cache = CompileCache("kind")
    cache.put("key", b"payload")
    assert cache.get("key") is None
    assert not (tmp_path / "cache").exists()


def test_it_lies_in_the_users_cache_directory_by_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("OMNIOP_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    root = compile_cache.cache_root()
    assert root is not None
    assert root.name == "omniop"


def test_the_least_recently_used_entries_go_first() -> None:
    cache = CompileCache("kind", limit_bytes=4000)
    for position, key in enumerate(("a", "b", "c")):
        cache.put(key, bytes(1000))
        path = cache.path(key)
        assert path is not None
        os.utime(path, (position, position))
    assert cache.get("a") is not None  # used now, and so newer than b
    cache.put("d", bytes(1000))
    assert [key for key in "abcd" if cache.get(key) is not None] == ["a", "c", "d"]
