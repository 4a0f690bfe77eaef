# SPDX-License-Identifier: Apache-2.0
"""What the user's machine says, read in one place and turned into values.

    user = read_settings()
    with open_image(name, user.transport_options(), user.lookasides()) as image:
        pull_image(image, bundle, PullOptions(user.policy_for(image.identity)))

docs/environment.md says what each variable does, and what wins over it. In a guest its
configuration is read too, and documents of its broker are used; variables win over the file:

    user = read_settings(load_guest_config(path))
    transport = user.transport_options(resources=broker)
    lookasides = user.lookasides(resources=broker)
    with open_image(name, transport, lookasides, read_key=key_reader(broker)) as image:
        policy = user.policy_for(image.identity, resources=broker)
        pull_image(image, bundle, PullOptions(policy), resources=broker)
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from imagers import encrypt, sign, transport
from imagers.errors import CouldNotVerify, LocalError, Unsupported
from imagers.model.identity import ImageIdentity
from imagers.model.keys import ResourceStore, SecretKey
from imagers.model.origin import Origin
from imagers.net.proxies import Proxies
from imagers.registry.auth_files import AuthFile
from imagers.registry.mirrors import AUTH_FILES, RegistriesConf
from imagers.settings.documents import Document
from imagers.settings.guest import GuestConfig, Said

__all__ = ["Settings", "hide_secrets", "read_settings"]

_VARIABLE = "COSIGN_PASSWORD"
_MAX_CONFIG_BYTES = 1024 * 1024  # of one file
_hidden: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment says.

    Attributes:
        policy_paths: where a containers policy is looked for, in this order.
        broker_state: directory of the broker's database and keys.
        collateral: directory of what verifiers need beside evidence.
        store: directory of what pulls keep.
        runtime: directory for what lasts as long as this boot; None: there is none.
        spool: directory for blobs that wait for their upload; None for /var/tmp.
        registries_d_paths: where registries.d is looked for, in this order.
        default_lookaside: URL of GPG signatures where registries.d says nothing.
        keyprovider_config: path of the key providers' configuration; None for none.
        oaep_hash: of PKCS11 packets; None for the first that fits a key.
        auth_files: where logins for registries are looked for, in this order; new ones go into
            the first.
        cert_roots: directories with certificates, one directory a registry in each.
        http_proxy: as written, or None; so `https_proxy` and `no_proxy`.
        registries_conf: registries.conf, then its drop-in files; those that exist.
        daemon_host: of the engine that `docker-daemon:` means; None for Docker's own socket.
        broker_url: of the broker that is spoken to; None: nobody named one.
        broker_reference: file with what a broker in a TEE has to be; None: it is no such broker.
        broker_ca: PEM file, of the only CAs that are trusted for it; None: the system's.
        tee_key_algorithm: of the key that its answers are sealed to; None: what all brokers take.
        tpm_device: of the TPM of this machine; None: the kernel's.
        tpm_ak_handle: of its attestation key, as written; None: the usual one.
        agent_log: file with what was measured in this machine since its start; None: the usual one.
        named_admin_key: file of its administrator's key; None: where this user's broker writes it.
        cosign_password: None where the variable is not set, which is not the same as empty.
        guest: what a guest's configuration says, less what a variable says in its place.
        kbc_params: the guest's broker, as `AA_KBC_PARAMS` has it; None: `guest` has it.
    """

    policy_paths: tuple[Path, ...]
    broker_state: Path
    collateral: Path
    store: Path
    runtime: Path | None
    spool: Path | None
    registries_d_paths: tuple[Path, ...] = ()
    default_lookaside: str | None = None
    keyprovider_config: str | None = None
    oaep_hash: str | None = None
    auth_files: tuple[Path, ...] = ()
    cert_roots: tuple[Path, ...] = ()
    http_proxy: str | None = None
    https_proxy: str | None = None
    no_proxy: str = ""
    registries_conf: tuple[Path, ...] = ()
    daemon_host: str | None = None
    broker_url: str | None = None
    broker_reference: str | None = None
    broker_ca: str | None = None
    tee_key_algorithm: str | None = None
    tpm_device: str | None = None
    tpm_ak_handle: str | None = None
    agent_log: str | None = None
    named_admin_key: Path | None = None
    cosign_password: str | None = field(default=None, repr=False)
    guest: GuestConfig = field(default_factory=GuestConfig)
    kbc_params: str | None = None

    @property
    def broker_admin_key(self) -> Path:
        """The administrator's key: as named, else where this user's broker writes it."""
        return self.named_admin_key or self.broker_state / "admin.key"

    @property
    def guest_broker(self) -> Said | None:
        """The broker that a guest's variable or configuration names, if `broker_url` is not.

        Raises:
            FormatError, Unsupported: the variable does not name one that can be spoken to.
        """
        if self.kbc_params is None:
            return self.guest.broker
        from imagers.settings.guest import parse_kbc_params

        url = parse_kbc_params(self.kbc_params, what="AA_KBC_PARAMS")
        return Said(url, "AA_KBC_PARAMS", Origin.CALLER)

    def transport_options(
        self,
        *,
        is_remote: bool = True,
        image_rs_registries: str | None = None,
        logins: str | None = None,
        resources: ResourceStore | None = None,
    ) -> transport.TransportOptions:
        """How this user reaches images: logins, certificates, mirrors, proxies.

        Args:
            is_remote: for a registry. Else no file is read that only registries need: one that is
                wrong must not keep anybody from a directory of his own.
            image_rs_registries: place of a registry configuration of image-rs, in place of
                registries.conf.
            logins: place of the only auth.json that is looked at.
            resources: the broker whose documents are used; it is asked for them now.

        Raises:
            LocalError, FormatError: a file cannot be read, or is malformed; or a proxy is none.
            As `read_document`, for documents of a broker.
        """
        from imagers.transport.open import TransportOptions

        options = TransportOptions(
            spool_directory=self.spool,
            auth_files=self.auth_files,
            cert_roots=self.cert_roots,
            daemon_host=self.daemon_host,
        )
        if not is_remote:
            return options
        registries = self.registries(image_rs_registries, resources)
        files = self._auth_files(logins, resources)
        if any(isinstance(one, AuthFile) for one in files):  # and no program is asked for a login
            registries = replace(registries, credential_helpers=(AUTH_FILES,))
        return replace(
            options,
            proxies=self.proxies(),
            registries=registries,
            auth_files=files,
            more_cas=self.guest.roots,
        )

    def _auth_files(
        self, logins: str | None, resources: ResourceStore | None
    ) -> tuple[Path | AuthFile, ...]:
        document = self.guest.logins if logins is None else Document(logins)
        if document is None:
            return self.auth_files
        from imagers.registry.auth_files import MAX_AUTH_FILE, parse_auth_file
        from imagers.settings.documents import is_at_broker, path_of

        if not is_at_broker(document.name):
            path = Path(path_of(document.name))
            if not path.exists():
                # A login was expected there: to go on without would be a surprise.
                hint = f"{document.by or '--authfile'} names it"
                raise LocalError("no such file", path=str(path), hint=hint)
            return (path,)
        raw = document.read(max_bytes=MAX_AUTH_FILE, resources=resources)
        file = parse_auth_file(raw, what=document.name)
        if file.names_helpers:
            raise Unsupported(
                f"{document.name}: expected logins, got names of programs that have them",
                hint="put the logins themselves under 'auths', without credHelpers and credsStore",
            )
        return (file,)

    def proxies(self) -> Proxies:
        """Which requests go through a proxy.

        Raises:
            FormatError: a variable names none.
        """
        from imagers.net.proxies import parse_exempt, parse_proxy

        http, https = self.http_proxy, self.https_proxy
        return Proxies(
            http=None if http is None else parse_proxy(http, what="http_proxy"),
            https=None if https is None else parse_proxy(https, what="https_proxy"),
            exempt=parse_exempt(self.no_proxy),
        )

    def registries(
        self, image_rs: str | None = None, resources: ResourceStore | None = None
    ) -> RegistriesConf:
        """Mirrors and other places that registries.conf names.

        Args:
            image_rs: place of a registry configuration of image-rs, in place of it.
            resources: the broker that is asked, if the place is there.

        Raises:
            LocalError, FormatError: a file cannot be read, or is malformed.
            As `read_document`, for a document of a broker.
        """
        import logging

        from imagers.registry.registries_conf import (
            parse_image_rs_registries,
            parse_registries_conf,
        )

        log = logging.getLogger(__name__)
        named = self.guest.registries if image_rs is None else Document(image_rs)
        if isinstance(named, RegistriesConf):
            log.debug("mirrors of the guest's configuration")
            return named
        if named is not None:
            log.debug("mirrors of %s", named.name)
            return parse_image_rs_registries(_text(named, resources), what=named.name)
        log.debug("mirrors of %s", ", ".join(map(str, self.registries_conf)) or "no file")
        return parse_registries_conf(
            [(str(path), _text(Document(str(path)))) for path in self.registries_conf]
        )

    def lookasides(
        self, directory: str | None = None, resources: ResourceStore | None = None
    ) -> sign.Lookasides:
        """Where OpenPGP signatures outside of registries are.

        Args:
            directory: of registries.d, or the place at a broker of a single file of it; None: the
                guest's configuration, the user's directory, else the system's.
            resources: the broker that is asked, if the place is there.

        Raises:
            LocalError, FormatError: a file cannot be read, or is malformed.
            As `read_document`, for a document of a broker.
        """
        import logging

        from imagers.settings.documents import is_at_broker, path_of
        from imagers.sign.keyfiles import find_registries_d, load_registries_d
        from imagers.sign.places import Lookasides
        from imagers.sign.registries_d import MAX_CONFIG_BYTES, parse_registries_d

        log = logging.getLogger(__name__)
        file = self.guest.sigstore
        if directory is not None:
            file = Document(directory) if is_at_broker(directory) else None
        if file is not None:
            log.debug("lookasides of %s", file.name)
            raw = file.read(max_bytes=MAX_CONFIG_BYTES, resources=resources)
            # As for image-rs, there is no place for repositories that it does not mention.
            return Lookasides(parse_registries_d([(file.name, raw)]))
        if directory is not None:
            directory = path_of(directory)
        found = directory or find_registries_d([str(path) for path in self.registries_d_paths])
        log.debug(
            "lookasides of %s", found or f"{self.default_lookaside}: there is no registries.d"
        )
        if found is None:
            return Lookasides(default=self.default_lookaside)
        return Lookasides(load_registries_d(found), self.default_lookaside)

    def find_policy(self, explicit: str | None = None) -> str | None:
        """The place of the policy in force, as `locate_policy`; None where there is none."""
        from imagers.sign.keyfiles import find_policy

        named = self._named_policy(explicit)
        paths = [str(path) for path in self.policy_paths]
        return find_policy(explicit=None if named is None else named.name, candidates=paths)

    def _named_policy(self, explicit: str | None) -> Document | None:
        """The policy that somebody named, whose word counts whatever it says."""
        return self.guest.policy if explicit is None else Document(explicit)

    def locate_policy(self, explicit: str | None = None) -> str:
        """The place of the containers policy in force.

        Args:
            explicit: what somebody named; None: that of the guest's configuration, else the
                user's or the system's.

        Raises:
            LocalError: there is none. That is never taken for permission.
        """
        from imagers.sign.keyfiles import locate_policy

        named = self._named_policy(explicit)
        paths = [str(path) for path in self.policy_paths]
        return locate_policy(explicit=None if named is None else named.name, candidates=paths)

    def load_policy(
        self, explicit: str | None = None, resources: ResourceStore | None = None
    ) -> sign.Policy:
        """The policy in force, as `locate_policy` finds it.

        Args:
            resources: the broker that is asked, if the place is there.

        Raises:
            LocalError: there is none, or it cannot be read.
            FormatError, Unsupported: it is malformed, or demands what nobody can check.
            As `read_document`, for a policy of a broker.
        """
        from imagers.settings.documents import is_at_broker, path_of
        from imagers.sign.keyfiles import load_policy
        from imagers.sign.policy_json import MAX_POLICY_BYTES, parse_policy

        document = self._named_policy(explicit) or Document(self.locate_policy())
        if document.text is None and not is_at_broker(document.name):
            return load_policy(path_of(document.name))
        raw = document.read(max_bytes=MAX_POLICY_BYTES, resources=resources)
        return parse_policy(raw, what=f"policy '{document.name}'")

    def policy_for(
        self,
        identity: ImageIdentity,
        explicit: str | None = None,
        resources: ResourceStore | None = None,
    ) -> sign.Policy:
        """The policy that decides whether an image may be used: for `pull_image`, `trust_image`.

        A policy that lets everything pass by default is no answer for a name without a digest: it
        comes with the tools of containers, and nobody has looked at this image. A name with a
        digest needs no policy; where there is one, it is asked all the same.

        Args:
            identity: of the image.
            explicit: place that somebody named, whose word counts whatever it says; so does that
                of a guest's configuration.
            resources: the broker that is asked, if the place is there.

        Raises:
            CouldNotVerify: nothing but a default that accepts everything speaks of the image.
            LocalError, FormatError, Unsupported: as `load_policy`.
        """
        from imagers.sign.policy_make import policy_of_pin

        pin = policy_of_pin(identity)
        if pin is not None and self.find_policy(explicit) is None:
            return pin
        policy = self.load_policy(explicit, resources)
        selected = policy.select(identity)
        if self._named_policy(explicit) is None and pin is None and selected.is_unsaid:
            path = self.locate_policy()
            raise CouldNotVerify(
                f"nobody has looked at {identity}: the policy '{path}' accepts every image at "
                f"{selected.where}",
                hint="name the image by digest, or name a policy that demands what you want; "
                f"with --policy {path} every image is taken, signed or not",
            )
        return policy

    def providers(
        self,
        timeout_s: float | None = None,
        ask: Callable[[str], SecretKey | None] | None = None,
    ) -> encrypt.ProviderSettings:
        """Key providers as the environment configures them.

        Args:
            timeout_s: for one answer of a provider; None for the default.
            ask: see `ProviderSettings`.
        """
        from imagers.encrypt.schemes.scheme import ProviderSettings

        settings = ProviderSettings(
            config_path=self.keyprovider_config, oaep_hash=self.oaep_hash, ask=ask
        )
        return settings if timeout_s is None else replace(settings, timeout_s=timeout_s)


