# SPDX-License-Identifier: Apache-2.0
"""config.json of a bundle: what the image says, in a frame that it cannot widen."""

import json
import os
import shutil
import subprocess
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft4Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT4

from imagers.errors import FormatError, ImagersError, Unsupported
from imagers.model.manifest import parse_config
from imagers.pull.bundle import check_runtime_config, labels_left_out, make_runtime_config

PASSWD = b"""\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1::/:/bin/false
broken line
app:x:1000:1001:App,,,:/home/app:/bin/sh
late:x:70000:100::/:/bin/sh
big:x:4294967295:1::/:
text:x:ten:1::/:
"""
GROUP = b"""\
root:x:0:
daemon:x:1:daemon
users:x:100:late,app
extra:x:77:app
tail:x:78:apple,app
own:x:1001:app
"""
NOBODY = 65534
SCHEMA = Path("/usr/share/gocode/src/github.com/opencontainers/runtime-spec/schema")


def image(config=None, **members):
    document = {
        "architecture": "amd64",
        "os": "linux",
        "config": config or {},
        "rootfs": {"type": "layers", "diff_ids": []},
        **members,
    }
    return parse_config(json.dumps(document).encode())


def raw(config=None, *, owner=(0, 0), passwd=PASSWD, group=GROUP, **members):
    return make_runtime_config(image(config, **members), passwd=passwd, group=group, owner=owner)


def convert(*arguments, **options):
    return json.loads(raw(*arguments, **options))


# --- what the image says


@pytest.mark.parametrize(
    ("config", "args"),
    [
        ({}, ["sh"]),
        ({"Cmd": ["a", "b"]}, ["a", "b"]),
        ({"Entrypoint": ["e"]}, ["e"]),
        ({"Entrypoint": ["e", "1"], "Cmd": ["c"]}, ["e", "1", "c"]),
        ({"Entrypoint": None, "Cmd": ["c"]}, ["c"]),
        ({"Entrypoint": [], "Cmd": []}, ["sh"]),
        ({"Cmd": ["", "-c", "a b"]}, ["", "-c", "a b"]),
    ],
)
def test_bundle_arguments_are_entrypoint_then_cmd(config, args):
    assert convert(config)["process"]["args"] == args


def test_bundle_environment_of_the_image_replaces_the_default():
    assert convert({"Env": ["A=b", "C="]})["process"]["env"] == ["A=b", "C=", "HOME=/root"]
    default = convert()["process"]["env"]
    assert default[0].startswith("PATH=/usr/local/sbin:")
    assert "TERM=xterm" in default


@pytest.mark.parametrize(
    ("config", "cwd"), [({}, "/"), ({"WorkingDir": ""}, "/"), ({"WorkingDir": "/a"}, "/a")]
)
def test_bundle_working_directory(config, cwd):
    assert convert(config)["process"]["cwd"] == cwd


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        pytest.param("", {"uid": 0, "gid": 0}, id="nothing is root"),
        pytest.param("root", {"uid": 0, "gid": 0}, id="root by name"),
        pytest.param("app", {"uid": 1000, "gid": 1001, "additionalGids": [77, 78, 100]}, id="name"),
        pytest.param(
            "1000",
            {"uid": 1000, "gid": 1001, "additionalGids": [77, 78, 100]},
            id="number of a name",
        ),
        pytest.param(
            "app:", {"uid": 1000, "gid": 1001, "additionalGids": [77, 78, 100]}, id="empty group"
        ),
        pytest.param("late", {"uid": 70000, "gid": 100}, id="own group is not listed again"),
        pytest.param("4242", {"uid": 4242, "gid": 0}, id="number of nobody in the file"),
        pytest.param("app:extra", {"uid": 1000, "gid": 77}, id="name and group by name"),
        pytest.param("app:5", {"uid": 1000, "gid": 5}, id="name and group by number"),
        pytest.param("5:6", {"uid": 5, "gid": 6}, id="numbers"),
        pytest.param(":extra", {"uid": 0, "gid": 77}, id="group alone"),
        pytest.param(
            "0000000000001000",
            {"uid": 1000, "gid": 1001, "additionalGids": [77, 78, 100]},
            id="zeros before it",
        ),
        pytest.param("4294967294", {"uid": 4294967294, "gid": 0}, id="largest number"),
    ],
)
def test_bundle_user_is_looked_up_in_the_image(user, expected):
    assert convert({"User": user})["process"]["user"] == expected


