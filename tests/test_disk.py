"""Files that a user names: what is left of one that was not written."""

import os
from pathlib import Path

import pytest

from parity import InputError
from parity.disk import writing

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
