# SPDX-License-Identifier: Apache-2.0
"""Evidence cut short, changed in a bit, or put together from parts of others, is refused."""

from datetime import UTC, datetime
from functools import cache
from itertools import permutations, product

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from imagers.errors import EvidenceRejected, FormatError
from imagers.evidence.judge import judge_parsed
from imagers.evidence.plugins import find_parser, load_verifier
from imagers.evidence.snp.verify import parse_file
from imagers.model.evidence import Bound
from imagers.testing.evidence import CCAWorld, NitroWorld, SGXWorld, SNPWorld, TDXWorld

# What cryptography says of certificates that a bit makes odd, before they are refused.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Attribute's length must be"),
    pytest.mark.filterwarnings("ignore:Parsed a serial number"),
]

SEED = b"evidence of two is mixed here..."
NOW = datetime(2026, 11, 29, tzinfo=UTC)
REFUSALS = (EvidenceRejected, FormatError)
WORLDS = {
    "snp": SNPWorld(SEED, now=NOW),
    "tdx 4": TDXWorld(SEED, now=NOW),
    "tdx 5": TDXWorld(SEED, now=NOW),
    "sgx": SGXWorld(SEED, now=NOW),
    "cca": CCAWorld(SEED, now=NOW),
    "nitro": NitroWorld(SEED, now=NOW),
}
FORMS = {"tdx 5": {"version": 5, "kind": 3}}
everywhere = pytest.mark.parametrize("name", WORLDS)


@cache
def collateral(name):
    return WORLDS[name].collateral()


@cache
def raw(name, letter):
    """What the device of one of two guests gives: they differ in all that is a guest's."""
    world, digest = WORLDS[name], letter.encode()
    size = len(world.measurement)
    form = FORMS.get(name, {})
    body = world.evidence(
        measurement=digest * size, report_data=digest * 48, init_data=digest * 32, **form
    )
    return next(iter(world.raw_files(body).values()))


@cache
def vcek():
    return WORLDS["snp"].leaf()


def judge(name, data, *, roots=None, certificate=None):
    world = WORLDS[name]
    verifier = load_verifier(world.tee, roots=roots or world.roots)
    if world.tee == "snp":
        evidence = parse_file(data, certificate or vcek())
    else:
        evidence = find_parser(world.tee)(data)
    return judge_parsed(verifier, evidence, bound=Bound(), read=collateral(name).get, now=NOW)


@everywhere
def test_evidence_of_both_guests_is_genuine(name):
    for letter in "ab":
        assert judge(name, raw(name, letter)).report_data.startswith(letter.encode().hex() * 48)


@everywhere
@given(st.data())
def test_evidence_cut_short_is_refused(name, data):
    good = raw(name, "a")
    end = data.draw(st.integers(0, len(good) - 1))
    with pytest.raises(REFUSALS):
        judge(name, good[:end])


@everywhere
@given(st.data())
def test_evidence_with_one_bit_changed_is_refused(name, data):
    changed = bytearray(raw(name, "a"))
    at = data.draw(st.integers(0, len(changed) - 1))
    changed[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(REFUSALS):
        judge(name, bytes(changed))


@everywhere
@given(st.data())
def test_parts_of_two_guests_are_no_third(name, data):
    one, other = raw(name, "a"), raw(name, "b")
    begin, end = sorted(data.draw(st.tuples(*[st.integers(0, len(one))] * 2)))
    mixed = one[:begin] + other[begin:end] + one[end:]
    try:
        found = judge(name, mixed)
    except REFUSALS:
        assert mixed not in (one, other)
    else:  # a part that both have alike, such as a platform's token, makes no third guest
        assert found in (judge(name, one), judge(name, other))


@pytest.mark.parametrize("kind", [TDXWorld, SGXWorld])
def test_quote_takes_its_certificates_in_their_order_only(kind):
    world = WORLDS["tdx 4" if kind is TDXWorld else "sgx"]
    name = "tdx 4" if kind is TDXWorld else "sgx"
    taken = []
    for roles in product(("pck", "platform", "processor", "root", "signing"), repeat=3):
        quote = world.quote(sealed={"chain": world.chain(*roles)})
        try:
            judge(name, quote)
        except REFUSALS:
            continue
        taken.append(roles)
    assert taken == [("pck", "platform", "root")]


def test_report_takes_amds_certificates_in_their_roles_only():
    world = WORLDS["snp"]
    parts = [world.issue(role).public_bytes(Encoding.PEM) for role in ("ASK", "ARK", "ASVK")]
    taken = []
    for order in permutations(range(3)):
        roots = b"".join(parts[at] for at in order)
        for leaf in (vcek(), world.leaf(vlek=True), *parts):
            try:
                judge("snp", raw("snp", "a"), roots=roots, certificate=leaf)
            except REFUSALS:
                continue
            taken.append((order, leaf))
    assert taken == [((0, 1, 2), vcek())]
