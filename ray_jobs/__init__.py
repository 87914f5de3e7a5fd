"""The work. `python -m ray_jobs NODE SPEC_URL` is the one entry point of every job."""
