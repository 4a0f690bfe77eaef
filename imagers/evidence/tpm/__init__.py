# SPDX-License-Identifier: Apache-2.0
"""Evidence of a TPM 2.0: a quote of its registers (PCRs) by an attestation key (AK).

verify       whether a quote is genuine, and what it says
quote        the checks that quotes of vTPMs share with it
log          the event log of the firmware, against the registers
enrol        that an AK is in a genuine TPM, by credential activation
credential   what is encrypted to a TPM for that
structures   the bytes of a TPM
commands     what it is told
collect      it, on the machine

Nothing is imported here.
"""
