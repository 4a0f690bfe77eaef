# SPDX-License-Identifier: Apache-2.0
"""What is mutated, and by which tests it is to be noticed; those of its own file are among them."""

_VERIFY = [
    "tests/unit/sign/test_judge.py",
    "tests/unit/sign/test_verify.py",
    "tests/unit/sign/test_verify_certified.py",
    "tests/unit/sign/test_verify_forms.py",
]

_PARSE = "tests/unit/sign/test_requirements.py"
_FORMAT = [
    *_VERIFY,
    _PARSE,
    "tests/unit/sign/test_find.py",
    "tests/unit/sign/test_materials.py",
    "tests/unit/sign/test_policy_lint.py",
]

_INTEL = [
    "tests/unit/evidence/intel/test_engine.py",
    "tests/unit/evidence/intel/test_claims.py",
]

_TPM = [
    "tests/unit/evidence/tpm/test_structures.py",
    "tests/unit/evidence/tpm/test_quote.py",
    "tests/unit/evidence/tpm/test_verify.py",
    "tests/unit/testing/evidence/wrongs/test_tpm.py",
]

MODULES = {
    "imagers/sign/judge.py": _VERIFY,
    "imagers/sign/requirements.py": [_PARSE],
    "imagers/sign/verify.py": _VERIFY,
    "imagers/sign/formats/signed_by.py": [
        *_FORMAT,
        "tests/unit/sign/formats/test_signed_by.py",
        "tests/unit/sign/formats/test_lookaside.py",
        "tests/unit/sign/formats/test_simple.py",
    ],
    "imagers/sign/formats/sigstore_signed.py": [
        *_FORMAT,
        "tests/unit/sign/formats/test_sigstore_signed.py",
        "tests/unit/sign/formats/test_lookaside.py",
        "tests/unit/sign/test_image.py",
    ],
    "imagers/sign/formats/sigstore_bundle.py": [
        *_FORMAT,
        "tests/unit/sign/formats/test_sigstore_bundle.py",
    ],
    "imagers/sign/formats/notation/signed.py": [
        *_FORMAT,
        "tests/unit/sign/formats/notation/test_signed.py",
    ],
    "imagers/encrypt/annotations.py": ["tests/unit/encrypt/test_annotations.py"],
    "imagers/encrypt/schemes/broker.py": ["tests/unit/encrypt/schemes/test_broker.py"],
    "imagers/pull/trust.py": ["tests/unit/pull/test_trust.py"],
    "imagers/model/manifest.py": ["tests/unit/model/test_manifest.py"],
    "imagers/broker/policy/table.py": ["tests/unit/broker/policy/test_table.py"],
    "imagers/evidence/trustee.py": ["tests/unit/evidence/test_trustee.py"],
    "imagers/broker/handshake.py": [
        "tests/unit/broker/test_handshake.py",
        "tests/unit/broker/test_start.py",
    ],
    "imagers/broker/admins.py": ["tests/unit/broker/test_admins.py"],
    "imagers/broker/audit_check.py": ["tests/unit/broker/test_audit_check.py"],
    "imagers/broker/keeping/head.py": ["tests/unit/broker/keeping/test_head.py"],
    "imagers/broker/policy/images.py": ["tests/unit/broker/policy/test_images.py"],
    "imagers/evidence/csv/verify.py": [
        "tests/unit/evidence/csv/test_verify.py",
        "tests/unit/testing/evidence/wrongs/test_csv.py",
    ],
    "imagers/evidence/nvidia/verify.py": [
        "tests/unit/evidence/nvidia/test_verify.py",
        "tests/unit/testing/evidence/wrongs/test_nvidia.py",
    ],
    "imagers/evidence/intel/engine.py": _INTEL,
    "imagers/evidence/azure/vtpm.py": [
        "tests/unit/evidence/azure/test_vtpm.py",
        "tests/unit/evidence/azure/test_snp.py",
        "tests/unit/evidence/azure/test_tdx.py",
        "tests/unit/testing/evidence/wrongs/test_azure.py",
    ],
    "imagers/evidence/tpm/enrol.py": ["tests/unit/evidence/tpm/test_enrol.py"],
    "imagers/evidence/tpm/quote.py": _TPM,
    "imagers/evidence/tpm/structures.py": _TPM,
    "imagers/evidence/tpm/verify.py": _TPM,
    "imagers/evidence/tdx/verify.py": [*_INTEL, "tests/unit/evidence/tdx/test_verify.py"],
    "imagers/evidence/sgx/verify.py": [*_INTEL, "tests/unit/evidence/sgx/test_verify.py"],
}
