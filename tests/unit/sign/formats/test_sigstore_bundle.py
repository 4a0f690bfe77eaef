# SPDX-License-Identifier: Apache-2.0
"""What is particular to bundles; the judge's answers are in test_judge.py."""

import pytest

from imagers.errors import FormatError
from imagers.model.descriptor import Descriptor
from imagers.model.digest import digest_of
from imagers.sign.certified import trusted_root
from imagers.sign.formats.sigstore_bundle import FORMAT, SigstoreBundle
from imagers.sign.found import BUNDLE_TYPE, BundleSignature


def layer(media_type):
    return Descriptor(media_type, digest_of(b""), 0)


@pytest.mark.parametrize("kind", [BUNDLE_TYPE, "x/y", ""])
def test_layer_is_a_bundle_by_its_own_type(kind):
    assert FORMAT.is_in(kind, layer(BUNDLE_TYPE))
    assert not FORMAT.is_in(kind, layer("text/plain"))
    assert FORMAT.attached(b"x", layer(BUNDLE_TYPE), "p") == BundleSignature(b"x", "p")


@pytest.mark.parametrize(
    ("authorities", "logs", "stampers", "is_good"),
    [
        (("a",), ("l",), (), True),
        (("a",), (), ("s",), True),
        (("a",), (), (), False),
        ((), ("l",), ("s",), False),
    ],
    ids=["log", "stamps", "no witness", "no authority"],
)
def test_trusted_root_needs_an_authority_and_a_witness(
    monkeypatch, authorities, logs, stampers, is_good
):
    class Root:
        pass

    Root.authorities, Root.logs, Root.stampers = authorities, logs, stampers
    monkeypatch.setattr(trusted_root, "parse_trusted_root", lambda _raw, *, what: Root)  # noqa: ARG005
    wanted = SigstoreBundle(None, where="here", trusted_root="/root.json")
    if not is_good:
        with pytest.raises(FormatError, match="in force, for here"):
            FORMAT.load(wanted, lambda _: b"")
        return
    material = FORMAT.load(wanted, lambda _: b"")
    assert (material.roots, material.rekor, material.tsa) == (authorities, logs, stampers)
    assert material.one_witness
