# SPDX-License-Identifier: Apache-2.0
import base64

import pytest

from imagers.errors import FormatError
from imagers.sign.formats.notation.signed import NotationSigned
from imagers.sign.formats.signed_by import SignedBy
from imagers.sign.formats.sigstore_bundle import SigstoreBundle
from imagers.sign.formats.sigstore_signed import SigstoreSigned
from imagers.sign.identity import (
    ExactReference,
    ExactRepository,
    MatchExact,
    MatchRepoDigestOrExact,
    MatchRepository,
    RemapIdentity,
    parse_signed_name,
)
from imagers.sign.requirements import (
    PKI,
    AllOf,
    AnyOf,
    CertificateSubject,
    Encrypted,
    Fulcio,
    InsecureAcceptAnything,
    KeyRefs,
    OnIndex,
    Reject,
    Strict,
    Unchecked,
    parse_requirement,
    walk,
)

WHERE = "$.default[0]"

PEM = b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"
B64 = base64.b64encode(PEM).decode()
FULCIO = {"caPath": "/ca", "oidcIssuer": "https://i", "subjectEmail": "a@b"}
AUTHORITY = {"caRootsPath": "/ca", "subjectEmail": "a@b"}
KEY = {"type": "sigstoreSigned", "keyPath": "/k"}
SELF = {"type": "sigstoreBundle", "keyPath": "/k"}


def parse(value):
    return parse_requirement(Strict(value, what="policy", where="$.default[0]"))


def test_requirement_reject_and_accept_are_parsed():
    assert parse({"type": "reject"}) == Reject("$.default[0]")
    assert parse({"type": "insecureAcceptAnything"}) == InsecureAcceptAnything("$.default[0]")


@pytest.mark.parametrize(
    ("members", "paths", "datas"),
    [
        ({"keyPath": "/k"}, ("/k",), ()),
        ({"keyPaths": ["/k", "/l"]}, ("/k", "/l"), ()),
        ({"keyData": B64}, (), (PEM,)),
        ({"keyData": B64[:10] + "\r\n" + B64[10:]}, (), (PEM,)),
        ({"keyDatas": [B64, B64]}, (), (PEM, PEM)),
        ({"keyData": PEM.decode()}, (), (PEM,)),
    ],
)
def test_requirement_sigstore_signed_gives_its_keys(members, paths, datas):
    requirement = parse({"type": "sigstoreSigned", **members})
    assert requirement == SigstoreSigned(
        paths, datas, MatchRepoDigestOrExact(), where="$.default[0]"
    )


@pytest.mark.parametrize(
    ("value", "identity"),
    [
        ({"type": "matchExact"}, MatchExact()),
        ({"type": "matchRepoDigestOrExact"}, MatchRepoDigestOrExact()),
        ({"type": "matchRepository"}, MatchRepository()),
        (
            {"type": "exactReference", "dockerReference": "box:1"},
            ExactReference(parse_signed_name("docker.io/library/box:1")),
        ),
        (
            {"type": "exactRepository", "dockerRepository": "r.example/a"},
            ExactRepository(parse_signed_name("r.example/a")),
        ),
        (
            {"type": "remapIdentity", "prefix": "localhost:5000/a", "signedPrefix": "docker.io"},
            RemapIdentity("localhost:5000/a", "docker.io"),
        ),
        (
            {"type": "remapIdentity", "prefix": "m.example", "signedPrefix": "docker.io/library"},
            RemapIdentity("m.example", "docker.io/library"),
        ),
    ],
)
def test_requirement_signed_identity_is_parsed(value, identity):
    assert parse({**KEY, "signedIdentity": value}).signed_identity == identity


@pytest.mark.parametrize(
    ("end", "value", "paths", "datas"),
    [
        ("Path", "/r", ("/r",), ()),
        ("Paths", ["/r", "/s"], ("/r", "/s"), ()),
        ("Data", B64, (), (PEM,)),
        ("Datas", [B64, B64], (), (PEM, PEM)),
    ],
)
@pytest.mark.parametrize("kind", ["sigstoreSigned", "sigstoreBundle"])
def test_requirement_gives_the_keys_of_its_log(kind, end, value, paths, datas):
    found = parse({"type": kind, "keyPath": "/k", f"rekorPublicKey{end}": value})
    assert found.rekor == KeyRefs(paths, datas, "key of a Rekor log")


