import base64

import pytest

from imagers.errors import FormatError
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
    AllOf,
    AnyOf,
    CertificateSubject,
    Encrypted,
    Fulcio,
    InsecureAcceptAnything,
    KeyRefs,
    NotationSigned,
    OnIndex,
    Reject,
    SignedBy,
    SigstoreBundle,
    SigstoreSigned,
    Unchecked,
    parse_requirement,
)

WHERE = "$.default[0]"

PEM = b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"
B64 = base64.b64encode(PEM).decode()
FULCIO = {"caPath": "/ca", "oidcIssuer": "https://i", "subjectEmail": "a@b"}
PKI = {"caRootsPath": "/ca", "subjectEmail": "a@b"}
KEY = {"type": "sigstoreSigned", "keyPath": "/k"}


def parse(value):
    return parse_requirement(value, what="policy", where="$.default[0]")


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
    assert requirement == SigstoreSigned(paths, datas, MatchRepoDigestOrExact(), "$.default[0]")


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
    ("value", "feature"),
    [
        (
            {"type": "signedBy", "keyType": "signedByX509CAs", "keyData": B64},
            "signedBy with keyType signedByX509CAs",
        ),
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
            SignedBy(PATHS, MatchRepoDigestOrExact(), WHERE),
        ),
        ({"type": "encrypted"}, Encrypted(None, WHERE)),
        ({"type": "encrypted", "layers": [0, -1]}, Encrypted((0, -1), WHERE)),
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
            NotationSigned("/p", "/s", WHERE),
        ),
        (
            {"type": "sigstoreBundle", "keyPath": "/k"},
            SigstoreBundle(KeyRefs(("/k",), ()), WHERE),
        ),
        (
            {"type": "sigstoreSigned", "fulcio": FULCIO, "rekorPublicKeyPath": "/r"},
            SigstoreSigned(
                (),
                (),
                MatchRepoDigestOrExact(),
                WHERE,
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


SELF = {"type": "sigstoreBundle", "keyPath": "/k"}


@pytest.mark.parametrize(
    ("value", "piece"),
    [
        ({"type": "encrypted", "layers": []}, "a list that is not empty"),
        ({"type": "encrypted", "layers": [True]}, "the number of a layer"),
        ({"type": "encrypted", "layers": [1.5]}, "the number of a layer"),
        ({"type": "encrypted", "layer": 1}, "unknown member 'layer'"),
        ({"type": "anyOf", "requirements": []}, "a list that is not empty"),
        ({"type": "allOf"}, "a list that is not empty"),
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
    for _ in range(9):
        value = {"type": "anyOf", "requirements": [value]}
    with pytest.raises(FormatError, match="at most 8 levels"):
        parse(value)


NO = "sigstoreSigned"


@pytest.mark.parametrize(
    ("value", "piece"),
    [
        (None, "expected an object"),
        ([], "expected an object"),
        ({}, "$.default[0].type: expected a string"),
        ({"type": None}, "expected a string"),
        ({"type": "Reject"}, "got 'Reject'"),
        ({"type": "reject", "x": 1}, "unknown member 'x'"),
        ({"type": "insecureAcceptAnything", "keyPath": "/k"}, "unknown member 'keyPath'"),
        ({"type": NO}, "expected exactly one of keyPath, keyPaths, keyData, keyDatas, fulcio, pki"),
        ({**KEY, "keyData": B64}, "got keyPath and keyData"),
        ({**KEY, "fulcio": FULCIO}, "got keyPath and fulcio"),
        ({**KEY, "KeyPath": "/k"}, "unknown member 'KeyPath'"),
        ({"type": NO, "keyPath": ""}, "keyPath: expected a string that is not empty"),
        ({"type": NO, "keyPath": None}, "keyPath: expected a string"),
        ({"type": NO, "keyPath": ["/k"]}, "keyPath: expected a string"),
        ({"type": NO, "keyPaths": []}, "keyPaths: expected a list that is not empty"),
        ({"type": NO, "keyPaths": None}, "keyPaths: expected a list"),
        ({"type": NO, "keyPaths": "/k"}, "keyPaths: expected a list"),
        ({"type": NO, "keyPaths": ["/k", None]}, "keyPaths[1]: expected a string"),
        ({"type": NO, "keyPaths": ["/k"] * 65}, "at most 64"),
        ({"type": NO, "keyData": "$$$"}, "keyData: expected base64"),
        ({"type": NO, "keyData": "ä"}, "keyData: expected base64"),
        ({"type": NO, "keyDatas": [B64, "="]}, "keyDatas[1]: expected base64"),
        ({**KEY, "signedIdentity": None}, "$.default[0].signedIdentity: expected an object"),
        ({**KEY, "signedIdentity": {}}, "signedIdentity.type"),
        ({**KEY, "signedIdentity": {"type": "matchAll"}}, "got 'matchAll'"),
        ({**KEY, "signedIdentity": {"type": "matchExact", "x": 1}}, "unknown member 'x'"),
        ({**KEY, "signedIdentity": {"type": "exactReference"}}, "dockerReference: expected"),
        (
            {**KEY, "signedIdentity": {"type": "exactReference", "dockerReference": "r.example/a"}},
            "expected a tag or a digest",
        ),
        (
            {**KEY, "signedIdentity": {"type": "exactReference", "dockerReference": "A:B:C"}},
            "expected an image name",
        ),
        (
            {**KEY, "signedIdentity": {"type": "exactRepository", "dockerRepository": "UP/x"}},
            "expected an image name",
        ),
        (
            {**KEY, "signedIdentity": {"type": "exactRepository", "dockerRepository": "r.io/a:1"}},
            "without tag and digest, got 'r.io/a:1'; use exactReference",
        ),
        (
            {**KEY, "signedIdentity": {"type": "remapIdentity", "prefix": "a.example"}},
            "signedPrefix: expected a string",
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
            for prefix in ("short", "ns/short", "a.example/", "a.example/b:1", "A.example/B", "*")
        ],
        ({**KEY, "rekorPublicKeyPath": "/r", "rekorPublicKeyData": B64}, "at most one of rekor"),
        ({**KEY, "rekorPublicKeyPath": ""}, "rekorPublicKeyPath: expected a string"),
        ({"type": NO, "fulcio": FULCIO}, "beside fulcio"),
        ({"type": NO, "fulcio": None, "rekorPublicKeyPath": "/r"}, "fulcio: expected an object"),
        (
            {"type": NO, "fulcio": {**FULCIO, "caData": B64}, "rekorPublicKeyPath": "/r"},
            "got caPath and caData",
        ),
        (
            {"type": NO, "fulcio": {"caPath": "/c"}, "rekorPublicKeyPath": "/r"},
            "fulcio.oidcIssuer",
        ),
        ({"type": NO, "pki": PKI, "rekorPublicKeyPath": "/r"}, "no rekorPublicKeyPath beside pki"),
        ({"type": NO, "pki": {"caRootsPath": "/c"}}, "subjectEmail, subjectHostname or both"),
        ({"type": NO, "pki": {**PKI, "subjectHostname": ""}}, "pki.subjectHostname"),
        (
            {"type": NO, "pki": {**PKI, "caIntermediatesPath": "/a", "caIntermediatesData": B64}},
            "at most one of caIntermediatesPath",
        ),
        ({"type": "signedBy", "keyPath": "/k"}, "keyType: expected"),
        ({"type": "signedBy", "keyType": "PGP", "keyPath": "/k"}, "got 'PGP'"),
        ({"type": "signedBy", "keyType": "GPGKeys"}, "got none of them"),
        ({"type": "signedBy", "keyType": "GPGKeys", "keyDatas": [B64]}, "unknown member"),
        ({"type": "signedBaseLayer"}, "baseLayerIdentity: expected an object"),
    ],
)
def test_requirement_that_the_specification_does_not_say_is_refused(value, piece):
    with pytest.raises(FormatError) as caught:
        parse(value)
    assert caught.value.where.startswith("$.default[0]")
    assert piece in str(caught.value)


LOGIN = {"oidcIssuer": "https://i", "subjectURI": "https://ci/job"}
ROOT = {"type": "sigstoreBundle", "trustedRootPath": "/root.json", "fulcio": LOGIN}


def test_requirement_with_a_trusted_root_takes_everything_from_it():
    found = parse(ROOT)
    assert (found.trusted_root, found.keys, found.rekor, found.tsa) == (
        "/root.json",
        None,
        None,
        None,
    )
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
        {"trustedRootPath": ""},
    ],
)
def test_requirement_with_a_trusted_root_and_something_else_is_refused(change):
    with pytest.raises(FormatError):
        parse({**ROOT, **change})
    with pytest.raises(FormatError, match="expected fulcio"):
        parse({"type": "sigstoreBundle", "trustedRootPath": "/root.json"})
