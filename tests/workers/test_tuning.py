from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from server.workers.tuning import Choices, OutOfTime, RuntimeSettings, Search, Trial, Tuning

RULE = RuntimeSettings(kv="streams", flash_attention=False, kv_type="f16", threads=4, ubatch_tokens=512)
CHOICES = Choices(
    rule=RULE,
    kv=("streams", "unified"),
    flash_attention=(False, True),
    kv_type=("f16", "q8_0"),
    threads=(4, 3),
    ubatch_tokens=(512, 1024),
)

StepMs = Callable[[RuntimeSettings], float]


class Machine:
    """Takes as long for a decode step as it is told to; notes what was tried."""

    def __init__(self, step_ms: StepMs) -> None:
        self._step_ms = step_ms
        self.tried: list[RuntimeSettings] = []

    def measure(self, settings: RuntimeSettings) -> Trial:
        self.tried.append(settings)
        step_ms = self._step_ms(settings)
        return Trial(
            settings=settings,
            num_sequences=8,
            prefill_tokens_per_s=1000.0,
            unrelated_step_ms=step_ms,
            shared_step_ms=step_ms,
            failure="" if step_ms else "not for this model",
        )


def search(step_ms: StepMs, *, budget_s: float = 60, prompt_tokens: int = 1000) -> tuple[Tuning, Machine]:
    machine = Machine(step_ms)
    return Search(CHOICES, machine.measure, budget_s=budget_s, prompt_tokens=prompt_tokens).run(), machine


def but(**changes: object) -> RuntimeSettings:
    return msgspec.structs.replace(RULE, **changes)


def test_the_fastest_of_all_combinations_of_layout_and_flash_attention_is_found() -> None:
    """Each alone is slower than the rule."""
    best = but(kv="unified", flash_attention=True)

    tuning, _ = search(lambda settings: 50 if settings == best else 100)

    assert tuning.best == best
    assert tuning.is_complete


def test_settings_that_do_not_depend_on_each_other_are_found_one_by_one() -> None:
    tuning, _ = search(lambda settings: 100 - 40 * (settings.threads == 3) - 40 * (settings.ubatch_tokens == 1024))

    assert tuning.best == but(threads=3, ubatch_tokens=1024)


def test_a_gain_of_a_few_percent_does_not_replace_the_rule() -> None:
    tuning, _ = search(lambda settings: 100 if settings == RULE else 97)

    assert tuning.best == RULE


def test_a_slow_moment_does_not_cost_the_incumbent_its_place() -> None:
    moments = iter([300.0])

    tuning, machine = search(lambda settings: next(moments, 100.0))

    assert tuning.best == RULE
    assert machine.tried.count(RULE) == 2


@pytest.mark.parametrize(("step_ms", "expected"), [(88.0, 4), (60.0, 3)])
def test_fewer_threads_must_be_much_faster(step_ms: float, expected: int) -> None:
    """Else a machine that happens to be busy decides for all times."""
    tuning, _ = search(lambda settings: step_ms if settings.threads == 3 else 100)

    assert tuning.best == but(threads=expected)


@pytest.mark.parametrize(("step_ms", "expected"), [(92.0, "f16"), (60.0, "q8_0")])
def test_a_smaller_kv_type_must_be_much_faster(step_ms: float, expected: str) -> None:
    """It changes answers: 7 % more speed would do for any other setting."""
    flash = but(flash_attention=True)

    tuning, _ = search(lambda settings: {"q8_0": step_ms}.get(settings.kv_type, 100 if settings == flash else 200))

    assert tuning.best == but(flash_attention=True, kv_type=expected)


def test_a_smaller_kv_type_is_not_tried_without_flash_attention() -> None:
    _, machine = search(lambda settings: 200 if settings.flash_attention else 100)

    assert {settings.kv_type for settings in machine.tried} == {"f16"}


def test_what_fails_does_not_win() -> None:
    tuning, _ = search(lambda settings: 0 if settings.flash_attention else 100)

    assert tuning.best == RULE
    assert [trial.failure for trial in tuning.trials if trial.settings.flash_attention] == ["not for this model"] * 2


def test_a_rule_that_fails_is_replaced_by_what_runs() -> None:
    tuning, _ = search(lambda settings: 100 if settings.flash_attention else 0)

    assert tuning.best == but(flash_attention=True)


def test_without_time_the_rule_is_tried_and_kept() -> None:
    tuning, machine = search(lambda _settings: 100, budget_s=0)

    assert (tuning.best, tuning.is_complete, machine.tried) == (RULE, False, [RULE])


def test_a_trial_that_is_cut_off_ends_the_search_with_what_is_known() -> None:
    def step_ms(settings: RuntimeSettings) -> float:
        if settings.threads == 3:
            raise OutOfTime
        return 50 if settings.kv == "unified" else 100

    tuning, _ = search(step_ms)

    assert (tuning.best, tuning.is_complete) == (but(kv="unified"), False)


def test_micro_batches_longer_than_the_prompt_are_not_told_apart() -> None:
    _, machine = search(lambda _settings: 100, prompt_tokens=500)

    assert {settings.ubatch_tokens for settings in machine.tried} == {512}


def test_the_score_is_the_speed_of_the_reference_load() -> None:
    """8 chats: 8 x 288 prompt tokens at 1000/s, twice 128 steps of 100 ms, for 16 answers of 128 tokens."""
    trial = Machine(lambda _settings: 100).measure(RULE)

    assert trial.tokens_per_s == pytest.approx(16 * 128 / (2.304 + 25.6))


def test_of_two_searches_whichever_tried_more_counts() -> None:
    tuning, _ = search(lambda _settings: 100)
    hasty = msgspec.structs.replace(tuning, trials=tuning.trials[:1], is_complete=False)
    half = msgspec.structs.replace(tuning, trials=tuning.trials[:2], is_complete=False)

    assert hasty.after(half).trials == half.after(hasty).trials == half.trials
    assert tuning.after(half).is_settled and half.after(tuning).is_settled
    assert not half.after(hasty).is_settled
    assert half.after(half.after(hasty)).is_settled  # the third
