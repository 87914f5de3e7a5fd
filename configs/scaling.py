"""What a model's size and its tokens make of its loss, and the best split of a compute budget between them."""

import json

from pydantic import BaseModel, ConfigDict, Field, ValidationError

FLOPS_PER_PARAMETER_TOKEN = 6
"""C ≈ 6·N·D (Kaplan et al. 2020): a multiplication and an addition, forward once and backward twice."""


class ScalingLaw(BaseModel):
    """L(N, D) = E + A/N^alpha + B/D^beta in nats a token; N is parameters, D tokens (Hoffmann et al. 2022, eq. 10)."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    E: float = Field(ge=0)
    """The loss that neither size nor tokens take away."""
    A: float = Field(gt=0)
    """Weight of the size's term."""
    B: float = Field(gt=0)
    """Weight of the tokens' term."""
    alpha: float = Field(gt=0)
    """Exponent of the size."""
    beta: float = Field(gt=0)
    """Exponent of the tokens."""

    @property
    def size_exponent(self) -> float:
        """a of N_opt ∝ C^a; that of D_opt is 1 − a."""
        return self.beta / (self.alpha + self.beta)

    def loss(self, parameters: float, tokens: float) -> float:
        return float(self.E + self.A / parameters**self.alpha + self.B / tokens**self.beta)

    def optimum(
        self, flops: float, flops_per_parameter_token: float = FLOPS_PER_PARAMETER_TOKEN
    ) -> tuple[float, float]:
        """Parameters and tokens of the least loss with 6·N·D = flops (Hoffmann et al. 2022, eq. 4).

        Args:
            flops: C.
            flops_per_parameter_token: another factor than 6, such as that of small models, whose attention counts.
        """
        product = flops / flops_per_parameter_token
        scale = (self.alpha * self.A / (self.beta * self.B)) ** (1 / (self.alpha + self.beta))
        parameters = float(scale * product**self.size_exponent)
        return parameters, product / parameters

    def tokens_for(self, parameters: float, loss: float) -> float | None:
        """The tokens that bring a model of this size to this loss; None where no number of them does."""
        left = loss - self.E - self.A / parameters**self.alpha
        return float((self.B / left) ** (1 / self.beta)) if left > 0 else None


PUBLISHED = {
    # Besiroglu et al. 2024, "Chinchilla Scaling: A replication attempt", table 1: a fit to the points of Hoffmann et
    # al.'s figure 4. It agrees with their other two approaches, as their own printed constants do not.
    "besiroglu-2024": ScalingLaw(E=1.8172, A=482.01, B=2085.43, alpha=0.3478, beta=0.3658),
    # Hoffmann et al. 2022, section D.3, as printed.
    "hoffmann-2022": ScalingLaw(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28),
}
DEFAULT_LAW = "besiroglu-2024"


def parse_law(content: bytes, source: str) -> ScalingLaw:
    """The law in JSON: E, A, B, alpha and beta, at its top or under "law" as a scaling node's law.json has them.

    Args:
        content: the JSON.
        source: where it is from, for messages.

    Raises:
        ValueError: it holds no law.
    """
    wanted = 'want {"E": 1.8, "A": 480, "B": 2100, "alpha": 0.35, "beta": 0.37}, or these under "law"'
    try:
        found = json.loads(content)
        return ScalingLaw.model_validate(found.get("law", found))
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError) as error:
        raise ValueError(f"{source} is not a JSON object: {wanted}") from error
    except ValidationError as error:
        fields = ", ".join(sorted({".".join(map(str, each["loc"])) or "law" for each in error.errors()}))
        raise ValueError(f"{source} holds no scaling law (wrong or missing: {fields}): {wanted}") from error
