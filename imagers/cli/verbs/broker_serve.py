# SPDX-License-Identifier: Apache-2.0
"""usage: imagers broker serve [--config FILE] [OPTION]...

Run a key broker for guests, until SIGTERM. It needs no set-up: its database and
keys are made at first start, for their owner only.

  --config FILE               TOML: each option below by its name, such as
                              listen = "127.0.0.1:8080" or tee = ["snp"]; what
                              is said here wins; paths are from its directory
  --state DIR                 database and keys; default:
                              ~/.local/state/imagers/broker
  --database URL              postgresql://USER@HOST/NAME that brokers share, in
                              place of a file in the state directory
  --name NAME                 of this broker among those that share it
  --master-key-fd N           a descriptor that gives the master key; default:
                              a file in the state directory
  --accept-older-state        believe a database that is older than one that was
                              seen here, at this start: after a restore
  --listen HOST:PORT          default 127.0.0.1:8080; port 0 takes a free one
  --certificate FILE, --certificate-key FILE
                              PEM, for https, the key without a passphrase;
                              needed to listen on more than loopback; read
                              again when they change, and at SIGHUP
  --admin-ca FILE             PEM; an admin has to show a certificate of this CA
                              beside the token; guests need none
  --trusted-proxy ADDRESS     an address or network (repeat it) whose header
                              X-Forwarded-For is believed, for the share of
                              connections that each address has
  --tee NAME                  take its evidence (repeat it), see docs/tee
  --collateral DIR            lists of revoked certificates and such; default:
                              ~/.local/state/imagers/collateral
  --appraisal-policy FILE     what to let pass of each TEE, and reference values
  --insecure-test-root TEE=FILE
                              certificates in place of the vendor's: for tests
  --issuer NAME               in its tokens; best the https URL of the broker
  --passport-issuers FILE     whose tokens are taken in place of evidence
  --url-file FILE             write the URL here once the broker listens
  --log-format text|json      of what it says while it runs
  --allow-sample-tee          believe guests that prove nothing: for tests and
                              demos only
  -q, -v, -h                  quiet, verbose, this text

example:
  imagers broker serve --listen 127.0.0.1:8080
"""

from __future__ import annotations

import json
import logging
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imagers.cli.brokers import DEFAULT_PORT
from imagers.cli.command import VerbCommand
from imagers.cli.config_file import config_option
from imagers.cli.evidence import find_collateral, read_test_roots
from imagers.cli.output import say, write_file
from imagers.errors import UsageError
from imagers.settings import read_settings

if TYPE_CHECKING:
    from imagers.broker.server import BrokerConfig, RunningBroker

__all__ = ["broker_config", "command"]

_MAX_PORT = 65535

Say = Callable[[str, str], None]
"""As `say`: tells a kind of line and its text."""


@click.command("serve", cls=VerbCommand, help=__doc__)
@config_option
@click.option("--state", metavar="DIR")
@click.option("--database", metavar="URL")
@click.option("--name", metavar="NAME")
@click.option("--master-key-fd", type=click.IntRange(min=0), metavar="N", hidden=True)
@click.option("--accept-older-state", is_flag=True, hidden=True)
@click.option("--listen", default=f"127.0.0.1:{DEFAULT_PORT}", metavar="HOST:PORT")
@click.option("--certificate", metavar="FILE")
@click.option("--certificate-key", metavar="FILE")
@click.option("--admin-ca", metavar="FILE")
@click.option("--trusted-proxy", multiple=True, metavar="ADDRESS")
@click.option("--tee", "tees", multiple=True, metavar="NAME")
@click.option("--collateral", metavar="DIR")
@click.option("--appraisal-policy", metavar="FILE")
@click.option("--insecure-test-root", "test_roots", multiple=True, metavar="TEE=FILE")
@click.option("--issuer", metavar="NAME")
@click.option("--passport-issuers", metavar="FILE")
@click.option("--url-file", metavar="FILE")
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text")
@click.option("--allow-sample-tee", is_flag=True)
def command(*, url_file: str | None, log_format: str, **options: object) -> None:
    """Run a broker."""
    if options["collateral"] is None and options["tees"]:
        with suppress(OSError):  # so that what is fetched into it later is found
            read_settings().collateral.mkdir(parents=True, exist_ok=True)
    config = broker_config(**options)  # type: ignore[arg-type]  # click's, by the options above
    from imagers.broker.server import serve as run_broker

    tell = say if log_format == "text" else _say_json
    written: list[str] = []
    handler = _Log(tell)
    logging.getLogger().addHandler(handler)

    def on_start(broker: RunningBroker) -> None:
        _announce(broker, tell)
        if url_file is not None:
            write_file(url_file, broker.url + "\n")
            written.append(url_file)

    try:
        run_broker(config, on_start=on_start)
    finally:
        logging.getLogger().removeHandler(handler)
        for path in written:
            with suppress(OSError):
                if stat.S_ISREG(os.lstat(path).st_mode):  # not /dev/stdout
                    os.unlink(path)


