"""A storage account: from what names it to clients, and from Azure's errors to ours."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import requests
from requests.adapters import HTTPAdapter

from azure.core.credentials import TokenCredential
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ResourceNotFoundError,
    ServiceRequestError,
    ServiceResponseError,
)
from azure.core.pipeline.transport import RequestsTransport
from azure.storage.blob import BlobServiceClient, LinearRetry
from azure.storage.queue import LinearRetry as QueueLinearRetry
from azure.storage.queue import QueueServiceClient
from liteflow.core.errors import LiteFlowError, ProviderError, SettingsError, UnavailableError

HELP = (
    "give the account's connection string, or azure://ACCOUNT to sign in with azure-identity;"
    " on the command line azure:CONNECTION_STRING"
)
CONNECT_TIMEOUT = 5
READ_TIMEOUT = 10
CONNECTIONS = 64
"""Connections that a client keeps open, at most."""

DEVELOPMENT = (
    "AccountName=devstoreaccount1;AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/"
    "K1SZFPTOtr/KBHBeksoGMGw==;BlobEndpoint=http://127.0.0.1:10000/devstoreaccount1;"
    "QueueEndpoint=http://127.0.0.1:10001/devstoreaccount1"
)
"""What ``UseDevelopmentStorage=true`` means: the emulator, with the key that all emulators have."""

TRANSIENT = {408, 429}
REFUSED = {401, 403}


class Account:
    """Where an account is reached, and how one signs in. Its text never shows a secret.

    `connection` is a connection string, with or without ``azure:`` before it, or ``azure://ACCOUNT`` with the
    name of an account, for sovereign clouds ``azure://ACCOUNT?suffix=core.chinacloudapi.cn``. An account's
    name takes `credential`, by default what azure-identity finds around it. `SettingsError` for all else.
    """

    def __init__(self, connection: str, credential: TokenCredential | None = None) -> None:
        self._credential: TokenCredential | None = None
        self._string: str | None = None
        connection = connection.strip()
        if connection.lower().startswith("azure://"):
            self.name, self._suffix = _account_of(connection)
            self._credential = credential or _default_credential()
            return
        if credential is not None:
            raise SettingsError(f"azure: a credential goes with azure://ACCOUNT; {HELP}")
        if connection.lower().startswith("azure:"):
            connection = connection[len("azure:") :]
        parts = _parts(connection)
        if parts.get("usedevelopmentstorage", "").lower() == "true":
            connection = DEVELOPMENT
            parts = _parts(connection)
        _check(parts)
        self.name = parts.get("accountname") or "account of a shared access signature"
        self._string = connection

    def __repr__(self) -> str:
        return f"Account({self.name!r})"

    def queues(self) -> QueueServiceClient:
        """A client for the account's queues. Close it."""
        options = {"transport": _transport(), "retry_policy": _retries(QueueLinearRetry)}
        with self._checked("queue"):
            if self._string is not None:
                return QueueServiceClient.from_connection_string(self._string, **options)
            return QueueServiceClient(self._endpoint("queue"), credential=self._credential, **options)

    def blobs(self) -> BlobServiceClient:
        """A client for the account's blobs. Close it."""
        options = {"transport": _transport(), "retry_policy": _retries(LinearRetry)}
        with self._checked("blob"):
            if self._string is not None:
                return BlobServiceClient.from_connection_string(self._string, **options)
            return BlobServiceClient(self._endpoint("blob"), credential=self._credential, **options)

    def _endpoint(self, service: str) -> str:
        return f"https://{self.name}.{service}.{self._suffix}"

    @contextmanager
    def _checked(self, service: str) -> Iterator[None]:
        try:
            yield
        except (ValueError, KeyError):
            # The driver's words are not repeated: they may hold the key.
            raise SettingsError(f"azure: no {service} service in the connection string; {HELP}") from None

    @contextmanager
    def errors(self, unavailable: type[UnavailableError]) -> Iterator[None]:
        """Turn Azure's errors into ours; `unavailable` is raised for those that trying again may cure."""
        try:
            yield
        except AzureError as exc:
            raise self.translated(exc, unavailable) from exc

    def translated(self, exc: AzureError, unavailable: type[UnavailableError]) -> LiteFlowError:
        """Our error for one of Azure's. Its texts are left out: they may quote the request."""
        where = f"azure storage {self.name}"
        code = code_of(exc)
        if isinstance(exc, (ServiceRequestError, ServiceResponseError)):
            return unavailable(f"{where} does not answer: {type(exc).__name__}")
        if isinstance(exc, HttpResponseError) and exc.status_code is not None:
            status = exc.status_code
            if status in REFUSED:
                return ProviderError(
                    f"{where} refuses access ({code}): check the key, or the roles"
                    " 'Storage Queue Data Contributor' and 'Storage Blob Data Contributor'"
                )
            if status >= 500 or status in TRANSIENT or code.endswith("BeingDeleted"):
                return unavailable(f"{where} is not able to answer now ({status} {code})")
            return ProviderError(f"{where} refuses a request ({status} {code})")
        if isinstance(exc, ClientAuthenticationError):
            return ProviderError(
                f"{where}: azure-identity finds no way to sign in; set AZURE_CLIENT_ID, AZURE_TENANT_ID and"
                " AZURE_CLIENT_SECRET, use a managed identity, or give a connection string"
            )
        return unavailable(f"{where} does not answer: {type(exc).__name__}")


