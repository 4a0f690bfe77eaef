# SPDX-License-Identifier: Apache-2.0
import base64
import hashlib
import re
import stat
from html.parser import HTMLParser

import pytest

from imagers.cli.trace_page import TraceFile, trace_page
from imagers.errors import LocalError, PolicyDenied
from imagers.pull.trace import WAIT, Trace
from imagers.sign.decision import Answer, Explanation, Finding

HOSTILE = "</style><script>alert(1)</script>&\"'<!--\x1b[2J\u202e\0\udc80"
SHOWN = "</style><script>alert(1)</script>&\"'<!--" + "\ufffd[2J" + "\ufffd" * 3


class Seen(HTMLParser):
    """What a browser makes of it."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(page.decode())
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data + "\n"


def page_of(trace, *, image="image", broker=None, failure=None):
    facts = {"image": image, "bundle": "b", "policy": "p"}
    return Seen(trace_page(trace, facts, broker=broker, failure=failure))


@pytest.fixture
def trace():
    """A trace with the work of two layers, and a decision."""
    trace = Trace()
    for name, layer in (("manifest", None), ("download", 1), (WAIT, 1), ("open", 0)):
        trace.note(name, layer, since=0)
    with trace.span("publish"):
        pass
    below = (Finding(Answer.NO, "the signature"), Finding(Answer.NOTE, "looked there"))
    trace.explanation = Explanation(Finding(Answer.YES, "the policy", below), None)
    return trace


def test_page_tells_the_decision_and_the_time(trace):
    trace.key_names = ("kbs:///a/b/c",)
    seen = page_of(trace, broker="https://broker.example.org")
    for text in (
        *("Pull of image", "yes", " the policy", "no", " the signature", "note", " looked there"),
        *("https://broker.example.org", "kbs:///a/b/c", "layer 1", "layer 2", "MainThread", "done"),
    ):
        assert f"\n{text}\n" in seen.text
    bars = [one["class"] for tag, one in seen.tags if tag == "rect" and "x" in one]
    assert [bars.count(one) for one in ("net", "wait", "open", "other")] == [1, 1, 1, 2]
    assert "mark" in bars


def test_nothing_that_others_chose_becomes_markup_or_moves_a_cursor(trace):
    honest = page_of(trace, failure="no")
    trace.note(HOSTILE, 0, since=0)
    trace.key_names = (HOSTILE,)
    trace.explanation = Explanation(Finding(Answer.NO, HOSTILE), None)
    seen = page_of(trace, image=HOSTILE, failure=HOSTILE)
    assert {tag for tag, _ in seen.tags} == {tag for tag, _ in honest.tags}
    assert "script" not in {tag for tag, _ in seen.tags}
    assert seen.text.count(SHOWN) >= 5
    assert not any(c in seen.text for c in "\x1b\u202e\0\udc80")


def test_page_allows_itself_its_own_style_and_nothing_else(trace):
    page = trace_page(trace, {"image": "i"}, broker=None, failure=None)
    style = re.search(rb"<style>(.*?)</style>", page, re.DOTALL)[1]
    known = base64.b64encode(hashlib.sha256(style).digest()).decode()
    (policy,) = [
        one["content"]
        for tag, one in Seen(page).tags
        if tag == "meta" and one.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{known}';")
    # Nothing of it leads out, and no style stands where the policy would refuse it.
    names = {name for _, attributes in Seen(page).tags for name in attributes}
    assert not names & {"href", "src", "style", "onload", "onclick", "action"}
    assert b"url(" not in page


def test_login_in_the_address_of_a_broker_is_not_written(trace):
    text = page_of(trace, broker="https://me:s3cret@broker.example.org/?token=s3cret").text
    assert "broker.example.org" in text
    assert "s3cret" not in text


def test_page_of_a_pull_that_did_nothing_says_so():
    seen = page_of(Trace(), failure="no such image")
    assert "The policy was not asked" in seen.text
    assert "Nothing was begun." in seen.text
    assert "no such image" in seen.text


def file_at(path):
    return TraceFile(str(path), reference="image", bundle="bundle", broker=None)


def test_file_is_its_owners(tmp_path):
    path = tmp_path / "trace.html"
    with file_at(path) as file:
        file.policy = "policy.json"
        assert not path.exists()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "policy.json" in path.read_text()


@pytest.mark.parametrize(
    ("error", "told"),
    [(PolicyDenied("not this image"), "not this image"), (KeyboardInterrupt(), "interrupted")],
)
def test_file_is_written_where_the_pull_fails(tmp_path, error, told):
    path = tmp_path / "trace.html"
    with pytest.raises(type(error)), file_at(path):
        raise error
    assert told in path.read_text()


def test_file_that_is_there_is_refused_before_anything_is_done(tmp_path):
    path = tmp_path / "trace.html"
    path.write_text("old")
    with pytest.raises(LocalError, match="nothing is written over a file"), file_at(path):
        raise AssertionError("not reached")
    assert path.read_text() == "old"


@pytest.fixture
def taken(tmp_path):
    """A file of a trace, open, at whose name another file has appeared."""
    file = file_at(tmp_path / "trace.html").__enter__()
    (tmp_path / "trace.html").write_text("theirs")
    yield file
    assert (tmp_path / "trace.html").read_text() == "theirs"


def test_file_that_came_meanwhile_stays_and_is_an_error(taken):
    with pytest.raises(LocalError, match="nothing is written over a file"):
        taken.__exit__(None, None, None)


def test_file_that_came_meanwhile_hides_no_other_error(taken, capsys):
    taken.__exit__(PolicyDenied, PolicyDenied("not this image"), None)
    assert "warning: there is no trace: " in capsys.readouterr().err
