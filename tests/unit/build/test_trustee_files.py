# SPDX-License-Identifier: Apache-2.0
import base64
import json
import os

import pytest

from imagers.build.trustee_files import move_trustee
from imagers.errors import LocalError, Unauthorized
from imagers.testing.broker import EmbeddedBroker

POLICY = "package policy\n\ndefault allow := false\n\nallow if input.x == 1\n"
CPU = 'package policy\n\ndefault hardware := 97\n\ntrust_claims := {"hardware": hardware}\n'
STORED = {
    "repository": {"default/key/1": b"secret one", "default/key/2": b"\xff\x00"},
    "kbs": {"resource-policy.rego": POLICY.encode()},
    "attestation_service_policy": {"default_cpu.rego": CPU.encode()},
    "reference_value": {
        "code": json.dumps(
            {
                "version": "0.1.0",
                "name": "code",
                "expiration": "2099-01-01T00:00:00Z",
                "value": ["v1", 2],
            }
        ).encode()
    },
}
TAKEN = [
    "kbs:///default/key/1",
    "kbs:///default/key/2",
    "reference value code",
    "attestation policy default_cpu.rego",
    "policy resource-policy.rego",
]


@pytest.fixture(scope="module")
def running():
    with EmbeddedBroker() as broker:
        yield broker


@pytest.fixture
def broker():
    with EmbeddedBroker() as broker:
        yield broker


def as_directories(folder):
    for namespace, entries in STORED.items():
        (folder / namespace).mkdir()
        for key, value in entries.items():
            (folder / namespace / key.replace("/", "\\x2F")).write_bytes(value)


def as_nested_directories(folder):
    for namespace, entries in STORED.items():
        for key, value in entries.items():
            path = folder / namespace / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(value)


def as_json(folder):
    for namespace, entries in STORED.items():
        shown = {key: base64.urlsafe_b64encode(value).decode() for key, value in entries.items()}
        (folder / f"{namespace}.json").write_text(json.dumps(shown))


@pytest.mark.parametrize("lay_out", [as_directories, as_nested_directories, as_json])
def test_all_that_a_trustee_keeps_is_taken(broker, tmp_path, lay_out):
    lay_out(tmp_path)
    moved = move_trustee(tmp_path, broker.admin)
    assert moved.left == []
    assert moved.taken == TAKEN
    assert broker.admin.list_resources() == ("kbs:///default/key/1", "kbs:///default/key/2")
    assert broker.admin.metadata("kbs:///default/key/2").size == 2
    (value,) = broker.admin.reference_values()
    assert (value.name, value.values, value.expires.year) == ("code", ("v1", 2), 2099)
    assert not value.is_single
    assert broker.admin.get_policy() == POLICY
    assert broker.admin.get_policy("cpu") == CPU


LEFT = {
    "repository/default/key/1": (b"x", "has a resource 'kbs:///default/key/1' already"),
    "repository/nopath": (b"x", "expected"),
    "repository/default/key/empty": (b"", "expected 1 to"),
    "kbs/other.rego": (b"x", "expected resource-policy.rego"),
    "kbs/resource-policy.rego": (b"\xff", "is not UTF-8"),
    "attestation_service_policy/mine_cpu.rego": (b"x", "expected default_cpu.rego"),
    "reference_value/bad": (b"{", "reference value"),
    "reference_value/late": (
        b'{"name": "late", "expiration": "soon", "value": 1}',
        "expected a time, got 'soon'",
    ),
    "reference_value/odd": (b'{"name": "odd", "value": {"a": 1}}', "value"),
    "provisioner/x": (b"x", "nothing of that kind"),
}


def test_what_cannot_be_taken_is_left_with_its_reason_and_the_rest_is_taken(broker, tmp_path):
    broker.put("kbs:///default/key/1", b"another")
    (tmp_path / "kbs_protocol_session").mkdir()
    for name, (value, _) in LEFT.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(value)
    (tmp_path / "repository" / "link").symlink_to(tmp_path)
    (tmp_path / "repository" / "default" / "key" / "good").write_bytes(b"good")
    before = broker.admin.get_policy()
    moved = move_trustee(tmp_path, broker.admin)
    assert moved.taken == ["kbs:///default/key/good"]
    reasons = dict(moved.left)
    assert len(moved.left) == len(LEFT) + 1
    assert reasons.pop("repository/link") == "is a symbolic link"
    for name, (_, told) in LEFT.items():
        (reason,) = (
            r
            for n, r in reasons.items()
            if n.endswith(name.split("/", 1)[-1]) or n == name.split("/")[0]
        )
        assert told in reason
    assert broker.admin.get_policy() == before
    assert broker.admin.metadata("kbs:///default/key/1").size == len(b"another")


def test_directory_without_anything_of_a_trustee_refused(running, tmp_path):
    with pytest.raises(LocalError, match="expected 'repository' or 'reference_value' in it") as no:
        move_trustee(tmp_path, running.admin)
    assert "storage_backend" in no.value.hint


def test_admin_who_is_not_accepted_is_told_so_and_nothing_is_listed(running, tmp_path):
    as_directories(tmp_path)
    with EmbeddedBroker() as other:
        from imagers.kbs.admin import BrokerAdmin

        with (
            BrokerAdmin(running.url, key_file=other.admin_key_file) as admin,
            pytest.raises(Unauthorized),
        ):
            move_trustee(tmp_path, admin)


def test_pipe_and_a_namespace_that_is_no_json_are_told_and_the_rest_is_taken(tmp_path, running):
    (tmp_path / "repository").mkdir()
    (tmp_path / "repository" / "default\\x2Fodd\\x2F1").write_bytes(b"secret")
    os.mkfifo(tmp_path / "repository" / "default\\x2Fodd\\x2Fpipe")
    (tmp_path / "reference_value.json").write_text("[]")
    moved = move_trustee(tmp_path, running.admin)
    assert moved.taken == ["kbs:///default/odd/1"]
    left = dict(moved.left)
    assert left["repository/default/odd/pipe"] == "is no file"
    assert "expected an object, got a list" in left["reference_value.json"]
