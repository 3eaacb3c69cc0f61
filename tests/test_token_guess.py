from __future__ import annotations

from server.token_guess import num_input_tokens, num_prompt_tokens
from server.types import ChatMessage, ChatPrompt, TextPrompt, TokensPrompt


def test_prompts_are_counted_roughly_and_token_ids_exactly() -> None:
    message = ChatMessage(role="user", content="x" * 400)

    assert num_prompt_tokens(ChatPrompt((message, message))) == 200
    assert num_prompt_tokens(TextPrompt("x" * 40, suffix="y" * 40)) == 20
    assert num_prompt_tokens(TokensPrompt([1, 2, 3])) == 3
    assert num_input_tokens(["x" * 40, [1, 2, 3]]) == 11 + 3
