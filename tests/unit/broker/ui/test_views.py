# SPDX-License-Identifier: Apache-2.0
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest

from imagers.broker.keeping.tables import AUDIT_TEXTS
from imagers.broker.ui import views

NOW = datetime(2026, 11, 1, 12, 30, tzinfo=UTC)
HOSTILE = '"><script>alert(1)</script>&javascript:alert(1)'


def row(**members):
    told = {"id": "0" * 16, "at": "2026-11-01T12:00:00.000+00:00", "event": "release"}
    return dict.fromkeys(AUDIT_TEXTS, "") | told | {"outcome": "refused"} | members


class Seen(HTMLParser):
    """Tags, links and texts of a page."""

    def __init__(self, content):
        super().__init__()
        self.tags, self.links, self.texts = [], [], []
        self.feed(views.frame("Title", content, name="me").decode())
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("href", "src", "action")]
        assert not any(name.startswith("on") or name == "style" for name, _ in attributes)

    def handle_data(self, data):
        self.texts.append(data)


def test_overview_counts_the_last_day_by_the_hour():
    counts = {
        ("2026-11-01T12", "ok"): 3,
        ("2026-11-01T12", "refused"): 1,
        ("2026-10-31T13", "ok"): 2,
        ("2026-10-31T12", "ok"): 9,  # before
    }
    seen = Seen(views.overview(counts, [], now=NOW))
    assert "In the last 24 hours: 5 released , 1 refused ." in seen.text
    assert seen.tags.count("rect") == 3
    assert seen.tags.count("g") == 24
    assert "12:00 UTC: 3 released, 1 refused" in seen.text
    assert "2026-10-31 13:00 UTC 2 0" in seen.text
    assert "Nothing was refused." in seen.text


def test_plot_of_nothing_is_one_too():
    seen = Seen(views.overview({}, [], now=NOW))
    assert seen.tags.count("rect") == 0
    assert "None in this time." in seen.text


def test_newest_attempt_is_the_first_and_leads_to_its_page():
    rows = [row(id="a" * 16, path="x/y/1"), row(id="b" * 16, path="x/y/2", outcome="ok")]
    seen = Seen(views.attempts(rows, only_refused=False))
    links = [one for one in seen.links if one.startswith("/ui/attempts/")]
    assert links == ["/ui/attempts/" + "b" * 16, "/ui/attempts/" + "a" * 16]
    assert seen.text.index("x/y/2") < seen.text.index("x/y/1")
    assert "/ui/attempts?outcome=refused" in seen.links
    assert "/ui/attempts?outcome=refused" not in Seen(views.attempts(rows, only_refused=True)).links


def test_attempt_has_each_reason_for_itself():
    content = views.attempt(
        row(
            tee="snp",
            client="192.0.2.7",
            path="x/y/1",
            image="sha256:1",
            rule="known",
            detail="measurement: expected a; policy: expected b, found c",
        ),
        [row(event="attest", outcome="ok", detail="before")],
    )
    seen = Seen(content)
    assert "refused by rule known measurement: expected a policy: expected b, found c" in seen.text
    for part in ("TEE: snp", "address: 192.0.2.7", "resource: x/y/1", "image: sha256:1"):
        assert part in seen.text
    assert "Before that, in the same session" in seen.text
    assert "session:" not in seen.text.partition("Before")[0]
    assert "Before that" not in Seen(views.attempt(row(), [])).text
    assert "by no rule of a policy" in Seen(views.attempt(row(), [])).text


def test_guests_are_counted_by_session_the_last_one_first():
    rows = [
        row(session="one", event="attest", outcome="ok", tee="snp"),
        row(session="two", event="attest", outcome="ok", tee="tdx"),
        row(session="one", outcome="ok", tee="snp", at="2026-11-01T13:00:00.000+00:00"),
        row(session="one", tee="snp", at="2026-11-01T14:00:00.000+00:00"),
        row(session="", tee="snp"),
    ]
    seen = Seen(views.guests(rows))
    assert "one snp \u2013 2026-11-01 12:00:00 UTC 2026-11-01 14:00:00 UTC 1 1" in seen.text
    assert "two tdx \u2013 2026-11-01 12:00:00 UTC 2026-11-01 12:00:00 UTC 0 0" in seen.text
    assert seen.text.index("one snp") < seen.text.index("two tdx")
    assert "/ui/attempts?session=one" in seen.links


