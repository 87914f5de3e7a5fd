"""How a node's run can end without a result, apart from a user's mistake (ValueError)."""


class NodeError(RuntimeError):
    """A node did not come to its manifest."""


class JobFailed(NodeError):
    """The node's job ended without a manifest; the message is its error and what to do."""


class Stopped(NodeError):
    """The run was cancelled, and the job with it."""
