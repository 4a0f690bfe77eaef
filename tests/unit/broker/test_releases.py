# SPDX-License-Identifier: Apache-2.0
"""Tests that attack a step of a release begin their docstring with its number."""

import asyncio
import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwcrypto.jwk import JWK

from imagers.broker.keeping.sealed import Altered
from imagers.broker.keeping.tables import DEFAULT_TENANT
from imagers.broker.policy.rego.engine import Decision
from imagers.broker.refusals import Refusal
from imagers.broker.releases import Asked, Credentials, Releases
from imagers.broker.resources import Ends
from imagers.broker.rules import ATTESTATION, POLICY
from imagers.broker.start import open_state
from imagers.errors import LocalError, TagMismatch
from imagers.kbs.jwe import MAX_RESOURCE_BYTES, open_answer
from imagers.kbs.resources import parse_resource_path
from imagers.model.digest import digest_of
from imagers.model.keys import SecretKey
from imagers.model.references import ReferenceValue
from imagers.pki.jose import sign_token
from tests.unit.broker.conftest import Now, Release

PATH = "default/key/1"
IMAGE, OTHER = digest_of(b"manifest"), digest_of(b"other")
SECRET = b"a very secret key-encryption key"
ASKED = [str(IMAGE)]


def bind(resources, digest=IMAGE, path=PATH):
    resources.bind(path, json.dumps({"manifest_digest": str(digest)}).encode())


@pytest.fixture
def stored(resources):
    resources.put(PATH, SecretKey(SECRET), replace=False)
    bind(resources)
    return resources


@pytest.fixture
def release(state, stored):  # noqa: ARG001 - a secret is there
    return Release(state)


@pytest.fixture
def credentials(guest):
    cookie, token = guest.attest()
    return Credentials(cookie=cookie, bearer=token)


def refused(call, *arguments, **named):
    with pytest.raises(Refusal) as caught:
        call(*arguments, **named)
    return caught.value


def opened(answer, guest):
    with open_answer(answer, guest.key) as secret, secret.view() as data:
        return bytes(data)


def test_release_by_session_or_token_gives_the_secret_to_the_attested_key(
    guest, credentials, rows, release
):
    for one in (
        credentials,
        Credentials(cookie=credentials.cookie),
        Credentials(bearer=credentials.bearer),
        Credentials(cookie="0" * 32, bearer=credentials.bearer),
    ):
        assert opened(release(one, PATH, ASKED), guest) == SECRET
    released = [row for row in rows() if row.event == "release"]
    assert len(released) == 4
    assert {(row.outcome, row.rule, row.image) for row in released} == {
        ("ok", "bound-image", str(IMAGE))
    }
    assert released[0].session != ""
    assert released[2].session == ""


def test_release_is_for_no_other_key(credentials, release):
    from imagers.kbs.tee_key import ECKey

    with pytest.raises(TagMismatch):
        open_answer(release(credentials, PATH, ASKED), ECKey())


@pytest.mark.parametrize(
    ("credentials_", "name"),
    [
        (Credentials(), "TokenNotFound"),
        (Credentials(cookie="0" * 32), "SessionNotFound"),
        (Credentials(bearer="a.b.c"), "TokenVerifierError"),
        (Credentials(cookie="0" * 32, bearer="a.b.c"), "TokenVerifierError"),
    ],
)
def test_release_without_good_credentials_refused(rows, credentials_, name, release):
    """1."""
    refusal = refused(release, credentials_, PATH, ASKED)
    assert (refusal.name, refusal.status) == (name, 401)
    (row,) = [row for row in rows() if row.event == "release"]
    assert (row.outcome, row.detail, row.tee) == ("refused", refusal.detail, "")


def test_release_in_a_session_that_is_not_attested_refused(guest, release):
    """1: a nonce is not a token."""
    cookie, _ = guest.auth()
    assert refused(release, Credentials(cookie=cookie), PATH, ASKED).status == 401


def test_release_after_the_session_refused(credentials, clock, release):
    """1: neither cookie nor token outlive the session."""
    clock.advance(minutes=5)
    assert refused(release, credentials, PATH, ASKED).name == "TokenVerifierError"
    only = Credentials(cookie=credentials.cookie)
    assert refused(release, only, PATH, ASKED).name == "SessionNotFound"


