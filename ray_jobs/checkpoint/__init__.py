"""All that touches object storage: the store, keys, records, leases, refs.

Nothing here imports Ray, Prefect or torch. One rule holds at every level (shard, training step, node): write data
under a name no other attempt uses, then publish it with one small create-only record.
"""
