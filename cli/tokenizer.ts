import { Command, ValidationError } from "@cliffy/command";
import { dirname, join } from "@std/path";
import { formatBytes } from "../gpu/memory.ts";
import { bpeTokenizerConfig, bpeTokenizerJson } from "../model/text/bpe_json.ts";
import { type BpeVocabulary, trainBpe } from "../model/text/bpe_trainer.ts";
import { countWords } from "../model/text/bpe_words.ts";
import { ConfigError } from "../model/config.ts";
import { dataBytes, DataError, readDocuments } from "../model/text/documents.ts";
import { makeFolder, writeJson } from "../model/files/whole_file.ts";
import { InterruptedError } from "./errors.ts";
import { openProgress } from "./progress.ts";
import { openTerminal, type Terminal } from "./terminal.ts";

interface TokenizerTrainFlags {
  readonly data: string[];
  readonly textField: string;
  readonly vocabSize: number;
  readonly minFrequency: number;
  readonly special?: string[] | undefined;
  readonly out: string;
  readonly quiet?: boolean | undefined;
}

/** Ends a text and separates documents. */
const END_OF_TEXT = "<|endoftext|>";

const BYTES = 256;

/** Milliseconds between looks at progress and Ctrl-C. */
const PAUSE_INTERVAL = 100;

/** `mor tokenizer`: makes tokenizers. */
// deno-lint-ignore no-explicit-any -- see root.ts
export function tokenizerCommand(): Command<any> {
  const command = new Command()
    .description("Make tokenizers.")
    .example("From a book", "mor tokenizer train --data book.txt --vocab-size 4096 --out my-tokenizer")
    .action(() => command.showHelp());
  return command.command("train", trainCommand()).reset();
}

// deno-lint-ignore no-explicit-any -- see root.ts
function trainCommand(): Command<any> {
  return new Command()
    .description(
      "Learn a byte-level BPE from text: a tokenizer.json that Hugging Face's library reads, with GPT-2's words. " +
        `Special tokens have the first ids, ${END_OF_TEXT} the very first.`,
    )
    .option("--data <path:file>", "Text or JSONL file, or a folder of them; repeatable.", {
      collect: true,
      required: true,
    })
    .option("--text-field <name:string>", "Field of a JSONL line that holds the text.", { default: "text" })
    .option(
      "--vocab-size <n:integer>",
      `Most tokens in all: special ones, the ${BYTES} bytes, and merges.`,
      { required: true },
    )
    .option("--min-frequency <n:integer>", "Times that a pair must occur to become a token.", { default: 2 })
    .option("--special <token:string>", `A special token besides ${END_OF_TEXT}; repeatable.`, {
      collect: true,
    })
    .option(
      "--out <path:file>",
      "Folder of tokenizer.json and tokenizer_config.json, or the former's path.",
      {
        required: true,
      },
    )
    .example("From a book", "mor tokenizer train --data book.txt --vocab-size 4096 --out my-tokenizer")
    .action((flags: TokenizerTrainFlags) => train(flags));
}

async function train(flags: TokenizerTrainFlags): Promise<void> {
  const others = flags.special ?? [];
  const specialTokens = [END_OF_TEXT, ...others];
  checkFlags(flags, { specialTokens });
  const terminal = openTerminal(flags);
  const path = flags.out.endsWith(".json") ? flags.out : join(flags.out, "tokenizer.json");
  const configPath = join(dirname(path), "tokenizer_config.json");
  await checkNew([path, configPath]);
  const interrupt = new AbortController();
  const onSignal = (): void => interrupt.abort(new InterruptedError("interrupted; nothing was written"));
  Deno.addSignalListener("SIGINT", onSignal);
  try {
    const pause = createPause(interrupt.signal);
    const words = await readWords(flags, { terminal, pause });
    const vocabulary = await learn(words, { flags, specialTokens, terminal, pause });
    await makeFolder(dirname(path));
    await writeJson(configPath, bpeTokenizerConfig({ endOfText: END_OF_TEXT, others }));
    await writeJson(path, bpeTokenizerJson(vocabulary, { specialTokens }));
    terminal.note(`saved in ${path}: ${summary(vocabulary, flags)}`);
  } finally {
    Deno.removeSignalListener("SIGINT", onSignal);
  }
}

