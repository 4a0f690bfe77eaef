"""Recipients whose keys other programs hold: key providers, and the user's gpg.

    config    the ocicrypt key-provider configuration, as values
    messages  the JSON that providers read and write
    program   a provider that is started for each question
    remote    a provider that listens on gRPC
    provider  wrapper and unwrapper over either
    pgp       OpenPGP recipients and secret keyrings, by gpg in a home of its own

Programs are started only here. Each is given its own parameters and nothing of others.
"""
