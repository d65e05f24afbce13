/**
 * Chat templates: a conversation as the text that a model was trained to continue. They are Jinja programs that come with
 * a model, run by `@huggingface/jinja`. That interpreter gives them values of its own and the functions named below, never
 * objects or functions of this program, so they can neither read files nor run code; how long they may take is bounded here:
 * steps and sizes are counted, and what is neither, such as a parser's or a filter's own loops, is ended after a time.
 */
import { Environment, Interpreter, Template } from "@huggingface/jinja";
import { CheckpointError } from "../files/safetensors.ts";
import { withinTime } from "../time_limit.ts";
import type { TokenizerFiles } from "./tokenizer_json.ts";

export interface ChatMessage {
  /** Who speaks: "system", "user" or "assistant"; templates may know others. */
  readonly role: string;
  readonly content: string;
}

export interface ChatOptions {
  /** Time for templates that tell the date. */
  readonly now: Date;
  /** Ends the text where the assistant's answer begins; true unless given. */
  readonly addGenerationPrompt?: boolean;
}

/**
 * A conversation as text. It holds its special tokens itself: encode it without `addSpecialTokens`.
 *
 * @throws CheckpointError for messages that the template refuses, or a template that does not come to an end.
 */
export type ChatTemplate = (messages: readonly ChatMessage[], options: ChatOptions) => string;

/** Parts of a template that may be evaluated, and turns of its loops; templates need some dozens for each message. */
const MAX_STEPS = 300_000;

/** Most characters of a text and items of a list; a doubling loop would soon fill the memory. */
const MAX_LENGTH = 4_000_000;

/** Most parts within parts; macros that call themselves would look up their names in ever longer chains. */
const MAX_DEPTH = 500;

/** Most time for reading a template, and for each use of it; thousands of messages take a tenth. */
const MAX_MS = 1000;

type Evaluate = Interpreter["evaluate"];
type Part = Parameters<Evaluate>[0];

/** An interpreter that gives up. */
class BoundedInterpreter extends Interpreter {
  #steps = 0;
  #depth = 0;
  /** Parts whose values are looped over. */
  readonly #lists = new Set<Part>();

  override evaluate(...[part, environment]: Parameters<Evaluate>): ReturnType<Evaluate> {
    if (part?.type === "For") this.#lists.add(listOf(part));
    if (++this.#depth > MAX_DEPTH) refuse(`it goes deeper than ${MAX_DEPTH} parts within parts`);
    try {
      const result = super.evaluate(part, environment);
      const length = lengthOf(result.value);
      if (length > MAX_LENGTH) refuse(`it makes a value of more than ${MAX_LENGTH} characters or items`);
      // A loop takes its turns even if there is nothing in it; what else is done with a list or text is quick.
      this.#steps += 1 + (this.#lists.has(part) ? length : length / 1000);
      if (this.#steps > MAX_STEPS) refuse(`it does not end within ${MAX_STEPS} steps`);
      return result;
    } finally {
      this.#depth--;
    }
  }
}

/** What a loop goes over; "in list if condition" is one part. */
function listOf(loop: NonNullable<Part>): Part {
  const { iterable } = loop as unknown as { iterable: NonNullable<Part> & { lhs: Part } };
  return iterable.type === "SelectExpression" ? iterable.lhs : iterable;
}

function lengthOf(value: unknown): number {
  return typeof value === "string" || Array.isArray(value)
    ? value.length
    : value instanceof Map
    ? value.size
    : 0;
}

/**
 * A model's chat template; null if it has none.
 *
 * @throws CheckpointError for a template that is not Jinja, or several of which none is the default.
 */
export function chatTemplate(
  { config, source }: Pick<TokenizerFiles, "config" | "source">,
): ChatTemplate | null {
  function attempt<T>(action: () => T): T {
    try {
      return action();
    } catch (cause) {
      const message = (cause as Error).message.replaceAll(/\s+/g, " ");
      throw new CheckpointError(`Cannot use the chat template of ${source}: ${message}`, { cause });
    }
  }
  const { chat_template, bos_token, eos_token } = config;
  if (!chat_template) return null;
  const { parsed } = attempt(() => withinTime(MAX_MS, () => parse(defaultTemplate(chat_template))));
  return (messages, { now, addGenerationPrompt = true }) =>
    attempt(() => {
      const environment = new Environment();
      const variables = {
        messages,
        add_generation_prompt: addGenerationPrompt,
        tools: null,
        documents: null,
        ...(bos_token && { bos_token }),
        ...(eos_token && { eos_token }),
        ...{ true: true, True: true, false: false, False: false, none: null, None: null },
        raise_exception: refuse,
        range,
        strftime_now: (format: string) => strftime(now, format),
      };
      for (const [name, value] of Object.entries(variables)) environment.set(name, value);
      return withinTime(MAX_MS, () => String(new BoundedInterpreter(environment).run(parsed).value));
    });
}

function defaultTemplate(template: NonNullable<TokenizerFiles["config"]["chat_template"]>): string {
  if (typeof template === "string") return template;
  const names = template.map(({ name }) => name);
  return template[names.indexOf("default")]?.template ??
    refuse(`it has the templates ${names.join(", ") || "(none)"}, wanted one named default`);
}

function parse(text: string): Template {
  try {
    return new Template(text);
  } catch (cause) {
    // The parser looks for the next word behind the last one.
    throw cause instanceof TypeError ? new Error("it ends inside a statement", { cause }) : cause;
  }
}

function refuse(message: string): never {
  throw new Error(message);
}

/** Python's range(). */
function range(start: number, stop?: number, step = 1): number[] {
  const [first, end] = stop === undefined ? [0, start] : [start, stop];
  const length = Math.max(0, Math.ceil((end - first) / step));
  if (!(length <= MAX_STEPS)) refuse(`it asks for a range of ${length} numbers`);
  return Array.from({ length }, (_, i) => first + i * step);
}

/** Python's strftime() in English, as far as templates use it. */
function strftime(now: Date, format: string): string {
  const name = (options: Intl.DateTimeFormatOptions): string =>
    new Intl.DateTimeFormat("en-US", options).format(now);
  const digits = (value: number): string => String(value).padStart(2, "0");
  const fields: Readonly<Record<string, string>> = {
    "%Y": String(now.getFullYear()),
    "%m": digits(now.getMonth() + 1),
    "%d": digits(now.getDate()),
    "%H": digits(now.getHours()),
    "%M": digits(now.getMinutes()),
    "%S": digits(now.getSeconds()),
    "%b": name({ month: "short" }),
    "%B": name({ month: "long" }),
    "%a": name({ weekday: "short" }),
    "%A": name({ weekday: "long" }),
    "%%": "%",
  };
  return format.replaceAll(/%[A-Za-z%]/g, (field) => fields[field] ?? field);
}
