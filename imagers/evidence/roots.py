# SPDX-License-Identifier: Apache-2.0
"""Certificates of vendors that come with imagers.

pem = read_root("snp", "genoa.pem")
"""

from importlib.resources import files

__all__ = ["read_root"]


def read_root(tee: str, name: str) -> bytes:
    """The file `name` in the folder `roots` of a TEE."""
    return files(f"imagers.evidence.{tee}").joinpath("roots", name).read_bytes()
