"""What a build pipeline does with an image, each a whole use case.

encrypt      encrypt, rekey, other recipients, decrypt: one image, or all of an index
broker_key   the life of an image's key-encryption key at a broker
sign         sign an image in every form
"""
