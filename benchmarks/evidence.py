# SPDX-License-Identifier: Apache-2.0
"""How many pieces of evidence are verified in a second of processor time, on one core.

    python benchmarks/evidence.py [--runs 5] [--seconds 1]

Collateral is warm: documents that were verified once are known by their bytes, dates are looked at
each time. The guests are those of the factory of tests, with all their documents; dcap-qvl (Rust)
verifies the same quotes. Beside quotes of a TPM stands their one signature alone, which is so cheap
that reading the evidence weighs more. The median of runs in which all take turns; on a busy machine
processor time says less than it seems to.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from typing import TYPE_CHECKING

import dcap_qvl
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

from imagers.evidence.intel import collateral as names
from imagers.evidence.judge import judge_parsed
from imagers.evidence.plugins import find_parser, load_verifier
from imagers.model.evidence import Bound
from imagers.testing.evidence import (
    AzureSNPWorld,
    CCAWorld,
    CSVWorld,
    NitroWorld,
    NVIDIAWorld,
    SGXWorld,
    SNPWorld,
    TDXWorld,
    TPMWorld,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

SEED = bytes(32)

# What is asked of it, a second.
TARGETS = {"cca": 800, "csv, version 1": 300, "csv, version 2": 300, "snp": 600, "tdx": 500}


def ours(
    tee: str, data: bytes, documents: Mapping[str, bytes], now: datetime, roots: bytes | None = None
) -> Callable[[], object]:
    """One verification, from the bytes of the evidence to claims."""
    verifier, parse = load_verifier(tee, roots=roots), find_parser(tee)
    return lambda: judge_parsed(verifier, parse(data), bound=Bound(), read=documents.get, now=now)


def by_dcap_qvl(world: TDXWorld | SGXWorld, quote: bytes) -> Callable[[], object]:
    """The same quote and documents, by the other verifier."""

    def signed(name: str, member: str) -> tuple[str, bytes]:
        document = documents[name].decode().removeprefix(f'{{"{member}":')
        text, _, signature = document.rpartition(',"signature":"')
        return text, bytes.fromhex(signature.removesuffix('"}'))

    documents = world.collateral()
    info = names.tcb_info_name(world.tee, world.fmspc.hex())
    identity = names.identity_name(world.tee)
    given = dcap_qvl.QuoteCollateralV3(
        world.chain(world.ca, "root").decode(),
        documents[names.ROOT_CRL],
        documents[names.crl_name(world.ca)],
        documents[names.chain_name(info)].decode(),
        *signed(info, "tcbInfo"),
        documents[names.chain_name(identity)].decode(),
        *signed(identity, "enclaveIdentity"),
    )
    root = x509.load_pem_x509_certificate(world.roots).public_bytes(Encoding.DER)
    at = int(world.now.timestamp())
    return lambda: dcap_qvl.verify_with_root_ca(quote, given, root, at)


def by_signature(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> Callable[[], object]:
    """One verification of a signature, with the key read from its bytes each time."""
    message = bytes(145)
    der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if isinstance(key, rsa.RSAPrivateKey):
        signed = key.sign(message, padding.PKCS1v15(), hashes.SHA256())
        how = (padding.PKCS1v15(), hashes.SHA256())
    else:
        signed = key.sign(message, ec.ECDSA(hashes.SHA256()))
        how = (ec.ECDSA(hashes.SHA256()),)
    return lambda: load_der_public_key(der).verify(signed, message, *how)


def contestants() -> dict[str, Callable[[], object]]:
    snp = SNPWorld(SEED)
    evidence = json.dumps(snp.evidence()).encode()
    found = {"snp": ours("snp", evidence, snp.collateral(), snp.now, snp.roots)}
    csv = CSVWorld(SEED)
    for version in (1, 2):
        body = json.dumps(csv.evidence(version=version)).encode()
        found[f"csv, version {version}"] = ours("csv", body, csv.collateral(), csv.now, csv.roots)
    cca = CCAWorld(SEED)
    found["cca"] = ours("cca", cca.token(), {}, cca.now, cca.roots)
    nitro = NitroWorld(SEED)
    found["nitro"] = ours("nitro", nitro.document(), {}, nitro.now, nitro.roots)
    gpu = NVIDIAWorld(SEED)
    body = json.dumps(gpu.evidence()).encode()
    found["nvidia"] = ours("nvidia", body, {}, gpu.now, gpu.roots)
    for world in (TDXWorld(SEED), SGXWorld(SEED)):
        quote = world.quote()
        found[world.tee] = ours(world.tee, quote, world.collateral(), world.now, world.roots)
        found[f"{world.tee} by dcap-qvl"] = by_dcap_qvl(world, quote)
    for key in ("rsa", "p256"):
        tpm = TPMWorld(SEED, key)
        evidence = json.dumps(tpm.evidence(events=None)).encode()
        found[f"tpm {key}"] = ours("tpm", evidence, {}, tpm.now)
        found[f"tpm {key}, floor"] = by_signature(tpm.key())
    azure = AzureSNPWorld(SEED)
    evidence = json.dumps(azure.evidence()).encode()
    found[azure.tee] = ours(azure.tee, evidence, azure.collateral(), azure.now, azure.roots)
    return found


def rate(call: Callable[[], object], seconds: float) -> float:
    """Calls in a second of processor time."""
    count, begin = 0, time.process_time()
    while (spent := time.process_time() - begin) < seconds:
        call()
        count += 1
    return count / spent


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1, help="of each contestant in a run")
    options = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    calls = contestants()
    for call in calls.values():
        call()
    print(f"load before: {os.getloadavg()[0]}")
    rates: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(options.runs):
        for name, call in calls.items():
            rates[name].append(rate(call, options.seconds))
    missed = 0
    for name, each in rates.items():
        median, target = statistics.median(each), TARGETS.get(name)
        verdict = (
            "" if target is None else f", target {target}: {'yes' if median >= target else 'NO'}"
        )
        missed += target is not None and median < target
        print(f"{name}: {median:.0f} a second ({min(each):.0f} to {max(each):.0f}){verdict}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
