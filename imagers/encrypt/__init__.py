"""Layer encryption: image in, image out; layer ciphers, key packets, recipients.

Which module holds what:

    image        encrypt_image, decrypt_image, unwrap_layer_keys: the work on whole images
    annotations  what encryption writes beside a layer, and reads back
    options      the two JSON documents inside: public and private options
    jwe          recipients with an RSA or EC key (`jwe:FILE`)
    packets      recipients with a key at a broker: the Confidential Containers packet
    recipients   the texts of `--encryption-key` and `--decryption-key`
    keyfiles     RSA and EC keys in files
    describe     for whom a layer is encrypted, without any key

Callers import the modules: what this package needs of `cryptography` is loaded when one of
them is first used.
"""
