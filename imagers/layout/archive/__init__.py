"""Images in one tar: OCI layouts as archives, and what `docker save` writes."""