@pytest.mark.parametrize(
    ("end", "value", "paths", "datas"),
    [("Path", "/t", ("/t",), ()), ("Data", B64, (), (PEM,))],
)
def test_requirement_gives_the_certificates_of_its_time_stamps(end, value, paths, datas):
    found = parse({**SELF, f"tsaCertificates{end}": value})
    assert found.tsa == KeyRefs(paths, datas, "certificates of a time-stamp authority")


JOB = {"caData": B64, "oidcIssuer": "https://i", "subjectURI": "https://ci/job"}


@pytest.mark.parametrize(
    ("members", "subject"),
    [
        ({"fulcio": JOB, "rekorPublicKeyPath": "/r"}, CertificateSubject(uri="https://ci/job")),
        ({"fulcio": JOB, "tsaCertificatesPath": "/t"}, CertificateSubject(uri="https://ci/job")),
        ({"fulcio": FULCIO, "rekorPublicKeyPath": "/r"}, CertificateSubject(email="a@b")),
    ],
    ids=["a job and a log", "a job and time stamps", "a person"],
)
def test_requirement_of_bundles_by_a_login_is_parsed(members, subject):
    """One witness of the time of signing is enough, whichever."""
    found = parse({"type": "sigstoreBundle", **members})
    assert (found.keys, found.pki) == (None, None)
    assert found.fulcio.subject == subject
    assert (found.rekor is None) is ("rekorPublicKeyPath" not in members)
    assert (found.tsa is None) is ("tsaCertificatesPath" not in members)


@pytest.mark.parametrize(
    ("members", "subject"),
    [
        ({"subjectEmail": "a@b"}, CertificateSubject(email="a@b")),
        ({"subjectHostname": "h"}, CertificateSubject(hostname="h")),
        (
            {"subjectEmail": "a@b", "subjectHostname": "h"},
            CertificateSubject(email="a@b", hostname="h"),
        ),
    ],
    ids=["mail", "host", "both"],
)
@pytest.mark.parametrize("kind", ["sigstoreSigned", "sigstoreBundle"])
def test_requirement_by_an_authority_of_ones_own_is_parsed(kind, members, subject):
    """Each subject that is given must hold, so none may be lost."""
    found = parse({"type": kind, "pki": {"caRootsData": B64, **members}})
    assert found.pki == PKI(KeyRefs((), (PEM,), "root certificates"), None, subject)
    assert found.fulcio is None
    assert (found.keys if kind == "sigstoreBundle" else found.key_paths) in (None, ())
    between = {"caRootsPath": "/c", "caIntermediatesPath": "/i", **members}
    assert parse({"type": kind, "pki": between}).pki == PKI(
        KeyRefs(("/c",), (), "root certificates"),
        KeyRefs(("/i",), (), "intermediate certificates"),
        subject,
    )
    between = {"caRootsPath": "/c", "caIntermediatesData": B64, **members}
    assert parse({"type": kind, "pki": between}).pki.intermediates.datas == (PEM,)


def test_requirement_signed_by_takes_several_key_files_and_an_identity():
    value = {"type": "signedBy", "keyType": "GPGKeys", "keyPaths": ["/k", "/l"]}
    found = parse({**value, "signedIdentity": {"type": "matchRepository"}})
    assert found == SignedBy(KeyRefs(("/k", "/l"), (), "GPG keys"), MatchRepository(), where=WHERE)


@pytest.mark.parametrize(
    ("value", "feature"),
    [
        *[
            (
                {"type": "signedBy", "keyType": kind, "keyData": B64},
                f"signedBy with keyType {kind}",
            )
            for kind in ("signedByGPGKeys", "X509Certificates", "signedByX509CAs")
        ],
        (
            {"type": "signedBaseLayer", "baseLayerIdentity": {"type": "matchExact"}},
            "signedBaseLayer",
        ),
    ],
)
def test_requirement_that_nothing_satisfies_is_kept_as_unchecked(value, feature):
    assert parse(value) == Unchecked(feature, value, "$.default[0]")


