"""The smallest case that fails, on disk and back, and what a damaged file is."""

import json
import tracemalloc
import zipfile
from io import BytesIO

import numpy as np
import pytest
from zoo import make_layer

import parity
from parity.api import check_file
from parity.candidates.functions import same
from parity.cases.case import Case
from parity.cases.grid import grid
from parity.cli import main
from parity.disk import array_of, arrays_in
from parity.errors import InputError
from parity.explaining.functions import computed
from parity.explaining.smallest import described, shrink
from parity.given.candidate import as_candidate
from parity.golden.archive import sealed
from parity.golden.file import Golden, load, packed
from parity.judging.judge import examine
from parity.judging.tally import Tolerance

KINDS = {case.id: case for case in grid(only="*-b2-t10-*")}


@pytest.mark.parametrize("name", list(KINDS)[::3])
def test_a_case_comes_back_as_it_was(tmp_path, name):
    case = KINDS[name]
    path = tmp_path / "case.npz"
    path.write_bytes(packed(Golden((case,))))
    (back,) = load(str(path)).cases
    assert (back.id, back.calls, back.rows) == (case.id, case.calls, tuple(case.rows))
    assert same(back.layer, case.layer)
    assert back.layer.dtype == case.layer.dtype
    for mine, theirs in ((back.x, case.x), (back.mask, case.mask)):
        assert (mine is None) == (theirs is None)
        assert mine is None or (
            mine.dtype == theirs.dtype and np.array_equal(mine, theirs, equal_nan=mine.dtype != bool)
        )
    for mine, theirs in zip(computed(back)[0], computed(case)[0], strict=True):
        assert np.array_equal(np.nan_to_num(mine), np.nan_to_num(theirs))


def a_file(tmp_path):
    layer = make_layer(return_sequences=True)
    x = np.random.default_rng(0).standard_normal((2, 3, 4)).astype("f")
    path = tmp_path / "case.npz"
    path.write_bytes(packed(Golden((Case("mine", layer, x),))))
    return path


def test_every_bit_counts(tmp_path):
    path = a_file(tmp_path)
    whole = path.read_bytes()
    assert load(str(path)).cases[0].id == "mine"
    rng = np.random.default_rng(0)
    for at in [0, len(whole) - 1, *rng.integers(0, len(whole), 300)]:
        spoilt = bytearray(whole)
        spoilt[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(spoilt))
        with pytest.raises(InputError) as refused:
            load(str(path))
        assert "\n" not in str(refused.value)
    for spoilt in (*(whole[:length] for length in rng.integers(0, len(whole), 30)), whole + b"\0", b""):
        path.write_bytes(spoilt)
        with pytest.raises(InputError):
            load(str(path))


def resealed(path, change):
    """The file with its index and arrays changed, and a digest that fits."""
    with np.load(path) as archive:
        arrays = dict(archive)
    index = json.loads(arrays["cases.json"].tobytes())
    change(index, arrays)
    arrays["cases.json"] = np.frombuffer(json.dumps(index).encode(), np.uint8)
    file = BytesIO()
    np.savez(file, **arrays)
    path.write_bytes(sealed(file))


def added(index, arrays, name, array):
    arrays[name], index["dtypes"][name] = array, array.dtype.name


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda index, arrays: index.update(schema=3), "schema 3; this version reads schema 2"),
        (lambda index, arrays: index.pop("schema"), "schema None; this version reads schema 2"),
        (lambda index, arrays: arrays.pop("0/x"), "0/x"),
        (lambda index, arrays: index["layers"][0].update(kind="lambda"), "no layer of the kind 'lambda'"),
        (lambda index, arrays: index["dtypes"].update({"0/x": "object"}), "expected a file of cases"),
        (lambda index, arrays: arrays.update({"layer0/Wx": np.zeros((3, 3))}), "expected a file of cases"),
        (lambda index, arrays: arrays.update({"layer0/Wx": np.zeros((8, 3), "f")}), r"x: expected shape"),
        (lambda index, arrays: arrays.update({"0/x": np.zeros((2, 3), "f")}), r"x: expected shape"),
        (lambda index, arrays: arrays.update({"0/x": np.zeros((0, 3, 4), "f")}), r"received float32 \(0, 3, 4\)"),
        (lambda index, arrays: added(index, arrays, "0/mask", np.zeros((2, 4), bool)), "mask: expected shape"),
        (lambda index, arrays: added(index, arrays, "0/mask", np.ones((2, 3), "f")), "mask: expected booleans"),
        (lambda index, arrays: added(index, arrays, "0/initial_state/0", np.ones((2, 3), "f")), "initial_state: exp"),
        (lambda index, arrays: index["layers"][0].update(dtype="float64"), "settings or arrays are not those"),
        (lambda index, arrays: index["cases"][0].update(layer=-1), "not in range"),
        (lambda index, arrays: index["cases"][0].update(rows=["one"]), "1 rows named, of 2"),
        (lambda index, arrays: index["cases"][0].update(calls=-1), "3 timesteps in -1 calls"),
        (lambda index, arrays: index["cases"][0].update(calls=2), "3 timesteps in 2 calls"),
        (lambda index, arrays: index["cases"][0].update(answers=10**9), "1000000000 answers to 1 calls"),
        (lambda index, arrays: index["cases"][0].update(answers=1), "outputs are missing"),
        (lambda index, arrays: index.update(cases=[]), "0 cases"),
        (lambda index, arrays: index.update(provenance=None), "its provenance"),
        (lambda index, arrays: index.update(provenance={"environment": 5}), "its provenance"),
    ],
)
def test_a_file_that_somebody_else_sealed(tmp_path, change, said):
    path = a_file(tmp_path)
    resealed(path, lambda index, arrays: None)
    assert load(str(path)).cases[0].id == "mine"
    resealed(path, change)
    with pytest.raises(InputError, match=said):
        load(str(path))


