"""A chat worker on the default chat model, without the API: what it makes of models.yaml."""

from __future__ import annotations

import pytest

from server.config.schema import Limits, ModelConfig
from server.workers.supervisor import Supervisor
from tests.fakes.scripted import spec_factory, until
from tests.integration.live_models import CHAT, REPOSITORY

pytestmark = pytest.mark.integration


@pytest.mark.usefixtures("live_config")  # pulls the weights
async def test_more_context_than_the_model_was_made_for_is_refused() -> None:
    [weights] = (REPOSITORY / "weights" / CHAT).glob("*.gguf")
    config = ModelConfig(id="m", kind="chat", backend="llama_cpp", source=f"file:{weights.name}", context=8193)
    supervisor = Supervisor(Limits())
    client = supervisor.add(config, spec_factory(config, weights_path=str(weights)))

    supervisor.load("m")
    await until("failed", client, timeout_s=60)
    failure = client.failure
    await supervisor.stop()

    assert failure == "context is 8193 but the model was made for 8192 tokens; lower context"