PATHS = KeyRefs(("/k",), (), "GPG keys")
ROOTS = KeyRefs((FULCIO["caPath"],), (), "certificates of fulcio")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (
            {"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/k"},
            SignedBy(PATHS, MatchRepoDigestOrExact(), where=WHERE),
        ),
        ({"type": "encrypted"}, Encrypted(None, WHERE)),
        ({"type": "encrypted", "layers": [0, -1]}, Encrypted((0, -1), WHERE)),
        ({"type": "encrypted", "layers": [700, -700]}, Encrypted((700, -700), WHERE)),
        ({"type": "encrypted", "layers": [1] * 512}, Encrypted((1,) * 512, WHERE)),
        (
            {"type": "anyOf", "requirements": [{"type": "reject"}]},
            AnyOf((Reject(f"{WHERE}.requirements[0]"),), WHERE),
        ),
        (
            {"type": "index", "requirements": [{"type": "reject"}]},
            OnIndex((Reject(f"{WHERE}.requirements[0]"),), WHERE),
        ),
        (
            {"type": "allOf", "requirements": [{"type": "encrypted"}, {"type": "reject"}]},
            AllOf(
                (
                    Encrypted(None, f"{WHERE}.requirements[0]"),
                    Reject(f"{WHERE}.requirements[1]"),
                ),
                WHERE,
            ),
        ),
        (
            {"type": "notation", "trustPolicyPath": "/p", "trustStorePath": "/s"},
            NotationSigned("/p", "/s", where=WHERE),
        ),
        (
            {"type": "sigstoreBundle", "keyPath": "/k"},
            SigstoreBundle(KeyRefs(("/k",), ()), where=WHERE),
        ),
        (
            {"type": "sigstoreSigned", "fulcio": FULCIO, "rekorPublicKeyPath": "/r"},
            SigstoreSigned(
                (),
                (),
                MatchRepoDigestOrExact(),
                where=WHERE,
                rekor=KeyRefs(("/r",), (), "key of a Rekor log"),
                fulcio=Fulcio(
                    ROOTS, FULCIO["oidcIssuer"], CertificateSubject(email=FULCIO["subjectEmail"])
                ),
            ),
        ),
    ],
)
def test_requirement_of_each_type_is_parsed(value, expected):
    assert parse(value) == expected


@pytest.mark.parametrize(
    ("value", "piece"),
    [
        ({"type": "encrypted", "layers": []}, "a list that is not empty"),
        ({"type": "encrypted", "layers": [True]}, "the number of a layer"),
        ({"type": "encrypted", "layers": [1.5]}, "the number of a layer"),
        ({"type": "encrypted", "layer": 1}, "unknown member 'layer'"),
        ({"type": "anyOf", "requirements": []}, "a list that is not empty"),
        ({"type": "allOf"}, "requirements: is missing, expected a list"),
        ({"type": "index", "requirements": [{"type": "x"}]}, "expected one of"),
        ({"type": "anyOf", "of": []}, "unknown member 'of'"),
        ({"type": "notation", "trustPolicyPath": "/p"}, "trustStorePath"),
        ({**SELF, "signedIdentity": {"type": "matchExact"}}, "unknown member 'signedIdentity'"),
        ({**SELF, "keyData": B64}, "exactly one of"),
        ({"type": "sigstoreBundle", "fulcio": FULCIO}, "beside fulcio"),
    ],
)
def test_requirement_of_ours_with_a_fault_is_refused(value, piece):
    with pytest.raises(FormatError) as caught:
        parse(value)
    assert piece in str(caught.value)
    assert caught.value.where.startswith(WHERE)


def test_requirements_nested_too_deep_are_refused():
    value = {"type": "reject"}
    for _ in range(8):
        value = {"type": "anyOf", "requirements": [value]}
    assert [type(one) for one, _ in walk([parse(value)])] == [AnyOf] * 8 + [Reject]
    with pytest.raises(FormatError, match="at most 8 levels"):
        parse({"type": "anyOf", "requirements": [value]})


