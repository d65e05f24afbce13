/** `mor generate --chat`, and where a text ends, on a model with a chat template. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { readTokenizer } from "../../model/text/tokenizer_json.ts";
import { assertFails, corpus, morDone } from "../support/program.ts";
import { smallRun } from "../support/small_run.ts";

const TEMPLATE = `{% for message in messages -%}
  {% if message.role == "system" and not loop.first %}{{ raise_exception("late") }}{% endif -%}
  {% if "forbidden" in message.content %}{{ raise_exception("It is not allowed.") }}{% endif -%}
  {{ "<|start|>" + message.role + "\n" + message.content | trim + "<|end|>\n" }}
{%- endfor %}{% if add_generation_prompt %}{{ "<|start|>assistant\n" }}{% endif %}`;

let folder: string;
let model: string;

Deno.test.beforeAll(async () => {
  folder = await Deno.makeTempDir();
  model = join(folder, "model");
  const tokenizer = join(folder, "tokenizer");
  const special = ["--special", "<|start|>", "--special", "<|end|>"];
  await morDone([
    ...["tokenizer", "train", "--data", corpus, "--vocab-size", "400", "--out", tokenizer],
    ...special,
  ]);
  await changeJson(tokenizer, "tokenizer_config.json", { chat_template: TEMPLATE });
  // Texts begin with <|endoftext|>, unless what is put before them is left out.
  await changeJson(tokenizer, "tokenizer.json", {
    post_processor: {
      type: "TemplateProcessing",
      single: [{ SpecialToken: { id: "<|endoftext|>", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
      pair: [],
      special_tokens: { "<|endoftext|>": { id: "<|endoftext|>", ids: [0], tokens: ["<|endoftext|>"] } },
    },
  });
  await morDone(smallRun(model, "--tokenizer", tokenizer, "--steps", "1", "--eval-every", "0"));
});

Deno.test.afterAll(async () => {
  await Deno.remove(folder, { recursive: true });
});

/** Sets fields of a file of JSON, or of a new one. */
async function changeJson(folder: string, name: string, fields: Record<string, unknown>): Promise<void> {
  const path = join(folder, name);
  const text = await Deno.readTextFile(path).catch(() => "{}");
  await Deno.writeTextFile(path, JSON.stringify({ ...JSON.parse(text), ...fields }));
}

/** What `mor generate --json` prints. */
interface Report {
  readonly prompt: string;
  readonly prompt_ids: readonly number[];
  readonly text: string;
  readonly tokens: readonly { readonly id: number }[];
}

function args(prompt: string, ...more: readonly string[]): string[] {
  return ["generate", model, "-p", prompt, "-n", "20", "--seed", "1", ...more];
}

async function generate(prompt: string, ...more: readonly string[]): Promise<Report> {
  return JSON.parse((await morDone(args(prompt, "--json", ...more))).stdout);
}

Deno.test("--chat puts the prompt into the model's template, and nothing before it", async () => {
  const { encode } = await readTokenizer(model);
  function check(text: string, report: Report): void {
    const ids = encode(text, { addSpecialTokens: false });
    assertEquals([report.prompt, report.prompt_ids], ["What is a whale? ", ids]);
  }
  const user = "<|start|>user\nWhat is a whale?<|end|>\n";
  const end = "<|start|>assistant\n";
  check(user + end, await generate("What is a whale? ", "--chat"));
  const system = "<|start|>system\nYou are Ishmael.<|end|>\n";
  check(
    system + user + end,
    await generate("What is a whale? ", "--chat", "--system", "You are Ishmael."),
  );
  assertEquals((await generate("What?")).prompt_ids, [0, ...encode("What?", { addSpecialTokens: false })]);
});

Deno.test("--chat prints the answer alone", async () => {
  const { text } = await generate("What is a whale?", "--chat");
  assertEquals((await morDone(args("What is a whale?", "--chat"))).stdout, text + "\n");
  for (const part of ["whale?", "<|", "assistant"]) assert(!text.includes(part), text);
});

Deno.test("a template may refuse a conversation, and there may be none", async () => {
  await assertFails(args("It is forbidden.", "--chat"), {
    code: 1,
    parts: ["chat template", join(model, "tokenizer.json"), "It is not allowed."],
  });
  await assertFails(args("x", "--system", "y"), { code: 2, parts: ["--system needs --chat"] });
  const bytes = join(folder, "bytes");
  await morDone(smallRun(bytes, "--steps", "1", "--eval-every", "0"));
  const parts = ["Cannot chat with", bytes, "no chat template; leave --chat away"];
  await assertFails(["generate", bytes, "-p", "x", "--chat"], { code: 1, parts });
});

Deno.test("a text ends at any token that the model's files name", async () => {
  const { tokens } = await generate("The whale");
  const ids = tokens.map(({ id }) => id);
  assertEquals(ids.length, 20);
  const [early, late] = [ids[4]!, ids[9]!];
  for (const ends of [[late, early], early]) {
    await changeJson(model, "generation_config.json", { eos_token_id: ends });
    const { tokens, text } = await generate("The whale");
    assertEquals(tokens.map(({ id }) => id), ids.slice(0, ids.findIndex((id) => [ends].flat().includes(id))));
    const { stdout, stderr } = await morDone(args("The whale"));
    assertEquals(stdout, `The whale${text}\n`);
    assertStringIncludes(stderr, `\n${tokens.length} tokens, `);
  }
  await Deno.remove(join(model, "generation_config.json"));
});
