# SPDX-License-Identifier: Apache-2.0
"""Collateral: the documents that verifiers need beside evidence.

directory   documents by name, which can be carried; who knows them
fetch       each from the first source that has a good one
carry       in a tar, from a tar, from what other tools have
"""
