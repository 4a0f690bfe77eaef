# SPDX-License-Identifier: Apache-2.0
import base64
import contextlib
import json

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from imagers.encrypt.schemes.broker import (
    BrokerKeyUnwrapper,
    BrokerKeyWrapper,
    Packet,
    build_packet,
    check_kid,
    parse_packet,
    resource_of,
)
from imagers.errors import FormatError, KeyRefused, TagMismatch, Unsupported
from imagers.model.digest import digest_of
from imagers.model.keys import NotMine, SecretKey, UnwrapContext, WrapContext, WrappedKey

KID = "kbs:///default/test-key/1"
# Published in guest-components; ocicrypt-rs/data/sample_kbc_annotation.json is sealed with it.
SAMPLE_KEK = bytes.fromhex("d99b7705b0ba7a168295b3a3367270b0dd9b371bf514ca8b9ba7f0a33711daea")
TRUSTED = UnwrapContext("layer 1 of 1", digest_of(b"manifest"))
UNTRUSTED = UnwrapContext("layer 1 of 1", None)
COCO = "provider.attestation-agent"

# Sealed with SAMPLE_KEK and an iv of zeros by an implementation of the formulas on its own.
KNOWN_WRAPPED = (
    "/3LyhluQ5hn61UcAfgunWJG3MH9d2bdt1sFfMUreAeTX/KuLrQEfep3P+KI4voUvTb3ckwxImQEY35Hu125Cw5yzlKaj"
    "CQP4+xZU8jpYNMdHMjGzsn0Yjp1UKdIdSSTmM1ND4n66koyVX0AH8tLSwreigPOIE8rpD4zu1y5zMAoeag0E5X8eRr/g"
    "b+Yl3pSrxd1juSq3BLhssicetDSI1i/ZYfdTAlCL1o00rGhl2e3CAPDayzKVE03aESwKtZislmHZ5bnh5KNzKv+cFrh+"
    "Q8Y="
)


class Store:
    """A resource store that counts, as `imagers.kbs` is one over the network."""

    def __init__(self, **secrets):
        self.secrets = {f"kbs:///default/test-key/{name[1:]}": v for name, v in secrets.items()}
        self.asked = []

    def get(self, uri, *, manifest_digest):
        self.asked.append((uri, manifest_digest))
        if uri not in self.secrets:
            raise KeyRefused("refused", reason="no such key")
        return SecretKey(self.secrets[uri])

    def get_all(self, uris, *, manifest_digest):
        self.asked.append((tuple(uris), manifest_digest))
        if not self.secrets.keys() >= set(uris):
            return {}
        return {uri: SecretKey(self.secrets[uri]) for uri in uris}


def packet(**changes):
    document = {
        "kid": KID,
        "wrapped_data": base64.b64encode(bytes(20)).decode(),
        "iv": base64.b64encode(bytes(12)).decode(),
        "wrap_type": "A256GCM",
        **changes,
    }
    return json.dumps({k: v for k, v in document.items() if v is not ...}).encode()


def opened(key):
    with key.view() as data:
        return bytes(data)


def wrap(kek=SAMPLE_KEK, data=b"private options"):
    return BrokerKeyWrapper(SecretKey(kek), KID).wrap(SecretKey(data), WrapContext("layer 1 of 1"))


def unwrap(data, store=None, context=TRUSTED, scheme=COCO):
    with BrokerKeyUnwrapper(store or Store(_1=SAMPLE_KEK)) as unwrapper:
        return opened(unwrapper.unwrap(WrappedKey(scheme, data), context))


def test_unwrap_known_packet_gives_the_private_options():
    private = json.loads(unwrap(packet(wrapped_data=KNOWN_WRAPPED)))
    assert base64.b64decode(private["symkey"]) == bytes(range(32))
    assert base64.b64decode(private["cipheroptions"]["nonce"]) == bytes(range(0xF0, 0x100))


def test_unwrap_published_packet_gives_its_private_options():
    """The sample of guest-components: its text, iv and key give its tag, and it opens."""
    text = (
        b'{"symkey":"1jL2jJV0Oyz2nmPkLtqulW6cKcpIUN5FpILcVnP5Uqs=",'
        b'"digest":"sha256:18be1897f9402f27c8c0eba7c86e0c00f5656db62961b5949d55f9565c42c6e7",'
        b'"cipheroptions":{"nonce":"r10F9oaCu+nWFXfod3l83g=="}}'
    )
    sealed = AESGCM(SAMPLE_KEK).encrypt(base64.b64decode("3PQMqtjbR4hxCr83"), text, None)
    assert base64.b64encode(sealed).endswith(b"zm5n7B4iIJ3A0umrQAjQ=")
    sample = packet(iv="3PQMqtjbR4hxCr83", wrapped_data=base64.b64encode(sealed).decode())
    assert unwrap(sample) == text


