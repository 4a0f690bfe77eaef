# SPDX-License-Identifier: Apache-2.0
"""How key providers are found and spoken to.

    config    the ocicrypt key-provider configuration, as values
    messages  the JSON that providers read and write
    program   a provider that is started for each question
    remote    a provider that listens on gRPC

Programs are started only here. Each is given its own parameters and nothing of others.
"""
