"""Where compiled programs are kept."""

import jax
import pytest

from mnist_flax.training.compilation import keep_compiled_programs

pytestmark = pytest.mark.compiles


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    jax.config.update("jax_compilation_cache_dir", None)


def test_on_a_cpu_nothing_is_kept():
    assert keep_compiled_programs() is None
    assert jax.config.jax_compilation_cache_dir is None


def test_an_accelerators_programs_are_kept_in_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert keep_compiled_programs() == tmp_path / "mnist_flax" / "compiled"
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "mnist_flax" / "compiled")


def test_a_place_that_the_user_named_stays(monkeypatch, tmp_path):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    assert keep_compiled_programs() is None
    assert jax.config.jax_compilation_cache_dir is None  # as this process started without it