def test_release_after_the_clock_went_back_in_a_session_that_was_over_refused(
    credentials, clock, guest, state, release
):
    """1: time is judged by the highest that the store has seen."""
    clock.advance(minutes=5)
    guest.attest()  # the store sees the time
    clock.advance(minutes=-4)
    again = open_state(state.config)
    for resources in (release, Release(again)):
        for one in (credentials, Credentials(cookie=credentials.cookie)):
            assert refused(resources, one, PATH, ASKED).status == 401
    again.close()


@pytest.mark.usefixtures("stored")
def test_release_with_a_token_from_before_the_time_began_again_refused(
    credentials, clock, guest, state
):
    """1: it was over, by the time that was before; all sessions end, and so does what they gave."""
    clock.advance(minutes=11)
    guest.attest()  # the store sees the time
    state.store.close()
    clock.advance(minutes=-9)
    again = open_state(state.config)
    for one in (credentials, Credentials(bearer=credentials.bearer)):
        refusal = refused(Release(again), one, PATH, ASKED)
        assert (refusal.status, refusal.name) == (401, "TokenVerifierError")
        assert "began again" in refusal.detail
    again.close()


def test_release_with_the_cookie_of_a_session_that_is_no_row_refused(state, release):
    """1: a cookie of ours proves nothing before evidence was accepted."""
    cookie, _ = state.challenges.issue(
        "sample", algorithm="sha384", expires_ms=state.session_time.now_ms() + 1000
    )
    refusal = refused(release, Credentials(cookie=cookie), PATH, ASKED)
    assert refusal.name == "SessionNotFound"


def test_release_refusals_of_one_guest_do_not_fill_the_audit_log(credentials, rows, release):
    long = "/".join(("a" * 200, "b" * 200, "c" * 200))
    for one in (credentials, Credentials(bearer=credentials.bearer)):
        for _ in range(70):
            refused(release, one, long, ASKED)
    kept = [row for row in rows() if row.event == "release"]
    assert len(kept) == 60
    assert {row.outcome for row in kept} == {"refused"}


def test_release_is_in_the_audit_log_however_many_refusals_there_were(credentials, rows, release):
    for _ in range(70):
        refused(release, credentials, "none/none/none", ASKED)
    for _ in range(70):
        release(credentials, PATH, ASKED)
    assert [row.outcome for row in rows() if row.event == "release"].count("ok") == 70


def test_release_refusals_of_strangers_leave_room_for_those_of_guests(credentials, rows, release):
    for number in range(300):
        refused(release, Credentials(), PATH, ASKED, caller=str(number))
    refused(release, credentials, "none/none/none", ASKED)
    assert rows()[-1].path == "none/none/none"


def test_release_with_a_token_that_somebody_else_signed_refused(credentials, release):
    """1: the key in the header is not believed."""
    import base64

    payload = json.loads(base64.urlsafe_b64decode(credentials.bearer.split(".")[1] + "=="))
    key = ec.generate_private_key(ec.SECP256R1())
    forged = sign_token(
        payload,
        key=key,
        header={"jwk": JWK.from_pyca(key.public_key()).export_public(as_dict=True)},
    )
    refusal = refused(release, Credentials(bearer=forged), PATH, ASKED)
    assert refusal.name == "TokenVerifierError"


def test_release_to_a_tee_that_was_disabled_meanwhile_refused(state, credentials, release):
    """2."""
    del state.verifiers["sample"]
    refusal = refused(release, credentials, PATH, ASKED)
    assert (refusal.name, refusal.status) == ("PolicyDeny", 403)


@pytest.mark.parametrize("path", ["", "a", "a/b", "a/b/c/d", "a/../c", "a//c", "a/b/.c", "a/b/c\n"])
def test_release_of_a_path_that_is_none_refused(credentials, path, release):
    """3."""
    refusal = refused(release, credentials, path, ASKED)
    assert (refusal.name, refusal.status) == ("InvalidRequestPath", 404)