def test_wrap_writes_version_1_in_the_order_of_its_first_writer():
    text = wrap()
    assert list(json.loads(text)) == ["kid", "wrapped_data", "iv", "wrap_type"]
    assert b" " not in text
    parsed = parse_packet(text, what="x")
    assert (parsed.kid, parsed.wrap_type, len(parsed.iv)) == (KID, "A256GCM", 12)
    assert build_packet(parsed) == text


def test_wrap_twice_gives_other_bytes_and_both_open():
    first, second = wrap(), wrap()
    assert json.loads(first)["iv"] != json.loads(second)["iv"]
    assert unwrap(first) == unwrap(second) == b"private options"


@pytest.mark.parametrize(
    "extra",
    [
        {"version": "0.1.0", "provider": "kbs", "provider_settings": {}, "annotations": {}},
        {"version": None, "provider": None, "unknown": [1]},
    ],
)
def test_unwrap_version_2_packet_opens(extra):
    assert unwrap(json.dumps({**json.loads(wrap()), **extra}).encode()) == b"private options"


@pytest.mark.parametrize(
    ("changes", "kind", "piece"),
    [
        ({"kid": ...}, FormatError, "$.kid: is missing"),
        ({"wrapped_data": ...}, FormatError, "$.wrapped_data: is missing"),
        ({"wrapped_data": "%"}, FormatError, "$.wrapped_data: expected base64"),
        ({"wrapped_data": "QQ=="}, FormatError, "expected at least 16 bytes, got 1"),
        ({"iv": ...}, FormatError, "expected 12 bytes for A256GCM, got 0"),
        ({"iv": base64.b64encode(bytes(16)).decode()}, FormatError, "expected 12 bytes"),
        ({"wrap_type": ...}, FormatError, "$.wrap_type: is missing"),
        ({"wrap_type": "A128GCM"}, Unsupported, "expected wrap_type 'A256GCM', got 'A128GCM'"),
        ({"version": "0.2.0"}, Unsupported, "expected version '0.1.0', got '0.2.0'"),
        ({"provider_settings": []}, FormatError, "expected an object"),
        ({"kid": "kbs:///kbs:///default/key/1"}, FormatError, "kbs:///REPOSITORY/TYPE/TAG"),
    ],
)
def test_parse_packet_with_a_fault_raises(changes, kind, piece):
    with pytest.raises(kind, match="layer 1 of 1: key packet") as caught:
        parse_packet(packet(**changes), what="layer 1 of 1")
    assert piece in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"kid": 1}, "$.kid"),
        ({"kid": "kbs:///a/b"}, "$.kid"),
        ({"wrapped_data": "%"}, "$.wrapped_data"),
        ({"wrapped_data": base64.b64encode(bytes(15)).decode()}, "$.wrapped_data"),
        ({"iv": "%"}, "$.iv"),
        ({"iv": base64.b64encode(bytes(13)).decode()}, "$.iv"),
        ({"iv": base64.b64encode(bytes(11)).decode()}, "$.iv"),
        ({"iv": 1}, "$.iv"),
        ({"wrap_type": "A256CTR", "iv": base64.b64encode(bytes(12)).decode()}, "$.iv"),
        ({"wrap_type": ""}, "$.wrap_type"),
        ({"wrap_type": 1}, "$.wrap_type"),
        ({"provider": 1}, "$.provider"),
        ({"version": 1}, "$.version"),
        ({"provider_settings": 1}, "$.provider_settings"),
        ({"annotations": []}, "$.annotations"),
    ],
    ids=str,
)
def test_parse_packet_with_a_fault_says_where(changes, where):
    with pytest.raises(FormatError) as caught:
        parse_packet(packet(**changes), what="layer 1 of 1")
    assert (caught.value.what, caught.value.where) == ("layer 1 of 1: key packet", where)


def test_parse_packet_takes_what_is_just_long_enough():
    tag = base64.b64encode(bytes(16)).decode()
    assert parse_packet(packet(wrapped_data=tag), what="x").wrapped_data == bytes(16)
    short = packet(wrap_type="A256CTR", iv=tag, wrapped_data="QQ==")  # it has no tag
    assert parse_packet(short, what="x").wrapped_data == b"A"
    assert parse_packet(packet().ljust(65_536), what="x").kid == KID
    with pytest.raises(FormatError, match="at most 65536 bytes, got 65537"):
        parse_packet(packet().ljust(65_537), what="x")


