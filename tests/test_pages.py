"""Pages: what names and numbers from anywhere may not do to them, and that a browser shows them."""

import json
import math
import re
import shutil
import subprocess
import sys
import time
import types
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from helpers import forward, pair

from parity import MissingExtraError, check, cli, pytest_plugin
from parity.judging.tally import WORST, Tally
from parity.judging.trace import PIECES, POINTS, Course
from parity.report.data import Blind, CaseReport, Cause, Divergence, LayerReport, Report, Trace
from parity.report.html import SHORT
from parity.report.merging import merged
from parity.report.pages import FORMATS, Format, opened, renderer
from parity.report.picture import decades, picture, ticks
from parity.report.selection import MOST

HOSTILE = "<script>alert(1)</script>|`x`&\x00\x1b[31m\u202e\ud800\ufffe\"'"

to_html, to_junit, to_markdown = (renderer(form) for form in ("html", "junit", "markdown"))


def trace(points: int = POINTS) -> Trace:
    steps = tuple(range(0, 7 * points, 7))
    return Trace(steps, tuple(1e-7 + 1e-9 * step for step in steps), tuple(2e-6 + 1e-10 * step for step in steps))


def case(name: str, verdict: str = "PASS", **found) -> CaseReport:
    found = {"proved": True, "method": ("stepwise",), "worst": 0.25, "max_abs": 1e-7, "trace": trace()} | found
    if verdict == "FAIL":
        worst = [Divergence(1, 3 + n, 2, 0.5, 0.75 - n / 100, 1e-6, 2.5e5 - n) for n in range(WORST)]
        found |= {"worst": 2.5e5, "first_divergence": worst[0], "outside": 17, "count": 91, "worst_elements": (*worst,)}
    return CaseReport(name, verdict, **found)


CAUSE = Cause("gates-swapped", "the port swaps i and f", "swap them")


def hostile() -> Report:
    layers = (LayerReport(HOSTILE, HOSTILE, "FAIL", 7.0, (HOSTILE,)),)
    failed = case(HOSTILE, "FAIL", layers=layers, notes=(HOSTILE,), trace=replace(trace(), seen_in=HOSTILE))
    cause = Cause(HOSTILE, HOSTILE, HOSTILE, detail=HOSTILE, apart=HOSTILE, within=HOSTILE)
    blind = Blind(HOSTILE, HOSTILE, HOSTILE, detail=HOSTILE), Blind(HOSTILE, HOSTILE, same=True)
    told = {"causes": (cause,), "known": (HOSTILE,), "blind": blind, "smallest": HOSTILE, "command": HOSTILE}
    return Report((failed, case("b")), (HOSTILE,), {HOSTILE: HOSTILE}, **told)


