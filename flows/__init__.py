"""One file a flow that a person can trigger, and the command line. No torch, no boto3."""