def test_parse_packet_of_another_provider_has_only_the_members_that_all_have():
    data = packet(provider="aws", kid="arn:x", version="7", wrap_type=..., iv=...)
    assert parse_packet(data, what="x") == Packet("arn:x", bytes(20), b"", "", "aws")


@pytest.mark.parametrize(
    "kid",
    [
        "",
        "default/key/1",
        "kbs:///a/b",
        "kbs:///a/b/c/d",
        "kbs:///a/b/",
        "kbs:////b/c",
        "kbs:///a/../c",
        "kbs:///a/.b/c",
        "kbs:///a/b/c?x=y",
        "kbs:///a/b/c#x",
        "kbs:///a/b/c\n",
        "kbs:///a/b%2F/c",
        "kbs:///ä/b/c",
        "kbs://host/a/b/c",
        "kbs://host:8080/a/b/c",
        "kbs+plugin:///a/b/c",
        "https:///a/b/c",
        "KBS:///a/b/c",
        "kbs:///a/b/" + "c" * 1014,
        "kbs:///a/b/" + "c" * 2000,
        "kbs:///.a/b/c",
        "kbs:///a/b/.c",
        " kbs:///a/b/c",
    ],
)
def test_check_kid_of_anything_but_three_segments_raises(kid):
    with pytest.raises(FormatError, match="kbs:///REPOSITORY/TYPE/TAG") as caught:
        check_kid(kid, what="key")
    assert (caught.value.what, caught.value.where) == ("key", "")


@pytest.mark.parametrize(
    "kid",
    [
        "kbs:///a/b/c",
        "kbs:///default/image-kek/0.1-x_Y",
        "kbs:///-/_/0",
        "kbs:///a./b../c.",
        "kbs:///a/b/" + "c" * 1013,
    ],
)
def test_check_kid_of_three_segments_gives_it_back(kid):
    assert check_kid(kid, what="key") == kid


def test_wrapper_names_the_key_and_nothing_secret():
    wrapper = BrokerKeyWrapper(SecretKey(SAMPLE_KEK), KID)
    assert wrapper.scheme == COCO
    assert wrapper.recipients == (f"broker:{KID}",)


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_wrapper_with_key_of_wrong_length_raises(length):
    with pytest.raises(FormatError, match=f"expected a key of 32 bytes, got {length}"):
        BrokerKeyWrapper(SecretKey(bytes(length)), KID)


def test_unwrapper_asks_once_for_each_key_and_image_and_again_after_close():
    store = Store(_1=SAMPLE_KEK)
    wrapped = WrappedKey(COCO, wrap())
    unwrapper = BrokerKeyUnwrapper(store)
    other = UnwrapContext("layer 1 of 1", digest_of(b"other"))
    for context in (TRUSTED, TRUSTED, other, UNTRUSTED, TRUSTED):
        assert opened(unwrapper.unwrap(wrapped, context)) == b"private options"
    assert store.asked == [
        (KID, TRUSTED.manifest_digest),
        (KID, other.manifest_digest),
        (KID, None),
    ]
    unwrapper.close()
    unwrapper.close()
    unwrapper.unwrap(wrapped, TRUSTED)
    assert len(store.asked) == 4


def test_unwrapper_wipes_its_keys_when_closed():
    unwrapper = BrokerKeyUnwrapper(Store(_1=SAMPLE_KEK))
    unwrapper.unwrap(WrappedKey(COCO, wrap()), TRUSTED)
    (kek,) = unwrapper._keks.values()
    unwrapper.close()
    assert kek._data == bytes(32)
    with pytest.raises(ValueError, match="closed"), kek.view():
        pass


@pytest.mark.parametrize("name", ["wrapped_data", "iv"])
def test_unwrap_changed_packet_raises_tag_mismatch(name):
    document = json.loads(wrap())
    data = bytearray(base64.b64decode(document[name]))
    data[-1] ^= 1
    document[name] = base64.b64encode(data).decode()
    with pytest.raises(TagMismatch, match="layer 1 of 1: key packet of kbs:///default/test-key/1"):
        unwrap(json.dumps(document).encode())


def test_unwrap_with_another_key_of_that_name_raises_tag_mismatch():
    with pytest.raises(TagMismatch) as caught:
        unwrap(wrap(), Store(_1=bytes(32)))
    assert "another one by now" in caught.value.hint