def _text(document: Document, resources: ResourceStore | None = None) -> str:
    raw = document.read(max_bytes=_MAX_CONFIG_BYTES, resources=resources)
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise LocalError("could not be read as text: no UTF-8", path=document.name) from error


def hide_secrets() -> None:
    """Keep the passphrase for this process: programs that it starts get its environment.

    gpg starts an agent that outlives us, and what a key provider logs is not ours to say.
    """
    if _VARIABLE in os.environ:
        _hidden[_VARIABLE] = os.environ.pop(_VARIABLE)


def read_settings(guest: GuestConfig | None = None) -> Settings:
    """The settings of this process.

    Args:
        guest: configuration of a guest; the variables that guests have are read then, too. Every
            variable wins over it.
    """
    home = Path(os.environ.get("HOME") or "/nonexistent")
    config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    state = Path(os.environ.get("XDG_STATE_HOME") or home / ".local" / "state")
    admin_key = os.environ.get("IMAGERS_BROKER_ADMIN_KEY")
    guest, kbc_params = (GuestConfig(), None) if guest is None else _in_a_guest(guest)
    return Settings(
        policy_paths=(
            config / "containers" / "policy.json",
            Path("/etc/containers/policy.json"),
        ),
        broker_state=state / "imagers" / "broker",
        collateral=state / "imagers" / "collateral",
        store=_store(state, guest),
        runtime=_runtime(),
        registries_d_paths=(
            config / "containers" / "registries.d",
            Path("/etc/containers/registries.d"),
        ),
        default_lookaside=_default_lookaside(home),
        spool=Path(os.environ["TMPDIR"]) if os.environ.get("TMPDIR") else None,
        keyprovider_config=os.environ.get("OCICRYPT_KEYPROVIDER_CONFIG") or None,
        oaep_hash=os.environ.get("OCICRYPT_OAEP_HASHALG") or None,
        auth_files=_auth_files(home, config),
        cert_roots=(
            config / "containers" / "certs.d",
            Path("/etc/containers/certs.d"),
            Path("/etc/docker/certs.d"),
        ),
        # Not HTTP_PROXY: a web server sets it from a header of its clients.
        http_proxy=os.environ.get("http_proxy") or guest.http_proxy,
        https_proxy=_either("https_proxy") or guest.https_proxy,
        no_proxy=_either("no_proxy") or guest.no_proxy or "",
        registries_conf=_registries_conf(config),
        daemon_host=os.environ.get("DOCKER_HOST") or None,
        broker_url=os.environ.get("IMAGERS_BROKER") or None,
        broker_reference=os.environ.get("IMAGERS_BROKER_REFERENCE") or None,
        broker_ca=os.environ.get("IMAGERS_BROKER_CA") or None,
        tee_key_algorithm=os.environ.get("IMAGERS_TEE_KEY_ALGORITHM") or None,
        tpm_device=os.environ.get("AA_TPM_DEVICE") or None,
        tpm_ak_handle=os.environ.get("AA_TPM_AK_HANDLE") or None,
        agent_log=os.environ.get("AAEL_PATH") or None,
        named_admin_key=Path(admin_key) if admin_key else None,
        cosign_password=_hidden.get(_VARIABLE, os.environ.get(_VARIABLE)),
        guest=guest,
        kbc_params=kbc_params,
    )