def broker_config(
    *,
    state: str | None,
    database: str | None,
    name: str | None,
    master_key_fd: int | None,
    listen: str,
    certificate: str | None,
    certificate_key: str | None,
    admin_ca: str | None,
    trusted_proxy: tuple[str, ...],
    tees: tuple[str, ...],
    collateral: str | None,
    appraisal_policy: str | None,
    test_roots: tuple[str, ...],
    issuer: str | None,
    passport_issuers: str | None,
    allow_sample_tee: bool,
    accept_older_state: bool = False,
) -> BrokerConfig:
    """What the options of the command say.

    Raises:
        UsageError: one of them is none, or the packages of the broker are not there.
        LocalError: a file of certificates for tests cannot be read.
    """
    try:
        from imagers.broker.keeping.store import BROKER
        from imagers.broker.server import BrokerConfig
        from imagers.broker.tokens import DEFAULT_ISSUER
    except ModuleNotFoundError as error:
        raise UsageError(
            f"the broker's packages are not installed: {error.name} is missing",
            hint="in the clone of imagers: pip install '.[broker]'",
        ) from error
    for several in (one for one in tees if "," in one):  # as "imagers pull" has them
        raise UsageError(
            f"--tee: expected one name, got {several[:80]!r}",
            hint=f"write {' '.join(f'--tee {one}' for one in several[:80].split(','))}",
        )
    host, port = _parse_listen(listen)
    return BrokerConfig(
        state_directory=Path(state) if state else read_settings().broker_state,
        database=database,
        name=name if name is not None else BROKER,
        master_key_fd=master_key_fd,
        accept_older_state=accept_older_state,
        host=host,
        port=port,
        certificate_file=Path(certificate) if certificate else None,
        certificate_key_file=Path(certificate_key) if certificate_key else None,
        admin_ca_file=Path(admin_ca) if admin_ca else None,
        trusted_proxies=trusted_proxy,
        tees=tees,
        collateral_directory=find_collateral(collateral),
        appraisal_policy_file=Path(appraisal_policy) if appraisal_policy else None,
        test_roots=read_test_roots(test_roots),
        allow_sample_tee=allow_sample_tee,
        passport_issuers_file=Path(passport_issuers) if passport_issuers else None,
        issuer=issuer if issuer is not None else DEFAULT_ISSUER,
    )


def _parse_listen(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > _MAX_PORT:
        raise UsageError(
            f"--listen: expected HOST:PORT, got {text!r}",
            hint="for guests and admins of this machine only: 127.0.0.1:8080",
        )
    return host.removeprefix("[").removesuffix("]"), int(port)


def _announce(broker: RunningBroker, tell: Say) -> None:
    from imagers.evidence.plugins import DEVICES

    for made, path, what in (
        (broker.master_key_made, broker.master_key_file, "master key"),
        (broker.admin_key_made, broker.admin_key_file, "admin key"),
    ):
        if made:
            tell("", f"made the {what} {path}; keep a copy in a safe place")
    # Another broker of the store may have made it, or it was moved to where it is used.
    key = f"; admin key {broker.admin_key_file}" if broker.admin_key_file.exists() else ""
    tell("", f"the broker listens on {broker.url}{key}")
    tees = ", ".join(broker.tees) or "none"
    tell("", f"it takes evidence of: {tees}; resources: {broker.resources}")
    if broker.issuers:
        tell("", f"it takes passports of: {', '.join(broker.issuers)}")
    if broker.fault:
        tell("warning", f"this broker can release nothing: {broker.fault}")
        tell(
            "hint",
            "'imagers broker policy show' has its rules, 'imagers broker policy set' changes them"
            if set(broker.tees) - DEVICES.keys()
            else "say which, as --tee snp; for tests and demos: --allow-sample-tee",
        )
    for tee, names in broker.unknown.items():
        tell(
            "warning",
            f"no guest of the TEE {tee} is known as yours: there is no reference value "
            f"{', '.join(names)}",
        )
        tell("hint", "'imagers broker reference-value set' gives one; docs/tee says how to make it")


class _Log(logging.Handler):
    """Log lines of the server, in the program's form: the message alone, no traceback."""

    def __init__(self, tell: Say) -> None:
        super().__init__(level=logging.WARNING)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        self._tell(record.levelname.lower(), record.getMessage())


def _say_json(kind: str, text: str) -> None:
    """One line of JSON on standard error."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    level = kind if kind in ("warning", "error", "critical") else "info"
    click.echo(json.dumps({"time": now, "level": level, "message": text}), err=True)