@pytest.mark.parametrize(
    "user",
    [
        pytest.param("nobody-here", id="unknown name"),
        pytest.param("app:nobody-here", id="unknown group"),
        pytest.param("big", id="number of the file too large"),
        pytest.param("text", id="number of the file no number"),
        pytest.param("4294967295", id="the number that means none"),
        pytest.param("4294967296", id="the number that would become root"),
        pytest.param("18446744073709551616", id="a longer number that would become root"),
        pytest.param("1" * 5000, id="very long number"),
        pytest.param("-1", id="negative"),
        pytest.param("+0", id="sign"),
        pytest.param("0x0", id="hex"),
        pytest.param("1_0", id="underscore"),
        pytest.param(" 0", id="space"),
        pytest.param("\u0660", id="zero of another script"),
        pytest.param("\u00b2", id="superscript two"),
        pytest.param("5:-1", id="negative group"),
        pytest.param("5:4294967296", id="group that would become root"),
        pytest.param("app:extra:more", id="three parts"),
    ],
)
def test_bundle_user_that_does_not_exist_refused(user):
    """Never root in its place, which is what a missing user becomes elsewhere."""
    with pytest.raises(
        FormatError, match=r"expected a (user|group) of the image's /etc/"
    ) as caught:
        raw({"User": user})
    assert caught.value.where == "$.config.User"
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("user", ["app", "app:extra"])
def test_bundle_user_by_name_in_an_image_without_accounts_refused(user):
    with pytest.raises(FormatError, match="expected a user"):
        raw({"User": user}, passwd=b"", group=b"")


def test_bundle_user_whose_group_is_no_number_refused():
    with pytest.raises(FormatError, match="expected a group"):
        raw({"User": "a"}, passwd=b"a:x:5:x::/:\n")


@pytest.mark.parametrize(
    "passwd",
    [
        pytest.param(b"x:x:5:5::/:\x0bapp:x:0:0::/:\napp:x:1000:7::/:\n", id="vertical tab"),
        pytest.param("x:x:5:5::/:\u2028app:x:0:0::/:\napp:x:1000:7::/:\n".encode(), id="separator"),
        pytest.param(b"x:x:5:5::/:\rapp:x:0:0::/:\napp:x:1000:7::/:\n", id="carriage return"),
        pytest.param(b"\xff\xfe:x:0:0::/:\napp:x:1000:7::/:\n", id="not UTF-8"),
    ],
)
def test_bundle_user_lines_end_where_the_c_library_ends_them(passwd):
    assert convert({"User": "app"}, passwd=passwd)["process"]["user"]["uid"] == 1000


def test_bundle_accounts_cut_by_the_bound_refused():
    """The last line could hold half a number: `app:x:1000` as `app:x:10`."""
    with pytest.raises(FormatError, match="expected less than 1048576 bytes"):
        raw({"User": "app"}, passwd=PASSWD + b"#" * 1024 * 1024)


def test_bundle_volumes_are_mounted_first_in_order():
    mounts = convert({"Volumes": {"/z": {}, "/a/b": {}}})["mounts"]
    assert [(one["destination"], one["type"]) for one in mounts[:3]] == [
        ("/a/b", "tmpfs"),
        ("/z", "tmpfs"),
        ("/proc", "proc"),
    ]
    assert mounts[0]["options"] == ["nosuid", "noexec", "nodev", "relatime", "rw"]
    assert mounts[0]["source"] == "tmpfs"


