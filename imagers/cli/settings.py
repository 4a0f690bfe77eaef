"""The environment, read in one place and turned into values.

| variable | used for |
|---|---|
| `HOME`, `XDG_CONFIG_HOME` | the user's containers policy |
| `XDG_STATE_HOME` | the broker's state and admin key |
| `TMPDIR` | the spool of uploads; else /var/tmp |
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
    """

    policy_paths: tuple[Path, ...]
    broker_state: Path
    spool: Path | None

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
        spool=Path(os.environ["TMPDIR"]) if os.environ.get("TMPDIR") else None,
    )
