# SPDX-License-Identifier: Apache-2.0
"""What a host could choose of a guest's settings, as one document that is measured.

    settings = MeasuredSettings(broker, policy=str(policy.digest), registries=..., auth=names)
    broker.check_sources(is_vouched_for=False)
    measure.record("Settings", settings.event)

Which broker is asked and how it is known, where names of images lead, which policy decides, and
where logins come from: by their names, never a login or a digest of one.

    {"auth": [TEXT...], "broker": {"ca": DIGEST, "reference": DIGEST, "url": TEXT} or null,
     "policy": DIGEST or URI, "registries": {...} or URI, "version": 1}

One writer and one form: canonical JSON (RFC 8785). docs/formats.md has every member.

No IO and no clock here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hmac import compare_digest
from typing import TYPE_CHECKING, NamedTuple

from imagers.errors import FormatError, PolicyDenied
from imagers.model.digest import Digest, digest_of, parse_digest
from imagers.model.origin import Origin, check_origin
from imagers.model.strict_json import View, dump_json
from imagers.registry.mirrors import Mirror, RegistriesConf, Rule

if TYPE_CHECKING:
    from imagers.model.strict_json import JSON, JSONObject

__all__ = ["INIT_DATA_KEY", "MeasuredBroker", "MeasuredSettings", "Source", "parse_settings"]

INIT_DATA_KEY = "imagers-settings.json"
"""The name of the document among the texts of init data."""
_WHAT = "settings document"
_VERSION = 1
_MAX_DOCUMENT = 1024 * 1024
_MAX_SHOWN = 200


class Source(NamedTuple):
    """Where something of a broker came from.

    Attributes:
        what: it is, such as "the broker's address".
        name: of the option, variable, file or word that had it.
        is_read_again: it is a file, of which the content is used later.
    """

    origin: Origin
    what: str
    name: str
    is_read_again: bool = False


@dataclass(frozen=True, slots=True)
class MeasuredBroker:
    """Which broker is asked, and how it is known.

    Attributes:
        url: its address.
        ca: digest of the only certificates that are trusted for it; None: those of the system.
        reference: digest of what a broker in a TEE has to be; None: it is no such broker.
        sources: of these.
    """

    url: str
    ca: Digest | None = None
    reference: Digest | None = None
    sources: tuple[Source, ...] = ()

    def to_json(self) -> JSONObject:
        """As it stands in the document."""
        return {"url": self.url, "ca": _text(self.ca), "reference": _text(self.reference)}

    def check_sources(self, *, is_vouched_for: bool) -> None:
        """Raise where address, CA or reference come from a place that a host may write.

        Args:
            is_vouched_for: init data has the document with them. It does not vouch for a file that
                is read again when it is used: a host could exchange it in between.

        Raises:
            PolicyDenied: they do.
        """
        for one in self.sources:
            if one.is_read_again or not is_vouched_for:
                check_origin(one.origin, one.what, one.name)


@dataclass(frozen=True, slots=True)
class MeasuredSettings:
    """See the module.

    Attributes:
        broker: None: none is asked.
        policy: digest of policy.json, or the URI that it has at the broker.
        registries: where names lead, or the URI that says it at the broker.
        auth: names of the sources of logins, in the order in which they are asked.
    """

    broker: MeasuredBroker | None
    policy: str
    registries: RegistriesConf | str = field(default_factory=RegistriesConf)
    auth: tuple[str, ...] = ()

    def to_bytes(self) -> bytes:
        """The document.

        Raises:
            FormatError: a path in it is no UTF-8.
        """
        import rfc8785  # used once a pull

        try:
            return rfc8785.dumps(self.to_json())
        except rfc8785.CanonicalizationError:
            raise FormatError("a name in it is not UTF-8, such as a path", what=_WHAT) from None

    @property
    def digest(self) -> Digest:
        """Of the document."""
        return digest_of(self.to_bytes())

    @property
    def event(self) -> JSON:
        """What is measured of it."""
        return {"digest": str(self.digest)}

    def to_json(self) -> JSONObject:
        """The document, as a value."""
        return {
            "auth": list(self.auth),
            "broker": None if self.broker is None else self.broker.to_json(),
            "policy": self.policy,
            "registries": self.registries
            if isinstance(self.registries, str)
            else _registries(self.registries),
            "version": _VERSION,
        }

    def check_used(self, policy: Digest, registries: RegistriesConf) -> None:
        """Raise unless these are the ones that it has; those that a broker has are its own to say.

        Raises:
            PolicyDenied: they are not.
        """
        for what, known, used in (
            ("policy", self.policy, str(policy)),
            ("registries", self.registries, registries),
        ):
            is_at_broker = isinstance(known, str) and known.startswith("kbs:")
            if not is_at_broker and known != used:
                raise PolicyDenied(
                    f"settings: {what}: not as it was measured, it was changed since"
                )

    def check_init_data(self, stated: str) -> None:
        """Raise unless the text that init data has under `INIT_DATA_KEY` is this document.

        Raises:
            FormatError: it is no such document.
            PolicyDenied: it is another one; the message names a member that differs.
        """
        theirs = parse_settings(stated.removesuffix("\n").encode())
        if compare_digest(self.to_bytes(), theirs.to_bytes()):
            return
        expected, found = theirs.to_json(), self.to_json()
        member = next(name for name in found if found[name] != expected[name])
        told = (dump_json(one[member]).decode()[:_MAX_SHOWN] for one in (expected, found))
        raise PolicyDenied(
            "settings: the init data of this machine has other ones: "
            f"{member}: expected {next(told)}, got {next(told)}",
            hint="'imagers pull --print-settings' prints those in force here",
        )


def parse_settings(data: bytes) -> MeasuredSettings:
    """The settings in a document.

    Raises:
        FormatError: it is none, or is not in its one form.
    """
    view = View.parse(data, what=_WHAT, max_bytes=_MAX_DOCUMENT)
    broker = view.optional_object("broker")
    found = MeasuredSettings(
        broker=None
        if broker is None
        else MeasuredBroker(
            broker.text("url"), _digest(broker, "ca"), _digest(broker, "reference")
        ),
        policy=view.text("policy"),
        registries=view.text("registries")
        if isinstance(view.value.get("registries"), str)
        else _parse_registries(view.object("registries")),
        auth=view.texts("auth"),
    )
    # So that there is no member that is unknown or missing, and no second form.
    if found.to_bytes() != data:
        raise FormatError(
            f"expected the form that 'imagers pull --print-settings' writes, of version {_VERSION}",
            what=_WHAT,
        )
    return found


def _parse_registries(view: View) -> RegistriesConf:
    return RegistriesConf(
        rules=tuple(map(_rule, view.objects("rules"))),
        search=view.texts("search"),
        insecure_is_any_certificate=view.flag("insecure_is_any_certificate"),
        insecure_needs_location=view.flag("insecure_needs_location"),
        unqualified=view.texts("unqualified"),
        aliases=view.string_map("aliases"),
        credential_helpers=view.texts("credential_helpers"),
    )


def _digest(view: View, name: str) -> Digest | None:
    text = view.optional_text(name)
    return None if text is None else parse_digest(text)


def _rule(view: View) -> Rule:
    return Rule(
        prefix=view.text("prefix"),
        location=view.text("location"),
        insecure=view.flag("insecure"),
        blocked=view.flag("blocked"),
        mirrors=tuple(
            Mirror(one.text("location"), one.flag("insecure"), one.text("pulls"))
            for one in view.objects("mirrors")
        ),
    )


def _registries(conf: RegistriesConf) -> JSONObject:
    return {
        "aliases": dict(conf.aliases),
        "credential_helpers": list(conf.credential_helpers),
        "insecure_is_any_certificate": conf.insecure_is_any_certificate,
        "insecure_needs_location": conf.insecure_needs_location,
        "rules": [
            {
                "prefix": rule.prefix,
                "location": rule.location,
                "insecure": rule.insecure,
                "blocked": rule.blocked,
                "mirrors": [
                    {"location": one.location, "insecure": one.insecure, "pulls": one.pulls}
                    for one in rule.mirrors
                ],
            }
            for rule in conf.rules
        ],
        "search": list(conf.search),
        "unqualified": list(conf.unqualified),
    }


def _text(digest: Digest | None) -> str | None:
    return None if digest is None else str(digest)
