"""From URLs and connection strings to the clouds' providers: what is wrong is said, no secret with it."""

from __future__ import annotations

import logging
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import pytest
from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError
from cloud_providers import SECRET, session
from servers import free_port

from liteflow.core import Settings
from liteflow.core.errors import ProviderError, QueueUnavailableError, SettingsError
from liteflow.providers.aws import DynamoLockProvider, SqsQueueProvider
from liteflow.providers.azure import AzureLockProvider, AzureQueueProvider
from liteflow.providers.azure.account import Account
from liteflow.worker.wiring import Servers

KEY = "czNjcmV0LXdvcmQ="
STRING = f"DefaultEndpointsProtocol=https;AccountName=shop;AccountKey={KEY};EndpointSuffix=core.windows.net"


class Credential:
    """One of azure-identity's, as far as the clients know."""

    def __init__(self, problem: Exception | None = None) -> None:
        self.problem = problem
        self.scopes: list[str] = []

    def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        self.scopes += scopes
        if self.problem is not None:
            raise self.problem
        return AccessToken("t0ken", 4_000_000_000)


# ------------------------------------------------------------------------------------------------- Azure


@pytest.mark.parametrize("connection", [STRING, "azure:" + STRING, "  " + STRING + ";"])
def test_a_connection_string_names_the_account(connection: str) -> None:
    account = Account(connection)
    assert account.queues().url == "https://shop.queue.core.windows.net/"
    assert account.blobs().url == "https://shop.blob.core.windows.net/"


def test_the_emulator_has_a_short_name() -> None:
    account = Account("UseDevelopmentStorage=true")
    assert account.queues().url.rstrip("/") == "http://127.0.0.1:10001/devstoreaccount1"
    assert account.blobs().url.rstrip("/") == "http://127.0.0.1:10000/devstoreaccount1"


def test_a_url_names_an_account_for_a_credential() -> None:
    assert Account("azure://shop", Credential()).blobs().url == "https://shop.blob.core.windows.net/"
    china = Account("azure://shop?suffix=core.chinacloudapi.cn", Credential())
    assert china.queues().url == "https://shop.queue.core.chinacloudapi.cn/"


def test_without_a_credential_azure_identity_looks_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from azure import identity

    made = Credential()
    monkeypatch.setattr(identity, "DefaultAzureCredential", lambda: made)
    assert Account("azure://shop").queues().credential is made


def test_a_credential_is_used_to_sign_in() -> None:
    """Nobody answers at that address; but first a token is asked for."""
    credential = Credential()
    queue = AzureQueueProvider("azure://shop?suffix=example.invalid", credential=credential)
    queue.open()
    with pytest.raises(QueueUnavailableError, match="azure storage shop does not answer"):
        queue.depth("one")
    queue.close()
    assert set(credential.scopes) == {"https://storage.azure.com/.default"}


@pytest.mark.parametrize("provider", [AzureQueueProvider, AzureLockProvider])
def test_a_credential_that_finds_no_way_in(provider: Any) -> None:
    credential = Credential(ClientAuthenticationError(f"{SECRET}\nis no good\nat all"))
    made = provider("azure://shop", credential=credential)
    with pytest.raises(ProviderError, match="azure-identity finds no way to sign in") as failure:
        made.open()
    made.close()
    assert "\n" not in str(failure.value)
    assert SECRET not in str(failure.value)


@pytest.mark.parametrize("provider", [AzureQueueProvider, AzureLockProvider])
@pytest.mark.parametrize(
    "connection",
    [
        "",
        "azure:",
        "azure://",
        "azure://Shop.example.org/x",
        f"azure://shop:{SECRET}@host",
        f"azure://shop?key={SECRET}",
        f"azure://shop?suffix=a/{SECRET}",
        f"https://shop.queue.core.windows.net?sig={SECRET}",
        f"AccountName=shop;{SECRET}",
        f"AccountKey={SECRET}",
        f"AccountName=shop;AccountKey={SECRET}x",
        f"BlobEndpoint={SECRET};SharedAccessSignature=x",
    ],
)
def test_wrong_connections_to_azure_are_refused(provider: Any, connection: str) -> None:
    with pytest.raises(SettingsError, match=r"^azure: ") as failure:
        provider(connection)
    assert SECRET not in str(failure.value)
    assert "\n" not in str(failure.value)


def test_a_credential_beside_a_connection_string_is_refused() -> None:
    with pytest.raises(SettingsError, match="credential goes with azure://ACCOUNT"):
        AzureQueueProvider(STRING, credential=Credential())


@pytest.mark.parametrize(
    "options",
    [
        {"visibility_timeout": 0},
        {"visibility_timeout": 2.5},
        {"visibility_timeout": 8 * 24 * 3600},
        {"poll_interval": 0},
        {"broadcast_interval": -1},
    ],
)
def test_impossible_options_of_the_azure_queue(options: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=next(iter(options))):
        AzureQueueProvider(STRING, **options)


