"""What can go wrong between here and the Hub: what may pass, and what a person can do about it."""

import errno
import os
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from runner.errors import StepError, did_you_mean
from runner.sources.hub.cache import Cache, repositories
from runner.sources.hub.repo import Source, address, revisions

TRIES = 5
"""How often something is tried that brings nothing."""
PAUSE = 1.0
"""Seconds before the second try; twice as many before each later one, eight at most."""
PATIENCE = 300
"""The longest pause, in seconds, that the Hub may ask for and be given."""
PASSING = (408, 429, 500, 502, 503, 504)
LOGIN = "hf auth login"
AGAIN = "runner run RECIPE"

Made = TypeVar("Made")


def refusals() -> tuple[type[Exception], ...]:
    """What a request raises when it fails."""
    from huggingface_hub.utils import httpx

    return (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError)


def insist(
    attempt: Callable[[], Made], tries: int = TRIES, wait: Callable[[float], None] = time.sleep
) -> Made:
    """What `attempt` gives, tried again while its failure may pass."""
    for nth in range(1, tries):
        try:
            return attempt()
        except refusals() as error:
            seconds = pause(error, nth)
            if seconds is None:
                raise
            wait(seconds)
    return attempt()


def pause(error: Exception, nth: int) -> float | None:
    """Seconds to wait before the next try; None where another try cannot help."""
    from huggingface_hub.errors import OfflineModeIsEnabled
    from huggingface_hub.utils import httpx

    asked = _asked_to_wait(error)
    if asked is not None:
        return asked if asked <= PATIENCE else None
    unreachable = isinstance(error, (httpx.ConnectError, httpx.ProxyError))
    if _is_distrust(error) or (unreachable and nth >= 3):
        return None
    lost = isinstance(
        error, (httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError)
    )
    dropped = isinstance(error, ConnectionError) and not isinstance(error, OfflineModeIsEnabled)
    passing = status(error) in PASSING or lost or dropped or unreachable
    return min(8.0, 2.0 ** (nth - 1)) * PAUSE if passing else None


def status(error: Exception) -> int | None:
    """The HTTP status of the Hub's refusal; None where it did not answer."""
    return getattr(getattr(error, "response", None), "status_code", None)


def is_offline() -> bool:
    """Whether the user wants no network (HF_HUB_OFFLINE)."""
    from huggingface_hub import is_offline_mode

    return is_offline_mode()


@contextmanager
def explained(source: Source) -> Iterator[None]:
    """Turn what a request raises into one StepError that says what to do."""
    from huggingface_hub.errors import HFValidationError

    try:
        yield
    except HFValidationError:
        raise StepError(
            f'"{source.repo}" is no name of a repository: it must be `user/name` or `name`.'
        ) from None
    except refusals() as error:
        # not `from error`: its text has the addresses of files, which may be signed
        raise explain(error, source) from None


