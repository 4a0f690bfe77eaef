# SPDX-License-Identifier: Apache-2.0
"""Policies in Rego: read here, judged in processes of their own.

    defaults   the texts that come with the broker
    tokens     the words of a text
    scan       a policy's text before any engine sees it
    names      whether each name in it stands for something
    engine     the broker's side: workers, their limits, what their answers mean
    worker     the other side: the engine, in a process that may die

This package imports none of its modules; only `worker` loads an engine.
"""
