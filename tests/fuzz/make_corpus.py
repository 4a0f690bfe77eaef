# SPDX-License-Identifier: Apache-2.0
"""The seeds of the fuzz targets: tiny valid inputs, and some that are slightly damaged.

    python tests/fuzz/make_corpus.py        writes corpus/TARGET/NAME

The first byte of each is the target's own, as its source says. What gzip and zstd make of the
same bytes depends on their versions, so nothing compares these files with a new run.
"""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import zstandard

CORPUS = Path(__file__).resolve().parent / "corpus"
TIME = 1_700_000_000


def tar_of(*entries: tuple, form: int = tarfile.PAX_FORMAT, end: bool = True) -> bytes:
    """A tar of (name, kind, content or target[, changes of TarInfo]) tuples."""
    out = io.BytesIO()
    for name, kind, content, *changes in entries:
        info = tarfile.TarInfo(name)
        info.type, info.mtime, info.mode = kind, TIME, 0o755
        data = b""
        if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            info.linkname = content
        else:
            data = content.encode()
        info.size = len(data)
        for field, value in (changes[0] if changes else {}).items():
            setattr(info, field, value)
        out.write(info.tobuf(form, "utf-8", "surrogateescape") + data + bytes(-len(data) % 512))
    return out.getvalue() + bytes(1024 if end else 0)


def twice(tar: bytes) -> bytes:
    """With records that come twice, which a dictionary of them cannot have."""
    pairs = (("offset", 4096), ("numbytes", 3), ("offset", 8192), ("numbytes", 2))
    more = b""
    for name, number in pairs:
        rest = f" GNU.sparse.{name}={number}\n"
        more += f"{len(rest) + 2}{rest}".encode()
    length = int(tar[124:135], 8)
    head = bytearray(tar[:512])
    head[124:135] = b"%011o" % (length + len(more))
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    body = tar[512 : 512 + length] + more
    rest_at = 512 + -(-length // 512) * 512
    return bytes(head) + body + bytes(-len(body) % 512) + tar[rest_at:]


def old_sparse(continued: int) -> bytes:
    """GNU's own form, with a block of regions behind the header or without."""
    tar = bytearray(tar_of(("f", tarfile.GNUTYPE_SPARSE, "abc"), form=tarfile.GNU_FORMAT))
    region = b"%011o\0%011o\0"
    tar[386:410] = region % (4096, 2 if continued else 3)
    tar[482] = continued
    tar[483:495] = b"%011o\0" % 9000
    tar[148:156] = b" " * 8
    tar[148:156] = b"%06o\0 " % sum(tar[:512])
    return bytes(tar[:512]) + continued * (region % (8192, 1)).ljust(512, b"\0") + bytes(tar[512:])


def tars() -> dict[str, bytes]:
    file, folder, link, hard = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
    node, block = tarfile.CHRTYPE, tarfile.BLKTYPE
    cap = "\1\0\0\2\0\x20\0\0" + "\0" * 12
    xattr = {
        f"SCHILY.xattr.{name}": value
        for name, value in {
            "user.a": "1",
            "security.capability": cap,
            "security.selinux": "x",
            "trusted.overlay.opaque": "y",
            "trusted.b": "2",
        }.items()
    }
    sparse = {"GNU.sparse.size": "9000", "GNU.sparse.numblocks": "2", "GNU.sparse.name": "real"}
    new = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "real"}
    lines = "2\n4096\n3\n8192\n2\n".ljust(512, "\0") + "abcde"
    plnk = ".wh..wh.plnk"
    tree = tar_of(("d", folder, ""), ("d/f", file, "x"), ("d/h", hard, "d/f"))
    return {
        "tree": tree,
        "links": tar_of(("s", link, "/d"), ("l", link, ".."), ("s/f", file, "through a link")),
        "whiteouts": tar_of(("d/a", file, "x"), (".wh.d", file, ""), ("d/.wh..wh..opq", file, "")),
        "replaced": tar_of(("a", folder, ""), ("a", file, "x"), ("a", link, "a")),
        "pax": tar_of(("p", file, "x", {"pax_headers": {"mtime": "1.5", "path": "q", "uid": "9"}})),
        "global": tar_of(("g", file, "x"), form=tarfile.GNU_FORMAT, end=False)
        + tarfile.TarInfo.create_pax_global_header({"comment": "c"})
        + bytes(1024),
        "gnu-long": tar_of(("n" * 101, link, "t" * 101), form=tarfile.GNU_FORMAT),
        "base-256": tar_of(("b", file, "", {"uid": 1 << 22}), form=tarfile.GNU_FORMAT),
        "devices": tar_of(
            ("n", node, "", {"devmajor": 1, "devminor": 3}),
            ("b", block, "", {"devmajor": 8}),
            ("w", node, ""),
            ("l", hard, "w"),
            ("m", hard, "n"),
            ("w", file, "x"),
        ),
        "attributes": tar_of(
            ("f", file, "x", {"pax_headers": xattr}),
            ("d", folder, "", {"pax_headers": xattr}),
            ("s", link, "f", {"pax_headers": xattr}),
            ("d", folder, ""),
            ("p", tarfile.FIFOTYPE, "", {"pax_headers": xattr}),
        ),
        "attributes-of-others": tar_of(
            ("f", file, "", {"pax_headers": {"LIBARCHIVE.xattr.user.a": "MQ", **xattr}}),
            ("g", file, "", {"pax_headers": {"SCHILY.acl.access": "u", "RHT.security.x": "y"}}),
        ),
        "sparse-0.1": tar_of(
            ("f", file, "abcde", {"pax_headers": sparse | {"GNU.sparse.map": "4096,3,8192,2"}})
        ),
        "sparse-1.0": tar_of(
            ("f", file, lines, {"pax_headers": new | {"GNU.sparse.realsize": "9000"}})
        ),
        "sparse-0.0": twice(tar_of(("f", file, "abcde", {"pax_headers": sparse}))),
        "sparse-old": old_sparse(0),
        "sparse-old-continued": old_sparse(1),
        "aufs": tar_of(
            (f"{plnk}/1", file, "x"), ("a", hard, f"{plnk}/1"), (".wh..wh.aufs", file, "")
        ),
        "kinds": tar_of(("p", tarfile.FIFOTYPE, "", {"mode": 0o4777})),
        "dot-dot": tar_of(("../evil", file, "x")),
        "absolute": tar_of(("/etc/f", file, "x")),
        "bad-checksum": tree[:700] + b"?" + tree[701:],
        "short": tree[:1300],
        "after-the-end": tar_of() + tree[:512],
    }


