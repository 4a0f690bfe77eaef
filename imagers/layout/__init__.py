"""Images on disk: OCI layouts as source and sink, atomic and content-addressed."""