def test_bundle_labels_and_facts_become_annotations():
    annotations = convert(
        {
            "Labels": {"a": "b", "org.opencontainers.image.author": "label wins"},
            "StopSignal": "SIGINT",
            "ExposedPorts": {"80/tcp": {}, "443/tcp": {}},
        },
        author="member",
        created="2026-01-01T00:00:00Z",
        variant="v8",
        **{"os.version": "1"},
    )["annotations"]
    prefix = "org.opencontainers.image."
    assert annotations == {
        prefix + "os": "linux",
        prefix + "os.version": "1",
        prefix + "architecture": "amd64",
        prefix + "variant": "v8",
        prefix + "author": "label wins",
        prefix + "created": "2026-01-01T00:00:00Z",
        prefix + "stopSignal": "SIGINT",
        prefix + "exposedPorts": "443/tcp,80/tcp",
        "a": "b",
    }


@pytest.mark.parametrize(
    ("user", "home"),
    [
        ("", "/root"),
        ("app", "/home/app"),
        ("1000", "/home/app"),
        ("5", "/"),
        ("late", "/"),
    ],
)
def test_bundle_home_is_that_of_the_user_in_the_image(user, home):
    assert f"HOME={home}" in convert({"User": user, "Env": ["A=b"]})["process"]["env"]


def test_bundle_home_of_the_image_wins():
    environment = convert({"User": "app", "Env": ["HOME=/data"]})["process"]["env"]
    assert environment == ["HOME=/data"]


@pytest.mark.parametrize("home", ["", "home", "a\0b"])
def test_bundle_home_that_is_no_path_is_the_root(home):
    passwd = f"app:x:7:7::{home}:/bin/sh\n".encode()
    assert "HOME=/" in convert({"User": "app"}, passwd=passwd)["process"]["env"]


def test_bundle_home_of_an_ordinary_caller_is_that_of_root():
    environment = convert({"User": "app"}, owner=(NOBODY, NOBODY))["process"]["env"]
    assert "HOME=/root" in environment


OBEYED = [
    "run.oci.handler",
    "krun.use_passt",
    "module.wasm.image/variant",
    "org.systemd.property.DeviceAllow",
    "org.criu.config",
    "org.opencontainers.runc.exec.isolated-cpu-affinity-transition",
    "io.microsoft.virtualmachine.lcow.privileged",
    "com.urunc.unikernel.cmdline",
    "io.katacontainers.config.hypervisor.kernel_params",
    "dev.gvisor.flag.debug",
    "cdi.k8s.io/devices",
    "nvidia.cdi.k8s.io/gpu",
    "io.kubernetes.cri.container-type",
    "io.containerd.runc.options",
    "io.container.manager",
    "io.podman.annotations.privileged",
    "io.crio.something",
]


@pytest.mark.parametrize("name", OBEYED)
def test_bundle_label_that_runtimes_obey_is_left_out_and_told(name):
    config = {"labels": {name: "x"}, "Labels": {"org.example.run.oci.handler": "y"}}
    assert name not in convert(config)["annotations"]
    assert convert(config)["annotations"]["org.example.run.oci.handler"] == "y"
    assert labels_left_out(image(config)) == (name,)


def test_bundle_is_one_by_the_schema_of_the_runtime_spec():
    if not SCHEMA.exists():
        pytest.skip("golang-github-opencontainers-specs-dev is not installed")

    def retrieve(uri):
        contents = json.loads((SCHEMA / Path(uri).name).read_text())
        return Resource.from_contents(contents, default_specification=DRAFT4)

    schema = json.loads((SCHEMA / "config-schema.json").read_text())
    validator = Draft4Validator(schema, registry=Registry(retrieve=retrieve))
    config = {
        "Cmd": ["a"], "Env": ["A=b"], "User": "app", "WorkingDir": "/a", "Volumes": {"/data": {}},
        "Labels": {"a": "b"}, "StopSignal": "SIGINT", "ExposedPorts": {"80/tcp": {}},
    }  # fmt: skip
    for owner in ((0, 0), (NOBODY, NOBODY)):
        for document in (convert(owner=owner), convert(config, owner=owner)):
            assert list(validator.iter_errors(document)) == []
    assert list(validator.iter_errors(convert() | {"root": {"readonly": True}}))


