"""A region of AWS: from a URL to clients, and from AWS's errors to ours."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
)

from liteflow.core.errors import ProviderError, SettingsError, UnavailableError

CONNECT_TIMEOUT = 5
READ_TIMEOUT = 10
CONNECTIONS = 64
"""Connections that a client keeps open, at most."""

CREDENTIALS = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, name a profile with AWS_PROFILE,"
    " or give the machine a role"
)

REFUSED = {
    "AccessDenied",
    "AccessDeniedException",
    "AuthFailure",
    "AuthorizationError",
    "ExpiredToken",
    "ExpiredTokenException",
    "IncompleteSignature",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "MissingAuthenticationToken",
    "NotAuthorized",
    "OptInRequired",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
}
TRANSIENT = {
    "LimitExceededException",
    "OverLimit",
    "ProvisionedThroughputExceededException",
    "QueueDeletedRecently",
    "AWS.SimpleQueueService.QueueDeletedRecently",
    "RequestLimitExceeded",
    "RequestThrottled",
    "ResourceInUseException",
    "Throttling",
    "ThrottlingException",
    "TransactionConflictException",
}
MISSING = {
    "AWS.SimpleQueueService.NonExistentQueue",
    "NotFound",
    "NotFoundException",
    "QueueDoesNotExist",
    "ResourceNotFoundException",
}


class Access:
    """How a region is reached, from a URL like ``sqs://eu-west-1``.

    An empty region is the one that boto3 finds in the environment. ``?endpoint=`` names another server, such
    as an emulator or a VPC's endpoint, ``?profile=`` a profile of the AWS configuration. Credentials come
    from where boto3 looks for them, or with `session`. `SettingsError` for any other URL.
    """

    def __init__(self, url: str, scheme: str, session: boto3.Session | None = None) -> None:
        example = f"it is like {scheme}://eu-west-1"
        try:
            parsed = urlsplit(url.strip())
            options = parse_qs(parsed.query, strict_parsing=bool(parsed.query))
        except ValueError:
            raise SettingsError(f"{scheme}: the URL is not valid; {example}") from None
        if parsed.scheme != scheme:
            raise SettingsError(f"{scheme}: the URL does not begin with {scheme}://; {example}")
        if "@" in parsed.netloc:
            raise SettingsError(f"{scheme}: no credentials in the URL, please: {CREDENTIALS}")
        if not re.fullmatch(r"[a-z0-9-]*", parsed.netloc) or parsed.path.strip("/"):
            raise SettingsError(f"{scheme}: the URL names a region and nothing else; {example}")
        self._endpoint = options.pop("endpoint", [None])[0]
        profile = options.pop("profile", [None])[0]
        if options:
            raise SettingsError(f"{scheme}: known options are endpoint and profile, not {', '.join(options)}")
        self._scheme = scheme
        self._region = parsed.netloc or None
        self._profile = profile
        self._session = session

    def __repr__(self) -> str:
        return f"{self._scheme}://{self._region or ''}"

    def client(self, service: str, *, read_timeout: float = READ_TIMEOUT) -> Any:
        """A client of a service (``sqs``, ``sns``, ``dynamodb``). Close it."""
        config = Config(
            connect_timeout=CONNECT_TIMEOUT,
            read_timeout=read_timeout,
            max_pool_connections=CONNECTIONS,
            retries={"mode": "standard", "max_attempts": 2},
        )
        try:
            session = self._session or boto3.Session(profile_name=self._profile)
            return session.client(
                service, region_name=self._region, endpoint_url=self._endpoint, config=config
            )
        except NoRegionError:
            raise SettingsError(
                f"{self._scheme}: no region; name it in the URL like {self._scheme}://eu-west-1,"
                " or set AWS_DEFAULT_REGION"
            ) from None
        except ProfileNotFound:
            raise SettingsError(f"{self._scheme}: the AWS configuration has no such profile") from None
        except (ValueError, BotoCoreError) as exc:
            raise SettingsError(f"{self._scheme}: no client can be made ({type(exc).__name__})") from None

    @contextmanager
    def errors(self, unavailable: type[UnavailableError]) -> Iterator[None]:
        """Turn AWS's errors into ours; `unavailable` is raised for those that trying again may cure."""
        try:
            yield
        except (ClientError, BotoCoreError) as exc:
            raise self.translated(exc, unavailable) from exc

    def translated(self, exc: Exception, unavailable: type[UnavailableError]) -> ProviderError:
        """Our error for one of AWS's. Its text is left out: it may quote the request."""
        where = repr(self)
        if isinstance(exc, ClientError):
            code, status = code_of(exc), status_of(exc)
            if code in REFUSED or status in (401, 403):
                return ProviderError(
                    f"{where} refuses access ({code}): check the credentials and their permissions"
                )
            if status >= 500 or status == 429 or code in TRANSIENT:
                return unavailable(f"{where} is not able to answer now ({status} {code})")
            return ProviderError(f"{where} refuses a request ({status} {code})")
        if isinstance(exc, (NoCredentialsError, PartialCredentialsError)):
            return ProviderError(f"{where}: no AWS credentials are found; {CREDENTIALS}")
        return unavailable(f"{where} does not answer: {type(exc).__name__}")


def code_of(exc: ClientError) -> str:
    """AWS's code of an error, as ``AccessDenied``."""
    return str(exc.response.get("Error", {}).get("Code", "unknown"))


def status_of(exc: ClientError) -> int:
    """The HTTP status of an error's answer."""
    metadata: Mapping[str, Any] = exc.response.get("ResponseMetadata", {})
    return int(metadata.get("HTTPStatusCode", 0))


def is_missing(exc: ClientError) -> bool:
    """Is what was asked for not there?"""
    return code_of(exc) in MISSING
