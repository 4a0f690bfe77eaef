# SPDX-License-Identifier: Apache-2.0
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagers.errors import FormatError, LocalError, Unsupported
from imagers.model.origin import Origin
from imagers.registry.mirrors import RegistriesConf
from imagers.settings.documents import Document
from imagers.settings.guest import (
    _HUB_KEYS,
    _IMAGE_KEYS,
    GuestConfig,
    Said,
    load_guest_config,
    load_kernel_words,
    parse_guest_config,
    parse_kbc_params,
    parse_kernel_words,
)

KERNEL = Origin.KERNEL
BROKER = "https://broker.example.org"
DATA_HUB = f"""
socket = "unix:///run/confidential-containers/cdh.sock"
[kbc]
name = "cc_kbc"
url = "{BROKER}"
kbs_cert = "PEM"
[image]
image_security_policy_uri = "kbs:///default/security-policy/test"
max_concurrent_layer_downloads_per_image = 2
[image.image_pull_proxy]
https_proxy = "http://proxy:3128"
"""


def parse(document):
    return parse_guest_config(json.dumps(document).encode(), what="c.json")


def words(text):
    return parse_kernel_words(text.encode(), what="cmdline")


def test_empty_file_says_nothing_and_speaks_of_images():
    assert parse({}) == GuestConfig(is_silent_on_images=False)


WHOLE = {
    "work_dir": "/w",
    "image_security_policy_uri": "/p.json",
    "image_security_policy": "{}",
    "sigstore_config_uri": "/s.yaml",
    "sigstore_config": "docker: {}",
    "authenticated_registry_credentials_uri": "/auth.json",
    "anonymous_fallback_on_unauthorized": False,
    "registry_configuration_uri": "/r.toml",
    "registry_config": {},
    "max_concurrent_layer_downloads_per_image": 64,
    "image_pull_proxy": {"https_proxy": "http://a", "http_proxy": "http://b", "no_proxy": "c"},
    "extra_root_certificates": ["PEM"] * 1024,
}


@pytest.mark.parametrize("is_hub", [False, True])
def test_each_key_of_images_is_known_and_read(is_hub):
    own = {"kbc": "cc_kbc", "kbs_uri": BROKER}
    for_services = {"socket": "", "aa": {}, "log": {}, "skip_sealed_secret_verification": True}
    kbc = {"name": "cc_kbc", "url": BROKER, "kbs_cert": ""}
    hub = {"kbc": kbc, "image": WHOLE, "credentials": [], **for_services}
    config = parse(hub if is_hub else WHOLE | own)
    assert config.passed_over == ()
    where = "image." if is_hub else ""
    assert config.work_dir == Said("/w", f"{where}work_dir of c.json", Origin.FILE)
    assert config.policy.origin is config.sigstore.origin is Origin.FILE
    assert (config.sigstore.name, config.logins.name) == ("/s.yaml", "/auth.json")
    assert config.downloads == 64
    assert config.roots == ("PEM",) * 1024
    proxies = (config.https_proxy, config.http_proxy, config.no_proxy)
    assert proxies == ("http://a", "http://b", "c")
    assert (config.broker.value, config.broker_ca) == (BROKER, None)


def test_numbers_have_bounds():
    for key, value in (
        ("max_concurrent_layer_downloads_per_image", 65),
        ("extra_root_certificates", ["PEM"] * 1025),
    ):
        with pytest.raises(FormatError, match=key):
            parse({key: value})
    assert parse({"max_concurrent_layer_downloads_per_image": 1}).downloads == 1


def test_empty_proxies_are_none():
    empty = dict.fromkeys(("https_proxy", "http_proxy", "no_proxy"), "")
    kernel = words("agent.https_proxy= agent.http_proxy= agent.no_proxy=")
    for config in (parse({"image_pull_proxy": empty}), kernel):
        assert (config.https_proxy, config.http_proxy, config.no_proxy) == (None, None, None)


