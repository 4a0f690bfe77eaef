# SPDX-License-Identifier: Apache-2.0
"""usage: imagers pull [OPTION]... REF BUNDLE

Pulls an image for a runtime: checks the signature as the policy demands, gets
the keys, decrypts, checks every digest and diff_id, unpacks, and lets BUNDLE
appear with rootfs and config.json, by one rename after the last check. BUNDLE
must be missing or empty, in a directory that only you and root can change.

  --config FILE               image-rs's config.json or the Confidential Data
                              Hub's; options and variables win: docs/guest.md
  --kernel-command-line FILE  the same by words of the kernel: /proc/cmdline
  --policy FILE               containers policy.json; default: that of the user
                              or the system, which is none where it accepts
                              everything by default. Without any, REF needs a
                              digest. This FILE, DIR and that of --authfile and
                              --image-rs-registries may be kbs:///A/B/C
  --registries.d DIR          where lookasides of GPG signatures are configured
  --decryption-key KEY        private key FILE, FILE:file=PASSWORDFILE,
                              FILE:fd=N, or provider:NAME; repeatable
  --provider-timeout SECONDS  for one answer of a provider; default: 60
  --broker URL                a key broker, else IMAGERS_BROKER; asked for keys
                              only of an image that is signed or named by
                              digest; https, or http on loopback
  --broker-ca FILE            PEM certificates to trust for it, and no others;
                              else IMAGERS_BROKER_CA
  --broker-reference FILE     what a broker in a TEE has to run, which it shows
                              by RA-TLS; else IMAGERS_BROKER_REFERENCE
  --insecure-broker-http      plain http to a broker that is not on loopback
  --tee NAME[,DEVICE]...      the TEE to give evidence of, and devices such as
                              nvidia; default: the one that this machine is
  --measure REGISTER          extend tpm:14, tpm:15, rtmr:3 or, by its "agent",
                              another with settings, image and names of keys
  --init-data FILE, --print-settings, --insecure-unmeasured-settings
                              what the host may steer: docs/guest.md
  --require-encrypted         fail if a layer is not encrypted
  --stream                    open layers as they come and check them at the end
  --no-store, --store DIR, --store-place KIND, --store-size SIZE,
  --store-key KEY, --snapshotter NAME  kept for next time: "imagers store"
  --platform OS/ARCH[/VAR]    which image of an index; default: this machine's
  --jobs N                    layers downloaded at the same time; default: 3
  --creds USER:PASSWORD, --tls-verify BOOL, --registry-ca FILE, --cert-dir DIR,
  --authfile FILE, --daemon-host URL, --image-rs-registries FILE, --ranges N,
  --memory SIZE               as for "imagers copy"; memory: "imagers encrypt"
  --insecure-test-root TEE=FILE, --tee sample  for tests
  --timeout LIMITS            5m in all; trust=1m,keys=1m,layers=1h,bundle=1m
  --trace FILE, --json        a page with decision and timeline; the result
  -q, -v, -h                  quiet, verbose, this text

example:
  imagers pull registry.example.org/app:v1 bundle --policy policy.json \\
    --broker https://broker.example.org --broker-ca ca.pem
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imagers.cli.brokers import BrokerOptions, broker_options
from imagers.cli.command import (
    FINISH,
    VerbCommand,
    blamed_on,
    budget_options,
    json_option,
    platform_option,
)
from imagers.cli.guests import budget_of, guest_options
from imagers.cli.images import (
    RegistryOptions,
    open_named,
    parse_platform,
    reading_options,
)
from imagers.cli.measuring import (
    Measuring,
    check_used,
    measuring_options,
    print_settings,
    settle,
)
from imagers.cli.output import ProgressBar, human_bytes, print_json, print_table, say
from imagers.cli.recipients import opened_unwrappers, timeout_option
from imagers.cli.signatures import policy_for, policy_option, print_trusted, registries_d_option
from imagers.cli.stores import StoreOptions, keeping_options

if TYPE_CHECKING:
    from imagers.cli.trace_page import TraceFile
    from imagers.core import Budget
    from imagers.model.time_limits import TimeLimits
    from imagers.pull.run import PullReport
    from imagers.pull.trace import Trace
    from imagers.pull.trust import TrustedImage
    from imagers.settings import Settings

__all__ = ["command"]


def _parse_limits(
    _context: click.Context, _option: click.Parameter, text: str | None
) -> TimeLimits:
    from imagers.model.time_limits import TimeLimits, parse_time_limits

    if text is None:
        return TimeLimits()
    with blamed_on("--timeout"):
        return parse_time_limits(text)


@click.command("pull", cls=VerbCommand, help=__doc__)
@click.argument("ref")
@click.argument("bundle")
@policy_option
@registries_d_option
@click.option("--decryption-key", "keys", multiple=True, metavar="KEY")
@timeout_option
@broker_options
@guest_options
@click.option("--tee", metavar="NAME")
@measuring_options
@click.option("--require-encrypted", is_flag=True)
@click.option("--stream", is_flag=True)
@platform_option
@budget_options
@keeping_options
@reading_options
@click.option("--timeout", "limits", metavar="LIMITS", callback=_parse_limits)
@click.option("--trace", metavar="FILE")
@json_option
def command(  # one parameter an option
    *,
    ref: str,
    bundle: str,
    policy: str | None,
    registries_d: str | None,
    keys: tuple[str, ...],
    timeout_s: float | None,
    broker: BrokerOptions,
    user: Settings,
    tee: str | None,
    measuring: Measuring,
    require_encrypted: bool,
    stream: bool,
    platform: str | None,
    budget: Budget,
    store: StoreOptions,
    registry: RegistryOptions,
    limits: TimeLimits,
    trace: str | None,
    as_json: bool,
) -> None:
    """See the module."""
    from imagers.pull.run import PullOptions, pull_image
    from imagers.waiting import Cancellation

    whole = Cancellation(seconds=limits.total)
    set_up = Cancellation(within=whole, phase="set-up")
    click.get_current_context().with_resource(set_up.in_force())
    measure = measuring.measure()
    init_data = measuring.read_init_data(tee)
    asked = broker.or_guests(user)
    measuring.check_images(user, policy, registry, is_vouched_for=init_data is not None)
    measuring.check_store(store.where(user))
    resources = asked.guest(
        tee,
        None if init_data is None else init_data.text,
        before=lambda: measuring.check_broker(asked, is_vouched_for=init_data is not None),
    )
    settings = measuring.settings(ref, user, asked, registry, policy)
    if settings is not None and measuring.only_print:
        print_settings(settings)
        return
    # Before a broker is asked for anything: it reads in the evidence what is in force here.
    if settings is not None:
        settle(settings, init_data, measure)
    start = time.perf_counter()
    file: TraceFile | None = None
    with ExitStack() as stack:
        if trace is not None:
            from imagers.cli.trace_page import TraceFile

            address = None if asked.url is None else asked.url.value
            file = stack.enter_context(
                TraceFile(trace, reference=ref, bundle=bundle, broker=address)
            )
        if resources is not None:
            stack.enter_context(resources)
        image = stack.enter_context(
            open_named(ref, registry, registries_d, user=user, resources=resources)
        )
        path, document = policy_for(image, policy, user, resources)
        if file is not None:
            file.policy = path
        options = PullOptions(
            policy=document,
            platform=parse_platform(platform),
            require_encrypted=require_encrypted,
            stream=stream,
            budget=budget_of(budget, user),
            time_limits=replace(limits, total=None),  # that of all of it has begun
        )
        # A name that is none and a policy without its keys are told before a passphrase is typed.
        image.requirements(options.policy)
        if settings is not None:
            check_used(settings, image, options.policy)
        unwrappers = stack.enter_context(opened_unwrappers(keys, timeout_s))
        # Not before what the broker is to read is measured: it may have the key of the store.
        kept = stack.enter_context(store.opened(user, resources))
        if kept is not None:
            options = replace(options, store=kept.store, snapshotter=kept.snapshotter)
        bar = stack.enter_context(ProgressBar("pull"))

        if file is not None:
            file.trace.note("set-up", since=0)

        def on_trusted(trusted: TrustedImage) -> None:
            bar.add(sum(layer.size for layer in trusted.manifest.layers))

        report = pull_image(
            image,
            Path(bundle).absolute(),
            options,
            unwrappers=unwrappers,
            resources=resources,
            measure=measure,
            on_trusted=on_trusted,
            on_step=bar.step,
            on_progress=bar.show,
            on_publish=click.get_current_context().meta.get(FINISH),
            trace=None if file is None else file.trace,
        )
    if as_json:
        seconds = round(time.perf_counter() - start, 3)
        places = {"bundle": bundle, "reference": image.source.name, "policy": path}
        told = {"seconds": seconds, "streamed": stream, "measured": measuring.register}
        spans = {} if file is None else {"trace": _spans(file.trace)}
        print_json(places | told | _facts(report) | spans)
    else:
        _print_report(report, path, bundle, time.perf_counter() - start)


def _facts(report: PullReport) -> dict[str, object]:
    trusted = report.trusted
    return {
        "digest": str(trusted.manifest.descriptor.digest),
        "basis": trusted.basis.value,
        "signers": [
            {"key": one.key, "identity": one.reference, "subject": one.subject}
            for one in trusted.decision.signers
        ],
        "requirements": trusted.decision.where,
        "labels_left_out": list(report.labels_left_out),
        "layers": [
            {
                "index": layer.planned.layer.index,
                "digest": str(layer.planned.layer.descriptor.digest),
                "media_type": layer.planned.layer.descriptor.media_type,
                "encrypted": layer.planned.is_encrypted,
                "kept": layer.is_kept,
                "resumed": layer.resumed,
                "size": layer.opened.size,
                "tar_size": layer.opened.tar_size,
                "entries": layer.opened.entries,
                "seconds": round(layer.seconds, 3),
                "left_out": [left.facts for left in layer.opened.left_out],
            }
            for layer in report.layers
        ],
    }


def _spans(trace: Trace) -> list[dict[str, object]]:
    return [
        asdict(span) | {"start": round(span.start, 6), "end": round(span.end, 6)}
        for span in trace.spans
    ]


def _print_report(report: PullReport, policy: str, bundle: str, seconds: float) -> None:
    print_trusted(report.trusted, policy)
    for left in report.left_out:
        say("warning", f"left out {left.text}")
    for name in report.labels_left_out:
        say("warning", f"left out the label {name[:80]!r}: runtimes obey it")
    print_table(
        ["layer", "encrypted", "kept", "stored", "tar", "entries", "MB/s of tar"],
        [
            [
                str(layer.planned.layer.index),
                "yes" if layer.planned.is_encrypted else "no",
                "yes" if layer.is_kept else human_bytes(layer.resumed) if layer.resumed else "no",
                human_bytes(layer.opened.size),
                human_bytes(layer.opened.tar_size),
                str(layer.opened.entries),
                f"{layer.opened.tar_size / layer.seconds / 1e6:.0f}" if layer.seconds > 0 else "-",
            ]
            for layer in report.layers
        ],
    )
    click.echo(f"bundle {bundle}, {len(report.layers)} layers checked, in {seconds:.2f} s")
