# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from imagers.errors import NotFound, VerificationError
from imagers.model.descriptor import Platform
from imagers.transport import resolve
from imagers.transport.names import locate, parse_image_name
from imagers.transport.open import open_source
from imagers.transport.resolve import resolve_image, this_platform

PLAIN = Path(__file__).resolve().parents[2] / "vectors" / "ocicrypt" / "plain"
AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")


def opened(name):
    return open_source(locate(parse_image_name(f"oci:{PLAIN}/{name}:v1")))


def test_resolve_image_of_an_index_is_that_of_the_platform():
    with opened("multi") as source:
        top = source.read_manifest()
        assert resolve_image(source, top, ARM64).config.platform == ARM64
        with pytest.raises(NotFound, match="linux/s390x"):
            resolve_image(source, top, Platform("linux", "s390x"))


def test_resolve_image_in_no_index_is_held_to_a_platform_that_was_asked_for():
    with opened("mixed") as source:
        top = source.read_manifest()
        assert resolve_image(source, top, AMD64).config.platform.os == "linux"
        # Pipelines encrypt and decrypt for other machines than theirs.
        assert resolve_image(source, top, None).config.platform.architecture == "amd64"
        with pytest.raises(VerificationError, match="'linux/arm64', got one for 'linux/amd64'"):
            resolve_image(source, top, ARM64)


def test_this_platform_uses_the_words_of_go(monkeypatch):
    for machine, word in (("x86_64", "amd64"), ("aarch64", "arm64"), ("riscv64", "riscv64")):
        monkeypatch.setattr(resolve.machine, "machine", lambda machine=machine: machine)
        assert this_platform() == Platform("linux", word)