def test_walk_knows_at_every_depth_what_is_about_the_index():
    part = {"type": "allOf", "requirements": [{"type": "reject"}, {"type": "encrypted"}]}
    found = walk([parse({"type": "index", "requirements": [part]}), parse(part)])
    assert [(type(one), on_index) for one, on_index in found] == [
        (OnIndex, False),
        (AllOf, True),
        (Reject, True),
        (Encrypted, True),
        (AllOf, False),
        (Reject, False),
        (Encrypted, False),
    ]


NO = "sigstoreSigned"


@pytest.mark.parametrize(
    ("value", "piece"),
    [
        (None, "expected an object"),
        ([], "expected an object"),
        ({}, "$.default[0].type: is missing, expected a string"),
        ({"type": None}, "expected a string"),
        ({"type": "Reject"}, "got 'Reject'"),
        ({"type": "reject", "x": 1}, "unknown member 'x'"),
        ({"type": "insecureAcceptAnything", "keyPath": "/k"}, "unknown member 'keyPath'"),
        ({"type": NO}, "expected exactly one of keyPath, keyPaths, keyData, keyDatas, fulcio, pki"),
        ({**KEY, "keyData": B64}, "got keyPath and keyData"),
        ({**KEY, "fulcio": FULCIO}, "got keyPath and fulcio"),
        ({**KEY, "KeyPath": "/k"}, "unknown member 'KeyPath'"),
        ({"type": NO, "keyPath": ""}, "keyPath: expected a string that is not empty"),
        ({"type": NO, "keyPath": None}, "keyPath: is missing, expected a string"),
        ({"type": NO, "keyPath": ["/k"]}, "keyPath: expected a string"),
        ({"type": NO, "keyPaths": []}, "keyPaths: expected a list that is not empty"),
        ({"type": NO, "keyPaths": None}, "keyPaths: is missing, expected a list"),
        ({"type": NO, "keyPaths": "/k"}, "keyPaths: expected a list"),
        ({"type": NO, "keyPaths": ["/k", None]}, "keyPaths[1]: expected a string"),
        ({"type": NO, "keyPaths": ["/k"] * 65}, "at most 64"),
        ({"type": NO, "keyData": "$$$"}, "keyData: expected base64"),
        ({"type": NO, "keyData": "ä"}, "keyData: expected base64"),
        ({"type": NO, "keyData": "\n"}, "keyData: expected base64"),
        ({"type": NO, "keyDatas": [B64, "="]}, "keyDatas[1]: expected base64"),
        (
            {**KEY, "signedIdentity": None},
            "[0].signedIdentity: is missing, expected an object",
        ),
        ({**KEY, "signedIdentity": {}}, "signedIdentity.type"),
        ({**KEY, "signedIdentity": {"type": "matchAll"}}, "got 'matchAll'"),
        ({**KEY, "signedIdentity": {"type": "matchExact", "x": 1}}, "unknown member 'x'"),
        ({**KEY, "signedIdentity": {"type": "exactReference"}}, "dockerReference: is missing"),
        (
            {**KEY, "signedIdentity": {"type": "exactReference", "dockerReference": "r.example/a"}},
            "expected a tag or a digest",
        ),
        (
            {**KEY, "signedIdentity": {"type": "exactReference", "dockerReference": "A:B:C"}},
            "$.default[0].signedIdentity.dockerReference: expected an image name",
        ),
        (
            {**KEY, "signedIdentity": {"type": "exactRepository", "dockerRepository": "UP/x"}},
            "$.default[0].signedIdentity.dockerRepository: expected an image name",
        ),
        (
            {**KEY, "signedIdentity": {"type": "exactRepository", "dockerRepository": "r.io/a:1"}},
            "without tag and digest, got 'r.io/a:1'; use exactReference",
        ),
        (
            {**KEY, "signedIdentity": {"type": "remapIdentity", "prefix": "a.example"}},
            "signedPrefix: is missing",
        ),
        *[
            (
                {
                    **KEY,
                    "signedIdentity": {
                        "type": "remapIdentity",
                        "prefix": prefix,
                        "signedPrefix": "a.example",
                    },
                },
                "expected a registry or a repository with its registry",
            )
            for prefix in (
                "short",
                "ns/short",
                "a.example/",
                "a.example/b:1",
                "A.example/B",
                "*",
                ".example",
                "-a.example",
            )
        ],
        ({**KEY, "rekorPublicKeyPath": "/r", "rekorPublicKeyData": B64}, "at most one of rekor"),
        ({**KEY, "rekorPublicKeyPath": ""}, "rekorPublicKeyPath: expected a string"),
        ({"type": NO, "fulcio": FULCIO}, "beside fulcio"),
        ({"type": NO, "fulcio": None, "rekorPublicKeyPath": "/r"}, "fulcio: is missing"),
        (
            {"type": NO, "fulcio": {**FULCIO, "caData": B64}, "rekorPublicKeyPath": "/r"},
            "got caPath and caData",
        ),
        (
            {"type": NO, "fulcio": {"caPath": "/c"}, "rekorPublicKeyPath": "/r"},
            "fulcio.oidcIssuer",
        ),
        (
            {"type": NO, "pki": AUTHORITY, "rekorPublicKeyPath": "/r"},
            "no rekorPublicKeyPath beside pki",
        ),
        ({"type": NO, "pki": {"caRootsPath": "/c"}}, "subjectEmail, subjectHostname or both"),
        ({"type": NO, "pki": {**AUTHORITY, "subjectHostname": ""}}, "pki.subjectHostname"),
        (
            {
                "type": NO,
                "pki": {**AUTHORITY, "caIntermediatesPath": "/a", "caIntermediatesData": B64},
            },
            "at most one of caIntermediatesPath",
        ),
        ({"type": "signedBy", "keyPath": "/k"}, "keyType: is missing"),
        ({"type": "signedBy", "keyType": "PGP", "keyPath": "/k"}, "got 'PGP'"),
        ({"type": "signedBy", "keyType": "GPGKeys"}, "got none of them"),
        ({"type": "signedBy", "keyType": "GPGKeys", "keyDatas": [B64]}, "unknown member"),
        ({"type": "signedBaseLayer"}, "baseLayerIdentity: is missing"),
    ],
)
def test_requirement_that_the_specification_does_not_say_is_refused(value, piece):
    with pytest.raises(FormatError) as caught:
        parse(value)
    assert caught.value.where.startswith("$.default[0]")
    assert piece in str(caught.value)


