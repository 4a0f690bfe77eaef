"""The environment, read in one place and turned into values.

| variable | used for |
|---|---|
| `HOME`, `XDG_CONFIG_HOME` | the user's containers policy and registries.d |
| `XDG_DATA_HOME` | the user's signatures outside of registries |
| `XDG_STATE_HOME` | the broker's state and admin key |
| `TMPDIR` | the spool of uploads; else /var/tmp |
| `REGISTRY_AUTH_FILE`, `XDG_RUNTIME_DIR`, `DOCKER_CONFIG` | where logins are kept |
| `http_proxy`, `https_proxy`, `no_proxy`; the last two in capitals too | proxies of registries |
| `CONTAINERS_REGISTRIES_CONF` | mirrors; else registries.conf of the user or the system |
| `DOCKER_HOST` | the engine that `docker-daemon:` means |
| `OCICRYPT_KEYPROVIDER_CONFIG` | the configuration of key providers |
| `OCICRYPT_OAEP_HASHALG` | hash of PKCS11 packets: sha256 or sha1 |
| `COSIGN_PASSWORD` | the passphrase of keys in cosign's format; may be empty |
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Settings", "hide_secrets", "read_settings"]

_VARIABLE = "COSIGN_PASSWORD"
_hidden: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment says.

    Attributes:
        policy_paths: where a containers policy is looked for, in this order.
        broker_state: directory of the broker's database and keys.
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
        cosign_password: None where the variable is not set, which is not the same as empty.
    """

    policy_paths: tuple[Path, ...]
    broker_state: Path
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
    cosign_password: str | None = field(default=None, repr=False)

    @property
    def broker_admin_key(self) -> Path:
        """Where the broker writes its admin key on first start."""
        return self.broker_state / "admin.key"


def hide_secrets() -> None:
    """Keep the passphrase for this process: programs that it starts get its environment.

    gpg starts an agent that outlives us, and what a key provider logs is not ours to say.
    """
    if _VARIABLE in os.environ:
        _hidden[_VARIABLE] = os.environ.pop(_VARIABLE)


def read_settings() -> Settings:
    """The settings of this process."""
    home = Path(os.environ.get("HOME") or "/nonexistent")
    config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    state = Path(os.environ.get("XDG_STATE_HOME") or home / ".local" / "state")
    return Settings(
        policy_paths=(
            config / "containers" / "policy.json",
            Path("/etc/containers/policy.json"),
        ),
        broker_state=state / "imagers" / "broker",
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
        http_proxy=os.environ.get("http_proxy") or None,
        https_proxy=_either("https_proxy"),
        no_proxy=_either("no_proxy") or "",
        registries_conf=_registries_conf(config),
        daemon_host=os.environ.get("DOCKER_HOST") or None,
        cosign_password=_hidden.get(_VARIABLE, os.environ.get(_VARIABLE)),
    )


def _registries_conf(config: Path) -> tuple[Path, ...]:
    """As containers-registries.conf(5) has them: one main file, then the drop-in files."""
    named = os.environ.get("CONTAINERS_REGISTRIES_CONF")
    own, system = config / "containers", Path("/etc/containers")
    mains = [Path(named)] if named else [own / "registries.conf", system / "registries.conf"]
    found = [path for path in mains if path.is_file()][:1]
    for directory in (system, own):
        found += sorted((directory / "registries.conf.d").glob("*.conf"))
    return tuple(found)


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
