"""Which requests are live, which were, and how one is ended."""

from __future__ import annotations

import pytest

from server.access.request_meter import RequestMeter
from server.access.request_register import RequestRegister
from server.access.usage_ledger import UsageLedger
from server.caller import Caller
from server.config.schema import ModelConfig
from server.errors import Conflict, ObjectNotFound
from server.services import no_accounts
from server.telemetry.metrics import Metrics
from server.types import ChatPrompt

CHAT = ModelConfig(id="talker", kind="chat", backend="llama_cpp", source="file:x.gguf")


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def register(metrics: Metrics) -> RequestRegister:
    return RequestRegister(UsageLedger(no_accounts, None), metrics, max_recent=2)


def asking(register: RequestRegister, request_id: str, tenant: str = "ada") -> RequestMeter:
    meter = register.open(request_id, "/v1/chat/completions", find_caller=lambda: Caller(tenant=tenant))
    meter.begin(CHAT, ChatPrompt(()))
    return meter


def close(register: RequestRegister, meter: RequestMeter, *, error: str | None = None, status: int = 200) -> None:
    register.close(meter, http_status=status, error=error, is_complete=True)


def test_live_requests_are_told_with_their_stage(register: RequestRegister) -> None:
    asking(register, "r1")
    me = register.open("r2", "/admin/requests")

    [view] = register.live(besides=me)

    assert (view.request_id, view.tenant, view.model, view.stage, view.status) == (
        "r1",
        "ada",
        "talker",
        "queued",
        None,
    )
    assert register.num_live == 2


def test_the_last_requests_that_asked_a_model_are_told(register: RequestRegister) -> None:
    for name in ("r1", "r2", "r3"):
        close(register, asking(register, name))
    close(register, register.open("r4", "/v1/models"))

    assert [view.request_id for view in register.recent()] == ["r3", "r2"]
    assert register.num_live == 0


def test_how_they_ended_is_counted(register: RequestRegister, metrics: Metrics) -> None:
    close(register, asking(register, "r1"))
    close(register, asking(register, "r2"), error="worker_crashed", status=503)
    left = asking(register, "r3")
    register.close(left, http_status=499, error=None, is_complete=False)

    counts = {
        status: metrics.registry.get_sample_value("hearth_requests_total", {"model": "talker", "status": status})
        for status in ("completed", "worker_crashed", "client_gone")
    }
    assert counts == {"completed": 1, "worker_crashed": 1, "client_gone": 1}


def test_requests_that_are_turned_away_are_counted_by_reason(register: RequestRegister, metrics: Metrics) -> None:
    close(register, register.open("r1", "/v1/embeddings"), error="overloaded", status=503)
    close(register, asking(register, "r2"), error="overloaded", status=529)  # as Anthropic says it
    close(register, asking(register, "r3"), error="worker_crashed", status=503)  # it was let in

    [family] = [each for each in metrics.registry.collect() if each.name == "hearth_admission_rejections"]
    assert [(sample.labels, sample.value) for sample in family.samples] == [({"reason": "overloaded"}, 2)]


def test_a_request_is_closed_once(register: RequestRegister, metrics: Metrics) -> None:
    meter = asking(register, "r1")
    close(register, meter)
    close(register, meter)

    assert metrics.registry.get_sample_value("hearth_http_responses_total", {"status": "200"}) == 1


@pytest.mark.parametrize("by", ["id", "request_id"])
def test_a_request_is_cancelled_by_either_id(register: RequestRegister, by: str) -> None:
    meter = asking(register, "r1")

    assert register.cancel(getattr(meter, by)) == 1
    assert meter.is_cancelled


def test_an_id_that_several_tenants_use_ends_nobodys_request(register: RequestRegister) -> None:
    meters = [asking(register, "r1", tenant) for tenant in ("ada", "bob")]

    with pytest.raises(Conflict) as conflict:
        register.cancel("r1")

    assert all(meter.id in conflict.value.message and not meter.is_cancelled for meter in meters)


def test_an_id_of_ours_comes_before_one_that_a_client_has_chosen(register: RequestRegister) -> None:
    meter = asking(register, "r1")
    thief = asking(register, meter.id, "bob")

    assert register.cancel(meter.id) == 1
    assert (meter.is_cancelled, thief.is_cancelled) == (True, False)


def test_only_live_requests_can_be_cancelled(register: RequestRegister) -> None:
    close(register, asking(register, "r1"))

    with pytest.raises(ObjectNotFound, match="it may be over"):
        register.cancel("r1")
