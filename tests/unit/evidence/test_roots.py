# SPDX-License-Identifier: Apache-2.0
import pytest

from imagers.evidence.roots import read_root


def test_root_is_the_file_of_its_name():
    assert read_root("snp", "genoa.pem").count(b"BEGIN CERTIFICATE") == 3
    with pytest.raises(FileNotFoundError):
        read_root("snp", "rome.pem")
