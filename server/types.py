"""The values that cross layers: what to generate, how to sample, and what a stream can say.

msgspec structs, because the same values cross process borders (`workers/messages.py` embeds them unchanged).
Nothing here knows HTTP, llama.cpp or how a request travels.
"""

from __future__ import annotations

import time
import uuid
from typing import ClassVar, Literal

import msgspec

TokenIds = list[int]
SpecialTokenIds = tuple[TokenIds, TokenIds]
"""What a tokenizer puts before and after a text."""
DEFAULT_TENANT = "default"
ModelKind = Literal["chat", "embedding", "rerank"]
ModelState = Literal["unloaded", "loading", "ready", "draining", "failed"]
FinishReason = Literal["stop", "length", "tool_calls"]

Truncate = Literal["error", "end", "start", "mean"]
"""What becomes of an encoder input that is too long: refused; cut at that side; or embedded in windows whose vectors
are averaged, so that nothing is lost."""

Lane = Literal["interactive", "bulk"]
"""Who goes first in an encoder's queue: somebody who waits for the answer, or a job that has time."""

INPUT_TYPES: dict[str, tuple[str, ...]] = {
    "query": ("query", "search_query", "retrieval.query", "web_search_query"),
    "document": ("document", "passage", "search_document", "retrieval.passage", "text"),
    "classification": ("classification",),
    "clustering": ("clustering", "separation"),
    "similarity": ("similarity", "text-matching", "sts"),
}
"""What texts are embedded for, with all the names that clients and models have for it, the likeliest first."""


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How to pick tokens. Ranges are checked at the API edge; the engine trusts them.

    Attributes:
        max_tokens: Upper bound of generated tokens; None means until the context is full.
        temperature: 0 is greedy; 1 leaves the model's distribution as it is.
        top_p, top_k, min_p: Truncation of the distribution; 1, 0 and 0 switch each off.
        presence_penalty, frequency_penalty: OpenAI's, over generated tokens.
        repeat_penalty: llama.cpp's divisor, over prompt and generated tokens; 1 switches it off.
        logit_bias: Token id to a value added to its logit.
        seed: Same seed and same request give the same tokens; None draws a fresh one.
        stop: Texts that end the generation and are not part of the answer.
        ignore_eos: Never pick an end-of-generation token (for benchmarks).
        num_logprobs: Tell how likely each token was, and so many of the likeliest in its place; None: tell nothing.
    """

    max_tokens: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repeat_penalty: float = 1.0
    logit_bias: dict[int, float] = {}
    seed: int | None = None
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    num_logprobs: int | None = None


class ToolCall(msgspec.Struct, frozen=True):
    """One call of a function by the model. `arguments` is JSON text, as OpenAI has it."""

    id: str
    name: str
    arguments: str


def new_call_id() -> str:
    return f"call_{uuid.uuid4().hex[:24]}"


class ToolCallDelta(msgspec.Struct, frozen=True, omit_defaults=True):
    """More of one tool call: `id` and `name` with its first delta and never again, `arguments` in pieces.

    Attributes:
        index: Which call of the answer, from 0.
    """

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


class ChatMessage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One turn of a conversation, its content already flattened to text.

    Attributes:
        reasoning: What the assistant thought before; templates show of it what their model was trained with.
    """

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str = ""
    reasoning: str = ""
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None


