"""Sums over examples, divided once: a mean that is exact for any batch size."""

import flax.struct
import jax
import jax.numpy as jnp
import optax


class Metrics(flax.struct.PyTreeNode):
    """Open sums over examples. `merge` with `empty()` changes nothing.

    Attributes:
      loss_sum: float32 [], softmax cross-entropy in nats.
      correct: int32 [], how many argmax predictions equal the label.
      count: int32 [], how many examples.
    """

    loss_sum: jax.Array
    correct: jax.Array
    count: jax.Array

    @classmethod
    def empty(cls) -> "Metrics":
        """Returns sums over nothing."""
        return cls(jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))

    @classmethod
    def from_logits(
        cls, logits: jax.Array, labels: jax.Array, mask: jax.Array | None = None
    ) -> "Metrics":
        """Sums one batch.

        Args:
          logits: float32 [B, K].
          labels: int32 [B].
          mask: bool [B], False for padding; None counts all.
        """
        mask = jnp.ones(labels.shape, bool) if mask is None else mask
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return cls(
            # where, not a product: a NaN in the padding must not reach the sum.
            loss_sum=jnp.where(mask, losses, 0.0).sum(),
            correct=jnp.sum(mask & (logits.argmax(-1) == labels), dtype=jnp.int32),
            count=jnp.sum(mask, dtype=jnp.int32),
        )

    def merge(self, other: "Metrics") -> "Metrics":
        """Returns the sums over both."""
        return jax.tree.map(jnp.add, self, other)

    def compute(self) -> dict[str, float]:
        """Divides on the host, waiting for the device: {'loss', 'accuracy'} per example."""
        loss_sum, correct, count = jax.device_get((self.loss_sum, self.correct, self.count))
        return {"loss": float(loss_sum) / int(count), "accuracy": int(correct) / int(count)}
