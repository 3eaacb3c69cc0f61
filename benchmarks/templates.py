"""What it costs that chat templates are rendered by a process of their own: each real template, here and there.

    python -m benchmarks.templates                # half a minute

Renders a conversation of five messages, with a tool for the templates that take one, in this process and by a
`TemplateProcess`, in turn. Writes benchmarks/results/templates.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

from benchmarks.results import TEMPLATES, Section, environment
from server.prompting.chat_template import ChatTemplate
from server.prompting.sandboxed_template import Renderer, SandboxedTemplate
from server.prompting.template_process import TemplateProcess
from server.types import ChatMessage, Tool

FOLDER = Path(__file__).resolve().parents[1] / "tests" / "data" / "chat_templates"
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)
CONTROLS = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
NUM_RENDERS = 500

MESSAGES = (
    ChatMessage(role="system", content="You are a helpful assistant. " * 4),
    *(
        ChatMessage(role=role, content="The quick brown fox jumps over the lazy dog near the river bank. " * 8)
        for role in ("user", "assistant", "user")
    ),
)
TOOL = Tool(name="get_weather", description="The weather", parameters='{"type": "object", "properties": {}}')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=TEMPLATES)
    arguments = parser.parse_args()
    sources = {"chatml": CHATML, **{path.stem: path.read_text("utf-8") for path in sorted(FOLDER.glob("*.jinja"))}}
    section: Section = {**environment(), "num_renders": NUM_RENDERS, "templates": {}}
    for name, source in sources.items():
        section["templates"][name] = measured = measure(source)
        print(f"{name}: {measured}", flush=True)
    arguments.out.write_text(json.dumps(section, indent=1) + "\n", encoding="utf-8")


def measure(source: str) -> dict[str, float]:
    """Median microseconds of a render, quarantine included."""
    process = TemplateProcess(source)
    here, there = _template(source, SandboxedTemplate(source)), _template(source, process)
    times: dict[str, list[float]] = {"in_this_process": [], "in_a_child": []}
    for _ in range(NUM_RENDERS):
        for template, taken in zip((here, there), times.values(), strict=True):
            started_s = time.perf_counter()
            template.render(MESSAGES, tools=[TOOL] if template.abilities.takes_tools else [])
            taken.append(1e6 * (time.perf_counter() - started_s))
    process.close()
    return {name: round(statistics.median(taken), 1) for name, taken in times.items()}


def _template(source: str, renderer: Renderer) -> ChatTemplate:
    return ChatTemplate(source, lambda _: renderer, model="m", control_texts=CONTROLS, bos="<s>", eos="</s>")


if __name__ == "__main__":
    main()
