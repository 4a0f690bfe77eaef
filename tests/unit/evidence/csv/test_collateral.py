# SPDX-License-Identifier: Apache-2.0
"""HSK and CEK are asked for by a number that no log shows, and kept if Hygon signed them."""

import pytest

from imagers.errors import EvidenceRejected, FormatError
from imagers.evidence.collateral.directory import CollateralDirectory
from imagers.evidence.collateral.fetch import Keeper, fetch
from imagers.evidence.csv.collateral import Hygon
from imagers.evidence.csv.verify import issuers_name, parse
from imagers.net.http import HTTPClient, HTTPSettings
from imagers.testing.evidence import CollateralServer, CSVWorld
from tests.unit.evidence.csv.conftest import NOW


def asked(world, tmp_path, server):
    evidence = parse(world.evidence())
    keeper = Keeper(CollateralDirectory(tmp_path), NOW, world.roots)
    (name,) = (issuers_name(world.serial),)
    with HTTPClient(HTTPSettings()) as client:
        (one,) = fetch([name], evidence, sources=[server.url], keeper=keeper, client=client)
    return name, one


def test_issuers_come_from_the_service(world, tmp_path):
    with CollateralServer(world) as server:
        name, one = asked(world, tmp_path, server)
    assert (one.state, one.document.kind) == ("new", "HSK and CEK of a chip")
    assert CollateralDirectory(tmp_path).read(name) == world.issuers()
    assert not one.document.is_expired(NOW)
    assert server.requests[0].path.endswith(f"/hsk_cek?snumber={world.serial}")


def test_issuers_of_others_are_not_kept(world, tmp_path):
    other = CSVWorld(b"o" * 32, now=NOW)
    other.serial = world.serial
    with CollateralServer(other) as server:
        _, one = asked(world, tmp_path, server)
    assert one.state == "missing"
    assert isinstance(one.error, EvidenceRejected)
    assert world.serial not in " ".join(one.passed_over)


def test_chip_that_the_service_does_not_know_is_told_without_its_number(world, tmp_path):
    with CollateralServer(CSVWorld(b"o" * 32, now=NOW)) as server:
        _, one = asked(world, tmp_path, server)
    assert one.state == "missing"
    assert world.serial not in f"{one.error} {one.passed_over}"


def test_file_of_issuers_does_not_tell_its_name(world):
    with pytest.raises(FormatError, match="do not say of which chip") as caught:
        Hygon(world.roots).find(world.issuers())
    assert "--name csv/HASH.hsk_cek" in caught.value.hint


@pytest.mark.parametrize("name", ["csv/x.hsk_cek", "csv/../x", "csv/" + "0" * 32 + ".crl"])
def test_other_names_are_nobodys(world, name):
    with pytest.raises(FormatError, match="there is no document"):
        Hygon(world.roots).describe(name, {name: world.issuers()})
    assert Hygon().beside(name) == ()


def test_evidence_of_another_chip_is_not_asked_for(world):
    name = issuers_name("ANOTHER")
    with HTTPClient(HTTPSettings()) as client, pytest.raises(FormatError, match="another chip"):
        Hygon().ask(client, "https://localhost:1", name, parse(world.evidence()))