# --------------------------------------------------------------------------------------------------- AWS


@pytest.mark.parametrize(
    ("provider", "scheme"), [(SqsQueueProvider, "sqs"), (DynamoLockProvider, "dynamodb")]
)
@pytest.mark.parametrize(
    "rest",
    [
        "",
        ":eu-west-1/x",
        f"://AKIA:{SECRET}@eu-west-1",
        "://eu-west-1/x",
        f"://eu-west-1?key={SECRET}",
        "://[x",
    ],
)
def test_wrong_urls_of_aws_are_refused(provider: Any, scheme: str, rest: str) -> None:
    url = scheme + rest if rest else "http://eu-west-1"
    with pytest.raises(SettingsError, match=rf"^{scheme}: ") as failure:
        provider(url)
    assert SECRET not in str(failure.value)


@pytest.fixture
def no_aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine that knows nothing of AWS."""
    for name in (
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_PROFILE",
        "AWS_DEFAULT_REGION",
        "AWS_REGION",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.mark.usefixtures("no_aws")
@pytest.mark.parametrize("provider", [SqsQueueProvider, DynamoLockProvider])
class TestNothingConfigured:
    def scheme(self, provider: Any) -> str:
        return "sqs" if provider is SqsQueueProvider else "dynamodb"

    def test_no_region(self, provider: Any) -> None:
        with pytest.raises(SettingsError, match="no region; name it in the URL"):
            provider(f"{self.scheme(provider)}://").open()

    def test_no_credentials(self, provider: Any) -> None:
        made = provider(f"{self.scheme(provider)}://eu-west-1?endpoint=http://127.0.0.1:{free_port()}")
        with pytest.raises(ProviderError, match="no AWS credentials are found; set AWS_ACCESS_KEY_ID"):
            made.open()
        made.close()

    def test_no_such_profile(self, provider: Any) -> None:
        with pytest.raises(SettingsError, match="no such profile"):
            provider(f"{self.scheme(provider)}://eu-west-1?profile=nobody").open()

    def test_an_endpoint_that_is_none(self, provider: Any) -> None:
        with pytest.raises(SettingsError, match="no client can be made"):
            provider(f"{self.scheme(provider)}://eu-west-1?endpoint=nonsense", session=session()).open()


@pytest.mark.parametrize(
    "options",
    [{"visibility_timeout": 0}, {"visibility_timeout": 43_201}, {"wait_time": 21}, {"wait_time": 0.5}],
)
def test_impossible_options_of_the_sqs_queue(options: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=next(iter(options))):
        SqsQueueProvider("sqs://eu-west-1", **options)


# ----------------------------------------------------------------------------------------------- by URL


def test_urls_lead_to_the_providers() -> None:
    azure = Servers("sqlite:///x.db", "azure:" + STRING, "azure:" + STRING).host(Settings())
    assert isinstance(azure.queue, AzureQueueProvider)
    assert isinstance(azure.lock, AzureLockProvider)
    aws = Servers("sqlite:///x.db", "sqs://eu-west-1", "dynamodb://eu-west-1").host(Settings())
    assert isinstance(aws.queue, SqsQueueProvider)
    assert isinstance(aws.lock, DynamoLockProvider)


def test_a_bare_connection_string_as_url_shows_no_key() -> None:
    """It has no scheme; what stands before its first colon is not repeated."""
    string = f"AccountName=shop;AccountKey={SECRET};QueueEndpoint=http://127.0.0.1:1/shop"
    with pytest.raises(SettingsError, match="--queue: ") as failure:
        Servers("sqlite:///x.db", string, "redis://x").host(Settings())
    assert SECRET.lower() not in str(failure.value).lower()


@pytest.mark.parametrize(
    ("package", "url", "extra"),
    [("azure-storage-queue", "azure:" + STRING, "azure"), ("boto3", "sqs://eu-west-1", "aws")],
)
def test_a_missing_driver_is_said_with_its_extra(
    package: str, url: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str) -> str:
        if name == package:
            raise PackageNotFoundError(name)
        return installed(name)

    monkeypatch.setattr("liteflow.worker.discovery.version", version)
    with pytest.raises(SettingsError) as failure:
        Servers("sqlite:///x.db", url, "redis://x").host(Settings())
    scheme = url.partition(":")[0]
    assert str(failure.value) == (
        f"--queue: the driver for {scheme}:// is not installed ({package} is missing);"
        f" pip install 'liteflow.core[{extra}]'"
    )


def test_nothing_is_said_to_the_log_by_making_a_provider(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for provider in (AzureQueueProvider(STRING), AzureLockProvider(STRING)):
        assert KEY not in repr(provider) + caplog.text
