import { Command } from "@cliffy/command";
import type { GpuDevice } from "../gpu/device.ts";
import { chatTemplate } from "../model/text/chat_template.ts";
import { openCheckpoint } from "../model/files/checkpoint_source.ts";
import { ConfigError } from "../model/config.ts";
import { generate, type GeneratedToken, type GenerateOptions, tokenRoom } from "../model/generate.ts";
import type { Tokenizer } from "../model/text/tokenizer.ts";
import { utf8Decoder } from "../model/text/documents.ts";
import { tokenizerFor, type TokenizerSource } from "../model/text/tokenizer_source.ts";
import { DTYPE_HELP, KV_DTYPE_HELP, kvDtypeFlag, matrixChoice } from "./dtype_flags.ts";
import { InterruptedError } from "./errors.ts";
import { checkGenerateFlags, type GenerateFlags, promptsFlags } from "./generate_flags.ts";
import { BATCH_SIZE, finishPrompts, generatePrompts, lockResults, planPrompts } from "./generate_prompts.ts";
import { dropWriting } from "./permissions.ts";
import { loadWeights, openNamedDevice } from "./session.ts";
import { StoppedText } from "../model/text/stopped_text.ts";
import { openTerminal, type Terminal } from "./terminal.ts";

/** `mor generate`: continues a prompt. */
// deno-lint-ignore no-explicit-any -- see root.ts
export function generateCommand(): Command<any> {
  return new Command()
    .description(
      "Continue a prompt. Routing is causal: each token's depth depends only on the text before it.",
    )
    .arguments("<checkpoint:string>")
    .group("Prompt")
    .option("-p, --prompt <text:string>", "The prompt; - reads it from stdin.")
    .option("-f, --file <path:file>", "Read the prompt from a file.")
    .group("Many prompts")
    .option(
      "--prompts <file:file>",
      'Continue many prompts at once: a JSONL file with an object a line, its prompt under "prompt", and where ' +
        "they differ count, temperature, top_k, top_p, min_p, repeat_penalty, stop, seed, system; - reads stdin.",
    )
    .option("--out <file:file>", "With --prompts, the JSONL file of results; stdout unless given.")
    .option("--resume", "With --out, go on with a file of results.")
    .option(
      "--in-order",
      "With --prompts, results in the order of the prompts, not as they finish; with --out once all are there.",
    )
    .option(
      "--batch-size <n:integer>",
      `With --prompts, most tokens that run together; ${BATCH_SIZE} unless given.`,
    )
    .option(
      "--kv-memory <mib:integer>",
      "With --prompts, MiB for keys and values; what the texts are expected to need unless given.",
    )
    .group("Sampling")
    .option("-n, --count <n:integer>", "Most tokens to generate.", { default: 128 })
    .option("--temperature <t:number>", "0 always takes the likeliest token.", { default: 0.8 })
    .option("--top-k <k:integer>", "Sample from the k likeliest tokens; 0 is off.", { default: 40 })
    .option("--top-p <p:number>", "Sample from the likeliest tokens that sum to p; 1 is off.", {
      default: 0.95,
    })
    .option("--min-p <p:number>", "Leave out tokens less than p times as likely as the likeliest.", {
      default: 0,
    })
    .option("--repeat-penalty <x:number>", "Make tokens already in the text less likely; 1 is off.", {
      default: 1,
    })
    .option("--stop <text:string>", "End before this text; repeatable.", { collect: true })
    .option("--seed <n:integer>", "Seed of sampling; random, and echoed, unless given.")
    .group("Output")
    .option(
      "--depths",
      "Colour each token by the recursion steps that produced it; without colours, a list on stderr.",
    )
    .option(
      "--raw",
      "Let the model's control characters through to a terminal, which otherwise shows pictures of them.",
    )
    .option("--json", "Print one JSON object: the prompt's ids, text, tokens with depth and log-probability.")
    .option("--logprobs <k:integer>", "With --json, the k likeliest alternatives of each token.")
    .group("Prompt")
    .option(
      "--chat",
      "Give the prompt as a user's message, in the form that the model's chat template makes of it.",
    )
    .option("--system <text:string>", "With --chat, a system message before it.")
    .group("Memory")
    .option("--dtype <format:string>", DTYPE_HELP)
    .option("--kv-dtype <format:string>", KV_DTYPE_HELP, { default: "f32" })
    .example("Continue a sentence", 'mor generate my-model -p "Call me"')
    .example("Ask a chat model", 'mor generate SmolLM2.gguf --chat -p "What is a whale?"')
    .example("Many prompts", "mor generate my-model --prompts prompts.jsonl --out results.jsonl")
    .example("In a pipe", "cat prompt.txt | mor generate my-model -p - -q > text.txt")
    .action((flags: GenerateFlags, checkpoint: string) => run(flags, checkpoint));
}