def gzips() -> dict[str, bytes]:
    two = gzip.compress(b"first " * 9, 9, mtime=0) + gzip.compress(b"second", 1, mtime=0)
    named = bytes([0x1F, 0x8B, 8, 0x1E, 0, 0, 0, 0, 0, 3]) + b"\x02\0ab" + b"name\0" + b"words\0"
    return {
        "two": two,
        "padded": two + bytes(9),
        "empty": gzip.compress(b"", mtime=0),
        "zeros": gzip.compress(bytes(600_000), 9, mtime=0),
        "fields": named + b"\0\0" + two[10:],
        "bad-crc": two[:-8] + b"?" + two[-7:],
        "short": two[:-3],
        "trailing": two + b"x",
        # Found here: ISA-L 2.30 then says that -1 bytes of the input are left.
        "bad-code": two[:10] + bytes.fromhex("034bcb2c2a00525cf6ee36b606000000"),
    }


def zstds() -> dict[str, bytes]:
    with_sum = zstandard.ZstdCompressor(write_checksum=True)
    two = zstandard.compress(b"first " * 9) + with_sum.compress(b"second")
    skipped = b"\x50\x2a\x4d\x18\x03\0\0\0abc"
    return {
        "two": two,
        "skippable": skipped + two + skipped,
        "zeros": zstandard.compress(bytes(600_000)),
        "window": zstandard.ZstdCompressor(
            compression_params=zstandard.ZstdCompressionParameters(window_log=24)
        )
        .compressobj()
        .compress(b"x")
        + b"\x28\xb5\x2f\xfd\x00\xa8\x01\0\0",
        "bad-sum": two[:-1] + b"?",
        "short": two[:-2],
        "trailing": two + b"x",
    }


def main() -> None:
    found: dict[str, bytes] = {}
    for name, data in tars().items():
        found[f"tar/{name}"] = b"\x13" + data
    for codec, (bits, seeds) in {"gzip": (0, gzips()), "zstd": (1, zstds())}.items():
        for name, data in seeds.items():
            found[f"codec/{codec}-{name}"] = bytes([bits | 0x14]) + data
    found["codec/compress-gzip"] = b"\x06" + b"any bytes " * 9
    found["codec/compress-zstd"] = b"\x07" + b"any bytes " * 9
    tar = tars()["links"]
    verify, unpack, open_ = 16, 16 | 4, 16 | 8 | 32
    for name, data in {
        "plain": bytes([unpack | open_]) + tars()["tree"],
        "gzip": bytes([1 | unpack]) + gzip.compress(tar, 9, mtime=0),
        "gzip-sealed": bytes([1 | open_ | unpack]) + gzip.compress(tar[:1500], 9, mtime=0),
        "gzip-zeros": bytes([1 | open_ | verify]) + gzips()["zeros"],
        "zstd": bytes([2 | unpack]) + zstandard.compress(tar),
        "zstd-sealed": bytes([2 | open_ | unpack]) + zstandard.compress(tars()["whiteouts"]),
        "zstd-zeros": bytes([2 | open_ | verify | 128]) + zstds()["zeros"],
        "wrong-digest": bytes([2 | 8 | 32 | 4]) + zstandard.compress(tar),
        "wrong-tag": bytes([1 | 8 | 16]) + gzip.compress(tar, 9, mtime=0),
        "wrong-diff-id": bytes([2 | open_ | 64]) + zstandard.compress(tar),
    }.items():
        found[f"layer/{name}"] = data
    for name, data in found.items():
        path = CORPUS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


if __name__ == "__main__":
    main()