def code_of(exc: AzureError) -> str:
    """Azure's code of an error, as ``QueueNotFound``."""
    code = getattr(exc, "error_code", None)
    if code is None and isinstance(exc, ResourceNotFoundError):
        return "NotFound"
    return str(getattr(code, "value", code) or type(exc).__name__)


def _parts(connection: str) -> dict[str, str]:
    parts = {}
    for part in filter(None, connection.split(";")):
        key, equals, value = part.strip().partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z]+", key):
            raise SettingsError(f"azure: this is neither a connection string nor azure://ACCOUNT; {HELP}")
        parts[key.lower()] = value
    if not parts:
        raise SettingsError(f"azure: no storage account is named; {HELP}")
    return parts


def _check(parts: dict[str, str]) -> None:
    """What the driver would stumble over later, in words that may hold the key."""
    signed = "sharedaccesssignature" in parts
    if not signed and not (parts.get("accountname") and parts.get("accountkey")):
        raise SettingsError(f"azure: the connection string has no AccountName or AccountKey; {HELP}")
    try:
        base64.b64decode(parts.get("accountkey", ""), validate=True)
    except binascii.Error:
        raise SettingsError(
            "azure: the AccountKey in the connection string is cut off or mistyped (it is base64)"
        ) from None
    for service in ("blobendpoint", "queueendpoint"):
        endpoint = parts.get(service)
        if endpoint is None and not parts.get("accountname"):
            raise SettingsError(f"azure: the connection string has neither AccountName nor {service}; {HELP}")
        if endpoint is not None and not re.match(r"https?://[^/]", endpoint):
            raise SettingsError(f"azure: the {service} in the connection string is no http(s) URL")


def _account_of(url: str) -> tuple[str, str]:
    parsed = urlsplit(url)
    options = parse_qs(parsed.query)
    suffix = options.pop("suffix", ["core.windows.net"])[0]
    name = parsed.netloc
    if not re.fullmatch(r"[a-z0-9]{3,24}", name) or parsed.path.strip("/") or options:
        raise SettingsError(f"azure: azure:// is followed by the name of a storage account alone; {HELP}")
    if not re.fullmatch(r"[a-z0-9.-]+", suffix):
        raise SettingsError("azure: suffix is the end of the host names, like core.windows.net")
    return name, suffix


def _default_credential() -> TokenCredential:
    # Half a second to import, which those with a connection string need not pay.
    from azure.identity import DefaultAzureCredential

    return DefaultAzureCredential()


def _transport() -> RequestsTransport:
    session = requests.Session()
    session.mount("https://", HTTPAdapter(pool_maxsize=CONNECTIONS))
    session.mount("http://", HTTPAdapter(pool_maxsize=CONNECTIONS))
    return RequestsTransport(
        session=session,
        session_owner=True,
        connection_timeout=CONNECT_TIMEOUT,
        read_timeout=READ_TIMEOUT,
    )


def _retries(kind: Any) -> Any:
    # One retry, at once: a connection that the server closed while it was idle is not an outage. The default
    # would wait 15 seconds inside a call; what is really away is tried again outside, with a pause.
    return kind(backoff=0, random_jitter_range=0, retry_total=1)
