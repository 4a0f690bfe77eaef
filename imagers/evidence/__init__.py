"""Evidence of trusted execution environments: who makes it, who judges it.

plugins     attesters and verifiers of others, found by the name of their TEE
"""