OTHER_KID = KID[:-1] + "2"
OTHER_KEK = bytes(range(1, 33))


def packets():
    """One of each of two keys, the first of them twice, and one for somebody else."""
    other = BrokerKeyWrapper(SecretKey(OTHER_KEK), OTHER_KID)
    wrapped = other.wrap(SecretKey(b"others"), WrapContext("layer 2 of 2"))
    return [
        WrappedKey(COCO, wrap()),
        WrappedKey(COCO, wrapped),
        WrappedKey(COCO, wrap()),
        WrappedKey("jwe", wrapped),
        WrappedKey(COCO, b"{}"),
    ]


def test_unwrapper_with_the_images_packets_asks_for_all_keys_at_once():
    store, given = Store(_1=SAMPLE_KEK, _2=OTHER_KEK), packets()
    with BrokerKeyUnwrapper(store, given) as unwrapper:
        assert store.asked == []
        assert opened(unwrapper.unwrap(given[0], TRUSTED)) == b"private options"
        assert opened(unwrapper.unwrap(given[1], TRUSTED)) == b"others"
        assert store.asked == [((KID, OTHER_KID), TRUSTED.manifest_digest)]
        unwrapper.close()
        unwrapper.unwrap(given[1], TRUSTED).close()
    assert store.asked[1:] == [(OTHER_KID, TRUSTED.manifest_digest)]


def test_unwrapper_that_does_not_get_all_keys_at_once_asks_one_by_one():
    store, given = Store(_1=SAMPLE_KEK), packets()
    with BrokerKeyUnwrapper(store, given) as unwrapper:
        assert opened(unwrapper.unwrap(given[0], TRUSTED)) == b"private options"
        with pytest.raises(KeyRefused):
            unwrapper.unwrap(given[1], TRUSTED)
    assert [uri for uri, _ in store.asked] == [(KID, OTHER_KID), KID, OTHER_KID]


def test_unwrapper_with_packets_of_one_key_asks_for_it_alone():
    store, given = Store(_1=SAMPLE_KEK), packets()[:1]
    with BrokerKeyUnwrapper(store, given * 3) as unwrapper:
        unwrapper.unwrap(given[0], TRUSTED).close()
    assert [uri for uri, _ in store.asked] == [KID]


def test_unwrapper_wipes_a_key_of_many_that_is_none():
    store, given = Store(_1=SAMPLE_KEK, _2=b"short"), packets()
    with BrokerKeyUnwrapper(store, given) as unwrapper:
        unwrapper.unwrap(given[0], TRUSTED).close()
        with pytest.raises(FormatError, match="expected a key of 32 bytes, got 5"):
            unwrapper.unwrap(given[1], TRUSTED)
        assert [uri for uri, _ in unwrapper._keks] == [KID]


def test_unwrap_with_a_resource_that_is_no_key_raises_and_keeps_nothing():
    unwrapper = BrokerKeyUnwrapper(Store(_1=b"short"))
    with pytest.raises(FormatError, match="expected a key of 32 bytes, got 5"):
        unwrapper.unwrap(WrappedKey(COCO, wrap()), TRUSTED)
    assert unwrapper._keks == {}


def test_unwrap_with_a_resource_that_is_no_key_wipes_it():
    class Kept(Store):
        def get(self, uri, *, manifest_digest):
            self.kept = super().get(uri, manifest_digest=manifest_digest)
            return self.kept

    store = Kept(_1=b"short")
    with pytest.raises(FormatError) as caught:
        unwrap(wrap(), store)
    assert caught.value.what == KID
    with pytest.raises(ValueError, match="closed"), store.kept.view():
        pass


def test_unwrapper_at_the_end_of_with_wipes_its_keys():
    with BrokerKeyUnwrapper(Store(_1=SAMPLE_KEK)) as unwrapper:
        unwrapper.unwrap(WrappedKey(COCO, wrap()), TRUSTED).close()
        (kek,) = unwrapper._keks.values()
    with pytest.raises(ValueError, match="closed"), kek.view():
        pass


def test_unwrap_refused_key_passes_the_brokers_answer():
    with pytest.raises(KeyRefused) as caught:
        unwrap(wrap(), Store())
    assert caught.value.reason == "no such key"


CTR = packet(
    wrap_type="A256CTR",
    iv=base64.b64encode(b"\xff" * 16).decode(),
    # AES-256-CTR of 48 zero bytes under 00..1f from a counter of all ones, which wraps.
    wrapped_data=base64.b64encode(
        bytes.fromhex(
            "e999e41d4ca770da5387117b5d8f57eef29000b62a499fd0a9f39a6add2e7780"
            "f05d76ae4ab99fe5a6f69b3148c2363d"
        )
    ).decode(),
)


