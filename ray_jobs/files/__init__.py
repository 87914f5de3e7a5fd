"""Files from outside, pinned by URL, size, etag or checksum and read as pinned; and documentation that is installed."""
