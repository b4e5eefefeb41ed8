import pickle

import pytest

from pipelines.errors import CandidateError, ConfigError, DataError, RegistryError, SecateurError, SourceError, is_interrupt


@pytest.mark.parametrize("kind", [ConfigError, DataError, SourceError, CandidateError, RegistryError])
def test_errors_survive_pickling(kind: type[SecateurError]) -> None:
    copy = pickle.loads(pickle.dumps(kind("what", "where", "fix")))  # noqa: S301
    assert type(copy) is kind
    assert str(copy) == "what\n  where: where\n  fix:   fix"


def test_a_registry_error_keeps_whether_a_retry_can_help() -> None:
    copy = pickle.loads(pickle.dumps(RegistryError("what", "where", "fix", retryable=True)))  # noqa: S301
    assert copy.retryable
    assert not RegistryError("what", "where", "fix").retryable


def test_user_errors_and_infrastructure_have_different_exit_status() -> None:
    assert {kind.exit_status for kind in (ConfigError, DataError, SourceError)} == {2}
    assert {kind.exit_status for kind in (CandidateError, RegistryError)} == {1}


def test_an_interrupt_is_seen_through_what_a_library_made_of_it() -> None:
    def clumsy() -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise ValueError("clumsy")  # noqa: B904  as libraries do

    with pytest.raises(ValueError, match="clumsy") as caught:
        clumsy()
    assert is_interrupt(caught.value)
    assert is_interrupt(SystemExit())
    assert not is_interrupt(ValueError())