def test_place_of_a_policy_wins_over_one_that_stands_in_the_file():
    both = {"image_security_policy_uri": "/p.json", "image_security_policy": "{}"}
    by = "image_security_policy_uri of c.json"
    assert parse(both).policy == Document("/p.json", by, Origin.FILE)
    inline = parse({"image_security_policy": "{}"}).policy
    name = "image_security_policy of c.json"
    assert inline == Document(name, "image_security_policy", Origin.FILE, "{}")


def test_place_of_a_sigstore_configuration_wins_over_one_that_stands_in_the_file():
    both = {"sigstore_config_uri": "/s.yaml", "sigstore_config": "docker: {}"}
    assert parse(both).sigstore.name == "/s.yaml"
    assert parse({"sigstore_config": "docker: {}"}).sigstore.text == "docker: {}"


def test_registries_in_the_file_win_over_their_place():
    table = {"registry": [{"prefix": "a.example", "location": "b.example"}]}
    both = {"registry_configuration_uri": "/r.toml", "registry_config": table}
    registries = parse(both).registries
    assert isinstance(registries, RegistriesConf)
    assert registries.rules[0].location == "b.example"
    assert parse({"registry_configuration_uri": "/r.toml"}).registries.name == "/r.toml"


def test_broker_of_image_rs_is_named_by_client_and_address():
    said = parse({"kbc": "cc_kbc", "kbs_uri": BROKER}).broker
    assert said == Said(BROKER, "kbs_uri of c.json", Origin.FILE)


@pytest.mark.parametrize(
    "document",
    [{"kbc": "sample_kbc", "kbs_uri": "null"}, {"kbs_uri": "null"}, {"kbc": "cc_kbc"}],
)
def test_defaults_that_image_rs_writes_name_no_broker(document):
    assert parse(document).broker is None


@pytest.mark.parametrize(
    "document",
    [
        {"kbs_uri": BROKER},
        {"kbc": "offline_fs_kbc"},
        {"kbc": "online_sev_kbc", "kbs_uri": BROKER},
        {"kbc": {"name": "offline_fs_kbc", "url": ""}},
    ],
)
def test_client_of_another_protocol_is_refused(document):
    with pytest.raises(Unsupported, match=r"c\.json at \$\.kbc.*: expected the client 'cc_kbc'"):
        parse(document)


def test_file_of_the_data_hub_has_broker_and_images():
    config = parse_guest_config(DATA_HUB.encode(), what="cdh.toml")
    assert config.broker == Said(BROKER, "kbc.url of cdh.toml", Origin.FILE)
    assert config.broker_ca.value == "PEM"
    assert config.policy.name == "kbs:///default/security-policy/test"
    assert (config.downloads, config.https_proxy) == (2, "http://proxy:3128")
    assert config.passed_over == ()
    assert not config.is_silent_on_images


def test_file_of_the_data_hub_may_be_json():
    config = parse({"kbc": {"name": "cc_kbc", "url": BROKER}, "image": {"work_dir": "/w"}})
    assert (config.broker.value, config.work_dir.value) == (BROKER, "/w")


def test_keys_that_nobody_knows_are_told_and_passed_over():
    told = parse({"image_security_polcy": "{}", "image_pull_proxy": {"ftp_proxy": "x"}}).passed_over
    assert [one.partition(",")[0] for one in told] == [
        "c.json: the key '$.image_security_polcy' is not known",
        "c.json: the key '$.image_pull_proxy.ftp_proxy' is not known",
    ]
    told = parse({"image": {"kbs_uri": BROKER}, "kbc": {"cert": ""}, "kds": {}}).passed_over
    assert [one.split("'")[1] for one in told] == ["$.kds", "$.kbc.cert", "$.image.kbs_uri"]


