# SPDX-License-Identifier: Apache-2.0
"""NVIDIA's verifier (nv-local-gpu-verifier) over one report, offline: prints what it found.

python verify.py REPORT CHAIN NONCE

It runs in an environment of its own: what it stands on is older than ours.
"""

import json
import sys
from pathlib import Path

from OpenSSL import crypto
from verifier.attestation import AttestationReport
from verifier.cc_admin_utils import CcAdminUtils
from verifier.config import HopperSettings
from verifier.utils import format_vbios_version

END = b"-----END CERTIFICATE-----\n"


def main(report, chain, nonce):
    settings = HopperSettings()
    found = AttestationReport(Path(report).read_bytes(), settings)
    certificates = [
        crypto.load_certificate(crypto.FILETYPE_PEM, one + END)
        for one in Path(chain).read_bytes().split(END)[:-1]
    ]
    opaque = found.get_response_message().get_opaque_data()
    fwid = opaque.get_data("OPAQUE_FIELD_ID_FWID").hex()
    driver = opaque.get_data("OPAQUE_FIELD_ID_DRIVER_VERSION").decode().rstrip("\0")
    vbios = format_vbios_version(opaque.get_data("OPAQUE_FIELD_ID_VBIOS_VERSION"))
    # False, where the firmware is another one; else whether it is good, and until when.
    chained = CcAdminUtils.verify_gpu_certificate_chain(certificates, settings, fwid)
    is_chain = chained[0] if isinstance(chained, tuple) else chained
    is_report = CcAdminUtils.verify_attestation_report(
        found, certificates[0], bytes.fromhex(nonce), driver, vbios, settings
    )
    measurements = found.get_response_message().get_measurement_record().get_measurements()
    answer = {
        "chain": bool(is_chain),
        "report": bool(is_report),
        "driver": driver,
        "vbios": vbios,
        "measurements": list(measurements),
    }
    print(json.dumps(answer))  # noqa: T201  # what it is for


if __name__ == "__main__":
    main(*sys.argv[1:])
