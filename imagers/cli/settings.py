"""The environment, read in one place and turned into values.

| variable | used for |
|---|---|
| `HOME`, `XDG_CONFIG_HOME` | the user's containers policy and registries.d |
| `XDG_DATA_HOME` | the user's signatures outside of registries |
| `XDG_STATE_HOME` | the broker's state and admin key |
| `TMPDIR` | the spool of uploads; else /var/tmp |
| `OCICRYPT_KEYPROVIDER_CONFIG` | the configuration of key providers |
| `OCICRYPT_OAEP_HASHALG` | hash of PKCS11 packets: sha256 or sha1 |
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Settings", "read_settings"]


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
    """

    policy_paths: tuple[Path, ...]
    broker_state: Path
    spool: Path | None
    registries_d_paths: tuple[Path, ...] = ()
    default_lookaside: str | None = None
    keyprovider_config: str | None = None
    oaep_hash: str | None = None

    @property
    def broker_admin_key(self) -> Path:
        """Where the broker writes its admin key on first start."""
        return self.broker_state / "admin.key"


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
    )


def _default_lookaside(home: Path) -> str:
    """Where containers/image keeps signatures if nothing is configured."""
    if os.geteuid() == 0:
        return "file:///var/lib/containers/sigstore"
    data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    return f"file://{data}/containers/sigstore"
