# SPDX-License-Identifier: Apache-2.0
"""The configuration of a guest: image-rs's file, the Confidential Data Hub's, the kernel's words.

    config = load_guest_config("/run/kata-containers/image/config.json")
    config = config.or_else(parse_kernel_words(text, what="/proc/cmdline"))

    {"image_security_policy_uri": "kbs:///default/security-policy/test", ...}    image-rs: JSON

    [kbc]                                        the Confidential Data Hub: TOML, or JSON
    name = "cc_kbc"
    url = "https://broker.example.org"
    [image]                                      the keys of image-rs
    ...

docs/guest.md says what each key does. Both peers pass over a key that they do not know; so does
this, and `passed_over` has it. What is known and not done here is refused.

Spec: confidential-containers/guest-components, image-rs/src/config.rs and confidential-data-hub.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

from imagers.errors import FormatError, Unsupported
from imagers.files import is_shared_with_host, read_bounded
from imagers.model.origin import Origin
from imagers.model.strict_json import View
from imagers.registry.mirrors import RegistriesConf
from imagers.settings.documents import Document

__all__ = [
    "PLACES",
    "GuestConfig",
    "Said",
    "load_guest_config",
    "load_kernel_words",
    "parse_guest_config",
    "parse_kbc_params",
    "parse_kernel_words",
]

PLACES = ("shared", "private")
"""Who can read and write where layers are kept: others too, or only this guest."""

_MAX_BYTES = 4 * 1024 * 1024  # a policy may stand in it
_MAX_DOWNLOADS = 64
_MAX_ROOTS = 1024
_KBC = "cc_kbc"  # the client of Trustee's protocol
_NO_KBC = "sample_kbc"  # image-rs's default, for tests
_NO_URI = "null"  # image-rs's default
_IMAGE_KEYS = frozenset(
    {
        "work_dir",
        "store_place",
        "image_security_policy_uri",
        "image_security_policy",
        "sigstore_config_uri",
        "sigstore_config",
        "authenticated_registry_credentials_uri",
        "anonymous_fallback_on_unauthorized",
        "registry_configuration_uri",
        "registry_config",
        "max_concurrent_layer_downloads_per_image",
        "image_pull_proxy",
        "extra_root_certificates",
    }
)
_PROXY_KEYS = frozenset({"https_proxy", "http_proxy", "no_proxy"})
_KBC_KEYS = frozenset({"name", "url", "kbs_cert"})
# Of these the service that reads the file is told something, and a pull nothing.
_OF_THE_SERVICE = frozenset({"socket", "aa", "log", "skip_sealed_secret_verification"})
_HUB_KEYS = _OF_THE_SERVICE | {"kbc", "image", "credentials"}
_VERIFIES = "agent.enable_signature_verification"
_POLICY_WORD = "agent.image_policy_file"
_LOGIN_WORD = "agent.image_registry_auth"
_KBC_WORD = "agent.aa_kbc_params"


class Said(NamedTuple):
    """A value, and who said it: a variable, a key of a file, or a word."""

    value: str
    by: str
    origin: Origin


@dataclass(frozen=True, slots=True)
class GuestConfig:
    """What a guest's configuration says; None and () where it says nothing.

    Attributes:
        work_dir: where image-rs keeps layers.
        store_place: "shared" or "private": who can read and write there.
        policy: a containers policy.
        sigstore: where GPG signatures are, in YAML.
        logins: an auth.json.
        registries: a registry configuration of image-rs, or what one that stands in the file says.
        downloads: layers that are downloaded at the same time.
        https_proxy, http_proxy, no_proxy: as written.
        roots: certificates in PEM that are trusted beside the system's, for registries.
        broker: URL of the key broker.
        broker_ca: certificates in PEM that are trusted for it.
        passed_over: what it has and nobody reads, a sentence each.
        is_silent_on_images: whether it has no part about images, so that the kernel's words count.
        origin: of its part about images.
    """

    work_dir: Said | None = None
    store_place: Said | None = None
    policy: Document | None = None
    sigstore: Document | None = None
    logins: Document | None = None
    registries: Document | RegistriesConf | None = None
    downloads: int | None = None
    https_proxy: str | None = field(default=None, repr=False)
    http_proxy: str | None = field(default=None, repr=False)
    no_proxy: str | None = None
    roots: tuple[str, ...] = ()
    broker: Said | None = None
    broker_ca: Said | None = None
    passed_over: tuple[str, ...] = ()
    is_silent_on_images: bool = True
    origin: Origin = Origin.FILE

    def or_else(self, kernel: GuestConfig) -> GuestConfig:
        """This one, with what the kernel's command line has where this one is silent.

        A file that speaks of images speaks alone of them: a host cannot add a word to it.
        """
        images = kernel if self.is_silent_on_images else self
        return replace(
            images,
            broker=self.broker or kernel.broker,
            broker_ca=self.broker_ca,
            passed_over=(*self.passed_over, *kernel.passed_over),
        )


def load_guest_config(path: str) -> GuestConfig:
    """The configuration in a file of either form.

    Raises:
        LocalError: it cannot be read.
        FormatError, Unsupported: as `parse_guest_config`.
    """
    raw = read_bounded(path, max_bytes=_MAX_BYTES)
    origin = Origin.of_file(is_shared=is_shared_with_host(path))
    return parse_guest_config(raw, what=path, origin=origin)


def load_kernel_words(path: str) -> GuestConfig:
    """What the command line of the kernel says, which the file has: /proc/cmdline.

    Raises:
        LocalError: it cannot be read.
        FormatError, Unsupported: as `parse_kernel_words`.
    """
    return parse_kernel_words(read_bounded(path, max_bytes=_MAX_BYTES), what=path)


def parse_guest_config(raw: bytes, *, what: str, origin: Origin = Origin.FILE) -> GuestConfig:
    """The configuration in a file of image-rs or of the Confidential Data Hub.

    Args:
        what: name of the file in messages.
        origin: the kind of its place.

    Raises:
        FormatError: it is neither JSON nor TOML, or a value is malformed.
        Unsupported: it asks for what is not done here.
    """
    file = _parse(raw, what)
    if not (file.value.keys() & (_HUB_KEYS - {"kbc"}) or isinstance(file.value.get("kbc"), dict)):
        broker = _broker(file, origin, name="kbc", url="kbs_uri")
        own = _images(file, origin, _IMAGE_KEYS | {"kbc", "kbs_uri"})
        return replace(own, broker=broker)
    unknown = _unknown(file, _HUB_KEYS)
    kbc = file.object("kbc", null_is_empty=True)
    if file.objects("credentials", null_is_empty=True):
        raise Unsupported(
            f"{what} at {file.at('credentials')}: resources are not written into files here",
            hint="name the resource where it is used, as kbs:///REPOSITORY/TYPE/TAG",
        )
    image = file.optional_object("image")
    images = GuestConfig() if image is None else _images(image, origin, _IMAGE_KEYS)
    ca = kbc.optional_text("kbs_cert")
    return replace(
        images,
        broker=_broker(kbc, origin, name="name", url="url"),
        broker_ca=None if not ca else _said(kbc, "kbs_cert", ca, origin),
        passed_over=(*unknown, *_unknown(kbc, _KBC_KEYS), *images.passed_over),
    )


def parse_kernel_words(raw: bytes, *, what: str) -> GuestConfig:
    """What the words of a kernel's command line say, as image-rs reads them.

    A word is split at its first `=`; of a word that is there twice the last one counts, and of
    `agent.aa_kbc_params` the first one.

    Raises:
        FormatError: a place is empty.
        FormatError, Unsupported: as `parse_kbc_params`.
    """
    pairs = [
        (name, value)
        for name, equals, value in (
            word.partition("=") for word in raw.decode("utf-8", "replace").split()
        )
        if equals
    ]
    words = dict(pairs)
    origin = Origin.KERNEL

    def document(word: str) -> Document | None:
        if word not in words:
            return None
        if not words[word]:
            raise FormatError("expected a place, got nothing", what=f"{word} in {what}")
        return Document(words[word], by=word, origin=origin)

    params = next((value for name, value in pairs if name == _KBC_WORD), None)
    broker = None if params is None else parse_kbc_params(params, what=f"{_KBC_WORD} in {what}")
    verifies = words.get(_VERIFIES) == "true"
    passed: tuple[str, ...] = ()
    if _POLICY_WORD in words and not verifies:
        passed = (f"{_POLICY_WORD} is passed over: there is no {_VERIFIES}=true",)
    return GuestConfig(
        policy=document(_POLICY_WORD) if verifies else None,
        logins=document(_LOGIN_WORD),
        https_proxy=words.get("agent.https_proxy") or None,
        http_proxy=words.get("agent.http_proxy") or None,
        no_proxy=words.get("agent.no_proxy") or None,
        broker=None if broker is None else Said(broker, _KBC_WORD, origin),
        passed_over=passed,
    )


def parse_kbc_params(text: str, *, what: str) -> str:
    """The URL of the broker in `cc_kbc::URL`.

    Raises:
        FormatError: it has no `::`, or no URL.
        Unsupported: it names another client.
    """
    name, _, url = text.partition("::")
    if not url:
        raise FormatError(f"expected '{_KBC}::https://HOST', got {text[:160]!r}", what=what)
    _check_kbc(name, what)
    return url


def _check_kbc(name: str, what: str) -> None:
    if name != _KBC:
        raise Unsupported(
            f"{what}: expected the client {_KBC!r}, got {name[:80]!r}",
            hint=f"brokers are spoken to in Trustee's protocol: '{_KBC}::https://HOST'",
        )


def _parse(raw: bytes, what: str) -> View:
    if raw.lstrip().startswith(b"{"):
        return View.parse(raw, what=what, max_bytes=_MAX_BYTES)
    import tomllib

    try:
        return View(tomllib.loads(raw.decode()), what=what, where="")
    except UnicodeDecodeError as error:
        raise FormatError(f"is not UTF-8 at byte {error.start}", what=what) from None
    except (ValueError, RecursionError) as error:  # a number of too many digits is no TOML error
        raise FormatError(
            f"expected JSON, or TOML: {str(error)[:160]}",
            what=what,
            hint="it is a file of image-rs (JSON) or of the Confidential Data Hub (TOML)",
        ) from None


def _images(view: View, origin: Origin, known: frozenset[str]) -> GuestConfig:
    """What the keys of image-rs say."""
    from imagers.registry.registries_conf import read_image_rs_registries

    if view.flag("anonymous_fallback_on_unauthorized"):
        raise Unsupported(
            f"{view.what} at {view.at('anonymous_fallback_on_unauthorized')}: a login that a "
            "registry refuses is never left out",
            hint="say false, and take the login out for public images",
        )

    def named(uri: str, inline: str = "") -> Document | None:
        """The document at a place, or else in the file."""
        place = view.optional_text(uri)
        text = view.optional_text(inline) if inline else None
        if place == "":  # a variable of a template that is not set would end in silence
            raise view.error("expected a place, got nothing", uri)
        if place is not None:
            return Document(place, by=f"{uri} of {view.what}", origin=origin)
        if text is None:
            return None
        return Document(f"{inline} of {view.what}", by=inline, origin=origin, text=text)

    table = view.optional_object("registry_config")
    downloads = "max_concurrent_layer_downloads_per_image"
    work_dir = view.optional_text("work_dir")
    place = view.optional_text("store_place")
    if place not in (None, *PLACES):
        raise view.error(f"expected 'shared' or 'private', got {place[:80]!r}", "store_place")
    proxies = view.object("image_pull_proxy", null_is_empty=True)
    return GuestConfig(
        work_dir=None if not work_dir else _said(view, "work_dir", work_dir, origin),
        store_place=None if place is None else _said(view, "store_place", place, origin),
        policy=named("image_security_policy_uri", "image_security_policy"),
        sigstore=named("sigstore_config_uri", "sigstore_config"),
        logins=named("authenticated_registry_credentials_uri"),
        registries=named("registry_configuration_uri")
        if table is None
        else read_image_rs_registries(table),
        downloads=view.integer(downloads, minimum=1, maximum=_MAX_DOWNLOADS)
        if view.value.get(downloads) is not None
        else None,
        https_proxy=proxies.optional_text("https_proxy") or None,
        http_proxy=proxies.optional_text("http_proxy") or None,
        no_proxy=proxies.optional_text("no_proxy") or None,
        roots=view.texts("extra_root_certificates", most=_MAX_ROOTS, null_is_empty=True),
        passed_over=(*_unknown(view, known), *_unknown(proxies, _PROXY_KEYS)),
        is_silent_on_images=False,
        origin=origin,
    )


def _broker(view: View, origin: Origin, *, name: str, url: str) -> Said | None:
    found = view.optional_text(url) or ""
    kbc = view.optional_text(name) or _NO_KBC
    if found in ("", _NO_URI) and kbc in (_NO_KBC, _KBC):
        return None
    _check_kbc(kbc, f"{view.what} at {view.at(name)}")
    return _said(view, url, found, origin)


def _said(view: View, key: str, value: str, origin: Origin) -> Said:
    return Said(value, f"{view.at(key).removeprefix('$.')} of {view.what}", origin)


def _unknown(view: View, known: frozenset[str]) -> tuple[str, ...]:
    return tuple(
        f"{view.what}: the key {view.at(str(key)[:80])!r} is not known, and is passed over"
        for key in view.value
        if key not in known
    )