def test_a_file_saved_again_by_numpy_is_refused(tmp_path):
    path = a_file(tmp_path)
    with np.load(path) as archive:
        arrays = dict(archive)
    np.savez(path, **arrays)
    with pytest.raises(InputError, match="does not end with a digest"):
        load(str(path))


def test_what_is_no_file_of_cases(tmp_path):
    path = tmp_path / "other.npz"
    np.savez(path, a=np.zeros(3))
    with pytest.raises(InputError, match="expected a file of cases"):
        load(str(path))
    with pytest.raises(InputError, match="cannot be read: No such file"):
        load(str(tmp_path / "none.npz"))
    path.write_text("hello")
    with pytest.raises(InputError, match="no \\.npz archive"):
        load(str(path))


def test_a_size_that_is_a_lie_is_not_inflated(tmp_path):
    file = BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("cases.json.npy", b"\0" * (1 << 27))
    data = bytearray(file.getvalue())
    at = data.rfind(b"PK\1\2") + 24
    for size, said in ((1000, "Bad CRC"), (1 << 27, "expected an .npy file")):
        data[at : at + 4] = size.to_bytes(4, "little")
        tracemalloc.start()
        with pytest.raises((ValueError, zipfile.BadZipFile), match=said):
            arrays_in(bytes(data))
        assert (tracemalloc.get_traced_memory()[1] > 1 << 27) == (size == 1 << 27)
        tracemalloc.stop()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("cases.json.npy", b"")
    with pytest.raises(ValueError, match="stored or deflated"):
        arrays_in(file.getvalue())


def test_objects_and_bombs_are_not_read(tmp_path):
    path = tmp_path / "other.npz"
    file = BytesIO()
    np.savez(file, **{"cases.json": np.array([{}], dtype=object)})
    path.write_bytes(sealed(file))
    with pytest.raises(InputError, match="not unpickled"):
        load(str(path))
    file = BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("cases.json.npy", "w") as member:
        for _ in range(300):
            member.write(bytes(1 << 20))
    path.write_bytes(sealed(file))
    with pytest.raises(InputError, match="declares more than 256 MiB"):
        load(str(path))


def test_an_array_holds_what_it_declares():
    file = BytesIO()
    np.save(file, np.asfortranarray(np.arange(6.0).reshape(2, 3)))
    whole = file.getvalue()
    assert np.array_equal(array_of(whole), np.arange(6.0).reshape(2, 3))
    for spoilt in (whole[:-1], whole + b"x", whole.replace(b"(2, 3)", b"(9, 3)"), whole[:9], b""):
        with pytest.raises(ValueError, match=r"."):
            array_of(spoilt)
    huge = np.lib.format.magic(1, 0) + (118).to_bytes(2, "little")
    huge += b"{'descr': '<f8', 'fortran_order': False, 'shape': (99999999, 9999), }".ljust(117) + b"\n" + bytes(48)
    with pytest.raises(ValueError, match="it holds 48"):
        array_of(huge)


# --- shrinking ---


def off(x, layer):
    """Wrong at unit 2 from the third step on, in every row."""
    y = layer(x)
    if layer.return_sequences and y.shape[1] > 2 and layer.units > 2:
        y[:, 2:, 2] += np.float32(0.01)
    return y


