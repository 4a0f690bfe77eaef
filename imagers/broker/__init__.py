# SPDX-License-Identifier: Apache-2.0
"""The key broker: gives secrets to guests that proved what they are. One process, no set-up.

What listens:

    server     serve and run: what a caller starts
    http1, tls, places   requests, certificates, and who has to go when too many are connected
    app        HTTP to calls and back; `openapi` says what there is
    ui         pages for people
    metrics, readiness   for those who watch it

Guests:

    handshake  challenge and evidence; `challenges`: nonces and cookies nobody has to remember
    tokens     what an attested guest carries; `passports`: those of other verifiers
    releases   secrets, released to guests
    rules, policy   what releases are judged by, and how

Admins:

    admins     who administrates, and what of it; `adminkeys`, `tenants`
    resources, images, references   what they keep; `trustee_admin`: the same in Trustee's words

What is kept:

    state      what one broker consists of, and its start; `unsealing`: the part about keys
    keeping    the store: SQLite, or PostgreSQL for many brokers; which rows are believed
    sealing    encryption of what is kept; `rotation`: with another key
    headfile, backup     the number outside of the store; copies, and the way back
    audit      the log that only grows; `audit_heads`, `audit_check`: what proves that it did
    clock      the time that sessions are judged by
    keyfiles   files that only their owner may read
    loglines   the other log, which must not grow without bound
    refusals   every "no" of the protocol, with its status

Needs the extra `broker`. This package imports none of its modules.
"""
