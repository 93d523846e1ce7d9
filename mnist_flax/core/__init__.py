"""Pure JAX: what a run carries, its sums, its optimizers. Nothing here touches a disk or prints."""
