"""Running a node: fan-out over Ray tasks, receipts, retries, resume, and the commit."""