# --- the frame


def test_bundle_frame_is_tight_and_does_not_come_from_the_image():
    hostile = {
        "Privileged": True,
        "Labels": {"io.kubernetes.cri.privileged": "true"},
        "HostConfig": {"Privileged": True},
        "linux": {"namespaces": []},
        "process": {"noNewPrivileges": False},
        "mounts": [{"destination": "/host", "source": "/"}],
    }
    plain, changed = convert(), convert(hostile)
    plain.pop("annotations")
    changed.pop("annotations")
    assert plain == changed
    process = plain["process"]
    assert process["noNewPrivileges"] is True
    assert process["terminal"] is False
    for kind in ("bounding", "effective", "inheritable", "permitted", "ambient"):
        assert process["capabilities"][kind] == [
            "CAP_AUDIT_WRITE",
            "CAP_KILL",
            "CAP_NET_BIND_SERVICE",
        ]
    assert plain["root"] == {"path": "rootfs", "readonly": True}
    assert {one["type"] for one in plain["linux"]["namespaces"]} == {
        "pid",
        "network",
        "ipc",
        "uts",
        "mount",
        "cgroup",
    }
    assert all("path" not in one for one in plain["linux"]["namespaces"])
    assert "/proc/kcore" in plain["linux"]["maskedPaths"]
    assert "/proc/sys" in plain["linux"]["readonlyPaths"]
    assert plain["linux"]["resources"] == {"devices": [{"allow": False, "access": "rwm"}]}
    assert all(one["type"] != "bind" for one in plain["mounts"])


@pytest.mark.parametrize("user", ["", "app", "1000:77"])
def test_bundle_of_an_ordinary_caller_is_root_in_a_user_namespace(user):
    document = convert({"User": user}, owner=(1234, 5678))
    assert {"type": "user"} in document["linux"]["namespaces"]
    assert document["linux"]["uidMappings"] == [{"containerID": 0, "hostID": 1234, "size": 1}]
    assert document["linux"]["gidMappings"] == [{"containerID": 0, "hostID": 5678, "size": 1}]
    assert document["process"]["user"] == {"uid": 0, "gid": 0}
    assert all(one["type"] != "cgroup" for one in document["mounts"])
    assert "gid=5" not in json.dumps(document["mounts"])
    assert document["linux"]["resources"] == {}


def test_bundle_of_an_ordinary_caller_with_an_unknown_user_refused_all_the_same():
    with pytest.raises(FormatError, match="expected a user"):
        raw({"User": "nobody-here"}, owner=(1234, 5678))


def test_bundle_of_root_has_no_user_namespace():
    document = convert()
    assert "uidMappings" not in document["linux"]
    assert {"type": "user"} not in document["linux"]["namespaces"]


def test_bundle_bytes_are_the_same_for_the_same_input():
    config = {"Volumes": {f"/{n}": {} for n in range(20)}, "Labels": {"b": "1", "a": "2"}}
    assert len({raw(config) for _ in range(5)}) == 1
    other = {"Volumes": {f"/{n}": {} for n in reversed(range(20))}, "Labels": config["Labels"]}
    assert raw(other) == raw(config)


# --- what is refused