@pytest.mark.parametrize(
    "values",
    [[""], ["sha256:x"], [str(IMAGE).upper()], [str(IMAGE), str(IMAGE)], [f" {IMAGE}"]],
    ids=["empty", "no hex", "upper case", "twice", "space"],
)
def test_release_with_an_image_digest_that_is_none_refused(credentials, values, release):
    """3."""
    refusal = refused(release, credentials, PATH, values)
    assert (refusal.name, refusal.status) == ("SerdeError", 400)


def test_release_of_nothing_is_not_found(credentials, release):
    """4."""
    refusal = refused(release, credentials, "default/key/none", ASKED)
    assert (refusal.name, refusal.status) == ("ResourceNotFound", 404)


def test_release_that_a_rule_denies_is_logged_under_its_name(stored, credentials, rows, release):
    """5."""
    stored.set_policy(
        b'{"rules": [{"name": "closed", "effect": "deny", "resource": "*/*/*", "image": "any"}]}'
    )
    assert refused(release, credentials, PATH, ASKED).detail == "rule 'closed' denies it"
    assert [(row.outcome, row.rule) for row in rows() if row.event == "release"] == [
        ("refused", "closed")
    ]


@pytest.mark.parametrize(
    ("images", "piece"),
    [([], "names no image"), ([str(OTHER)], "not bound to the image")],
    ids=["no image", "another image"],
)
def test_release_against_the_policy_refused(credentials, images, piece, release):
    """5."""
    refusal = refused(release, credentials, PATH, images)
    assert (refusal.name, refusal.status) == ("PolicyDeny", 403)
    assert "rule 'bound-image'" in refusal.detail
    assert piece in refusal.detail


def test_release_after_a_replacement_refused_until_bound_again(stored, guest, credentials, release):
    """5: the new secret is not the key of the old image."""
    stored.put(PATH, SecretKey(b"new"), replace=True)
    assert refused(release, credentials, PATH, ASKED).name == "PolicyDeny"
    bind(stored)
    assert opened(release(credentials, PATH, ASKED), guest) == b"new"


def test_release_with_a_damaged_policy_gives_nothing(state, credentials, release):
    """5: could not look is not yes."""
    with state.store.transaction() as transaction:
        transaction.set_policy(DEFAULT_TENANT, "policy", b"{}")
    with pytest.raises(LocalError, match="stored policy is damaged"):
        release(credentials, PATH, ASKED)


def test_release_without_an_audit_row_does_not_happen(credentials, monkeypatch, release):
    """7."""
    from imagers.broker import releases as module

    def full(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(module, "append", full)
    with pytest.raises(OSError, match="disk full"):
        release(credentials, PATH, ASKED)


def test_release_of_a_sealed_value_that_was_moved_fails_and_is_not_logged_as_released(
    stored, state, credentials, rows, release
):
    """6: who can write the database cannot swap two secrets."""
    stored.put("default/key/2", SecretKey(b"other"), replace=False)
    bind(stored, path="default/key/2")
    with state.store.transaction() as transaction:
        transaction._run(
            "UPDATE resources SET sealed = "
            "(SELECT sealed FROM resources WHERE path = 'default/key/2') WHERE path = :path",
            path=PATH,
        )
    with pytest.raises(Altered, match="default/key/1"):
        release(credentials, PATH, ASKED)
    assert not any(row.event == "release" for row in rows())


def test_release_of_a_value_that_is_sealed_for_another_path_fails(
    stored, state, credentials, rows, release
):
    """6: nor could who has the keys of heads and not the master key."""
    stored.put("default/key/2", SecretKey(b"other"), replace=False)
    with state.store.transaction() as transaction:
        one = transaction.find_resource(parse_resource_path(PATH))
        other = transaction.find_resource(parse_resource_path("default/key/2"))
        transaction.sealed.remove("resources", PATH)
        transaction.insert_resource(replace(one, sealed=other.sealed))
    with pytest.raises(TagMismatch, match="'default/key/1'"):
        release(credentials, PATH, ASKED)
    assert not any(row.event == "release" for row in rows())


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM bindings",
        "INSERT INTO bindings SELECT path, 'sha512:00' FROM bindings",
        "DELETE FROM resources",
        "UPDATE resources SET created_at = ''",
    ],
)
@pytest.mark.usefixtures("stored")
def test_release_by_rows_that_no_broker_made_fails(state, credentials, rows, release, statement):
    """4: a row, one that is missing, or one too many."""
    with closing(sqlite3.connect(state.config.state_directory / "broker.sqlite")) as outside:
        outside.execute(statement)
        outside.commit()
    with pytest.raises(Altered, match="changed from outside"):
        release(credentials, PATH, ASKED)
    assert not any(row.event == "release" for row in rows())


