# SPDX-License-Identifier: Apache-2.0
"""Kinds of recipients, one module each.

jwe        an RSA or EC key (`jwe:FILE`)
pkcs7      a certificate (`pkcs7:FILE`)
pkcs11     an RSA key, perhaps on a token (`pkcs11:FILE`)
pgp        an OpenPGP key of the user's gpg (`pgp:NAME`)
provider   a key that another program holds (`provider:NAME`)
broker     a key at a key broker (`broker:URI`): the packet of Confidential Containers
"""
