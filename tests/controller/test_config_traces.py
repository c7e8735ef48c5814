"""The variables of OpenTelemetry: what is read, which one counts, and what is refused by its name."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from controller.config import settings, traces
from controller.core import errors, secret

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:1"}
HTTP = {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}


def load(environment: dict[str, str], file: Path | None = None) -> traces.Traces | None:
    return settings.load({}, environment, file).traces


def test_without_an_endpoint_spans_go_nowhere_and_nothing_else_is_looked_at() -> None:
    assert load({}) is None
    assert load({"OTEL_TRACES_EXPORTER": "zipkin", "OTEL_EXPORTER_OTLP_TIMEOUT": "soon"}) is None


def test_an_endpoint_alone_is_spoken_to_over_grpc() -> None:
    assert load(ENDPOINT) == traces.Traces("http://a:1")


def test_the_file_names_an_endpoint_where_no_variable_does(tmp_path: Path) -> None:
    file = tmp_path / "controller.toml"
    file.write_text('otlp_endpoint = "http://c:3"')
    assert load({}, file) == traces.Traces("http://c:3")
    assert load(ENDPOINT, file) == traces.Traces("http://a:1")


@pytest.mark.parametrize("more", [{"OTEL_SDK_DISABLED": "True"}, {"OTEL_TRACES_EXPORTER": "none"}], ids="".join)
def test_what_is_switched_off_goes_nowhere(more: dict[str, str]) -> None:
    assert load(ENDPOINT | more) is None


@pytest.mark.parametrize(
    ("environment", "endpoint"),
    [
        (ENDPOINT | HTTP, "http://a:1/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:1/base/"} | HTTP, "http://a:1/base/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://b:2/as-it-is"} | HTTP, "http://b:2/as-it-is"),
        (ENDPOINT | {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://b:2"}, "http://b:2"),
        (ENDPOINT | {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": ""}, "http://a:1"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4317"}, "collector:4317"),
    ],
)
def test_the_endpoint_is_found_as_the_specification_says(environment: dict[str, str], endpoint: str) -> None:
    found = load(environment)
    assert found is not None
    assert found.endpoint == endpoint


def test_everything_is_read_and_what_is_said_of_traces_counts(tmp_path: Path) -> None:
    names = ("CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE")
    for name in names:
        (tmp_path / name).write_text("pem")
    general = {
        "PROTOCOL": "grpc",
        "HEADERS": "Authorization=Bearer%20one,x-tenant=t",
        "TIMEOUT": "1",
        "COMPRESSION": "none",
        "INSECURE": "false",
    } | dict.fromkeys(names, "/nowhere")
    specific = {
        "PROTOCOL": "http/protobuf",
        "HEADERS": " Authorization = Bearer%20two ",
        "TIMEOUT": "2500",
        "COMPRESSION": "gzip",
        "INSECURE": "true",
    } | {name: str(tmp_path / name) for name in names}
    found = load(
        ENDPOINT
        | {f"OTEL_EXPORTER_OTLP_{name}": value for name, value in general.items()}
        | {f"OTEL_EXPORTER_OTLP_TRACES_{name}": value for name, value in specific.items()}
        | {"OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=prod%2Ceu,service.name=a", "OTEL_SERVICE_NAME": "b"}
    )
    assert found == traces.Traces(
        endpoint="http://a:1/v1/traces",
        protocol=traces.Protocol.HTTP,
        headers=(("authorization", secret.Secret("Bearer two")),),
        timeout=timedelta(seconds=2.5),
        compression=traces.Compression.GZIP,
        certificate=tmp_path / "CERTIFICATE",
        client_key=tmp_path / "CLIENT_KEY",
        client_certificate=tmp_path / "CLIENT_CERTIFICATE",
        is_insecure=True,
        resource={"deployment.environment.name": "prod,eu", "service.name": "b"},
    )
    assert "Bearer" not in repr(found)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "udp"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://a:1"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://:1"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "0"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "60001"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "3s"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
        ("OTEL_EXPORTER_OTLP_INSECURE", "maybe"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere/ca.pem"),
        ("OTEL_RESOURCE_ATTRIBUTES", "no pair"),
    ],
)
def test_a_value_that_breaks_its_rule_is_refused_by_the_name_of_its_variable(name: str, value: str) -> None:
    with pytest.raises(errors.InvalidRequestError) as caught:
        load(ENDPOINT | {name: value})
    assert caught.value.field == name
    assert caught.value.code == "setting_invalid"


def test_a_key_without_its_certificate_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("pem")
    with pytest.raises(errors.InvalidRequestError) as caught:
        load(ENDPOINT | {"OTEL_EXPORTER_OTLP_CLIENT_KEY": str(tmp_path / "key")})
    assert caught.value.field == "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization:hunter2"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "bad name=hunter2"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://me:hunter2@a:1"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:hunter2"),
    ],
)
def test_what_may_be_a_secret_is_refused_without_being_repeated(name: str, value: str) -> None:
    with pytest.raises(errors.InvalidRequestError) as caught:
        load(ENDPOINT | {name: value})
    assert caught.value.field == name
    assert "hunter2" not in f"{caught.value} {caught.value.value}"