@pytest.mark.parametrize(
    ("document", "where"),
    [
        ({"work_dir": 1}, "$.work_dir"),
        ({"image_security_policy_uri": []}, "$.image_security_policy_uri"),
        ({"image_security_policy": {}}, "$.image_security_policy"),
        ({"sigstore_config": {}}, "$.sigstore_config"),
        ({"authenticated_registry_credentials_uri": 1}, "$.authenticated_registry_credentials_uri"),
        ({"image_security_policy_uri": ""}, "$.image_security_policy_uri"),
        (
            {"authenticated_registry_credentials_uri": ""},
            "$.authenticated_registry_credentials_uri",
        ),
        ({"registry_config": "x"}, "$.registry_config"),
        ({"registry_config": {"registry": [{}]}}, "$.registry_config.registry[0]"),
        ({"max_concurrent_layer_downloads_per_image": "3"}, None),
        ({"max_concurrent_layer_downloads_per_image": 0}, None),
        ({"image_pull_proxy": []}, "$.image_pull_proxy"),
        ({"image_pull_proxy": {"no_proxy": 1}}, "$.image_pull_proxy.no_proxy"),
        ({"extra_root_certificates": ["", 1]}, "$.extra_root_certificates[1]"),
        ({"kbs_uri": 1}, "$.kbs_uri"),
        ({"kbc": {"url": 1}}, "$.kbc.url"),
        ({"image": {"kbc": "x", "work_dir": 1}}, "$.image.work_dir"),
    ],
)
def test_value_of_another_type_is_refused_where_it_stands(document, where):
    with pytest.raises(FormatError) as caught:
        parse(document)
    assert caught.value.where == (where or "$.max_concurrent_layer_downloads_per_image")
    assert "c.json" in str(caught.value)


@pytest.mark.parametrize(
    "raw",
    [b"{", b"{}{}", b"[[", b"\xff = 1", b"a = " + b"1" * 5000, b"a = " + b"[" * 100_000],
    ids=lambda raw: repr(raw[:24]),
)
def test_what_is_neither_json_nor_toml_is_refused(raw):
    with pytest.raises(FormatError, match=r"^c"):
        parse_guest_config(raw, what="c")


KEYS = st.sampled_from(sorted(_IMAGE_KEYS | _HUB_KEYS | {"kbs_uri", "name", "url", "https_proxy"}))
LEAVES = st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(["cc_kbc", "null"])
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4)
)