def identity(kind, **members):
    return {**KEY, "signedIdentity": {"type": kind, **members}}


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({"type": "Reject"}, ".type"),
        ({"type": NO, "keyPaths": [""]}, ".keyPaths[0]"),
        ({"type": NO, "keyPaths": ["/k", 5]}, ".keyPaths[1]"),
        ({"type": NO, "keyPaths": {"/k": 1}}, ".keyPaths"),
        ({"type": NO, "keyPaths": ["/k"] * 65}, ".keyPaths"),
        ({"type": NO, "keyDatas": [B64, "="]}, ".keyDatas[1]"),
        # What is no base64 is not passed over, or two readers would see two keys.
        ({"type": NO, "keyData": f"{B64[:8]} {B64[8:]}"}, ".keyData"),
        ({"type": NO, "keyData": f"!{B64}"}, ".keyData"),
        ({"type": "anyOf", "requirements": {"type": "reject"}}, ".requirements"),
        ({"type": "anyOf", "requirements": []}, ".requirements"),
        ({"type": "anyOf", "requirements": [{}]}, ".requirements[0].type"),
        ({"type": "encrypted", "layers": {"0": 1}}, ".layers"),
        ({"type": "encrypted", "layers": []}, ".layers"),
        ({"type": "encrypted", "layers": [0, 1.0]}, ".layers[1]"),
        ({"type": "signedBy", "keyType": "PGP", "keyPath": "/k"}, ".keyType"),
        # Of an identity in a certificate, sigstoreSigned reads mail addresses only.
        (
            {
                "type": NO,
                "fulcio": {"caPath": "/ca", "oidcIssuer": "https://i", "subjectHost": "https://j"},
                "rekorPublicKeyPath": "/r",
            },
            ".fulcio",
        ),
        ({"type": NO, "fulcio": {**FULCIO, "issuer": "i"}, "rekorPublicKeyPath": "/r"}, ".fulcio"),
        ({"type": NO, "pki": {**AUTHORITY, "subjectURI": "https://j"}}, ".pki"),
        (
            {
                "type": "signedBaseLayer",
                "baseLayerIdentity": {"type": "matchExact"},
                "keyPath": "/",
            },
            "",
        ),
        ({"type": "notation", "trustPolicyPath": "/p", "trustStorePath": "/s", "level": "x"}, ""),
        (identity("matchAll"), ".signedIdentity.type"),
        (identity("exactReference", dockerReference="r.example/a:1", tag="1"), ".signedIdentity"),
        (
            identity("exactReference", dockerReference="r.example/a"),
            ".signedIdentity.dockerReference",
        ),
        (identity("exactRepository", dockerRepository="r.example/a", tag="1"), ".signedIdentity"),
        (
            identity("exactRepository", dockerRepository="r.example/a:1"),
            ".signedIdentity.dockerRepository",
        ),
        (
            identity("remapIdentity", prefix="a.example", signedPrefix="b.example", to="c"),
            ".signedIdentity",
        ),
    ],
)
def test_requirement_with_a_fault_says_where(value, where):
    with pytest.raises(FormatError) as caught:
        parse(value)
    assert caught.value.where == WHERE + where
    assert caught.value.what == "policy"


