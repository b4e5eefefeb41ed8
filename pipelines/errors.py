"""What can go wrong in the service: what happened, where, and what to do about it.

SecateurError
|- ConfigError      the request makes no sense; raised before anything is touched
|- DataError        the data set cannot be used for this
|- SourceError      the registered model cannot be found, or must not or cannot be loaded
|- CandidateError   a compressed model did not survive its own checks
|  `- ExportError   one form of it cannot be made or is not the same model
|- TrainingError    training came to nothing
|- StorageError     a file of ours cannot be written
|- UnderWayError    somebody else is at the same work
|- PromotionError   the champion was not moved, or was moved back: a gate, an approval, another who was first, a failed check
`- RegistryError    MLflow or its storage failed; `retryable` says whether trying again can help
"""

from typing import ClassVar


def is_interrupt(exc: BaseException) -> bool:
    """Was it Ctrl-C, a signal or a cancellation, perhaps hidden behind what a library did about it?"""
    link: BaseException | None = exc
    while link is not None:
        if not isinstance(link, Exception):
            return True
        link = link.__cause__ or link.__context__
    return False


class SecateurError(Exception):
    exit_status: ClassVar[int] = 2  # the user can mend it

    def __init__(self, what: str, where: str, fix: str) -> None:
        super().__init__(what, where, fix)  # all in .args, so it survives pickling between workers
        self.what, self.where, self.fix = what, where, fix

    def __str__(self) -> str:
        return f"{self.what}\n  where: {self.where}\n  fix:   {self.fix}"


class ConfigError(SecateurError): ...


class DataError(SecateurError): ...


class SourceError(SecateurError): ...


class CandidateError(SecateurError):
    exit_status = 1


class ExportError(CandidateError): ...


class TrainingError(SecateurError):
    exit_status = 1


class StorageError(SecateurError):
    exit_status = 1


class UnderWayError(SecateurError): ...


class PromotionError(SecateurError):
    exit_status = 1


class RegistryError(SecateurError):
    exit_status = 1

    def __init__(self, what: str, where: str, fix: str, retryable: bool = False) -> None:
        super().__init__(what, where, fix)
        self.args = (what, where, fix, retryable)
        self.retryable = retryable
