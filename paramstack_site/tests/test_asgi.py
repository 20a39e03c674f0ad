"""The dispatcher: who gets which address, and that the gateway starts and drains with the server."""

import httpx2
import pytest

from inference.gateway.app import Gateway
from paramstack_site import asgi


async def get(path: str) -> httpx2.Response:
    transport = httpx2.ASGITransport(app=asgi.application)
    async with httpx2.AsyncClient(transport=transport, base_url="http://testserver") as client:
        return await client.get(path)


@pytest.fixture
async def running(redis_url, monkeypatch):
    """The application between startup and shutdown, as uvicorn would drive it."""
    monkeypatch.setattr(asgi, "gateway", Gateway(lambda key: None, redis_url, b"secret"))
    await asgi.gateway.startup()
    yield
    await asgi.gateway.shutdown()


async def test_v1_is_the_gateways_and_speaks_its_errors(running):
    answer = await get("/v1/models")
    assert (answer.status_code, list(answer.json())) == (401, ["error"])


@pytest.mark.django_db(transaction=True)
async def test_everything_else_is_djangos(running):
    assert (await get("/v10/models")).status_code == 404


@pytest.mark.django_db(transaction=True)
async def test_it_says_that_it_works():
    answer = await get("/healthz")
    assert (answer.status_code, answer.text) == (200, "ok\n")


async def test_the_server_starts_and_drains_the_gateway(monkeypatch):
    calls = []

    class Recorder:
        async def startup(self):
            calls.append("startup")

        async def shutdown(self):
            calls.append("shutdown")

    monkeypatch.setattr(asgi, "gateway", Recorder())
    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive():
        return next(messages)

    async def send(message):
        calls.append(message["type"])

    await asgi.application({"type": "lifespan"}, receive, send)
    assert calls == ["startup", "lifespan.startup.complete", "shutdown", "lifespan.shutdown.complete"]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("client", "status"), [("127.0.0.1", 200), ("8.8.8.8", 404)])
async def test_metrics_are_told_inside_only(client, status):
    transport = httpx2.ASGITransport(app=asgi.application, client=(client, 1))
    async with httpx2.AsyncClient(transport=transport, base_url="http://testserver") as asking:
        answer = await asking.get("/metrics")
    assert answer.status_code == status
    for name in ("paramstack_gateway_calls_total", "paramstack_reconciliation_holds"):
        assert (name in answer.text) is (status == 200)