def test_reference_value_that_is_over_is_told():
    values = [
        {"name": "a", "values": ["x", 1], "expires": "2026-11-01T12:30:00+00:00", "source": "s"},
        {"name": "b", "values": [True], "expires": "2026-11-01T12:31:00+00:00", "source": ""},
        {"name": "c", "values": [1], "expires": None, "source": ""},
    ]
    text = Seen(views.reference_values(values, now=NOW)).text
    assert "a x, 1 2026-11-01 12:30:00 UTC: is over s" in text
    assert "b True 2026-11-01 12:31:00 UTC \u2013 c 1 \u2013 \u2013" in text


IMAGE = {
    "manifest_digest": "sha256:1",
    "state": "active",
    "successor": None,
    "reason": None,
    "proposed_by": "ann",
    "proposed_at": "2026-11-01T12:00:00+00:00",
    "approvals": [{"admin": "bob", "until": "2026-12-01T00:00:00+00:00"}],
}
REVOKED = {"state": "revoked", "reason": "CVE-1", "successor": "sha256:1", "approvals": []}


def test_images_have_their_states_the_newest_first():
    old = IMAGE | REVOKED | {"manifest_digest": "sha256:0", "proposed_by": None}
    seen = Seen(views.images([{"repository": "app", "floor": None, "images": [old, IMAGE]}]))
    assert "Repository app" in seen.text
    assert "sha256:1 active" in seen.text
    assert "bob until 2026-12-01 00:00:00 UTC ann 2026-11-01 12:00:00 UTC" in seen.text
    assert "sha256:0 revoked sha256:1 CVE-1 \u2013 2026-11-01 12:00:00 UTC" in seen.text
    assert seen.text.index("sha256:1 active") < seen.text.index("sha256:0 revoked")
    assert "No repository knows an image." in Seen(views.images([])).text


def test_resource_shows_what_may_be_told():
    facts = {"path": "a/b/c", "size": 7, "manifest_digests": ["sha256:1", "sha256:2"]}
    text = Seen(views.resource(facts)).text
    assert "path a/b/c size 7 manifest digests sha256:1 manifest digests sha256:2" in text


def test_page_without_a_login_has_no_navigation():
    told = views.frame("Log in", views.login("expired"))
    assert b"Overview" not in told
    assert b'role="alert">expired</p>' in told
    assert b"alert" not in views.frame("Log in", views.login())


EVERYTHING = row(**dict.fromkeys((*AUDIT_TEXTS, "id"), HOSTILE))


@pytest.mark.parametrize(
    "content",
    [
        views.overview({}, [EVERYTHING], now=NOW),
        views.attempts([EVERYTHING], only_refused=True),
        views.attempt(EVERYTHING, [EVERYTHING]),
        views.guests([EVERYTHING]),
        views.images(
            [
                {
                    "repository": HOSTILE,
                    "images": [
                        dict.fromkeys(IMAGE, HOSTILE)
                        | {"approvals": [{"admin": HOSTILE, "until": HOSTILE}]}
                    ],
                }
            ]
        ),
        views.resources([HOSTILE]),
        views.resource({HOSTILE: [HOSTILE]}),
        views.policies({HOSTILE: HOSTILE}),
        views.reference_values(
            [{"name": HOSTILE, "values": [HOSTILE], "expires": None, "source": HOSTILE}], now=NOW
        ),
        views.login(HOSTILE),
        views.told(HOSTILE),
    ],
    ids=range(11),
)
def test_nothing_that_others_wrote_becomes_markup_or_a_link_elsewhere(content):
    seen = Seen(content)
    assert seen.tags.count("script") == 1
    links = {link for link in seen.links if not link.startswith("/ui")}
    assert links == {"data:,", "#content"}
    assert "alert(1)" in seen.text
