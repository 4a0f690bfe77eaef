# SPDX-License-Identifier: Apache-2.0
"""The key broker: gives secrets to guests that proved what they are. One process, no set-up.

    server     serve and run: what a caller starts
    app        HTTP to calls and back
    state      what one broker consists of, and its start
    places     who has to go when too many are connected
    handshake  challenge and evidence
    challenges nonces and cookies that nobody has to remember
    clock      the time that sessions are judged by
    releases   secrets, released to guests
    rules      what releases are judged by
    resources  secrets and policies, kept by admins
    policy     who gets a secret
    tokens     what an attested guest carries; what an admin shows
    audit      the log that only grows
    loglines   the other log, which must not grow without bound
    keeping    what is kept: SQLite, or PostgreSQL for many brokers
    sealing    encryption of what is kept
    keyfiles   files that only their owner may read
    refusals   every "no" of the protocol, with its status

Needs the extra `broker`. This package imports none of its modules.
"""