function checkFlags(
  { vocabSize, minFrequency }: TokenizerTrainFlags,
  { specialTokens }: { specialTokens: readonly string[] },
): void {
  if (minFrequency < 1) throw new ValidationError(`--min-frequency is ${minFrequency}, wanted 1 or more`);
  const wrong = specialTokens.find((token, i) => token === "" || specialTokens.indexOf(token) < i);
  if (wrong !== undefined) {
    throw new ValidationError(
      `--special is "${wrong}", wanted a token that is not empty and not yet there (${END_OF_TEXT} always is)`,
    );
  }
  const least = BYTES + specialTokens.length;
  if (vocabSize < least) {
    throw new ValidationError(
      `--vocab-size is ${vocabSize}, wanted ${least} or more: ${BYTES} bytes, ` +
        `${specialTokens.length} special token${specialTokens.length > 1 ? "s" : ""}, and merges`,
    );
  }
}

/** A tokenizer in use is not overwritten: its model would no longer understand its tokens. */
async function checkNew(paths: readonly string[]): Promise<void> {
  for (const path of paths) {
    const info = await Deno.stat(path).catch((error) => {
      // Anything else, such as a file in the folder's place, would cost the learning later.
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    });
    if (info) {
      throw new ConfigError(`Cannot write ${path}: there is one already; remove it or give another --out`);
    }
  }
}

/** Called often: now and then shows how far the work is and lets Ctrl-C through. */
type Pause = (show: () => void) => Promise<void>;

function createPause(signal: AbortSignal): Pause {
  let last = performance.now();
  return async (show) => {
    if (performance.now() - last < PAUSE_INTERVAL) return;
    show();
    await new Promise((resolve) => setTimeout(resolve));
    signal.throwIfAborted();
    last = performance.now();
  };
}

/** How often each word occurs in the data. */
async function readWords(
  { data, textField }: TokenizerTrainFlags,
  { terminal, pause }: { terminal: Terminal; pause: Pause },
): Promise<Map<string, number>> {
  const words = new Map<string, number>();
  const progress = openProgress(terminal, { max: await dataBytes(data), value: 0 });
  let before = 0;
  try {
    for await (const { text, bytes } of readDocuments(data, { textField })) {
      for (const part of countWords(text, words)) {
        await pause(() => progress.update(Math.round(before + part * bytes), "bytes read"));
      }
      before += bytes;
    }
  } finally {
    await progress.stop();
  }
  if (words.size === 0) {
    throw new DataError(`Cannot learn from ${data.join(", ")}: every document is empty; give more text`);
  }
  terminal.note(`read ${formatBytes(before)}: ${words.size.toLocaleString("en")} different words`);
  return words;
}

async function learn(
  words: ReadonlyMap<string, number>,
  { flags: { vocabSize, minFrequency }, specialTokens, terminal, pause }: {
    flags: TokenizerTrainFlags;
    specialTokens: readonly string[];
    terminal: Terminal;
    pause: Pause;
  },
): Promise<BpeVocabulary> {
  const progress = openProgress(terminal, { max: vocabSize, value: 0 });
  try {
    const training = trainBpe(words, { vocabSize, specialTokens, minFrequency });
    for (;;) {
      const { done, value } = training.next();
      if (done) return value;
      await pause(() => progress.update(value, "tokens"));
    }
  } finally {
    await progress.stop();
  }
}

/** The size reached, and what the text's tokens are worth. */
function summary(
  { tokens: { length }, bytesPerToken }: BpeVocabulary,
  { vocabSize, minFrequency }: TokenizerTrainFlags,
): string {
  const worth = `${bytesPerToken.toFixed(2)} bytes of this text each`;
  const size = length.toLocaleString("en");
  if (length === vocabSize) return `${size} tokens, ${worth}`;
  const times = minFrequency === 1 ? "left to merge" : `${minFrequency} times in it`;
  const advice = minFrequency === 1 ? "" : " or a lower --min-frequency";
  return `only ${size} of ${vocabSize.toLocaleString("en")} tokens, ${worth}: no further pair is ${times}; ` +
    `for a larger vocabulary give more text${advice}`;
}