@given(st.binary() | st.dictionaries(KEYS, VALUES).map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_configuration_or_refused(raw):
    for parse_bytes in (parse_guest_config, parse_kernel_words):
        try:
            found = parse_bytes(raw, what="c.json")
        except (FormatError, Unsupported) as error:
            assert "c.json" in str(error)  # noqa: PT017  # there may be none
        else:
            assert isinstance(found, GuestConfig)


def test_what_is_known_and_not_done_is_refused():
    with pytest.raises(Unsupported, match=r"credentials: resources are not written into files"):
        parse({"credentials": [{"resource_uri": "kbs:///a/b/c", "path": "/x"}]})
    assert parse({"credentials": []}) == GuestConfig()
    with pytest.raises(Unsupported, match="a login that a registry refuses is never left out"):
        parse({"anonymous_fallback_on_unauthorized": True})
    assert parse({"anonymous_fallback_on_unauthorized": False}).logins is None


def test_proxies_are_not_shown():
    secret = parse({"image_pull_proxy": {"https_proxy": "http://u:horse@p", "http_proxy": "horse"}})
    assert "horse" not in repr(secret)


# The eight cases of image-rs's own tests, in other words.
@pytest.mark.parametrize(
    ("text", "proxies", "logins", "policy"),
    [
        ("ro agent.https_proxy=http://h:1", ("http://h:1", None, None), None, None),
        ("agent.no_proxy=a agent.https_proxy=b ro", ("b", None, "a"), None, None),
        (
            "x agent.no_proxy=a  \n agent.image_registry_auth=kbs:///a/b/c agent.https_proxy=b",
            ("b", None, "a"),
            "kbs:///a/b/c",
            None,
        ),
        (
            "\n agent.image_registry_auth=file:///root/.docker/config.json",
            (None, None, None),
            "file:///root/.docker/config.json",
            None,
        ),
        (
            "agent.image_policy_file=/p agent.image_registry_auth=kbs:///a/b/c agent.http_proxy=c",
            (None, "c", None),
            "kbs:///a/b/c",
            None,
        ),
        (
            "agent.image_policy_file=kbs:///a/b/p agent.enable_signature_verification=false",
            (None, None, None),
            None,
            None,
        ),
        (
            "agent.enable_signature_verification=1 agent.image_policy_file=kbs:///a/b/p",
            (None, None, None),
            None,
            None,
        ),
        (
            "agent.enable_signature_verification=true agent.image_policy_file=/p",
            (None, None, None),
            None,
            "/p",
        ),
    ],
)
def test_words_of_the_kernel_in_eight_cases(text, proxies, logins, policy):
    config = words(text)
    assert (config.https_proxy, config.http_proxy, config.no_proxy) == proxies
    by = "agent.image_registry_auth"
    assert config.logins == (None if logins is None else Document(logins, by, KERNEL))
    by = "agent.image_policy_file"
    assert config.policy == (None if policy is None else Document(policy, by, KERNEL))
    passed = "agent.image_policy_file" in text and policy is None
    assert len(config.passed_over) == passed


def test_words_are_split_once_and_the_last_of_two_counts():
    assert words("agent.no_proxy=a=b").no_proxy == "a=b"
    assert words("agent.no_proxy=a agent.no_proxy=b agent.no_proxy").no_proxy == "b"
    assert words("agent.no_proxy=a").broker is None
    twice = "agent.enable_signature_verification=true agent.enable_signature_verification=True"
    assert words(f"{twice} agent.image_policy_file=/p").policy is None


@pytest.mark.parametrize("word", ["aa_kbc_params", "image_registry_auth", "image_policy_file"])
def test_word_without_its_value_is_refused(word):
    with pytest.raises(FormatError, match=rf"agent\.{word} in cmdline: expected .*, got"):
        words(f"agent.{word}= agent.enable_signature_verification=true")


def test_broker_in_a_word_is_the_first_one():
    first = f"agent.aa_kbc_params=cc_kbc::{BROKER}"
    said = words(f"{first} agent.aa_kbc_params=cc_kbc::http://other").broker
    assert said == Said(BROKER, "agent.aa_kbc_params", KERNEL)
    with pytest.raises(Unsupported, match=r"agent\.aa_kbc_params in cmdline: expected the client"):
        words("agent.aa_kbc_params=offline_fs_kbc::null")


def test_broker_in_parameters_may_have_an_address_with_colons():
    assert parse_kbc_params("cc_kbc::http://[::1]:8080", what="X") == "http://[::1]:8080"
    for text in ("cc_kbc", "cc_kbc::", f"cc_kbc:{BROKER}", ""):
        with pytest.raises(FormatError, match="X: expected 'cc_kbc::https://HOST'"):
            parse_kbc_params(text, what="X")


def test_words_count_for_images_only_where_the_file_is_silent():
    kernel = words(f"agent.image_registry_auth=/k agent.aa_kbc_params=cc_kbc::{BROKER}")
    kbc = {"name": "cc_kbc", "url": "https://own.example.org", "kbs_cert": "PEM"}
    silent = parse({"kbc": kbc, "oops": 1})
    both = silent.or_else(kernel)
    assert (both.logins.name, both.broker.value) == ("/k", "https://own.example.org")
    assert both.passed_over == silent.passed_over
    assert both.broker_ca == silent.broker_ca == Said("PEM", "kbc.kbs_cert of c.json", Origin.FILE)
    both = parse({"work_dir": "/w"}).or_else(kernel)
    assert (both.logins, both.work_dir.value, both.broker.value) == (None, "/w", BROKER)


def test_files_are_read_within_a_bound(tmp_path):
    path = tmp_path / "c.json"
    path.write_text('{"work_dir": "/w"}')
    assert load_guest_config(str(path)).work_dir.value == "/w"
    path.write_text("agent.no_proxy=a\n")
    assert load_kernel_words(str(path)).no_proxy == "a"
    path.write_bytes(bytes(4 * 1024 * 1024 + 1))
    for load in (load_guest_config, load_kernel_words):
        with pytest.raises(LocalError, match="expected at most"):
            load(str(path))
        with pytest.raises(LocalError, match="no such file"):
            load(str(tmp_path / "missing"))
