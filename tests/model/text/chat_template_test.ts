import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { type ChatMessage, chatTemplate } from "../../../model/text/chat_template.ts";
import { CheckpointError } from "../../../model/files/safetensors.ts";
import type { TokenizerConfig } from "../../../model/text/tokenizer_json.ts";

const now = new Date(2024, 6, 26, 9, 5, 7);
const messages: readonly ChatMessage[] = [
  { role: "user", content: "Hello <b>" },
  { role: "assistant", content: "Hi!" },
  { role: "user", content: "a\nb" },
];

function render(
  template: TokenizerConfig["chat_template"],
  { addGenerationPrompt, ...config }: TokenizerConfig & { addGenerationPrompt?: boolean } = {},
): string {
  const apply = chatTemplate({ config: { ...config, chat_template: template }, source: "a model" })!;
  return apply(messages, { now, ...(addGenerationPrompt !== undefined && { addGenerationPrompt }) });
}

/** SmolLM2's. */
const chatMl = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}" +
  "{{ '<|im_start|>system\nBe kind<|im_end|>\n' }}{% endif %}" +
  "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}" +
  "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

Deno.test("a conversation becomes the text that Hugging Face's library makes of it", () => {
  const turns = "<|im_start|>system\nBe kind<|im_end|>\n<|im_start|>user\nHello <b><|im_end|>\n" +
    "<|im_start|>assistant\nHi!<|im_end|>\n<|im_start|>user\na\nb<|im_end|>\n";
  assertEquals(render(chatMl), `${turns}<|im_start|>assistant\n`);
  assertEquals(render(chatMl, { addGenerationPrompt: false }), turns);
});

Deno.test("a long conversation is no endless loop", () => {
  const long = Array.from(
    { length: 3000 },
    (_, i) => ({ role: i % 2 ? "assistant" : "user", content: `${i}` }),
  );
  const apply = chatTemplate({ config: { chat_template: chatMl }, source: "a model" })!;
  assertEquals(apply(long, { now }).split("<|im_end|>").length, 3002);
});

Deno.test("templates get special tokens, the date and what else transformers gives them", () => {
  const tokens = { bos_token: "<s>", eos_token: "</s>" };
  assertEquals(
    render("{{ bos_token }}{{ messages[1].content | trim }}{{ eos_token }}", tokens),
    "<s>Hi!</s>",
  );
  assertEquals(render("[{{ bos_token }}]{{ bos_token is defined }}"), "[]false");
  assertEquals(
    render("{{ strftime_now('%d %b %Y, %A %B %m %H:%M:%S %a %% %q') }}"),
    "26 Jul 2024, Friday July 07 09:05:07 Fri % %q",
  );
  assertEquals(render("{{ tools is none }} {{ none is none and True }}"), "true true");
  assertEquals(
    render("{{ range(3) | join(',') }} {{ range(5, 0, -2) | join(',') }} {{ range(2, 2) | length }}"),
    "0,1,2 5,3,1 0",
  );
});

Deno.test("of several templates the default one is taken", () => {
  const tool = { name: "tool_use", template: "tool" };
  assertEquals(render([tool, { name: "default", template: "plain" }]), "plain");
  assertThrows(() => render([tool]), CheckpointError, "has the templates tool_use, wanted one named default");
  assertThrows(() => render([]), CheckpointError, "(none)");
});

Deno.test("a model without a template has none", () => {
  for (const chat_template of [undefined, null, ""]) {
    assertEquals(chatTemplate({ config: { chat_template }, source: "a model" }), null);
  }
});

Deno.test("templates reach nothing but their own values", () => {
  for (const name of ["constructor", "__proto__", "prototype", "toString"]) {
    assertEquals(
      render(`[{{ messages.${name} }}{{ ''.${name} }}{{ range.${name} }}{{ messages[0]['${name}'] }}]`),
      "[]",
    );
  }
  for (const name of ["Deno", "globalThis", "process", "eval"]) assertEquals(render(`[{{ ${name} }}]`), "[]");
});

Deno.test("a template that fails or does not end gives one line", () => {
  const double = (value: string, operator: string): string =>
    `{% set n = namespace(x=${value}) %}{% for i in range(64) %}{% set n.x = n.x ${operator} n.x %}{% endfor %}`;
  const cases = [
    ["{{ raise_exception('roles must\nalternate') }}", "roles must alternate"],
    ["{% if %}", "Unexpected token"],
    ["{% for message in messages %}", "it ends inside a statement"],
    ["{{ messages", "Unexpected end of input"],
    ["{# a", "Missing end of comment"],
    ["{{ 1 + none }}", "null"],
    ["{{ messages | unheard_of }}", "unheard_of"],
    [
      "{% for i in range(10000) %}{% for j in range(10000) %}{% endfor %}x{% endfor %}",
      "does not end within",
    ],
    ["{% macro f(g) %}{{ g(g) }}{% endmacro %}{{ f(f) }}", "goes deeper than"],
    ["{{ range(10 ** 12) }}", "a range of 1000000000000 numbers"],
    ["{{ range(0, 5, 0) }}", "a range of Infinity numbers"],
    // What its parser and its filters do by themselves.
    [" ".repeat(2_000_000) + "x", "does not end within 1 s"],
    [
      `${double("1", ",").replaceAll("n.x , n.x", "[n.x, n.x]")}{{ n.x | tojson }}`,
      "does not end within 1 s",
    ],
    [double("'ab'", "~"), "characters or items"],
    [double("[1]", "+"), "characters or items"],
  ] as const;
  for (const [template, part] of cases) {
    const error = assertThrows(() => render(template), CheckpointError);
    assertStringIncludes(error.message, "Cannot use the chat template of a model: ");
    assertStringIncludes(error.message, part);
    assertEquals(error.message.includes("\n"), false);
  }
});