async function run(flags: GenerateFlags, checkpoint: string): Promise<void> {
  checkGenerateFlags(flags);
  const [choice, kvDtype] = [matrixChoice(flags.dtype), kvDtypeFlag(flags.kvDtype)];
  const terminal = openTerminal(flags);
  const source = await openCheckpoint(checkpoint);
  const { config } = source;
  const tokenizerSource = await source.readTokenizer();
  const tokenizer = tokenizerFor(tokenizerSource, { config });
  function encode(
    { prompt, system = flags.system }: { prompt: string; system?: string | undefined },
  ): number[] {
    if (!flags.chat) return tokenizer.encode(prompt);
    const text = chatText(tokenizerSource, { checkpoint, prompt, system });
    return tokenizer.encode(text, { addSpecialTokens: false });
  }
  if (flags.prompts !== undefined) {
    const prompts = promptsFlags({ ...flags, prompts: flags.prompts });
    using lock = await lockResults(prompts, terminal);
    const plan = await planPrompts(prompts, { config, encode, terminal });
    if (plan.texts.length === 0) return await finishPrompts(prompts);
    const device = await openGenerationDevice(flags, terminal);
    const weights = await loadWeights(device, { source, choice, terminal });
    const model = { config, weights, tokenizer };
    await generatePrompts(device, model, { plan, flags: prompts, kvDtype, lock, terminal });
    device.close();
    return;
  }
  const prompt = await readPrompt(flags);
  const promptIds = encode({ prompt });
  const room = tokenRoom(config, { prompt: promptIds });
  const device = await openGenerationDevice(flags, terminal);
  const weights = await loadWeights(device, { source, choice, terminal });
  const seed = flags.seed ?? crypto.getRandomValues(new Uint32Array(1))[0]!;
  terminal.note(`seed: ${seed}`);
  const options: GenerateOptions = {
    prompt: promptIds,
    count: flags.count,
    sampling: {
      temperature: flags.temperature,
      topK: flags.topK,
      topP: flags.topP,
      minP: flags.minP,
      repeatPenalty: flags.repeatPenalty,
    },
    seed,
    logProbabilities: flags.logprobs ?? 0,
    endTokens: tokenizer.endTokens,
    kvDtype,
  };
  const tokens = generate(device, { config, weights }, options);
  const { count, isStopped } = await write(tokens, { options, flags, prompt, tokenizer, terminal });
  if (count < flags.count && count === room && !isStopped) {
    terminal.note(
      `stopped after ${count} tokens: with the prompt's ${options.prompt.length} they reach the model's ` +
        `${config.maxPositionEmbeddings} positions (max_position_embeddings)`,
    );
  }
  device.close();
}

/** Opens the device, after which only results are written: without a file of them, nothing is any more. */
async function openGenerationDevice({ out }: GenerateFlags, terminal: Terminal): Promise<GpuDevice> {
  const device = await openNamedDevice(terminal);
  if (out === undefined) await dropWriting();
  return device;
}

async function readPrompt({ prompt, file }: GenerateFlags): Promise<string> {
  if (file !== undefined) return utf8Decoder(file)(await Deno.readFile(file));
  return prompt === "-" ? utf8Decoder("stdin")(await new Response(Deno.stdin.readable).bytes()) : prompt!;
}

/** The prompt as the model's chat template puts it. */
function chatText(
  source: TokenizerSource,
  { checkpoint, prompt, system }: { checkpoint: string; prompt: string; system: string | undefined },
): string {
  const template = source === "byte" ? null : chatTemplate(source);
  if (!template) {
    throw new ConfigError(`Cannot chat with ${checkpoint}: it brings no chat template; leave --chat away`);
  }
  const messages = [
    ...(system === undefined ? [] : [{ role: "system", content: system }]),
    { role: "user", content: prompt },
  ];
  return template(messages, { now: new Date() });
}

/** Streams the text, or gathers it for --json. Returns the number of tokens. */
async function write(
  generated: AsyncIterable<GeneratedToken>,
  { options, flags, prompt, tokenizer, terminal }: {
    options: GenerateOptions;
    flags: GenerateFlags;
    prompt: string;
    tokenizer: Tokenizer;
    terminal: Terminal;
  },
): Promise<{ count: number; isStopped: boolean }> {
  const decoder = tokenizer.decoder({ isContinuation: !flags.chat });
  const text = new StoppedText(decoder, { stops: flags.stop ?? [] });
  const tokens: Record<string, unknown>[] = [];
  const depths: number[] = [];
  let isInterrupted = false;
  const onSignal = (): void => {
    isInterrupted = true;
  };
  Deno.addSignalListener("SIGINT", onSignal);

  function emit(piece: string, depth: number): void {
    if (!flags.json) terminal.out(piece, flags.depths ? depth : undefined);
  }
  if (!flags.json && !flags.chat) terminal.out(prompt);
  const started = performance.now();
  for await (const { id, depth, logProbability, top } of generated) {
    depths.push(depth);
    tokens.push({
      id,
      depth,
      log_probability: logProbability,
      ...(flags.logprobs !== undefined && {
        top: top.map((other) => ({ id: other.id, log_probability: other.logProbability })),
      }),
    });
    emit(text.push(id), depth);
    if (text.isStopped || isInterrupted || !terminal.hasReader()) break;
  }
  emit(text.finish(), depths.at(-1) ?? 0);
  Deno.removeSignalListener("SIGINT", onSignal);
  const seconds = (performance.now() - started) / 1000;
  if (flags.json) {
    const report = {
      prompt,
      prompt_ids: options.prompt,
      text: text.text,
      tokens,
      seed: options.seed,
      seconds,
    };
    terminal.out(JSON.stringify(report) + "\n");
  } else {
    terminal.out("\n");
    if (flags.depths && !terminal.hasColor) terminal.note(`depths: ${depths.join(" ")}`);
    terminal.note(`${depths.length} tokens, ${(depths.length / seconds).toFixed(1)} tokens/s`);
  }
  if (isInterrupted) throw new InterruptedError("interrupted");
  return { count: depths.length, isStopped: text.isStopped };
}