def test_unwrap_unauthenticated_wrap_type_of_untrusted_image_is_refused_before_asking():
    store = Store(_1=bytes(range(32)))
    with pytest.raises(Unsupported, match="'A256CTR' has no authentication"):
        unwrap(CTR, store, UNTRUSTED)
    assert store.asked == []


def test_unwrap_unauthenticated_wrap_type_of_trusted_image_opens():
    assert unwrap(CTR, Store(_1=bytes(range(32)))) == bytes(48)


@pytest.mark.parametrize(
    ("scheme", "data", "piece"),
    [
        ("jwe", wrap(), "scheme is 'jwe'"),
        (COCO, b"PLAIN1...", "not a Confidential Containers packet"),
        (COCO, b"{}", "not a Confidential Containers packet"),
        ("provider.other", b"PLAIN1...", "not a Confidential Containers packet"),
        ("provider.other", packet(iv="QQ=="), "not a Confidential Containers packet"),
        ("provider.other", packet(version="9"), "not a Confidential Containers packet"),
        (COCO, b'{"key": 1}', "not a Confidential Containers packet"),
        (COCO, packet(provider="aws", kid="arn:x", wrap_type=..., iv=...), "key service 'aws'"),
    ],
)
def test_unwrap_of_other_peoples_packets_is_not_mine_and_asks_nobody(scheme, data, piece):
    store = Store(_1=SAMPLE_KEK)
    with pytest.raises(NotMine, match=piece):
        unwrap(data, store, scheme=scheme)
    assert store.asked == []


def test_unwrap_packet_under_another_providers_name_opens():
    assert unwrap(wrap(), scheme="provider.somebody") == b"private options"


def test_unwrap_damaged_packet_under_its_own_name_says_what_is_wrong():
    with pytest.raises(FormatError, match="expected 12 bytes for A256GCM, got 1"):
        unwrap(packet(iv="QQ=="))
    with pytest.raises(Unsupported, match="expected version"):
        unwrap(packet(version="9"))


def test_build_packet_for_another_provider_is_the_callers_bug():
    with pytest.raises(ValueError, match="no provider but kbs"):
        build_packet(Packet("k", b"", b"", "", "aws"))


@given(st.binary(max_size=200))
def test_parse_packet_of_any_bytes_gives_a_packet_or_an_error_of_ours(data):
    with contextlib.suppress(FormatError, Unsupported):
        parse_packet(data, what="x")


@pytest.mark.parametrize(
    "kid",
    [
        "kbs:///a/b/c",
        "kbs://broker.example:8080/a/b/c",
        "kbs://[::1]:8080/a/b/c",
        "kbs+resource:///a/b/c",
        "kbs+resource://broker/a/b/c",
    ],
)
def test_resource_of_a_kid_is_its_path_whoever_it_names(kid):
    assert resource_of(kid, what="packet", where="$.kid") == "kbs:///a/b/c"


def test_resource_of_a_kid_up_to_its_bound():
    longest = f"kbs://{'h' * (1024 - 12)}/a/b/c"
    assert len(longest) == 1024
    assert resource_of(longest, what="packet", where="$.kid") == "kbs:///a/b/c"
    with pytest.raises(FormatError):
        resource_of(longest.replace("/a/b/c", "h/a/b/c"), what="packet", where="$.kid")


@pytest.mark.parametrize(
    "kid",
    [
        "kbs+pkcs11:///a/b/c",
        "kbs://user@host/a/b/c",
        "kbs://host/x/a/b/c",
        "kbs:///kbs:///a/b/c",
        "kbs://host\n/a/b/c",
        "http://host/a/b/c",
        "kbs:///a/../c",
    ],
)
def test_resource_of_another_kid_raises(kid):
    with pytest.raises(FormatError, match="expected 'kbs:///") as caught:
        resource_of(kid, what="packet", where="$.kid")
    assert caught.value.where == "$.kid"


def test_unwrap_of_a_packet_that_names_a_broker_asks_ours_for_its_path():
    document = json.loads(wrap()) | {"kid": KID.replace("kbs:///", "kbs://elsewhere:8080/")}
    store = Store(_1=SAMPLE_KEK)
    assert unwrap(json.dumps(document).encode(), store) == b"private options"
    assert [uri for uri, _ in store.asked] == [KID]