def test_every_refusal_of_a_release_is_in_the_audit_log_with_its_reason(credentials, rows, release):
    for path, images in (
        (PATH, []),
        ("default/key/none", ASKED),
        ("bad", []),
        (PATH, ["x", "y"]),
    ):
        refusal = refused(release, credentials, path, images)
        row = rows()[-1]
        assert (row.event, row.outcome, row.path) == ("release", "refused", path)
        assert (row.tee, row.detail) == ("sample", refusal.detail)
        assert len(row.session) == 12
        assert row.image == ",".join(images)


def test_store_has_the_secret_nowhere_in_the_clear(stored, state, credentials, release):
    release(credentials, PATH, ASKED)
    stored.put(PATH, SecretKey(b"new " + SECRET), replace=True)
    stored.delete(PATH)
    state.close()
    for path in state.config.state_directory.iterdir():
        data = path.read_bytes()
        assert SECRET not in data, path.name
        assert SECRET.hex().encode() not in data, path.name
        assert credentials.cookie.encode() not in data, path.name


def test_release_to_a_stranger_reads_no_secret(state, credentials, release):
    """1: who proves nothing cannot make the broker hold the secrets whose names he guesses."""
    with state.store.transaction() as transaction:
        transaction._run("DROP TABLE resources")
    for stranger in (Credentials(cookie="0" * 32), Credentials(bearer="a.b.c")):
        assert refused(release, stranger, PATH, ASKED).status == 401
    with pytest.raises(LocalError, match="resources"):
        release(credentials, PATH, ASKED)


def test_release_of_a_resource_with_many_images_takes_no_memory(
    state, resources, credentials, release
):
    """A guest may name any images, and each would be remembered with all of the resource's."""
    release(credentials, PATH, ASKED)
    assert list(state.last_rules._last.small) == [(parse_resource_path(PATH), IMAGE)]
    for number in range(5):
        bind(resources, digest_of(b"%d" % number))
    release(credentials, PATH, ASKED)
    assert not state.last_rules._last.small


def test_release_of_more_than_one_answer_may_hold_refused(state, resources, guest):
    """4: an answer is held whole, as often as there are guests who ask."""
    half = MAX_RESOURCE_BYTES // 2
    paths = [f"default/large/{number}" for number in range(3)]
    for path, size in zip(paths, (half, half, 1), strict=True):
        resources.put(path, SecretKey(bytes(size)), replace=False)
        bind(resources, path=path)
    cookie, _ = guest.attest()
    releases = Now(Releases(state))
    released = releases.release(Credentials(cookie=cookie), Asked(paths[:2], ASKED))
    assert len(released.bodies) == 2
    refusal = refused(releases.release, Credentials(cookie=cookie), Asked(paths, ASKED))
    assert refusal.name == "PayloadTooLarge"
    assert f"at most {MAX_RESOURCE_BYTES} bytes of secrets together" in refusal.detail


def test_release_by_a_policy_that_took_longer_than_the_session_refused(
    state, stored, guest, clock, rows
):
    """7: what was in time when it was read may be over when the policy has answered."""

    class Slow:
        def __init__(self, engine):
            self.check, self.appraise = engine.check, engine.appraise
            self.close = engine.close

        async def decide(self, *_, **__):
            clock.advance(minutes=5)
            return Decision(allow=True, rule="slow")

    cookie, _ = guest.attest()
    stored.set_policy(b"package policy\ndefault allow = true\n")
    slow = replace(state, engine=Slow(state.engine))
    assert refused(Release(slow), Credentials(cookie=cookie), PATH, ASKED).status == 401
    assert [row.outcome for row in rows() if row.event == "release"] == ["refused"]


