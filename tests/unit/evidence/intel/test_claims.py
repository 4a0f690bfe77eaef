# SPDX-License-Identifier: Apache-2.0
"""Claims of a machine, by the names that Trustee has."""

from hashlib import sha256

from imagers.evidence.intel.claims import header_values, instance_of, tcb_values
from imagers.evidence.intel.engine import establish, root_of
from tests.unit.evidence.intel.conftest import REAL


def established(case, collateral=None, *, without_crl=False):
    return establish(
        case.quote,
        tee=case.tee,
        collateral=case.collateral if collateral is None else collateral,
        root=root_of(None),
        without_crl=without_crl,
        now=case.now,
        note=lambda _: None,
    )


def test_claims_of_a_machine_are_those_of_its_certificate_and_documents():
    found = established(REAL["sgx"])
    assert tcb_values(found) == {
        "tcb_status": "ConfigurationAndSWHardeningNeeded",
        "tcb_date": "2024-03-13T00:00:00Z",
        "advisory_ids": ["INTEL-SA-00289", "INTEL-SA-00615"],
        "collateral_expiration_status": "0",
        "earliest_issue_date": "2018-05-21T10:45:10Z",
        "latest_issue_date": "2025-06-19T10:56:11Z",
        "earliest_expiration_date": "2025-07-19T10:01:18Z",
        "tcb_eval_num": 17,
        "pck_crl_num": 1,
        "root_ca_crl_num": 1,
        "root_key_id": "46e403bd34f05a3f2817ab9badcaacc7ffc98e0f261008cd30dae936cace18d5"
        "dcf58eef31463613de1570d516200993",
        "sgx_type": "Standard",
        "is_dynamic_platform": None,
        "is_cached_keys": None,
        "is_smt_enabled": None,
        "crl": "checked",
    }
    assert header_values(REAL["sgx"].quote)["vendor_id"] == "939a7233f79c4ca9940a0db3957f0607"


def test_claims_without_lists_say_so():
    case = REAL["sgx"]
    documents = {name: data for name, data in case.collateral.items() if not name.endswith(".crl")}
    values = tcb_values(established(case, documents, without_crl=True))
    assert (values["crl"], values["pck_crl_num"], values["root_ca_crl_num"]) == (
        "not checked",
        None,
        None,
    )


def test_instance_is_a_hash_of_the_id_of_the_platform():
    found = established(REAL["tdx under debug"])
    # Trustee's claim has the bytes in the other order.
    identity = bytes.fromhex("82548d228d94d5e204a95b354dc61a02")
    assert found.pck.instance in (identity, identity[::-1])
    assert instance_of(found) == sha256(found.pck.instance).hexdigest()
