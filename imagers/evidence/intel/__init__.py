# SPDX-License-Identifier: Apache-2.0
"""What evidence of Intel's TDX and SGX has in common: quotes, certificates, Intel's documents.

quote         the bytes of a quote
certificates  Intel's chains, lists of revoked certificates, and what a machine's certificate says
collateral    names of Intel's documents, where they are to be had, and the forms they come in
documents     TCB info and QE identity, once their signature was verified
engine        the steps that both TEEs share
roots         Intel's root

Nothing is imported here.
"""
