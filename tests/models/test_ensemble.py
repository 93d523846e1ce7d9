"""Networks that answer as one: the mean of their probabilities, by hand; each as it is alone."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from mnist_flax.errors import UsageError
from mnist_flax.models import create_model
from mnist_flax.models.ensemble import Ensemble, log_of_mean

COMPACT = {"name": "compact", "features": [4, 8], "shifted_views": True}
TINY = {"name": "tiny:TinyNet", "features": 3}
IMAGES = jax.random.uniform(jax.random.key(1), (5, 8, 8, 1))


def member(model: dict[str, Any], compute_dtype: str = "float32") -> dict[str, Any]:
    return {"model": model, "compute_dtype": compute_dtype}


def ensemble(**members: dict[str, Any]) -> Ensemble:
    return create_model(ConfigDict({"name": "ensemble", "members": members}), 10)


def test_the_mean_of_two_members_by_hand() -> None:
    logits = [jnp.log(jnp.array([[0.5, 0.25, 0.25]])), jnp.log(jnp.array([[0.1, 0.1, 0.8]]))]
    mean = jnp.exp(log_of_mean([3.0 + logits[0], logits[1]]))  # a constant changes no softmax
    np.testing.assert_allclose(mean, [[0.3, 0.175, 0.525]], rtol=1e-6)


def test_what_no_member_believes_is_a_finite_logarithm() -> None:
    found = log_of_mean([jnp.array([[0.0, -500.0]]), jnp.array([[0.0, -600.0]])])
    np.testing.assert_allclose(found, [[0.0, -500.0 - np.log(2)]], rtol=1e-6)


def test_logits_of_half_precision_are_averaged_in_float32() -> None:
    logits = jnp.array([[1.0, 2.0, 3.0]], jnp.bfloat16)
    found = log_of_mean([logits, logits])
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(jnp.exp(found).sum(), 1.0, rtol=1e-6)


def test_each_member_is_as_it_is_alone() -> None:
    model = ensemble(one=member(COMPACT), two=member(TINY, "bfloat16"))
    variables = model.init(jax.random.key(0), IMAGES)
    assert variables["params"].keys() == {"one", "two"}
    alone = []
    for name, section in (("one", COMPACT), ("two", TINY | {"dtype": jnp.bfloat16})):
        own = {kind: tree[name] for kind, tree in variables.items()}
        network = create_model(ConfigDict(section), 10)
        alone.append(np.asarray(jax.nn.softmax(network.apply(own, IMAGES).astype(jnp.float32))))
    # Five views, and eight bits: neither would be alike otherwise.
    found = jax.nn.softmax(model.apply(variables, IMAGES))
    np.testing.assert_allclose(found, (alone[0] + alone[1]) / 2, rtol=2e-5)
    assert abs(alone[0] - alone[1]).max() > 0.01


def test_a_member_may_be_an_ensemble() -> None:
    inner = {"name": "ensemble", "members": {"a": member(COMPACT), "b": member(TINY)}}
    model = ensemble(both=member(inner), third=member(TINY))
    variables = model.init(jax.random.key(0), IMAGES)
    assert variables["params"]["both"].keys() == {"a", "b"}
    assert model.apply(variables, IMAGES).shape == (5, 10)
    assert hash(model) == hash(ensemble(third=member(TINY), both=member(inner)))


def test_what_is_no_ensemble() -> None:
    with pytest.raises(UsageError, match=r"has no members\. They are taken from finished runs"):
        ensemble().init(jax.random.key(0), IMAGES)
    with pytest.raises(UsageError, match=r"config\.model\.members: must have a section for each"):
        ensemble(one={"model": TINY})