@pytest.mark.parametrize(
    ("config", "where"),
    [
        ({"Entrypoint": "sh"}, "$.config.Entrypoint"),
        ({"Cmd": {}}, "$.config.Cmd"),
        ({"Cmd": ["a", 1]}, "$.config.Cmd[1]"),
        ({"Cmd": ["a\0b"]}, "$.config.Cmd[0]"),
        ({"Env": ["A=b", None]}, "$.config.Env[1]"),
        ({"Env": "A=b"}, "$.config.Env"),
        ({"Env": ["A=\0"]}, "$.config.Env[0]"),
        ({"WorkingDir": []}, "$.config.WorkingDir"),
        ({"WorkingDir": "relative"}, "$.config.WorkingDir"),
        ({"WorkingDir": "/a\0b"}, "$.config.WorkingDir"),
        ({"User": 0}, "$.config.User"),
        ({"Volumes": []}, "$.config.Volumes"),
        ({"Volumes": {"relative": {}}}, "$.config.Volumes"),
        ({"Volumes": {"": {}}}, "$.config.Volumes"),
        ({"Labels": {"a": 1}}, "$.config.Labels['a']"),
        ({"Labels": []}, "$.config.Labels"),
        ({"StopSignal": 9}, "$.config.StopSignal"),
        ({"ExposedPorts": ["80/tcp"]}, "$.config.ExposedPorts"),
    ],
)
def test_bundle_member_of_the_wrong_type_refused_with_its_place(config, where):
    with pytest.raises(FormatError) as caught:
        raw(config)
    assert caught.value.where == where
    assert caught.value.what == "config"


@pytest.mark.parametrize("member", ["author", "created", "os.version"])
def test_bundle_member_of_the_image_of_the_wrong_type_is_left_out(member):
    assert raw(**{member: 1}) == raw(**{member: None}) == raw()


def test_bundle_labels_in_two_spellings_are_added_up():
    labels = {"Labels": {"a": "1", "b": "2", "d": None}, "labels": {"b": "3"}, "LABELS": None}
    found = json.loads(raw(labels))["annotations"]
    assert {name: found[name] for name in "abd"} == {"a": "1", "b": "3", "d": ""}


@pytest.mark.parametrize(
    "member",
    [
        *("Cmd", "Entrypoint", "Env", "ExposedPorts"),
        *("StopSignal", "User", "Volumes", "WorkingDir"),
    ],
)
def test_bundle_second_spelling_of_what_runs_refused(member):
    """Engines in Go take either spelling, and of both the last one."""
    for config in ({member.lower(): None}, {member: None, member.upper(): None}):
        image = parse_config(json.dumps({"os": "linux", "config": config}).encode())
        with pytest.raises(FormatError, match=f"expected '{member}', got") as caught:
            check_runtime_config(image)
        assert caught.value.where == "$.config"


def test_bundle_image_for_another_system_unsupported():
    with pytest.raises(Unsupported, match="image is for 'windows': expected 'linux'"):
        raw(os="windows")


@given(
    st.dictionaries(
        st.sampled_from(["User", "Env", "Cmd", "Entrypoint", "WorkingDir", "Volumes", "Labels"]),
        st.recursive(
            st.none() | st.integers() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.text(max_size=5), inner, max_size=3)
            ),
            max_leaves=5,
        ),
    ),
    st.binary(max_size=60),
    st.binary(max_size=60),
)
def test_bundle_any_config_and_accounts_give_json_or_an_error_of_the_api(config, passwd, group):
    try:
        data = raw(config, passwd=passwd, group=group)
    except ImagersError:
        return
    assert json.loads(data)["ociVersion"] == "1.0.2"


# --- a real runtime

# The smallest thing that runc must be able to run here; nothing of ours in it.
KNOWN = {
    "ociVersion": "1.0.2",
    "root": {"path": "rootfs", "readonly": True},
    "process": {"user": {"uid": 0, "gid": 0}, "args": ["/bin/busybox", "true"], "cwd": "/"},
    "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
    "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}]},
}


