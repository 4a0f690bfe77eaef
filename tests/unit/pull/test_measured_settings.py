# SPDX-License-Identifier: Apache-2.0
"""What a host could choose, as one document: one form, and no other passes for it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagers.errors import FormatError, PolicyDenied
from imagers.model.digest import digest_of
from imagers.model.origin import Origin
from imagers.pull.measured_settings import (
    MeasuredBroker,
    MeasuredSettings,
    Source,
    parse_settings,
)
from imagers.registry.mirrors import Mirror, RegistriesConf, Rule

URL = "https://broker.example.org"
REGISTRIES = RegistriesConf(
    rules=(
        Rule("example.org", "", insecure=False, blocked=True, mirrors=()),
        Rule(
            "docker.io/library",
            "registry.example.org/library",
            insecure=False,
            blocked=False,
            mirrors=(Mirror("mirror.example.org/library", insecure=True, pulls="digest-only"),),
        ),
    ),
    search=("docker.io",),
    unqualified=("docker.io",),
    aliases={"zed": "z.example.org/zed", "app": "registry.example.org/app"},
)
SETTINGS = MeasuredSettings(
    MeasuredBroker(URL, ca=digest_of(b"ca")),
    policy=str(digest_of(b"policy")),
    registries=REGISTRIES,
    auth=("/run/containers/0/auth.json", "kbs:///team/auth/app"),
)


def test_document_has_all_of_it_in_one_form():
    document = SETTINGS.to_bytes()
    value = json.loads(document)
    assert document == json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    assert value["broker"] == {"ca": str(digest_of(b"ca")), "reference": None, "url": URL}
    assert value["policy"] == str(digest_of(b"policy"))
    assert value["auth"] == ["/run/containers/0/auth.json", "kbs:///team/auth/app"]
    assert value["version"] == 1
    (_, rule) = value["registries"]["rules"]
    assert rule["mirrors"] == [
        {"insecure": True, "location": "mirror.example.org/library", "pulls": "digest-only"}
    ]
    assert SETTINGS.digest == digest_of(document)
    assert SETTINGS.event == {"digest": str(digest_of(document))}


@pytest.mark.parametrize(
    "settings",
    [
        SETTINGS,
        MeasuredSettings(None, "kbs:///default/policy/1"),
        MeasuredSettings(None, "kbs:///default/policy/1", "kbs:///default/registries/1"),
    ],
    ids=["with all", "with the least", "at a broker"],
)
def test_document_is_read_as_it_was_written(settings):
    again = parse_settings(settings.to_bytes())
    assert again == settings
    assert again.to_bytes() == settings.to_bytes()


def test_where_it_comes_from_is_no_part_of_the_document():
    broker = MeasuredBroker(URL, sources=(Source(Origin.KERNEL, "the broker's address", "word"),))
    assert MeasuredSettings(broker, "p").digest == MeasuredSettings(MeasuredBroker(URL), "p").digest


def changed(**members):
    return json.dumps(SETTINGS.to_json() | members, sort_keys=True, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"{}",
        b" " + SETTINGS.to_bytes(),
        SETTINGS.to_bytes() + b"\n",
        json.dumps(SETTINGS.to_json(), sort_keys=True).encode(),
        changed(version=2),
        changed(version=True),
        changed(more=1),
        changed(auth=None),
        changed(auth=[1]),
        changed(policy=None),
        changed(broker={"url": URL}),
        changed(broker={"url": URL, "ca": "sha256:00", "reference": None}),
        changed(broker={"url": URL, "ca": None, "reference": None, "token": "x"}),
        changed(registries={}),
        changed(registries=SETTINGS.to_json()["registries"] | {"search": "docker.io"}),
    ],
)
def test_another_form_or_another_document_is_refused(document):
    with pytest.raises(FormatError):
        parse_settings(document)


def test_path_that_is_no_text_is_refused():
    settings = MeasuredSettings(None, policy=str(digest_of(b"policy")), auth=("/auth\udcff",))
    with pytest.raises(FormatError, match="settings document: a name in it is not UTF-8"):
        settings.to_bytes()


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(data):
    with pytest.raises(FormatError):
        parse_settings(data)


def test_settings_are_those_of_the_init_data():
    SETTINGS.check_init_data(SETTINGS.to_bytes().decode())
    SETTINGS.check_init_data(SETTINGS.to_bytes().decode() + "\n")


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("broker", None),
        ("policy", "kbs:///default/policy/1"),
        ("registries", MeasuredSettings(None, "").to_json()["registries"]),
        ("auth", []),
    ],
)
def test_other_settings_than_those_of_the_init_data_are_refused_by_name(member, value):
    with pytest.raises(PolicyDenied, match=f"has other ones: {member}: expected ") as caught:
        SETTINGS.check_init_data(changed(**{member: value}).decode())
    assert "--print-settings" in caught.value.hint


ADDRESS, CA = "the broker's address", "the CA of the broker"


@pytest.mark.parametrize(
    ("origins", "is_vouched_for", "refused"),
    [
        ((Origin.CALLER, Origin.FILE), False, None),
        ((Origin.KERNEL, Origin.FILE), False, ADDRESS),
        ((Origin.KERNEL, Origin.FILE), True, None),
        ((Origin.SHARED_FILE, Origin.FILE), False, ADDRESS),
        ((Origin.SHARED_FILE, Origin.FILE), True, None),
        ((Origin.CALLER, Origin.SHARED_FILE), False, CA),
        ((Origin.CALLER, Origin.SHARED_FILE), True, CA),
        ((Origin.KERNEL, Origin.KERNEL), False, ADDRESS),
    ],
)
def test_broker_that_a_host_may_have_named_is_refused(origins, is_vouched_for, refused):
    """Init data does not vouch for a file that is read again when it is used."""
    address, ca = origins
    sources = (Source(address, ADDRESS, "a"), Source(ca, CA, "b", is_read_again=True))
    broker = MeasuredBroker(URL, sources=sources)
    if refused is None:
        broker.check_sources(is_vouched_for=is_vouched_for)
        return
    with pytest.raises(PolicyDenied, match=f"^{refused} comes from "):
        broker.check_sources(is_vouched_for=is_vouched_for)


def test_what_is_used_is_what_was_measured():
    policy = digest_of(b"policy")
    SETTINGS.check_used(policy, REGISTRIES)
    with pytest.raises(PolicyDenied, match="settings: policy: not as it was measured"):
        SETTINGS.check_used(digest_of(b"other"), REGISTRIES)
    with pytest.raises(PolicyDenied, match="settings: registries: not as it was measured"):
        SETTINGS.check_used(policy, RegistriesConf())
    of_broker = MeasuredSettings(None, "kbs:///a/b/policy", "kbs:///a/b/registries")
    of_broker.check_used(policy, REGISTRIES)