def many(failing: int = 25, of: int = 300) -> Report:
    name = "bidirectional-b33-t100-i31-u64-seq-hard_sigmoid-{}"
    cases = tuple(case(name.format(n), "FAIL" if n % 11 == 0 and n // 11 < failing else "PASS") for n in range(of))
    return Report(cases, ("masks",), {"numpy": "2.0"}, causes=(CAUSE,), command="parity check --layer gru")


class Page(HTMLParser):
    """The tags of a page, what their attributes are, and its text outside of style."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.attributes, self.text, self.styled = [], [], "", False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.styled = tag == "style"

    def handle_endtag(self, tag):
        self.styled = False

    def handle_data(self, data):
        self.text += "" if self.styled else data


# --- what names may not do ---


def test_nothing_in_a_page_comes_from_elsewhere_or_runs():
    text = to_html(hostile())
    page = Page(text)
    assert not {"script", "img", "link", "iframe", "object", "base", "form", "use", "image"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on") or name in ("src", "style")]
    assert all(value.startswith("#") for name, value in page.attributes if name == "href")
    assert not re.search(r"https?:|url\(|@import|javascript:", text.replace("http-equiv", ""))
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in page.attributes


def test_a_page_shows_the_name_as_it_is():
    text = Page(to_html(hostile())).text
    assert r"<script>alert(1)</script>|`x`&\x00\x1b[31m\u202e\ud800\ufffe" in text
    assert "<script>alert(1)</script>" not in to_html(hostile())


@pytest.mark.parametrize("form", FORMATS)
def test_no_page_has_control_characters(form):
    text = renderer(form)(hostile())
    text.encode()
    assert not set(text) & set(HOSTILE[HOSTILE.index("\x00") : -2].replace("[31m", ""))


def test_junit_is_xml_whatever_the_names():
    root = ElementTree.fromstring(to_junit(hostile()))
    failed, _ = root.iter("testcase")
    assert failed.get("name").startswith(r"<script>alert(1)</script>|`x`&\x00\x1b[31m")
    assert failed.get("name") in failed.find("failure").text


def cells(line: str) -> list[str]:
    """Of a row of a table, as GFM splits it: a | after a backslash does not."""
    return re.split(r"(?<!\\)\|", line.strip())[1:-1]


def test_markdown_table_keeps_its_columns():
    lines = to_markdown(hostile()).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert [len(cells(line)) for line in table] == [5] * 6 + [6] * (2 + WORST)  # cases, layers, worst elements
    assert cells(table[2])[1].strip().startswith("`` <script>alert(1)</script>\\|`x`&")
    prose = [line for line in lines if line.startswith((">", "- \\<"))]
    assert prose
    assert not [line for line in prose if re.search(r"(?<![\\`])<", re.sub(r"``.*?``", "", line))]


def test_markdown_fence_is_longer_than_what_is_in_it():
    text = to_markdown(replace(many(), command="parity check '````'"))
    assert "`````sh\nparity check '````'\n`````\n" in text


# --- what they say ---


def test_junit_counts():
    cases = case("a"), case("b", "FAIL"), case("c", "ERROR", notes=("it raised",)), case("d", "INCONCLUSIVE")
    root = ElementTree.fromstring(to_junit(Report(cases, environment={"keras": "3.15"}, causes=(CAUSE,))))
    suite = root.find("testsuite")
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("4", "1", "2")
    assert suite.find("properties/property").attrib == {"name": "keras", "value": "3.15"}
    told = {found.get("name"): [child.tag for child in found] for found in root.iter("testcase")}
    assert told == {"a": [], "b": ["failure"], "c": ["error"], "d": ["error"]}
    assert "gates-swapped" in root.find(".//failure").text
    assert "it raised" in root.find(".//error").text


@pytest.mark.parametrize(
    "report",
    [Report(()), Report((case("a"),), blind=(Blind("dropped", "it drops"),), strict=True)],
    ids=["no case", "strict"],
)
def test_junit_is_red_where_all_cases_pass_and_the_report_does_not(report):
    assert report.verdict != "PASS"
    root = ElementTree.fromstring(to_junit(report))
    assert root.find("testsuite").get("errors") == "1"
    assert report.verdict in root.find(".//error").text


def test_junit_is_green_for_a_pass_with_blind_spots():
    root = ElementTree.fromstring(to_junit(Report((case("a"),), blind=(Blind("dropped", "it drops"),))))
    assert root.find(".//error") is None


def test_markdown_of_a_fail_and_of_a_pass():
    text = to_markdown(many())
    assert text.startswith("## FAIL: parity with Keras\n\n300 cases: 275 PASS, 25 FAIL")
    assert len(re.findall(r"^\| FAIL \|", text, re.MULTILINE)) == MOST
    assert "… and 5 more" in text
    assert "> fix: swap them." in text
    assert "```sh\nparity check --layer gru\n```" in text
    text = to_markdown(Report((case("a"),), ("masks",), blind=(Blind("dropped", "it drops", "zeros"),)))
    assert "## PASS" in text
    assert "- `dropped`: it drops (zeros)" in text
    assert "Not asked: masks" in text
    assert "|" not in text


def test_a_page_tells_the_failing_cases_and_lists_all():
    page = Page(to_html(many()))
    assert page.tags.count("svg") == MOST
    assert "… and 5 more cases" in page.text
    assert all(f"hard_sigmoid-{n}\n" in page.text or f"hard_sigmoid-{n}<" in page.text for n in range(300))
    anchors = {value for name, value in page.attributes if name == "id"}
    links = [value[1:] for name, value in page.attributes if name == "href"]
    assert len(links) == SHORT + MOST
    assert page.text.index("… and 15 more") < page.text.index("gates-swapped")
    assert set(links) <= anchors
    for told in ("gates-swapped", "swap them", "parity check --layer gru", "timestep 3, batch 1, unit 2", "masks"):
        assert told in page.text


def test_a_page_of_a_pass_tells_the_case_nearest_to_its_radius():
    cases = case("near", worst=0.9), case("far", worst=0.1)
    page = Page(to_html(Report(cases, blind=(Blind("dropped", "it drops", "zeros"),))))
    assert page.tags.count("svg") == 1
    assert re.search(r"near\s+The case that comes nearest", page.text)
    assert "zeros" in page.text
    assert "first outside" not in page.text


def test_300_cases_stay_below_2_mb():
    assert len(to_html(many(failing=300)).encode()) < 2e6
    assert len(to_html(many(failing=0)).encode()) < 2e6


# --- the picture ---


def dots(svg: str) -> int:
    found = re.search(r'class="outside" d="([^"]*)"', svg)
    return found[1].count("M") if found else 0


def test_a_point_outside_the_radius_is_marked_and_one_inside_is_not():
    radii = (1e-6,) * 4
    inside = Trace((0, 1, 2, 3), (1e-7, 1e-6, 0.0, 1e-9), radii)
    assert dots(picture(inside, None)) == 0
    assert dots(picture(replace(inside, differences=(1e-7, 1.1e-6, math.inf, math.nan)), None)) == 3


@pytest.mark.parametrize("difference", [0.0, 1e-300, 5e-324, 1e-6, 1e300, math.inf, math.nan])
@pytest.mark.parametrize("radius", [0.0, 1e-45, 1e-6, 1e200, math.inf, math.nan])
def test_whatever_the_numbers_everything_is_inside_the_frame(difference, radius):
    svg = picture(Trace((5,), (difference,), (radius,)), Divergence(0, 5, 0, 1.0, 2.0, radius, 3.0))
    assert "nan" not in svg
    assert "inf" not in svg
    assert all(0 <= float(number) <= 720 for number in re.findall(r"[MLHV ](-?[\d.]+)", svg.partition(">")[2]))


def test_scales():
    assert decades(Trace((0, 1), (3e-4, 0.0), (2e-6, 5e-6))) == (-6, -3)
    assert decades(Trace((0,), (1e-6,), (1e-6,))) == (-6, -5)
    assert list(ticks(-0.5, 49.5)) == [0, 10, 20, 30, 40]
    assert list(ticks(-0.5, 1.5)) == [0, 1]


# --- what they are made of ---


def test_the_course_keeps_the_worst_element_of_each_step():
    rng = np.random.default_rng(5)
    ratio = rng.random((3, 11, 4))
    rad = rng.random((3, 11, 4)) + 0.5
    course = Course()
    course.add((ratio * rad)[:, :6], rad[:, :6], ratio[:, :6], 0)
    course.add((ratio * rad)[:, 6:], rad[:, 6:], ratio[:, 6:], 6)
    timesteps, differences, radii = course.points()
    np.testing.assert_array_equal(timesteps, np.arange(11))
    np.testing.assert_allclose(differences / radii, ratio.max(axis=(0, 2)))
    at = ratio.swapaxes(0, 1).reshape(11, -1).argmax(axis=1)
    np.testing.assert_array_equal(radii, rad.swapaxes(0, 1).reshape(11, -1)[np.arange(11), at])


def test_a_long_course_is_thinned_and_loses_no_peak():
    course, steps, peaks = Course(), 2_503, (17, 99_999, 180_006)
    for start in range(0, 80 * steps, steps):
        ratio = np.full((1, steps, 2), 0.1)
        for peak in peaks:
            if start <= peak < start + steps:
                ratio[0, peak - start, 1] = 7.0
        course.add(ratio, np.ones((1, 1, 1)), ratio, start)
    assert len(course.pieces) <= PIECES
    timesteps, differences, _ = course.points()
    assert len(timesteps) <= POINTS
    assert timesteps[differences == 7].tolist() == list(peaks)
    assert (np.diff(timesteps) > 0).all()


def test_the_worst_elements_are_the_worst_of_all_in_their_order():
    rng = np.random.default_rng(6)
    got, mid, rad = rng.standard_normal((3, 12, 5)), rng.standard_normal((3, 12, 5)), rng.random((3, 12, 5)) + 1e-3
    ratio = np.abs(got - mid) / rad
    tally, later = Tally(), Tally()
    tally.add(got[:, :5], mid[:, :5], rad[:, :5], 0)
    later.add(got[:, 5:], mid[:, 5:], rad[:, 5:], 0)
    tally.merge(later, 5)
    expected = np.argsort(-ratio, axis=None)[:WORST]
    found = [np.ravel_multi_index((e["batch"], e["timestep"], e["unit"]), ratio.shape) for e in tally.top]
    assert found == expected.tolist()
    assert tally.top[0]["got"] == got.flat[expected[0]]
    inside = Tally()
    inside.add(mid + rad / 2, mid, rad, 0)
    assert inside.top == []


def test_a_check_collects_both():
    _, layer = pair(units=5, return_sequences=True, dtype="float32")
    x = np.random.default_rng(7).standard_normal((2, 9, 4)).astype("float32")
    y = np.array(layer(x))
    (passed,) = check(y, layer, x).cases
    assert passed.worst_elements == ()
    assert passed.trace.timesteps == tuple(range(9))
    assert all(d <= r for d, r in zip(passed.trace.differences, passed.trace.radii, strict=True))
    y[1, 8, 3] += 1e-2  # the last step: no other hangs on it
    (failed,) = check(y, layer, x).cases
    (element,) = failed.worst_elements
    assert (element.batch, element.timestep, element.unit) == (1, 8, 3)
    assert element == failed.first_divergence
    outside = [d > r for d, r in zip(failed.trace.differences, failed.trace.radii, strict=True)]
    assert outside == [False] * 8 + [True]


def test_of_a_model_the_layer_that_failed_is_shown():
    import keras

    keras.utils.set_random_seed(8)
    stack = [keras.layers.SimpleRNN(5, return_sequences=True, name="one"), keras.layers.LSTM(3, name="two")]
    model = keras.Sequential([keras.Input((7, 4)), *stack])

    def shown(x, layer):
        seen = {}
        for name, part in layer.parts.items():
            seen[name] = x = part(x) + np.float32(name == "one") / 64
        return seen

    (found,) = check(shown, model).cases
    assert found.verdict == "FAIL"
    assert found.trace.seen_in == "layer one"
    assert {element.unit for element in found.worst_elements} <= set(range(5))
    assert "Seen in: layer one" in Page(to_html(Report((found,)))).text


# --- the command ---


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """`parity check` of outputs that are right but for `off`, in an empty folder: its status and both streams."""
    import keras

    keras.utils.set_random_seed(9)
    model = keras.Sequential([keras.Input((6, 4)), keras.layers.SimpleRNN(5, return_sequences=True)])
    x = np.random.default_rng(9).standard_normal((3, 6, 4)).astype("float32")
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "x y.npy", x)
    y = np.array(model(x))

    def call(*arguments, off=0.0):
        y[1, 5, 2] += np.float32(off)
        np.save(tmp_path / "y.npy", y)
        monkeypatch.chdir(tmp_path)
        given = ["check", "model.keras", "--inputs", "x y.npy", "--outputs", "y.npy", *arguments]
        monkeypatch.setattr(sys, "argv", ["parity", *given])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code, *capsys.readouterr()

    return call


FILES = ("--html", "report.html", "--junit", "junit.xml", "--markdown", "summary.md", "--json", "report.json")


@pytest.mark.parametrize(("off", "verdict"), [(0.0, "PASS"), (1e-2, "FAIL")])
def test_every_report_says_the_verdict_and_the_command(run, tmp_path, monkeypatch, off, verdict):
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    status, out, err = run(*FILES, off=off)
    assert (status, err) == (0 if verdict == "PASS" else 1, "")
    assert out.count("\nworst: timestep 5, batch 1, unit 2: got ") == (verdict == "FAIL")
    command = "KERAS_BACKEND=tensorflow parity check model.keras --inputs 'x y.npy' --outputs y.npy " + " ".join(FILES)
    assert json.loads((tmp_path / "report.json").read_text())["command"] == command
    page = Page((tmp_path / "report.html").read_text()).text
    assert verdict in page
    assert command in page
    assert (tmp_path / "summary.md").read_text().startswith(f"## {verdict}: ")
    assert command in (tmp_path / "summary.md").read_text()
    root = ElementTree.parse(tmp_path / "junit.xml").getroot()
    assert root.find("testsuite").get("failures") == str(int(verdict == "FAIL"))


def test_a_question_that_cannot_be_put_is_in_every_report(run, tmp_path):
    status, _, err = run("--atol", "-1", *FILES)
    assert status == 2
    assert "atol: expected" in err
    for name in FILES[1::2]:
        assert "atol: expected" in (tmp_path / name).read_text()
        assert "ERROR" in (tmp_path / name).read_text()


@pytest.mark.parametrize("form", FORMATS)
def test_a_path_that_cannot_be_written_is_said_before_the_check(run, tmp_path, monkeypatch, form):
    monkeypatch.setattr(cli, "check_model", lambda *_: pytest.fail("the check ran"))
    status, out, err = run(f"--{form}", "no/such/folder.txt", "--save-failure", "case.npz")
    assert (status, out) == (2, "")
    assert err.startswith(f"ERROR  --{form}: no/such/folder.txt: cannot be written")
    assert err.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"model.keras", "x y.npy", "y.npy"}


@pytest.mark.parametrize(("form", "library"), [("html", "jinja2"), ("junit", "junitparser")])
def test_a_library_that_is_missing_is_said_before_the_check(run, monkeypatch, form, library):
    monkeypatch.setattr(cli, "check_model", lambda *_: pytest.fail("the check ran"))
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, f"parity.report.{form}", raising=False)
    with pytest.raises(MissingExtraError, match=r"pip install 'keras-parity\[report\]'"):
        renderer(form)
    status, _, err = run(f"--{form}", "page")
    assert status == 2
    assert err.startswith(f"ERROR  --{form}: expected {library} to be installed")


def test_a_format_is_a_row_of_the_table_and_a_module(tmp_path, monkeypatch):
    plain = types.ModuleType("parity.report.plain")
    plain.to_plain = lambda report: f"in plain words: {report.verdict}"
    monkeypatch.setitem(sys.modules, plain.__name__, plain)
    monkeypatch.setitem(FORMATS, "plain", Format("plain", ".txt", "In plain words."))
    with opened("plain", str(tmp_path / "report.txt"), "--plain") as write:
        write(Report((case("a"),)))
    assert (tmp_path / "report.txt").read_text() == "in plain words: PASS"
    assert pytest_plugin._forms()[".txt"] == "plain"


def test_every_format_has_its_module_and_a_suffix_of_its_own():
    for name in FORMATS:
        assert renderer(name).__name__ == f"to_{name}"
    assert len({form.suffix for form in FORMATS.values()}) == len(FORMATS)


def test_verbose_has_the_layers_and_no_markup_of_theirs(capsys):
    layers = (LayerReport("[bold]loud[/bold]", "gru", "FAIL", 7.0, ("stepwise",), inputs_differed=True),)
    cli.show(Report((case("one", "FAIL", layers=layers),)), verbose=True)
    out = capsys.readouterr().out
    assert out.count("[bold]loud[/bold]") == 2
    assert out.count("\nworst: ") == WORST


# --- a browser ---

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


def browse(path, folder) -> str:
    """The page's tree after it was loaded, as the browser writes it."""
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}", "--dump-dom"]
    done = subprocess.run([BROWSER, *options, path.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


@pytest.mark.skipif(BROWSER is None, reason="no chromium or chrome here")
def test_a_browser_shows_the_page_and_runs_nothing_in_it(tmp_path):
    hostile_name = "</title></style><script>document.title='run'</script><img src=x onerror=\"document.title='run'\">"
    path = tmp_path / "report.html"
    path.write_text(to_html(Report((case(hostile_name, "FAIL"), case("b")), causes=(CAUSE,))))
    text = browse(path, tmp_path / "profile")
    page = Page(text)
    assert '<span class="badge FAIL">FAIL</span>' in text
    assert page.tags.count("svg") == 1
    assert not {"script", "img"} & set(page.tags)
    assert "<title>run</title>" not in text


@pytest.mark.skipif(BROWSER is None, reason="no chromium or chrome here")
def test_a_browser_opens_300_cases_in_a_second(tmp_path):
    """Beyond what it takes to open an empty page."""
    empty, path, profile = tmp_path / "empty.html", tmp_path / "report.html", tmp_path / "profile"
    empty.write_text("<!doctype html><title>empty</title>")
    path.write_text(to_html(many(failing=300)))

    def seconds(page) -> float:
        start = time.perf_counter()
        browse(page, profile)
        return time.perf_counter() - start

    seconds(empty)
    least = min(seconds(empty) for _ in range(3))
    assert min(seconds(path) for _ in range(3)) - least < 1


def test_forward_is_a_pass_here():
    """The twin of what fails above: the same pages, of a candidate that is right."""
    _, layer = pair(units=5, return_sequences=True, dtype="float32")
    report = check(forward, layer, input_shape=(9, 4))
    text = Page(to_html(report)).text
    assert "PASS" in text
    assert "FAIL" not in text


def test_a_page_of_several_reports_opens_with_which_failed():
    bad = replace(case("x", "FAIL"), trace=None)
    named = [(f"check {n}", Report((bad,), causes=(CAUSE,), command=f"repeat {n}")) for n in range(12)]
    report = replace(merged([*named, ("right", Report((case("y"),), known=("a remark",)))]), subject="parity.toml")
    text = Page(to_html(report)).text
    assert text.strip().startswith("FAIL: parity.toml")
    order = [text.index(words) for words in ("check 9: x", "… and 2 more", "Cause in", "right: a remark", "repeat 0")]
    assert order == sorted(order)
    assert '<div class="told"><p>right: a remark' in to_html(report)
    assert text.count("Cause in check 0, check 1 and 10 more") == 1
    root = ElementTree.fromstring(to_junit(report))
    assert ["again: repeat 7" in found.text for found in root.iter("failure")].count(True) == 1
    assert "### `check 0: x`" in to_markdown(report)
    assert "repeat 0" in to_markdown(report)


def test_a_remark_on_a_pass_is_no_cause():
    assert '<div class="told">' in to_html(Report((case("a"),), known=("allowed",)))
    assert '<div class="cause"><p>Allowed' in to_html(Report((case("a", "FAIL"),), known=("allowed",)))


def test_markdown_has_the_layers_and_the_worst_elements():
    layers = LayerReport("one", "gru", "FAIL", 7.0), LayerReport("two", "gru", "PASS", 0.1, inputs_differed=True)
    text = to_markdown(Report((case("a", "FAIL", layers=layers),)))
    assert "| `two` | gru | PASS | 0.1 | its inputs already differed |" in text
    assert len(re.findall(r"^\| \d+ \| 1 \| 2 \|", text, re.MULTILINE)) == WORST
    assert "radii off" not in to_markdown(Report((case("a"),)))
