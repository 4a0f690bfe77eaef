# SPDX-License-Identifier: Apache-2.0
"""The runtime side: an OCI bundle's config.json from an image config.

What comes from the image: Entrypoint, Cmd, Env, WorkingDir, User, Volumes, Labels. All
else is a fixed, tight frame: three capabilities, no new privileges, namespaces of its own,
a read-only root. The frame equals the one that Confidential Containers guests get, with
four repairs. `User` is looked up in the image instead of being ignored, and so is the home
directory. Devices are denied but those of the runtime: a layer may have device nodes that anybody
can open; runc denies them where nothing is said, others do not. And labels that runtimes obey as
annotations are left out: they would widen the frame, or start another program beside the image's.

    document = make_runtime_config(config, passwd=..., group=..., owner=(0, 0))

This module opens nothing: the two account files come in as bytes.

Spec: OCI runtime-spec v1.0.2, config.md; OCI image-spec v1.1, conversion.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from imagers.errors import FormatError, Unsupported
from imagers.model.strict_json import JSON, JSONObject, View, dump_json

if TYPE_CHECKING:
    from imagers.model.manifest import ImageConfig

__all__ = ["check_runtime_config", "labels_left_out", "make_runtime_config", "working_directory"]

_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CAPABILITIES = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
_OPEN_FILES = 1024
_MAX_ID = 2**32 - 2  # the last one means "none" to the kernel
_MAX_ACCOUNTS_BYTES = 1024 * 1024
_MAX_PATH_BYTES = 4095  # PATH_MAX of Linux counts the NUL

# Annotations that begin so are orders, to whom stands beside them.
_OBEYED = (
    "run.oci.",  # crun, youki: handlers, groups of the caller that are kept, files for its output
    "krun.",  # crun with libkrun: network and graphics of the host, size and kind of the machine
    "module.wasm.image/",  # crun, youki: run by another handler
    "org.systemd.property.",  # runc, crun: any property of the unit
    "org.criu.",  # runc, crun: a configuration file of CRIU
    "org.opencontainers.runc.",  # runc: processors that are kept from others
    "io.microsoft.",  # the guest of Hyper-V: all devices and capabilities
    "com.urunc.",  # urunc: machine, kernel and its command line
    "io.katacontainers.",  # kata: paths on the host, kernel parameters, what a guest checks
    "dev.gvisor.",  # runsc: its own flags, mounts from the host
    "cdi.k8s.io/",  # containerd, CRI-O, kata: devices
    "nvidia.cdi.k8s.io/",  # the same, by NVIDIA's runtime
    "io.kubernetes.",  # kata, runsc, CRI-O: whether it is a pod's sandbox, and whose container
    "io.containerd.",  # containerd's shims
    "io.container.manager",  # who is taken for the engine: Podman and CRI-O
    "io.podman.annotations.",  # Podman: privileged, no seccomp, no labels
    "io.crio.",  # CRI-O
)

# What decides how the image runs; labels decide nothing.
_RUNTIME_MEMBERS = frozenset(
    {"Cmd", "Entrypoint", "Env", "ExposedPorts", "StopSignal", "User", "Volumes", "WorkingDir"}
)
_MASKED = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
    "/proc/scsi",
]
_READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]


def _mount(destination: str, kind: str, source: str, *options: str) -> JSONObject:
    mount: JSONObject = {"destination": destination, "type": kind, "source": source}
    if options:
        mount["options"] = list(options)
    return mount


def _default_mounts(*, rootless: bool) -> list[JSON]:
    # Inside a user namespace with one mapped id, group 5 (tty) does not exist.
    pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]
    if not rootless:
        pts.append("gid=5")
    mounts: list[JSON] = [
        _mount("/proc", "proc", "proc"),
        _mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        _mount("/dev/pts", "devpts", "devpts", *pts),
        _mount("/dev/shm", "tmpfs", "shm", "nosuid", "noexec", "nodev", "mode=1777", "size=65536k"),
        _mount("/dev/mqueue", "mqueue", "mqueue", "nosuid", "noexec", "nodev"),
        _mount("/sys", "sysfs", "sysfs", "nosuid", "noexec", "nodev", "ro"),
    ]
    if not rootless:
        mounts.append(
            _mount(
                "/sys/fs/cgroup", "cgroup", "cgroup", "nosuid", "noexec", "nodev", "relatime", "ro"
            )
        )
    return mounts


def _config(image: ImageConfig) -> View:
    return View(image.config, what="config", where="$.config")


def _string_list(config: View, name: str) -> list[str]:
    strings = config.texts(name, null_is_empty=True)
    for index, item in enumerate(strings):
        if "\0" in item:
            raise config.error("expected a string without NUL", f"{name}[{index}]")
    return list(strings)


def _accounts(data: bytes, fields: int) -> list[list[str]]:
    """The well-formed lines of /etc/passwd or /etc/group; broken lines are passed over."""
    if len(data) >= _MAX_ACCOUNTS_BYTES:
        # The reader stops there: half a line could hold half a number, of another user.
        raise FormatError(
            f"expected less than {_MAX_ACCOUNTS_BYTES} bytes",
            what="/etc/passwd or /etc/group of the image",
        )
    # Only "\n" ends a line, as for the C library: splitlines() knows ten more ends.
    lines = data.decode("utf-8", "replace").split("\n")
    return [parts for line in lines if len(parts := line.split(":")) >= fields]


def _number(text: str) -> int | None:
    if not (text.isascii() and text.isdigit()):
        return None
    significant = text.lstrip("0") or "0"
    if len(significant) > len(str(_MAX_ID)) or int(significant) > _MAX_ID:
        return None
    return int(significant)


def _absolute(path: str, where: str) -> str:
    if not path.startswith("/") or "\0" in path:
        raise FormatError(
            f"expected an absolute path, got {path[:80]!r}", what="config", where=where
        )
    return path


def _home_of(passwd: bytes, uid: int) -> str:
    """The home directory of a user; "/" where there is none, as runtimes have it."""
    for parts in _accounts(passwd, 6):
        if _number(parts[2]) == uid:
            home = parts[5]
            return home if home.startswith("/") and "\0" not in home else "/"
    return "/"


def _environment(config: View, home: str) -> list[str]:
    found = _string_list(config, "Env") or [_PATH, "TERM=xterm"]
    return found if any(one.startswith("HOME=") for one in found) else [*found, f"HOME={home}"]


def _resolve_user(text: str, passwd: bytes, group: bytes) -> tuple[int, int, list[int]]:
    """User id, group id and supplementary groups of `USER[:GROUP]`, by name or number.

    Spec: OCI image-spec v1.1, config.md, "User".
    """

    def unknown(kind: str, name: str, file: str) -> FormatError:
        return FormatError(
            f"expected a {kind} of the image's {file} or a number, got {name[:80]!r}",
            what="config",
            where="$.config.User",
        )

    user_text, colon, group_text = text.partition(":")
    users = _accounts(passwd, 4)
    by_name = next((parts for parts in users if parts[0] == user_text), None)
    uid = _number(user_text)
    if by_name is not None:
        uid = _number(by_name[2])
    if not user_text:
        uid = 0
    if uid is None:
        raise unknown("user", user_text, "/etc/passwd")
    entry = by_name or next((parts for parts in users if _number(parts[2]) == uid), None)
    groups = _accounts(group, 4)
    if colon and group_text:
        named = next((parts for parts in groups if parts[0] == group_text), None)
        gid = _number(named[2]) if named is not None else _number(group_text)
        if gid is None:
            raise unknown("group", group_text, "/etc/group")
        # With a group given, conversion.md asks for that group and no others.
        return uid, gid, []
    gid = _number(entry[3]) if entry is not None else 0
    if gid is None:
        raise unknown("group", entry[3] if entry else "", "/etc/passwd")
    name = entry[0] if entry is not None else None
    more = sorted(
        number
        for parts in groups
        if name is not None
        and name in parts[3].split(",")
        and (number := _number(parts[2])) is not None
        and number != gid
    )
    return uid, gid, more


def _annotations(image: ImageConfig) -> dict[str, JSON]:
    """Labels that nobody obeys, and the fields that conversion.md makes annotations of."""
    document, config = image.document, _config(image)
    result: dict[str, JSON] = {}
    for name, value in (
        ("os", image.platform.os),
        ("os.version", document.get("os.version")),
        ("architecture", image.platform.architecture),
        ("variant", image.platform.variant),
        ("author", document.get("author")),
        ("created", document.get("created")),
        ("stopSignal", config.optional_text("StopSignal")),
    ):
        if isinstance(value, str) and value:  # nothing is decided by what is something else
            result[f"org.opencontainers.image.{name}"] = value
    ports = config.object("ExposedPorts", null_is_empty=True).value
    if ports:
        result["org.opencontainers.image.exposedPorts"] = ",".join(sorted(ports))
    # A label of the same name wins, as conversion.md says.
    labels = _labels(config)
    return result | {name: labels[name] for name in labels if not name.startswith(_OBEYED)}


def _labels(config: View) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in config.value:
        if name.casefold() == "labels":  # all of them, as an engine in Go adds them up
            found.update(config.string_map(name))
    return found


def labels_left_out(image: ImageConfig) -> tuple[str, ...]:
    """The names of the labels that are no annotations of the bundle: runtimes obey them."""
    return tuple(sorted(name for name in _labels(_config(image)) if name.startswith(_OBEYED)))


def check_runtime_config(image: ImageConfig) -> None:
    """Raise unless no engine reads another command, user or environment out of the config.

    Engines in Go take `env` for `Env`, and of both the last one.

    Raises:
        FormatError: a member of `config` that counts is spelt in another way.
    """
    _config(image).check_spelling(_RUNTIME_MEMBERS)


def working_directory(image: ImageConfig) -> str:
    """The absolute path in which the image's program starts; "/" where it says nothing.

    Raises:
        FormatError: it is no absolute path, or longer than Linux takes.
    """
    config = _config(image)
    path = config.optional_text("WorkingDir") or "/"
    if len(path.encode()) > _MAX_PATH_BYTES:
        raise config.error(f"expected a path of at most {_MAX_PATH_BYTES} bytes", "WorkingDir")
    return _absolute(path, "$.config.WorkingDir")


def make_runtime_config(
    image: ImageConfig, *, passwd: bytes, group: bytes, owner: tuple[int, int]
) -> bytes:
    """The bytes of config.json: the same for the same input.

    Args:
        passwd: the image's /etc/passwd, b"" where it has none.
        group: the image's /etc/group, likewise.
        owner: user and group id of the caller. Another user than 0 gives a user namespace
            in which the caller is root, and runs as it whatever `User` says (which must
            still exist); no cgroup is mounted then.

    Raises:
        Unsupported: an image for another operating system.
        FormatError: the config has a member of the wrong type, or names a missing user.
    """
    if image.platform.os != "linux":
        raise Unsupported(f"image is for {image.platform.os[:40]!r}: expected 'linux'")
    rootless = owner[0] != 0
    config = _config(image)
    uid, gid, groups = _resolve_user(config.optional_text("User") or "", passwd, group)
    # With one id of its own to map, a caller can be one user inside; runc demands that it is
    # root ("no user mapping found"). It has the caller's rights, whatever it is called.
    user: JSONObject = {"uid": 0, "gid": 0} if rootless else {"uid": uid, "gid": gid}
    if groups and not rootless:
        user["additionalGids"] = list(groups)
    capabilities: list[JSON] = list(_CAPABILITIES)
    volumes = config.object("Volumes", null_is_empty=True).value
    for path in volumes:
        _absolute(path, "$.config.Volumes")
    options = ("nosuid", "noexec", "nodev", "relatime", "rw")
    args = _string_list(config, "Entrypoint") + _string_list(config, "Cmd")
    namespaces = ["pid", "network", "ipc", "uts", "mount", "cgroup"] + ["user"] * rootless
    # An ordinary user may not set it, and has no device nodes in the tree.
    resources: JSONObject = {} if rootless else {"devices": [{"allow": False, "access": "rwm"}]}
    linux: JSONObject = {
        "resources": resources,
        "namespaces": [{"type": name} for name in namespaces],
        "maskedPaths": list(_MASKED),
        "readonlyPaths": list(_READ_ONLY),
    }
    if rootless:
        linux["uidMappings"] = [{"containerID": 0, "hostID": owner[0], "size": 1}]
        linux["gidMappings"] = [{"containerID": 0, "hostID": owner[1], "size": 1}]
    return dump_json(
        {
            "ociVersion": "1.0.2",
            "hostname": "imagers",
            "root": {"path": "rootfs", "readonly": True},
            "process": {
                "terminal": False,
                "user": user,
                "args": args or ["sh"],
                "env": _environment(config, _home_of(passwd, 0 if rootless else uid)),
                "cwd": working_directory(image),
                "noNewPrivileges": True,
                "capabilities": dict.fromkeys(
                    ("bounding", "effective", "inheritable", "permitted", "ambient"), capabilities
                ),
                "rlimits": [{"type": "RLIMIT_NOFILE", "soft": _OPEN_FILES, "hard": _OPEN_FILES}],
            },
            "mounts": [
                *(_mount(path, "tmpfs", "tmpfs", *options) for path in sorted(volumes)),
                *_default_mounts(rootless=rootless),
            ],
            "annotations": _annotations(image),
            "linux": linux,
        }
    )