def test_the_smallest_case():
    layer = make_layer(6, 4, return_sequences=True)
    case = Case("mine", layer, np.random.default_rng(0).standard_normal((5, 40, 4)).astype("f"))
    small = shrink(as_candidate(off), case, Tolerance(), seconds=20)
    assert examine(as_candidate(off), small, Tolerance()).verdict == "FAIL"
    assert (small.batch, small.timesteps, small.x.shape[2], small.layer.units) == (1, 3, 1, 3)
    assert described(small) == "batch 1, 3 timesteps, 1 feature, 3 units, Wx and Wh and b = 0, x = 0"
    of_x = shrink(as_candidate(lambda x: off(x, layer)), case, Tolerance(), seconds=20)
    assert (of_x.batch, of_x.timesteps, of_x.layer is layer) == (1, 3, True)
    assert shrink(as_candidate(off), case, Tolerance(), seconds=0) is case


@pytest.mark.parametrize("late", [1, 6, 8, 29, 39])
def test_no_step_too_many(late):
    def port(x, layer):
        y = layer(x)
        y[:, late:] += np.float32(0.01)
        return y

    layer = make_layer(6, 4, return_sequences=True)
    case = Case("mine", layer, np.random.default_rng(0).standard_normal((1, 40, 4)).astype("f"))
    assert shrink(as_candidate(port), case, Tolerance(), seconds=20).timesteps == late + 1


@pytest.mark.pairs
def test_the_report_shows_it_and_it_can_be_asked_again(tmp_path):
    k = parity.to_keras(make_layer(6, 4, return_sequences=True))
    report = parity.check(off, k, input_shape=(9, 4))
    assert report.smallest.startswith("batch 1, 3 timesteps, 1 feature, 3 units")
    assert f"smallest case that fails: {report.smallest}" in str(report)
    path = tmp_path / "case.npz"
    path.write_bytes(packed(Golden((report.failure,))))
    again = check_file(off, str(path))
    assert (again.verdict, again.cases[0].first_divergence.unit) == ("FAIL", 2)
    assert check_file(None, str(path)).verdict == "PASS"


def run(capsys, monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["parity", *map(str, arguments)])
    with pytest.raises(SystemExit) as done:
        main()
    captured = capsys.readouterr()
    return done.value.code, captured.out, captured.err


PORT = """
import numpy as np

def forward(x, layer):
    return layer.replace(Wh=layer.Wh.T)(x)
"""


def test_save_failure_and_replay(capsys, monkeypatch, tmp_path):
    port, model, case = tmp_path / "port.py", tmp_path / "model.keras", tmp_path / "case.npz"
    port.write_text(PORT)
    keras_layer = parity.to_keras(make_layer(6, 4, return_sequences=True))
    import keras

    keras.Sequential([keras.Input((9, 4)), keras_layer]).save(model)
    status, out, _ = run(capsys, monkeypatch, "check", model, "--candidate", f"{port}:forward", "--save-failure", case)
    assert status == 1
    assert "cause: recurrent-kernel-not-transposed: " in out
    assert "fix: transpose each gate's block of Wh." in out
    status, out, _ = run(capsys, monkeypatch, "check", case, "--candidate", f"{port}:forward")
    assert status == 1
    assert "smallest" in out
    assert run(capsys, monkeypatch, "check", case)[0] == 0
    assert run(capsys, monkeypatch, "check", case, "--seed", 3, "--strict")[0] in (0, 3)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none.npz"], "none.npz: cannot be read"),
        (["none.npz", "--units", "3"], "--units selects cases of the grid"),
        (["none.npz", "--inputs", "x.npy"], "--inputs: expected a model to go with it; the file has its own"),
        (["--only-mistake", "gate-order"], "no mistake has the id 'gate-order'; the nearest are"),
        (["--save-failure", "/nowhere/case.npz"], "--save-failure: /nowhere/case.npz: cannot be written"),
    ],
)
def test_bad_input(capsys, monkeypatch, arguments, said):
    status, _, err = run(capsys, monkeypatch, "check", *arguments)
    assert (status, len(err.strip().splitlines())) == (2, 1)
    assert said in err


def test_score(capsys, monkeypatch, tmp_path):
    """The command, on one small case: every figure is there, nothing accused, nothing missed."""
    path = tmp_path / "score.json"
    status, out, _ = run(
        capsys, monkeypatch, "score", "--case", "simple_rnn-b2-t10-i4-u8-seq-tanh-normal", "--json", path, "--draws", 3
    )
    assert status == 0, out
    found = json.loads(path.read_text())
    assert (
        found["counts"]["correct evaluations accused"]["number"]
        == 0
        < found["counts"]["correct evaluations accused"]["of"]
    )
    caught = found["counts"]["mistakes caught, of those that are another function on the data"]
    assert caught["number"] == caught["of"] > 20
    assert (found["accused"], found["missed"]) == ([], [])
    assert "allclose(1e-05, 1e-06)" in out
