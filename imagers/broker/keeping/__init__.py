# SPDX-License-Identifier: Apache-2.0
"""What the broker keeps: nothing that matters is in memory.

    rows         the values that go in and come out
    tables       the schema
    head         what all rows that releases are judged by are, in one MAC
    sealed       reads and writes of such rows
    transaction  reads and writes that happen together
    store        connections, and the one writer with its group commit
    database     what a kind of database has to tell the store
    sqlite       one file, the default
    postgresql   a server, for many brokers; needs the extra `postgresql`

This package imports none of its modules.
"""