def _in_a_guest(config: GuestConfig) -> tuple[GuestConfig, str | None]:
    """A guest's configuration, less what variables say in its place; and its broker by one."""
    logins = config.logins
    named = "CDH_DEFAULT_IMAGE_AUTHENTICATED_REGISTRY_CREDENTIALS"
    if os.environ.get("REGISTRY_AUTH_FILE"):
        logins = None
    elif place := os.environ.get("CDH_DEFAULT_IMAGE_AUTHENTICATED_REGISTRY_CREDENTIALS"):
        logins = Document(place, by=named)
    broker_ca = config.broker_ca
    if pem := os.environ.get("KBS_CERT"):
        broker_ca = Said(pem, "KBS_CERT", Origin.CALLER)
    guest = replace(
        config,
        logins=logins,
        registries=None if os.environ.get("CONTAINERS_REGISTRIES_CONF") else config.registries,
        broker_ca=broker_ca,
    )
    return guest, os.environ.get("AA_KBC_PARAMS") or None


def _registries_conf(config: Path) -> tuple[Path, ...]:
    """As containers-registries.conf(5) has them: one main file, then the drop-in files."""
    named = os.environ.get("CONTAINERS_REGISTRIES_CONF")
    own, system = config / "containers", Path("/etc/containers")
    mains = [Path(named)] if named else [own / "registries.conf", system / "registries.conf"]
    found = [path for path in mains if path.is_file()][:1]
    for directory in (system, own):
        found += sorted((directory / "registries.conf.d").glob("*.conf"))
    return tuple(found)