@pytest.mark.parametrize("setting", [POLICY, ATTESTATION + "cpu"])
def test_policy_that_was_not_asked_is_no_denial_which_a_guest_would_take_as_final(
    release, state, credentials, rows, setting
):
    """5."""
    rego = b"package policy\n\ndefault allow := true\n\ntrust_claims := {}\n"
    with state.store.transaction() as transaction:
        transaction.set_policy(DEFAULT_TENANT, setting, rego)
    asyncio.run(state.engine.close())  # it starts no process any more
    refusal = refused(release, credentials, PATH, ASKED)
    assert (refusal.name, refusal.status) == ("PolicyUnavailable", 503)
    assert (rows()[-1].outcome, rows()[-1].detail) == ("refused", refusal.detail)


# --- ends


def limited(resources, path="default/key/2", **ends):
    resources.put(path, SecretKey(SECRET), replace=True, ends=Ends(**ends))
    bind(resources, path=path)
    return path


def test_release_as_often_as_it_may_be_and_no_more(resources, credentials, rows, release):
    path = limited(resources, max_uses=2)
    for _ in range(2):
        release(credentials, path, ASKED)
    refusal = refused(release, credentials, path, ASKED)
    assert (refusal.status, refusal.name) == (403, "ResourceUsedUp")
    told = [(row.outcome, row.detail) for row in rows() if row.path == path][-3:]
    assert [outcome for outcome, _ in told] == ["ok", "ok", "refused"]
    assert json.loads(resources.metadata(path))["uses"] == 2
    release(credentials, PATH, ASKED)
    resources.delete(path)
    resources.undelete(path, None)
    assert refused(release, credentials, path, ASKED).name == "ResourceUsedUp"
    limited(resources, path, max_uses=1)
    release(credentials, path, ASKED)


def test_release_that_is_refused_is_not_counted(resources, credentials, release):
    path = limited(resources, max_uses=1)
    assert refused(release, credentials, path, [str(OTHER)]).name == "PolicyDeny"
    release(credentials, path, ASKED)


def test_releases_at_once_are_counted_each(state, resources, credentials, release):  # noqa: ARG001
    path = limited(resources, max_uses=3)
    releases = Releases(state)

    async def at_once():
        asked = [releases.release(credentials, Asked((path,), ASKED)) for _ in range(6)]
        return await asyncio.gather(*asked, return_exceptions=True)

    found = asyncio.run(at_once())
    refusals = [one for one in found if isinstance(one, Refusal)]
    assert [one.name for one in refusals] == ["ResourceUsedUp"] * 3


def test_release_together_is_counted_for_all_or_for_none(state, resources, credentials, release):  # noqa: ARG001
    paths = [limited(resources, f"default/key/{number}", max_uses=number) for number in (2, 3)]
    together = Asked(paths, ASKED)
    for _ in range(2):
        asyncio.run(Releases(state).release(credentials, together))
    assert refused(asyncio.run, Releases(state).release(credentials, together)).status == 403
    assert [json.loads(resources.metadata(path))["uses"] for path in paths] == [2, 2]


def test_release_until_its_time_is_over_and_no_clock_brings_it_back(
    state, clock, guest, resources, rows, release
):
    end = clock() + timedelta(minutes=4)
    path = limited(resources, expires=int(end.timestamp()))
    credentials = Credentials(cookie=guest.attest()[0])
    clock.advance(minutes=4, milliseconds=-1)
    release(credentials, path, ASKED)
    clock.advance(milliseconds=1)
    refusal = refused(release, credentials, path, ASKED)
    assert (refusal.status, refusal.name) == (403, "ResourceExpired")
    assert end.isoformat() in rows()[-1].detail
    clock.advance(minutes=-4)
    assert refused(release, credentials, path, ASKED).name == "ResourceExpired"
    with state.store.reading() as transaction:
        assert transaction.store_row().seen_ms >= end.timestamp() * 1000
    release(credentials, PATH, ASKED)


def test_refusal_after_a_reference_value_was_over_keeps_the_time(
    state, clock, credentials, release
):
    """Step 5: a clock that goes back does not bring the value back."""
    end = clock() + timedelta(minutes=1)
    with state.store.transaction() as transaction:
        value = ReferenceValue("code", ("v1",), expires=end)
        transaction.set_reference_value(DEFAULT_TENANT, value)
    clock.advance(minutes=1)
    refused(release, credentials, PATH, [str(OTHER)])
    with state.store.reading() as transaction:
        assert transaction.store_row().seen_ms >= end.timestamp() * 1000
