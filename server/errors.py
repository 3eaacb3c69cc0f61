"""Every error that Hearth raises on purpose. Knows no HTTP: `api/errors.py` maps classes to statuses in one table.

    HearthError
    ├── ConfigError               models.yaml, a flag or an environment variable is wrong; the process cannot start
    ├── WeightsError              model files cannot be fetched, verified or found
    ├── LoadFailed                a worker could not load its model
    ├── Unauthenticated           no key, or one that nobody has
    │   └── TooManyFailedKeys         so many wrong ones that the next is not looked at
    ├── Forbidden                 the key is right, but not for this; or a browser sent it for somebody else's page
    ├── InvalidRequest            the client must change the request
    │   ├── ContextLengthExceeded     more tokens than the model accepts
    │   └── RequestTooLarge           more bytes or items than the server accepts
    ├── LimitExceeded             the caller has used up what its key may use for now; try again later
    │   └── QuotaExceeded             and for today
    ├── ModelNotFound             no model of that name
    ├── ObjectNotFound            no file, vector store or other stored object of that id
    ├── Conflict                  it does not fit what is stored
    │   └── Reindexed                 a vector store got another model's vectors meanwhile
    ├── RequestCancelled          somebody who runs the server has ended the request
    ├── StorageError              the data directory cannot be read or written
    │   ├── StorageFull               there is no room left in it
    │   └── StorageUnavailable        it is not open
    ├── ModelUnavailable          the model exists but cannot answer now; try again later
    │   ├── ModelLoading              it has not been loaded while the request waited
    │   ├── NoRoom                    it does not fit into memory beside the models that have to stay there
    │   ├── WorkerCrashed             its worker died while the request ran
    │   ├── Overloaded                its queue is full
    │   └── DeadlineExceeded          it was not answered in the time that it allowed
    └── InternalError             a bug of ours; details are in the log

`code` is the stable word that clients and worker messages carry; `param` names the request field at fault.
"""

from __future__ import annotations


class HearthError(Exception):
    """Base of the tree. `message` says what happened, with which value, and what to do."""

    code: str = "error"

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        if code is not None:
            self.code = code


class ConfigError(HearthError):
    """models.yaml, a flag or an environment variable is wrong."""

    code = "config_error"


class WeightsError(HearthError):
    """Model files cannot be fetched, verified or found."""

    code = "weights_error"


class LoadFailed(HearthError):
    """A worker could not load its model."""

    code = "load_failed"


class Unauthenticated(HearthError):
    """There is no key where one is needed, or nobody has the one that was sent: not yet, or not any more."""

    code = "invalid_api_key"


class TooManyFailedKeys(Unauthenticated):
    """The client's address has sent so many wrong keys that it is not told of another one.

    Attributes:
        retry_after_s: When it is.
    """

    code = "too_many_failed_keys"

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Forbidden(HearthError):
    """The key does not have the scope that this needs; or a browser sent the request for another server's page."""

    code = "missing_scope"


class InvalidRequest(HearthError):
    """The request is wrong and will stay wrong: the client must change it."""

    code = "invalid_value"


class ContextLengthExceeded(InvalidRequest):
    """The input has more tokens than the model accepts."""

    code = "context_length_exceeded"


class RequestTooLarge(InvalidRequest):
    """The request has more bytes or items than the server accepts."""

    code = "request_too_large"


class LimitExceeded(HearthError):
    """The caller's key may not use more for now, however idle the server is.

    Attributes:
        retry_after_s: When it may, as far as that can be told.
    """

    code = "rate_limit_exceeded"

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class QuotaExceeded(LimitExceeded):
    """The caller's key may not use more today."""

    code = "insufficient_quota"


class ModelNotFound(HearthError):
    """No configured model has this id or alias."""

    code = "model_not_found"


class ObjectNotFound(HearthError):
    """No file, vector store, document or batch has this id, or it belongs to somebody else."""

    code = "not_found"


class Conflict(HearthError):
    """The request does not fit what is stored, e.g. vectors of another model; the message says what to do."""

    code = "conflict"


class Reindexed(Conflict):
    """A vector store has got another model's vectors since it was looked at: whoever begins anew succeeds."""


class RequestCancelled(HearthError):
    """Somebody who runs the server has ended the request."""

    code = "cancelled"


class StorageError(HearthError):
    """The data directory cannot be read or written. The message tells the client nothing of paths."""

    code = "storage_error"


class StorageFull(StorageError):
    """No room is left on the disk, or under the limit, for what was sent."""

    code = "storage_full"


class StorageUnavailable(StorageError):
    """The data directory is not open: not yet, not any more, or because it could not be."""

    code = "storage_unavailable"
    retry_after_s = 30


class ModelUnavailable(HearthError):
    """The model is configured but cannot answer now.

    Attributes:
        retry_after_s: When a client may try again.
    """

    code = "model_unavailable"

    def __init__(
        self, message: str, *, param: str | None = None, code: str | None = None, retry_after_s: int = 5
    ) -> None:
        super().__init__(message, param=param, code=code)
        self.retry_after_s = retry_after_s


class ModelLoading(ModelUnavailable):
    """The model was still loading when the request had waited long enough."""

    code = "model_loading"


class NoRoom(ModelUnavailable):
    """The model does not fit into memory, beside those that cannot be unloaded now.

    Attributes:
        may_pass: It would fit if others were idle.
    """

    code = "insufficient_memory"

    def __init__(self, message: str, *, may_pass: bool = True, retry_after_s: int = 10) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.may_pass = may_pass


class WorkerCrashed(ModelUnavailable):
    """The worker process died while the request was running."""

    code = "worker_crashed"


class Overloaded(ModelUnavailable):
    """The model's queue is full."""

    code = "overloaded"


class DeadlineExceeded(ModelUnavailable):
    """The request was not answered in the time that it allowed.

    Attributes:
        has_begun: The model had begun to compute it; else it has only waited.
    """

    code = "deadline_exceeded"
    has_begun = False


class InternalError(HearthError):
    """A bug of ours. The message tells the client nothing that the log does not tell better."""

    code = "internal_error"


_BY_CODE: dict[str, type[HearthError]] = {
    cls.code: cls
    for cls in (
        LoadFailed,
        ContextLengthExceeded,
        RequestTooLarge,
        ModelNotFound,
        ObjectNotFound,
        Conflict,
        StorageError,
        StorageFull,
        StorageUnavailable,
        ModelUnavailable,
        ModelLoading,
        WorkerCrashed,
        Overloaded,
        DeadlineExceeded,
        InternalError,
    )
}


def from_code(code: str, message: str, param: str | None = None) -> HearthError:
    """Rebuild an error that crossed a process as (code, message, param); other codes are `InvalidRequest`'s."""
    cls = _BY_CODE.get(code)
    return cls(message, param=param) if cls else InvalidRequest(message, param=param, code=code)
