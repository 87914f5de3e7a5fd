"""One file a node: what Prefect runs and shows for it. Beside them the plan, the Ray job and the local services.

Of `ray_jobs` only `checkpoint` (and the pins of `crawl`) is imported here, so a Prefect worker needs no torch.
"""
