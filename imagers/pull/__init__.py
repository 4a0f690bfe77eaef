"""The workflow of a guest: resolve, verify, get keys, stream, unpack, publish.

`trust.py` holds the whole trust decision, `run.py` drives it:

    from imagers.pull.run import PullOptions, pull_image
"""