def run_bundle(folder, state, user=None):
    """The finished `runc run` of a bundle, as root or as another user."""
    command = [
        "runc",
        "--root",
        str(state),
        "run",
        "--bundle",
        str(folder),
        f"imagers-{uuid.uuid4()}",
    ]
    if user is not None:
        identity = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
        command = [*identity, *command]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "XDG_RUNTIME_DIR": str(state)},
    )


def busybox():
    """A statically linked busybox of this machine."""
    path = shutil.which("busybox")
    if path is None:
        pytest.skip("there is no busybox")
    if b"\x7fELF" in Path(path).read_bytes()[:4] and shutil.which("ldd"):
        linked = subprocess.run(["ldd", path], capture_output=True, text=True, check=False)
        if linked.returncode == 0 and "statically" not in linked.stdout:
            pytest.skip("busybox is not statically linked")
    return path


@pytest.fixture
def runtime(tmp_path):
    """Makes bundles in `tmp_path`, where runc can run the trivial one as the same user."""
    if shutil.which("runc") is None:
        pytest.skip("runc is not installed")
    if os.geteuid() != 0:
        pytest.skip("needs to be root")
    program = busybox()

    def make(name, config, user=None):
        folder = tmp_path / name
        (folder / "rootfs" / "bin").mkdir(parents=True)
        (folder / "rootfs" / "etc").mkdir()
        shutil.copy2(program, folder / "rootfs" / "bin" / "busybox")
        (folder / "config.json").write_bytes(config)
        state = tmp_path / f"{name}-state"
        state.mkdir()
        if user is not None:
            for path in [folder, state, *folder.rglob("*")]:
                os.chown(path, user, user)
            for parent in tmp_path.parents:
                if parent.stat().st_uid == 0 and parent != Path("/"):
                    parent.chmod(parent.stat().st_mode | 0o011)
            tmp_path.chmod(0o711)
        return folder, state

    return make


def run_or_skip(runtime, config, user=None):
    """The run of a bundle of ours; skipped where runc cannot even run the trivial one."""
    result = run_bundle(*runtime("ours", config, user), user)
    if result.returncode != 0:
        known = dict(KNOWN)
        if user is not None:
            mapping = [{"containerID": 0, "hostID": user, "size": 1}]
            known["linux"] = {
                "namespaces": [*KNOWN["linux"]["namespaces"], {"type": "user"}],
                "uidMappings": mapping,
                "gidMappings": mapping,
            }
        trivial = run_bundle(*runtime("known", json.dumps(known).encode(), user), user)
        if trivial.returncode != 0:
            pytest.skip(f"runc runs nothing here: {trivial.stderr.strip()[-300:]}")
    assert result.returncode == 0, result.stderr
    return result.stdout


SHOW = "busybox id; busybox pwd; echo $A; busybox touch /x || echo read-only; busybox df /data"


@pytest.mark.root
@pytest.mark.parametrize(
    ("user", "shown"),
    [("", "uid=0 gid=0"), ("app", "uid=1000 gid=1001 groups=77,78,100"), ("5:6", "uid=5 gid=6")],
)
def test_bundle_of_root_runs_with_runc(runtime, user, shown):
    config = raw(
        {
            "Entrypoint": ["/bin/busybox", "sh", "-c"],
            "Cmd": [SHOW],
            "Env": ["PATH=/bin", "A=from the image"],
            "User": user,
            "WorkingDir": "/etc",
            "Volumes": {"/data": {}},
        }
    )
    lines = run_or_skip(runtime, config).splitlines()
    assert lines[:4] == [shown, "/etc", "from the image", "read-only"]
    assert lines[-1].startswith("tmpfs")


@pytest.mark.root
@pytest.mark.parametrize("user", ["", "app"])
def test_bundle_of_an_ordinary_caller_runs_with_runc(runtime, user):
    config = raw({"Cmd": ["/bin/busybox", "id"], "User": user}, owner=(NOBODY, NOBODY))
    assert run_or_skip(runtime, config, NOBODY) == "uid=0 gid=0\n"