def test_requirement_with_as_many_keys_as_are_tried_is_parsed():
    assert parse({"type": NO, "keyPaths": ["/k"] * 64}).key_paths == ("/k",) * 64


LOGIN = {"oidcIssuer": "https://i", "subjectURI": "https://ci/job"}
ROOT = {"type": "sigstoreBundle", "trustedRootPath": "/root.json", "fulcio": LOGIN}
TYPES = ["sigstoreBundle", NO]


@pytest.mark.parametrize("kind", TYPES)
def test_requirement_with_a_trusted_root_takes_everything_from_it(kind):
    found = parse({**ROOT, "type": kind})
    assert (found.trusted_root, found.rekor) == ("/root.json", None)
    if kind == NO:
        assert (found.key_paths, found.key_datas) == ((), ())
        assert found.signed_identity == MatchRepoDigestOrExact()
    else:
        assert (found.keys, found.tsa) == (None, None)
    assert found.fulcio.subject == CertificateSubject(uri="https://ci/job")
    assert found.fulcio.roots.paths == ()


@pytest.mark.parametrize(
    "change",
    [
        {"keyPath": "/k"},
        {"rekorPublicKeyPath": "/k"},
        {"tsaCertificatesPath": "/k"},
        {"fulcio": {**LOGIN, "caPath": "/ca"}},
        {"fulcio": {"oidcIssuer": "https://i"}},
        {"fulcio": {**LOGIN, "subjectEmail": "a@b"}},
        {"fulcio": {**LOGIN, "subjectRegexp": ".*"}},
        {"trustedRootPath": ""},
    ],
)
@pytest.mark.parametrize("kind", TYPES)
def test_requirement_with_a_trusted_root_and_something_else_is_refused(kind, change):
    with pytest.raises(FormatError):
        parse({**ROOT, "type": kind, **change})
    with pytest.raises(FormatError, match="expected fulcio"):
        parse({"type": kind, "trustedRootPath": "/root.json"})


def test_requirement_with_a_pattern_for_the_subject_keeps_it():
    login = {"oidcIssuer": "https://i", "subjectRegexp": r"https://ci/.*"}
    found = parse({**ROOT, "fulcio": login})
    assert found.fulcio.subject == CertificateSubject(pattern=r"https://ci/.*")
