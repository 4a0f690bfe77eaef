# SPDX-License-Identifier: Apache-2.0
"""What somebody meant who typed a word that is none here: that of a peer, or one misspelt.

The tables are what users of skopeo, cosign, podman, docker and notation type, with our way of
doing it. A text in quotes, such as 'imagers sign', is a command; an option outside of quotes is
one of the verb that was typed. A wrong answer is worse than none: what is only alike must be very
much alike.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["ANSWERS", "BELOW", "RENAMED", "WORDS", "option", "word"]

_ALIKE = 0.8  # "--registry-storage" is 0.77 like "--registry-ca"
_BEGINNING = 3  # letters of a word that stand for it: "gen", "insp"

WORDS: dict[str, str] = {
    "push": "what is written to docker:// is pushed: 'imagers copy SRC docker://HOST/NAME:TAG', "
    "or 'imagers encrypt' to encrypt it on the way",
    "cp": "'imagers copy SRC DST'",
    "sync": "one tag at a time, of 'imagers list-tags REPOSITORY': 'imagers copy --all SRC DST'",
    "save": "'imagers copy docker://HOST/NAME:TAG oci-archive:FILE'",
    "load": "'imagers copy oci-archive:FILE docker://HOST/NAME:TAG'",
    "export": "'imagers copy docker://HOST/NAME:TAG oci-archive:FILE'",
    "download": "'imagers inspect --referrers REF' lists signatures, SBOMs and attestations, and "
    "'imagers copy --with-referrers' takes them along",
    "run": "'imagers pull REF BUNDLE' makes what 'runc run' starts",
    "manifest-digest": "'imagers inspect --json REF' has it as digest",
    "manifest": "'imagers inspect --raw REF'",
    "config": "'imagers inspect --config REF'",
    "history": "'imagers inspect REF'",
    "info": "'imagers inspect REF'",
    "version": "'imagers --version'",
    "standalone-sign": "'imagers sign REF', which puts it where others look for it",
    "standalone-verify": "'imagers verify REF --policy FILE'",
    "sign-blob": "only images are signed: 'imagers sign REF'",
    "verify-blob": "only images are verified: 'imagers verify REF --policy FILE'",
    "attach": "SBOMs and attestations are attached by cosign or oras; "
    "'imagers copy --with-referrers' takes them along",
    "verify-attestation": "'imagers verify' looks at signatures; attestations are listed by "
    "'imagers inspect --referrers REF' and verified by cosign",
    "tree": "'imagers inspect --referrers REF'",
    "triangulate": "'imagers inspect --referrers REF' shows where signatures are",
    "discover": "'imagers inspect --referrers REF'",
    "list": "tags are listed by 'imagers list-tags REPOSITORY', signatures by "
    "'imagers inspect --referrers REF'",
    "ls": "tags are listed by 'imagers list-tags REPOSITORY', signatures by "
    "'imagers inspect --referrers REF'",
    "tags": "'imagers list-tags REPOSITORY'",
    "rm": "'imagers delete REF'",
    "remove": "'imagers delete REF'",
    "untag": "'imagers delete REF'",
    "clean": "'imagers copy SRC DST' leaves signatures behind; 'imagers delete REF' deletes one "
    "that 'imagers inspect --referrers REF' lists",
    "generate-key-pair": "'imagers key generate cosign --output NAME'",
    "generate": "'imagers key generate'",
    "import-key-pair": "cosign imports keys, and 'imagers sign' takes what it makes; "
    "'imagers key generate cosign' makes new ones",
    "public-key": "'imagers key show --public FILE'",
    "initialize": "trust is in files that the policy names: 'imagers policy init' writes one",
    "trust": "'imagers policy check' shows the policy in force, 'imagers policy init' writes one",
    "image": "'imagers policy check' and 'imagers policy init' are image trust; "
    "'imagers copy', 'imagers inspect' and the others need no word before",
    "certificate": "a policy names certificates: docs/policy.md has its notation part",
    "cert": "a policy names certificates: docs/policy.md has its notation part",
    "images": "no images are kept here; 'imagers list-tags REPOSITORY' lists those of a registry",
    "rmi": "no images are kept here; 'imagers delete REF' deletes one in a registry",
    "tag": "'imagers copy HOST/NAME:TAG HOST/NAME:OTHER' sends no blob again",
    "build": "buildah or docker builds; 'imagers encrypt SRC DST' takes the result",
    "unpack": "'imagers pull REF BUNDLE'",
    "encryption": "'imagers encrypt SRC DST --encryption-key RECIPIENT'",
    "kbs": "'imagers broker'",
    "serve": "'imagers broker serve'",
    "lint": "'imagers policy check'",
}
"""A verb of somebody, and what it is here."""

_NO_KEY_STORE = "keys are files, which options and policies name; 'imagers key show FILE' reads one"

BELOW: dict[str, dict[str, str]] = {
    "policy": {
        "show": "'imagers policy check' says what is in it; it is a file for people to read",
        "set": "policy.json is a file to edit; 'imagers policy init' writes a new one",
        "add": "policy.json is a file to edit; 'imagers policy init' takes several --key",
        "import": "policy.json is a file: --policy names another one",
    },
    "key": {
        "add": _NO_KEY_STORE,
        "list": _NO_KEY_STORE,
        "ls": _NO_KEY_STORE,
        "import": _NO_KEY_STORE,
        "delete": _NO_KEY_STORE,
        "export": "'imagers key show --public FILE'",
        "create": "'imagers key generate'",
    },
    "broker": {
        "start": "'imagers broker serve'",
        "run": "'imagers broker serve'",
        "show": "'imagers broker get URI'",
        "log": "'imagers broker audit'",
        "logs": "'imagers broker audit'",
        "ls": "'imagers broker list'",
        "rm": "'imagers broker delete URI'",
        "revoke": "'imagers broker delete URI' for good; a rule that denies, for now: "
        "'imagers broker policy set FILE'",
        "add": "'imagers broker put URI FILE'",
        "set": "'imagers broker put URI FILE'",
    },
}
"""The same for words below a verb of ours."""

RENAMED: dict[str, tuple[str, ...]] = {
    "-a": ("--all",),
    "--image-parallel-copies": ("--jobs",),
    "--username": ("--creds USER:PASSWORD",),
    "--password": ("--creds USER:PASSWORD",),
    "--src-username": ("--src-creds USER:PASSWORD", "--creds USER:PASSWORD"),
    "--src-password": ("--src-creds USER:PASSWORD", "--creds USER:PASSWORD"),
    "--dest-username": ("--dest-creds USER:PASSWORD", "--creds USER:PASSWORD"),
    "--dest-password": ("--dest-creds USER:PASSWORD", "--creds USER:PASSWORD"),
    "--registry-username": ("--creds USER:PASSWORD",),
    "--registry-password": ("--creds USER:PASSWORD",),
    "--src-daemon-host": ("--daemon-host",),
    "--dest-daemon-host": ("--daemon-host",),
    "--src-cert-dir": ("--cert-dir",),
    "--dest-cert-dir": ("--cert-dir",),
    "--src-authfile": ("--authfile",),
    "--dest-authfile": ("--authfile",),
    "--compat-auth-file": ("--authfile",),
    "--override-os": ("--platform OS/ARCH",),
    "--override-arch": ("--platform OS/ARCH",),
    "--override-variant": ("--platform OS/ARCH/VARIANT",),
    "--os": ("--platform OS/ARCH",),
    "--arch": ("--platform OS/ARCH",),
    "--variant": ("--platform OS/ARCH/VARIANT",),
    "--allow-insecure-registry": ("--tls-verify=false",),
    "--allow-http-registry": ("--tls-verify=false",),
    "--insecure-registry": ("--tls-verify=false",),
    "--insecure": ("--tls-verify=false",),
    "--plain-http": ("--tls-verify=false",),
    "--ca": ("--registry-ca", "--broker-ca"),
    "--cacert": ("--registry-ca", "--broker-ca"),
    "--ca-file": ("--registry-ca", "--broker-ca"),
    "--registry-cacert": ("--registry-ca",),
    "--cert-file": ("--registry-ca", "--broker-ca"),
    "--registry-client-cert": ("--cert-dir DIR, with NAME.cert and NAME.key in it",),
    "--registry-client-key": ("--cert-dir DIR, with NAME.cert and NAME.key in it",),
    "--sign-passphrase-file": ("--passphrase-file",),
    "--sign-identity": ("--identity",),
    "--output-key-prefix": ("--output",),
    "--format": ("--json",),
    "-f": ("--json",),
    "-o": ("--output", "--json"),
    "--layer": ("--encrypt-layer",),
    "--layers": ("--encrypt-layer",),
    "--all-platforms": ("--all",),
    "--sign-container-identity": ("--identity",),
    "--key": ("--encryption-key jwe:FILE", "--decryption-key"),
    "--recipient": ("--encryption-key",),
    "--command-timeout": ("--timeout 5m",),
    "-t": ("--timeout 5m",),
    "--kbs-url": ("--broker",),
    "--kbs-cert": ("--broker-ca",),
    "--url": ("--broker",),
    "-d": ("--verbose",),
    "-k": ("--tls-verify=false",),
}
"""An option of somebody, and the option here: the first that the verb has."""

_IMAGES = "copy encrypt decrypt sign verify inspect pull list-tags delete"
_UNLIMITED = "copy encrypt decrypt sign verify inspect list-tags delete login"
_TWO = "copy encrypt decrypt"
_ASKS = "copy encrypt verify pull"
_RETRIED = "a request that fails for a moment is tried again, four times in all; -v shows it"
_COMPRESSION = "layers keep their compression; skopeo copy changes it, before they are encrypted"
_BEARER = 'put it into an auth file as "registrytoken", and name that with --authfile'
_ANONYMOUS = "--authfile /dev/null asks without a login"
_TIMEOUT = "timeout(1) bounds a command; a server may be silent for 30 s"
_KEYLESS = "signing without a key of one's own is done by cosign; 'imagers verify' checks it"
_FILES = "signatures go into the registry, and into no file"
_FILE_KEYS = "keys are in files, or those of gpg: --sign-by"
_STAMPS = "no time stamp is asked for; where a policy wants one, it is checked"
_AFTERWARDS = "'imagers sign' signs afterwards"
_ONE_STORE = "a layout has its blobs in itself"
_ACCEPTING = (
    'a policy that says so, named with --policy: {"default":[{"type":"insecureAcceptAnything"}]}'
)
_JQ = "--json, and jq for a part of it"
_NO_LOG = "without it: a log is asked for with identities, or where a policy names its key"
_ITSELF = "found without it: signatures are looked for in each form, with what belongs to them"
_ROOTS = "--trusted-root names a file with these, a policy has more: docs/policy.md"
_ONE_IMAGE = "one image at a time, of one tag"
_FRESH = "a bundle is never overwritten: remove it, or name another path"
_POLICY = "a policy says so: 'imagers policy init --scope SCOPE --key FILE', then --policy FILE"
_IN_SIGHT = (
    "--password-stdin or --password-file; every user of the machine can read the words of a command"
)
_NOTES = "nothing is signed but digest and name"
_CERTIFICATES = "a policy says which certificates count: docs/policy.md"

ANSWERS: dict[str, tuple[tuple[str, str], ...]] = {
    "-a": (
        ("sign", _NOTES),
        ("verify", "no annotation of a signature is demanded"),
        ("logout", "name the registries, one after the other"),
    ),
    "--annotations": (("sign", _NOTES), ("verify", "no annotation of a signature is demanded")),
    "--all": (("logout", "name the registries, one after the other"),),
    "--multi-arch": ((_TWO, "--all takes all images of an index, --platform one"),),
    "--registry-token": ((_IMAGES, _BEARER),),
    "--src-registry-token": ((_IMAGES, _BEARER),),
    "--dest-registry-token": ((_IMAGES, _BEARER),),
    "--no-creds": ((_IMAGES, _ANONYMOUS),),
    "--src-no-creds": ((_IMAGES, _ANONYMOUS),),
    "--dest-no-creds": ((_IMAGES, _ANONYMOUS),),
    "--src-shared-blob-dir": ((_TWO, _ONE_STORE),),
    "--dest-shared-blob-dir": ((_TWO, _ONE_STORE),),
    "--shared-blob-dir": ((_IMAGES, _ONE_STORE),),
    "--dest-compress": ((_TWO, _COMPRESSION),),
    "--dest-compress-format": ((_TWO, _COMPRESSION),),
    "--dest-compress-level": ((_TWO, _COMPRESSION),),
    "--dest-decompress": ((_TWO, _COMPRESSION),),
    "--dest-force-compress-format": ((_TWO, _COMPRESSION),),
    "--dest-oci-accept-uncompressed-layers": ((_TWO, _COMPRESSION),),
    "--dest-precompute-digests": ((_TWO, "no blob is sent without its digest"),),
    "--preserve-digests": (("copy", "bytes and digests stay as they are"),),
    "--additional-tag": (
        (_TWO, "'imagers copy' to the other tag; blobs that are there are not sent again"),
    ),
    "--format": (
        ("copy", "bytes stay as they are; 'imagers encrypt' turns Docker's manifests into OCI's"),
        ("encrypt decrypt", "an encrypted image is OCI's"),
        ("inspect", _JQ),
    ),
    "-f": (
        ("inspect", _JQ),
        ("copy", "bytes stay as they are; 'imagers encrypt' turns Docker's manifests into OCI's"),
    ),
    "--retry-times": (("", _RETRIED),),
    "--retry-delay": (("", _RETRIED),),
    "--remove-signatures": (
        ("copy", "they stay behind, unless --with-referrers takes them along"),
        ("encrypt decrypt", "the result is another image, and has none: sign it afterwards"),
    ),
    "--sign-by": ((_TWO, _AFTERWARDS),),
    "--sign-by-sigstore-private-key": ((_TWO, _AFTERWARDS),),
    "--sign-passphrase-file": ((_TWO, _AFTERWARDS),),
    "--sign-identity": ((_TWO, _AFTERWARDS),),
    "--sign-by-sigstore": (
        (_TWO, _AFTERWARDS),
        ("sign", "there are no parameter files: --sign-by-sigstore-private-key names the key"),
    ),
    "--sign-by-sq-fingerprint": (
        (_TWO, _AFTERWARDS),
        ("sign", "no keys of Sequoia are used: --sign-by takes one of gpg"),
    ),
    "--encryption-key": (
        ("copy pull", "'imagers encrypt SRC DST --encryption-key RECIPIENT'"),
        ("decrypt", "--decryption-key is what opens an image"),
    ),
    "--encrypt-layer": (("copy", "'imagers encrypt SRC DST --encrypt-layer N'"),),
    "--decryption-key": (("copy", "'imagers decrypt SRC DST --decryption-key KEY'"),),
    "--insecure-policy": (
        (
            _ASKS,
            _ACCEPTING,
        ),
        ("decrypt inspect sign", "no policy is asked here"),
    ),
    "--signature-policy": ((_ASKS, "--policy FILE"),),
    "--registries-conf": (("", "the variable CONTAINERS_REGISTRIES_CONF names another file"),),
    "--tmpdir": (("", "the variable TMPDIR says where blobs wait"),),
    "--root": (("", "no images are kept here: there is no root"),),
    "--command-timeout": ((_UNLIMITED, _TIMEOUT),),
    "--timeout": ((_UNLIMITED, _TIMEOUT),),
    "-t": ((_UNLIMITED, _TIMEOUT),),
    "--user-agent-prefix": (("", "requests say imagers and its version, and nothing else"),),
    "--no-tags": (("inspect", "no tags are listed"),),
    "-n": (("inspect", "no tags are listed"),),
    "-p": (("login", _IN_SIGHT),),
    "--password": (("login", _IN_SIGHT),),
    "--get-login": (("login", "the auth file has it; podman login has this option, and shows it"),),
    "--identity-token": (("sign", _KEYLESS),),
    "--oidc-issuer": (("sign", _KEYLESS),),
    "--oidc-client-id": (("sign", _KEYLESS),),
    "--oidc-provider": (("sign", _KEYLESS),),
    "--fulcio-url": (("sign", _KEYLESS),),
    "--rekor-url": (
        ("sign", _KEYLESS),
        ("verify", "logs are not asked: what they said is in the signature, and is checked"),
    ),
    "--signing-config": (("sign", _KEYLESS),),
    "--use-signing-config": (("sign", _KEYLESS),),
    "--tlog-upload": (("sign", "nothing is written to a log"),),
    "--timestamp-server-url": (("sign", _STAMPS),),
    "--timestamp-url": (("sign", _STAMPS),),
    "--timestamp-root-cert": (("sign", _STAMPS),),
    "--sk": (("sign", _FILE_KEYS), ("verify", _CERTIFICATES)),
    "--slot": (("sign", _FILE_KEYS),),
    "--plugin": (("sign", _FILE_KEYS),),
    "--plugin-config": (("sign", _FILE_KEYS),),
    "--id": (("sign", _FILE_KEYS),),
    "--recursive": (("sign", "all images of an index are signed, and the index"),),
    "-r": (("sign", "all images of an index are signed, and the index"),),
    "--upload": (("sign", _FILES),),
    "--payload": (("sign", _FILES),),
    "--output-signature": (("sign", _FILES),),
    "--output-certificate": (("sign", _FILES),),
    "--output-payload": (("sign", _FILES),),
    "--bundle": (("sign", "--new-bundle-format makes one, in the registry"),),
    "--output": (("sign", _FILES), ("inspect verify", "--json")),
    "--certificate": (
        ("sign", "--certificate-chain begins with it"),
        ("verify", _CERTIFICATES),
    ),
    "--certificate-chain": (("verify", _CERTIFICATES),),
    "--certificate-oidc-issuer-regexp": (("verify", "an issuer is one URL, named in full"),),
    "--certificate-github-workflow-name": (("verify", _CERTIFICATES),),
    "--certificate-github-workflow-ref": (("verify", _CERTIFICATES),),
    "--certificate-github-workflow-repository": (("verify", _CERTIFICATES),),
    "--certificate-github-workflow-sha": (("verify", _CERTIFICATES),),
    "--certificate-github-workflow-trigger": (("verify", _CERTIFICATES),),
    "--insecure-ignore-tlog": (("verify", _NO_LOG),),
    "--private-infrastructure": (("verify", _NO_LOG),),
    "--insecure-ignore-sct": (("verify", _ROOTS),),
    "--ca-roots": (("verify", _ROOTS),),
    "--ca-intermediates": (("verify", _ROOTS),),
    "--timestamp-certificate-chain": (("verify", _ROOTS),),
    "--use-signed-timestamps": (("verify", _ROOTS),),
    "--signature": (("verify", _ITSELF),),
    "--new-bundle-format": (("verify", _ITSELF),),
    "--key": (("pull", _POLICY), ("inspect", "'imagers verify REF --key FILE'")),
    "--certificate-identity": (("pull", "a policy says so: docs/policy.md, fulcio"),),
    "--certificate-oidc-issuer": (("pull", "a policy says so: docs/policy.md, fulcio"),),
    "--no-verify": (("pull", _ACCEPTING),),
    "--disable-content-trust": (("pull", _ACCEPTING),),
    "--all-tags": (("copy pull", _ONE_IMAGE),),
    "--force": (("pull", _FRESH),),
    "--overwrite": (("pull", _FRESH),),
    "--rootfs": (("pull", "the root file system is rootfs in BUNDLE"),),
    "--manifest-digest": (("inspect", "--json has it as digest"),),
    "--tree": (("inspect", "--referrers"),),
    "--offline": (("verify", "it is: nothing is asked but the registry of the image"),),
    "--check-claims": (("verify", "digest and name are always checked"),),
    "--local-image": (
        ("sign", "signatures are kept in registries"),
        ("verify", "signatures are looked for in registries"),
    ),
    "--attachment": (("sign verify", "an SBOM in a registry has a digest: name that"),),
    "--yes": (("", "nothing is asked before it is done"),),
    "-y": (("", "nothing is asked before it is done"),),
    "--k8s-keychain": (("", "auth files and credential helpers are found by themselves"),),
    "--signature-algorithm": (("sign", "the key says it"),),
    "--signing-algorithm": (("key", "the kind says it: cosign is ECDSA P-256 with SHA-256"),),
    "--expiry": (("sign", "a signature does not expire: take the key out of the policies"),),
    "-e": (("sign", "a signature does not expire: take the key out of the policies"),),
    "--user-metadata": (("sign", _NOTES),),
    "-m": (("sign", _NOTES),),
    "--kms": (("key sign", "keys are in files"),),
}
"""An option of somebody, and what there is to know: verbs ("" for all), and the text."""


def word(name: str, context: click.Context) -> str:
    """What a verb, or a word below one, is here; "" where nobody knows.

    Args:
        context: of the group that has no such word.
    """
    group = context.command
    assert isinstance(group, click.Group)
    words = group.list_commands(context)
    known = WORDS if context.parent is None else BELOW.get(context.info_name or "", {})
    if context.parent is not None and context.parent.parent is not None:
        known = {}  # "broker policy" is not "policy"
    if name in known and name not in words:
        return known[name]
    return _did_you_mean(
        get_close_matches(name, words, 2, _ALIKE)
        or [one for one in words if sorted(one) == sorted(name)]  # "sgin" is 0.75 like "sign"
        or [one for one in words if len(name) >= _BEGINNING and one.startswith(name)]
    )


def option(name: str, context: click.Context) -> str:
    """What an option is here; "" where nobody knows.

    Args:
        context: of the command that has no such option.
    """
    verb = [*context.command_path.split()[1:], ""][0]
    for verbs, text in ANSWERS.get(name, ()):
        if verb and (not verbs or verb in verbs.split()):
            return text
    options = [one for p in context.command.get_params(context) for one in p.opts if one[0] == "-"]
    for renamed in RENAMED.get(name, ()):
        if re.split(r"[= ,]", renamed)[0] in options:
            return _did_you_mean([renamed])
    return _did_you_mean(get_close_matches(name, options, 2, _ALIKE))


def _did_you_mean(words: Iterable[str]) -> str:
    text = " or ".join(words)
    return f"did you mean {text}?" if text else ""
