"""Files that a user names: what is left of one that was not written."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from parity import InputError
from parity.disk import writing
from parity.overwriting import refuse_overwriting

DESCRIPTORS = Path("/proc/self/fd")


@pytest.mark.skipif(not DESCRIPTORS.exists(), reason="no /proc here")
def test_a_file_that_is_not_written_is_closed_and_gone(tmp_path):
    before = len(os.listdir(DESCRIPTORS))
    for _ in range(5):
        with writing(str(tmp_path / "a.json")):
            pass
        with pytest.raises(ZeroDivisionError), writing(str(tmp_path / "a.json")):
            _ = 1 / 0
    assert len(os.listdir(DESCRIPTORS)) == before
    assert os.listdir(tmp_path) == []


def test_a_file_is_written_whole_in_the_place_of_the_old_one(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    with writing(str(path)) as write:
        assert path.read_text() == "old"
        write(b"new")
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.json"]
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask()
    with (
        pytest.raises(InputError, match="expected a file; it is a folder"),
        writing(str(tmp_path), "--json"),
    ):
        pass


def umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


# --- links, modes, pipes, devices ---


def put(path, data=b"new"):
    with writing(str(path), "--json") as write:
        write(data)


def test_a_link_is_followed_and_a_mode_kept(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "real").chmod(0o640)
    for name, target in (("link", "real"), ("dangling", "made")):
        (tmp_path / name).symlink_to(target)
        put(tmp_path / name)
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / target).read_bytes() == b"new"
    assert (tmp_path / "real").stat().st_mode & 0o777 == 0o640
    assert sorted(os.listdir(tmp_path)) == ["dangling", "link", "made", "real"]


def test_a_pipe_is_written_into_and_its_reader_never_left_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for write in (put, lambda path: writing(str(path)).__enter__()):
        reader = subprocess.Popen(["timeout", "20", "cat", tmp_path / "pipe"], stdout=subprocess.PIPE)
        time.sleep(0.2)
        write(tmp_path / "pipe")
        assert reader.communicate()[0] == (b"new" if write is put else b"")
        assert reader.returncode == 0
    assert (tmp_path / "pipe").is_fifo()


def test_a_reader_that_has_gone_is_no_error():
    there, end = os.pipe()
    os.close(there)
    put(f"/dev/fd/{end}", bytes(1 << 20))
    os.close(end)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_one_line():
    put("/dev/null")
    with pytest.raises(InputError, match="--json: /dev/full: cannot be written: No space left"):
        put("/dev/full")


# --- what is read ---


def test_what_is_read_is_not_written_over(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "package").mkdir()
    for name in ("a.npz", "a.bin", "a.py", "package/__init__.py", "package/b.py"):
        (tmp_path / name).write_text("mine")
    (tmp_path / "link").symlink_to("a.bin")
    os.link("a.bin", "hard")
    read = ("a.npz", "a.py:forward", "package.b:forward", "cmd:sh -c 'python a.py --weights=./a.bin' {inputs}")
    for path, given in (
        ("./a.npz", read[0]),
        ("a.py", read[1]),
        ("package/b.py", read[2]),
        ("package/__init__.py", read[2]),
        *((name, read[3]) for name in ("a.py", "a.bin", "link", "hard")),
    ):
        with pytest.raises(InputError, match="expected a file of its own; it is that of --candidate"):
            refuse_overwriting({"--json": path}, {"--candidate": given})
        refuse_overwriting({"--json": f"{path}.json"}, dict(enumerate(read)))
    with pytest.raises(InputError, match="it is that of --json"):
        refuse_overwriting({"--json": "new", "--html": "./new"}, {})
    refuse_overwriting({"--json": "/dev/null", "--html": "/dev/null"}, {"x": object()})
