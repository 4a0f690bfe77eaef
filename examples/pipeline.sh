#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A build pipeline: encrypt an image for a recipient's key, push it, sign it, show it.
#
#   examples/pipeline.sh IMAGE DESTINATION KEYS
#   examples/pipeline.sh oci:app:v1 docker://registry.example.org/app:v1 keys
#
# KEYS is a directory. What is missing there is made: recipient.key (for the guest),
# signer.key with passphrase.txt (stays here), and policy.json (for the guest), which
# accepts images of this repository signed by this key and nothing else.
set -euo pipefail
umask 077
image=$1 destination=$2 keys=$3
# A tag comes after the last slash; what has a colon before it is a port.
repository=${destination#docker://}
repository=${repository%@*}
name=${repository##*/}
repository=${repository%"$name"}${name%%:*}

mkdir -p "$keys"
[ -e "$keys/passphrase.txt" ] || head -c 24 /dev/urandom | base64 >"$keys/passphrase.txt"
[ -e "$keys/recipient.key" ] || imagers key generate rsa --output "$keys/recipient"
[ -e "$keys/signer.key" ] ||
    imagers key generate cosign --output "$keys/signer" --passphrase-file "$keys/passphrase.txt"
[ -e "$keys/policy.json" ] ||
    imagers policy init --scope "$repository" --key "$keys/signer.pub" \
        --output "$keys/policy.json"

imagers encrypt "$image" "$destination" --encryption-key "jwe:$keys/recipient.pub" \
    --digestfile "$keys/digest.txt"
# What was encrypted is signed, and not what a registry shows under the tag meanwhile.
imagers sign "$destination" --key "$keys/signer.key" \
    --passphrase-file "$keys/passphrase.txt" --expected-digest "$(<"$keys/digest.txt")"
imagers inspect "$destination"