class Tool(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A function that the client offers.

    Attributes:
        parameters: JSON Schema of the arguments, an object, as JSON text.
        strict: The arguments must satisfy the schema, however the call came about.
    """

    name: str
    description: str = ""
    parameters: str = '{"type": "object", "properties": {}}'
    strict: bool = False


class ToolUse(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an answer may call.

    Attributes:
        tools: All that the model is told of; names are unique.
        names: Those that it may call.
        is_required: The answer consists of at least one call.
        is_parallel: It may have several.
    """

    tools: tuple[Tool, ...] = ()
    names: tuple[str, ...] = ()
    is_required: bool = False
    is_parallel: bool = True


NO_TOOLS = ToolUse()

ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh"]
TemplateOption = str | int | float | bool


class ChatPrompt(msgspec.Struct, frozen=True, tag="chat", omit_defaults=True):
    """Messages, to be rendered by the model's own chat template in the worker.

    Attributes:
        tool_use: What the answer may call.
        reasoning_effort: How much to think first; None: as the model does by itself.
        template_options: Variables that the template reads, by name.
        continues_last: The last message, which is the assistant's, is the beginning of the answer, and no turn of its
            own.
    """

    param: ClassVar[str] = "messages"  # the request field that errors name
    messages: tuple[ChatMessage, ...]
    tool_use: ToolUse = NO_TOOLS
    reasoning_effort: ReasoningEffort | None = None
    template_options: dict[str, TemplateOption] = {}
    continues_last: bool = False


class TextPrompt(msgspec.Struct, frozen=True, tag="text", omit_defaults=True):
    """Raw text, continued as it stands; the client writes its own template, so control-token strings in it count.

    Attributes:
        adds_bos: The BOS token is put before it, if the model wants one.
        parses_special: Control-token strings in it become control tokens.
        suffix: What comes behind the gap that is to be filled. With one, nothing in either text is a control token.
    """

    param: ClassVar[str] = "prompt"
    text: str
    suffix: str = ""
    adds_bos: bool = True
    parses_special: bool = True


class TokensPrompt(msgspec.Struct, frozen=True, tag="tokens"):
    """Token ids of the model's own vocabulary."""

    param: ClassVar[str] = "prompt"
    token_ids: TokenIds


Prompt = ChatPrompt | TextPrompt | TokensPrompt


class RenderedPart(msgspec.Struct, frozen=True, array_like=True):
    """Part of a rendered prompt. Only where `parses_special` do control-token strings become control tokens."""

    text: str
    parses_special: bool


class RenderedPrompt(msgspec.Struct, frozen=True):
    """What a conversation is to the model.

    Attributes:
        parts: Its text, in order.
        token_ids: Of all of it, with the BOS token where the model wants one.
    """

    parts: list[RenderedPart]
    token_ids: TokenIds


class Urgency(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How soon a generation should be served.

    Attributes:
        priority: Lower runs first.
        timeout_s: Counted from its arrival; what is not answered by then fails. None waits for ever.
        weight: Share of a busy model that its tenant gets, against the weights of the others who want it.
    """

    priority: int = 0
    timeout_s: float | None = None
    weight: float = 1.0


NO_HURRY = Urgency()


GrammarKind = Literal["json_object", "json_schema", "regex", "lark", "gbnf", "answer"]
"""What a grammar is written in. `answer` is Lark of our own around what the client wants: it may name control tokens by
their ids (`<[7]>`), and another grammar as `@content`."""


class Grammar(msgspec.Struct, frozen=True):
    """What a generated text has to be. Whether it can be honoured, the model's worker finds out.

    Attributes:
        text: The JSON schema, the regular expression or the grammar; empty for any JSON object.
        param: The request field that errors name.
    """

    kind: GrammarKind
    text: str
    param: str

    @property
    def size_bytes(self) -> int:
        return len(self.text.encode())


class GenerateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One generation.

    Attributes:
        request_id: Unique among live requests.
        grammar: Only tokens that it allows are picked; None: all.
        tenant: Only requests of one tenant share what the model has computed of their prompts.
        echoes: The text of a prompt that is no conversation comes before the answer.
        prediction: What the answer will probably say. It changes no word, only how soon they come.
        arrived_at: `time.monotonic()`, which all processes of one machine have in common.
    """

    request_id: str
    prompt: Prompt
    sampling: SamplingParams
    grammar: Grammar | None = None
    urgency: Urgency = NO_HURRY
    tenant: str = DEFAULT_TENANT
    echoes: bool = False
    prediction: str = ""
    arrived_at: float = msgspec.field(default_factory=time.monotonic)

    @property
    def may_have_grammar(self) -> bool:
        """Whether it takes compiling a grammar: its own, or one for the calls of tools."""
        return self.grammar is not None or (isinstance(self.prompt, ChatPrompt) and bool(self.prompt.tool_use.names))


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Token counts of one request. `cached_tokens` of the prompt were not computed again; `reasoning_tokens` of the
    completion are no part of its content. The last two, where the request has a prediction, are tokens that were
    computed ahead, and turned out right or wrong."""

    prompt_tokens: int
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0


class Timings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the time of one generation went, in milliseconds that add up.

    Attributes:
        tokenize_ms: Rendering and tokenising the prompt, and compiling a grammar.
        queue_ms: Everything else before its first step.
        prefill_ms: From there to its first token.
        decode_ms: From there to its last one.
    """

    queue_ms: float
    tokenize_ms: float
    prefill_ms: float
    decode_ms: float


class Started(msgspec.Struct, frozen=True, tag="started", omit_defaults=True):
    """The prompt is valid, tokenised and queued. First event of every stream, so that a refused request
    still gets its status code and a long prefill can be covered by keep-alive comments.

    Attributes:
        queue_ms, tokenize_ms: As in `Timings`, so far.
        has_begun: Comes a second time, where the model tells: from now on the prompt is being computed.
    """

    prompt_tokens: int
    queue_ms: float = 0.0
    tokenize_ms: float = 0.0
    has_begun: bool = False


class TokenChance(msgspec.Struct, frozen=True, array_like=True):
    """How likely a token was.

    Attributes:
        piece: Its bytes, which may be part of a character; of a control token its name.
        logprob: Natural logarithm of the probability that the model itself gave it, whatever the request asks for.
    """

    piece: bytes
    logprob: float


class TokenLogprob(msgspec.Struct, frozen=True, array_like=True):
    """One token of an answer, and the likeliest in its place, the best first."""

    chosen: TokenChance
    top: tuple[TokenChance, ...] = ()


class Delta(msgspec.Struct, frozen=True, tag="delta", omit_defaults=True):
    """More of the answer: whole code points only, never part of a stop string. Reasoning comes before text, text before
    calls.

    Attributes:
        logprobs: The tokens that `text` begins or goes on with, if the request wants them; none of anything else.
        num_tokens: That were generated since the one before, whether or not it has all of their text.
    """

    text: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    reasoning: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()
    num_tokens: int = 1


class Finished(msgspec.Struct, frozen=True, tag="finished", omit_defaults=True):
    """The generation ended as it should. Last event of a stream.

    Attributes:
        stop_text: The stop text that ended it, if one did.
        timings: Of a model that computes something.
    """

    reason: FinishReason
    usage: Usage
    stop_text: str | None = None
    timings: Timings | None = None


class Failed(msgspec.Struct, frozen=True, tag="failed", omit_defaults=True):
    """The generation ended in an error (see `errors.from_code`). Last event of a stream."""

    code: str
    message: str
    param: str | None = None


StreamEvent = Started | Delta | Finished | Failed
"""A stream is `Started Delta* Finished`, or ends early with `Failed`. It ends exactly once."""


class EncoderCounts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an encoder has computed since its start, failed forward passes left out.

    Attributes:
        num_batches, num_items: Forward passes, and rows that they gave.
        num_tokens, num_padding_tokens: What they computed: tokens of items, and the air between them.
        num_cached_inputs: Inputs that were answered without a forward pass.
    """

    num_batches: int = 0
    num_items: int = 0
    num_tokens: int = 0
    num_padding_tokens: int = 0
    num_cached_inputs: int = 0


class EngineCounts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the engine of a chat model has done since its start, and holds now.

    Attributes:
        num_steps, num_tokens: Steps, and the tokens that they computed.
        num_cells, num_used_cells: Of the KV cache: all, and those that running generations hold now.
        num_prefix_tokens, num_prefix_hits: Prompt tokens that were looked up in the prefix cache, and found.
        num_preemptions: Generations that lost their cells to others, and were computed again.
        num_drafted, num_accepted: Tokens that were computed ahead, and turned out right.
    """

    num_steps: int = 0
    num_tokens: int = 0
    num_cells: int = 0
    num_used_cells: int = 0
    num_prefix_tokens: int = 0
    num_prefix_hits: int = 0
    num_preemptions: int = 0
    num_drafted: int = 0
    num_accepted: int = 0


class LoadProgress(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far a model that is loading has come.

    Attributes:
        elapsed_s: Since its load began.
        expected_s: What the whole load took the last time; None if it is not known.
        weights_fraction: Of the weights, what has been read, 0..1; None where the runtime does not tell.
    """

    elapsed_s: float
    expected_s: float | None = None
    weights_fraction: float | None = None

    @property
    def fraction(self) -> float | None:
        """0..1; never 1, as long as it is loading; None if nothing is known."""
        if self.weights_fraction is not None and self.weights_fraction < 1:
            return self.weights_fraction
        return min(self.elapsed_s / self.expected_s, 0.99) if self.expected_s else None

    @property
    def remaining_s(self) -> float | None:
        """About how long it will take yet; None if that cannot be told."""
        if self.expected_s is not None:
            return max(0.0, self.expected_s - self.elapsed_s)
        return self.elapsed_s * (1 / self.fraction - 1) if self.fraction else None


class Token(msgspec.Struct, frozen=True, array_like=True):
    """One token of a text.

    Attributes:
        text: What stands for it in the text; of a special token its name.
        start, stop: Where that is, in characters; None of a special token, which the model puts around a text.
    """

    id: int
    text: str
    start: int | None = None
    stop: int | None = None


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a worker found out about its model while loading.

    Attributes:
        context_length: Tokens that one request may hold (prompt and answer; or one encoder input).
        dimensions: Length of an embedding; 0 for other kinds.
        num_parameters: Weights in the model; 0 when unknown.
        architecture: As the weights name it, e.g. "llama" or "BertModel".
        prompts: Of an embedding model: prompt name ("query", "document") to the text that goes before an input, which
            may be empty.
        special_token_ids: Of an embedding model; empty where not known.
        fingerprint: Of an encoder: changes with whatever its vectors or scores depend on; empty of other models.
        details: What the runtime chose (threads, kernels), for `hearth doctor` and people.
    """

    context_length: int
    dimensions: int = 0
    num_parameters: int = 0
    architecture: str = ""
    prompts: dict[str, str] = {}
    special_token_ids: SpecialTokenIds = ([], [])
    fingerprint: str = ""
    load_s: float = 0.0
    details: dict[str, str] = {}

    def prompt_for(self, input_type: str) -> str:
        """Return the prompt of this name, or of another name for the same in `INPUT_TYPES`; empty if there is none."""
        synonyms = next((names for names in INPUT_TYPES.values() if input_type in names), ())
        return next((self.prompts[name] for name in (input_type, *synonyms) if name in self.prompts), "")
