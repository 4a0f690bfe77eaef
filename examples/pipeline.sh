#!/usr/bin/env bash
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
reference=${destination#docker://}
repository=${reference%:*}

mkdir -p "$keys"
[ -e "$keys/passphrase.txt" ] || head -c 24 /dev/urandom | base64 >"$keys/passphrase.txt"
[ -e "$keys/recipient.key" ] || imagers key generate rsa --output "$keys/recipient"
[ -e "$keys/signer.key" ] ||
    imagers key generate cosign --output "$keys/signer" --passphrase-file "$keys/passphrase.txt"

imagers encrypt "$image" "$destination" --encryption-key "jwe:$keys/recipient.pub" |
    tee "$keys/encrypt.log"
# What was encrypted is signed, and not what a registry shows under the tag meanwhile.
digest=$(sed -n 's/^manifest //p' "$keys/encrypt.log")
imagers sign "$destination" --sign-by-sigstore-private-key "$keys/signer.key" \
    --passphrase-file "$keys/passphrase.txt" --expected-digest "$digest"
imagers inspect "$destination"

cat >"$keys/policy.json" <<POLICY
{
  "default": [{"type": "reject"}],
  "transports": {
    "docker": {
      "$repository": [
        {"type": "sigstoreSigned", "keyPath": "$(realpath "$keys")/signer.pub"}
      ]
    }
  }
}
POLICY