def _store(state: Path, guest: GuestConfig) -> Path:
    named = os.environ.get("IMAGERS_STORE")
    if named:
        return Path(named)
    if guest.work_dir is not None:
        return Path(guest.work_dir.value) / "imagers"
    return Path("/var/lib/imagers/store") if os.geteuid() == 0 else state / "imagers" / "store"


def _runtime() -> Path | None:
    run = os.environ.get("XDG_RUNTIME_DIR")
    if run:
        return Path(run) / "imagers"
    return Path("/run/imagers") if os.geteuid() == 0 else None


def _either(name: str) -> str | None:
    return os.environ.get(name) or os.environ.get(name.upper()) or None


def _auth_files(home: Path, config: Path) -> tuple[Path, ...]:
    """As containers-auth.json(5) has them, then docker's."""
    named = os.environ.get("REGISTRY_AUTH_FILE")
    if named:
        return (Path(named),)
    run = os.environ.get("XDG_RUNTIME_DIR")
    first = (
        Path(run) / "containers" if run else Path("/run/containers") / str(os.geteuid())
    ) / "auth.json"
    docker = Path(os.environ.get("DOCKER_CONFIG") or home / ".docker") / "config.json"
    return (first, config / "containers" / "auth.json", docker, home / ".dockercfg")


def _default_lookaside(home: Path) -> str:
    """Where containers/image keeps signatures if nothing is configured."""
    if os.geteuid() == 0:
        return "file:///var/lib/containers/sigstore"
    data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    return f"file://{data}/containers/sigstore"
