# SPDX-License-Identifier: Apache-2.0
"""Evidence of Intel SGX: the quote of an enclave, by DCAP.

verify     whether it is genuine, and what it says
collect    it, in the enclave

Nothing is imported here.
"""