def explain(error: Exception, source: Source) -> StepError:
    """The StepError for what a request raised."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    if isinstance(error, OfflineModeIsEnabled):
        return StepError(
            f"offline: the Hub is not asked for {source.repo} at revision {source.revision}. "
            "It would be without --offline and HF_HUB_OFFLINE.",
            AGAIN,
        )
    if status(error) is not None:
        return _answered(error, source)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StepError(
            f"the disk of the Hub cache ({Cache.of(source).root}) is full; what was fetched so "
            "far is kept. Make room, or set HF_HOME to a folder on another disk."
        )
    if isinstance(error, OSError) and error.errno and not isinstance(error, ConnectionError):
        place = error.filename or Cache.of(source).root
        return StepError(f"{place}: {error.strerror}. May this user write to the Hub cache?")
    return unanswered(error)


def _answered(error: Exception, source: Source) -> StepError:
    """The Hub answered, and refused."""
    from huggingface_hub import errors, get_token

    repo, hub, code, logged_in = source.repo, address(), status(error), bool(get_token())
    if isinstance(error, errors.GatedRepoError):
        return _gated(source, logged_in=logged_in)
    if code == 401 and logged_in:
        place = "HF_TOKEN" if os.environ.get("HF_TOKEN") else "`hf auth login`"
        return StepError(f"{hub} does not accept your token (from {place}).", LOGIN)
    if isinstance(error, errors.RevisionNotFoundError):
        return _no_revision(source)
    if isinstance(error, errors.EntryNotFoundError):
        return StepError(f"{repo} lists a file that {hub} does not have. Fetch it again later.")
    if isinstance(error, errors.DisabledRepoError):
        return StepError(f"{repo} has been disabled by {hub}. See {source.page}")
    if isinstance(error, errors.RepositoryNotFoundError) or code == 401:
        return _no_repository(source, logged_in=logged_in)
    if code == 403:
        return StepError(f"your token may not read {repo}. Give it the right to, or log in.", LOGIN)
    if code == 429:
        asked = _asked_to_wait(error)
        pause = f"asks to wait {asked:.0f} s" if asked else "allows no more requests for now"
        more = "" if logged_in else " Who is logged in may ask more often."
        return StepError(f"{hub} {pause} (429).{more}", AGAIN if logged_in else LOGIN)
    return StepError(f"{hub} has trouble of its own ({code}). Try again later.", AGAIN)


def _gated(source: Source, *, logged_in: bool) -> StepError:
    if logged_in:
        return StepError(
            f"{source.repo} is gated, and your account is not among those who may have its files. "
            f"Ask for access, or wait until you are given it, at {source.page}",
            "hf auth whoami",
        )
    return StepError(
        f"{source.repo} is gated, and you are not logged in. "
        f"Ask for access at {source.page} and log in.",
        LOGIN,
    )


def _no_repository(source: Source, *, logged_in: bool) -> StepError:
    guess = did_you_mean(source.repo, repositories(source))
    private = "your account may not see it" if logged_in else "you are not logged in"
    fact = f"{address()} has no {source.type} {source.repo}, or it is private and {private}."
    return StepError(f"{fact} {guess}".rstrip(), "" if guess else LOGIN)


def _no_revision(source: Source) -> StepError:
    """Say which branches and tags come near; those that are cached where the Hub will not say."""
    untold: tuple[type[Exception], ...] = (*refusals(), StepError)
    try:
        names = revisions(source)
    except untold:
        names = Cache.of(source).revisions()
    wrong = source.commit or source.revision
    guess = did_you_mean(wrong, names) or (f"It has {_few(names)}." if names else "")
    return StepError(f'{source.repo} has no revision "{wrong}". {guess}'.rstrip())


def unanswered(error: Exception) -> StepError:
    """The StepError for a request to which no answer came."""
    from huggingface_hub import constants
    from huggingface_hub.utils import httpx

    hub = address()
    if isinstance(error, httpx.TimeoutException):
        seconds = constants.HF_HUB_DOWNLOAD_TIMEOUT
        return StepError(
            f"{hub} did not answer within {seconds} s. Is the network slow?",
            f"HF_HUB_DOWNLOAD_TIMEOUT={6 * seconds} {AGAIN}",
        )
    if _is_distrust(error):
        return StepError(
            f"the certificate of {hub} is not trusted here. Does a proxy of your network stand "
            "between? Then name its certificate in SSL_CERT_FILE."
        )
    if isinstance(error, httpx.ProxyError):
        return StepError(f"the proxy before {hub} refuses. Is HTTPS_PROXY right?")
    if any(isinstance(cause, socket.gaierror) for cause in _causes(error)):
        return StepError(
            f"the name of {hub} cannot be resolved. Is there a network, and is HF_ENDPOINT right?"
        )
    if isinstance(error, httpx.ConnectError):
        return StepError(f"{hub} cannot be reached. Is there a network, and is HF_ENDPOINT right?")
    if isinstance(error, (httpx.InvalidURL, httpx.UnsupportedProtocol)):
        return StepError(f"{hub} is no address of a Hub. Is HF_ENDPOINT right?")
    return StepError(f"the connection to {hub} breaks off again and again.", AGAIN)


def _asked_to_wait(error: Exception) -> float | None:
    """Seconds, where the Hub says how long it wants to be left alone."""
    from huggingface_hub.utils import parse_ratelimit_headers

    headers: Any = getattr(getattr(error, "response", None), "headers", {})
    seconds = str(headers.get("Retry-After", "")).strip()
    if status(error) in PASSING and seconds.isdecimal():
        return float(seconds)
    limit = parse_ratelimit_headers(headers) if status(error) == 429 else None
    return float(limit.reset_in_seconds) if limit and not limit.remaining else None


def _is_distrust(error: Exception) -> bool:
    return any(isinstance(cause, ssl.SSLCertVerificationError) for cause in _causes(error))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what led to it."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__


def _few(names: Iterable[str], most: int = 8) -> str:
    listed = list(names)
    return ", ".join(listed[:most]) + (", ..." if len(listed) > most else "")
