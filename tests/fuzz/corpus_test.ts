/**
 * Inputs that parsers once failed on, or that somebody hostile would think of first, and some new ones of every kind.
 * A case is a folder fixtures/fuzz/KIND/CASE with a file under its own name.
 */
import { assertEquals } from "@std/assert";
import { fromFileUrl, join, relative } from "@std/path";
import { type FuzzInput, type FuzzKind, tryInput } from "./fuzz_kind.ts";
import { FUZZ_KINDS } from "./kinds.ts";

const corpus = fromFileUrl(new URL("../../fixtures/fuzz", import.meta.url));

/** Cases with nothing wrong in them, or where nothing may stop a command; all others are refused. */
const ACCEPTED = new Set<string>([
  ...["prompts/windows_line_ends", "prompts/mark_of_order", "prompts/proto_as_a_field"],
  ...["results/only_a_beginning", "results/cut_inside_a_character"],
  ...["documents/windows_line_ends", "documents/half_a_character", "documents/mark_of_order"],
  ...[
    "documents/text_with_nul",
    "tuning/entry_nested_too_deeply",
    "tuning/entry_named_proto",
    "tuning/choice_named_proto",
  ],
  ...["metrics/not_utf8", "metrics/list", "metrics/half_a_step"],
  ...["chat_template/proto_of_a_record", "patterns/empty_matches", "hub/plain"],
]);

/** New inputs of a kind. Many a pattern takes all the time that it may. */
const seedsOf = (kind: string): number => kind === "patterns" ? 5 : 40;

function* filesUnder(folder: string): Generator<string> {
  for (const { name, isDirectory } of Deno.readDirSync(folder)) {
    const path = join(folder, name);
    if (isDirectory) yield* filesUnder(path);
    else yield path;
  }
}

/** The cases of a kind. */
function casesOf(kind: string): { label: string; input: FuzzInput }[] {
  const folder = join(corpus, kind);
  const cases = [...Deno.readDirSync(corpus)].some(({ name }) => name === kind)
    ? [...Deno.readDirSync(folder)]
    : [];
  return cases.map(({ name: label }) => {
    const [path = ""] = filesUnder(join(folder, label));
    const name = relative(join(folder, label), path);
    return { label, input: { name, bytes: Deno.readFileSync(path) } };
  });
}

async function withKind(name: string, body: (kind: FuzzKind, root: string) => Promise<void>): Promise<void> {
  const root = await Deno.makeTempDir();
  const kind = await FUZZ_KINDS[name]!();
  try {
    await body(kind, root);
  } finally {
    await kind.close?.();
    await Deno.remove(root, { recursive: true });
  }
}

async function attempt(
  kind: FuzzKind,
  { input, root, label }: { input: FuzzInput; root: string; label: string },
): Promise<boolean> {
  try {
    return (await tryInput(kind, { input, root })).isAccepted;
  } catch (cause) {
    throw new Error(`${label}: ${(cause as Error).message}`, { cause });
  }
}

Deno.test("every case of the corpus belongs to a kind", () => {
  const kinds = [...Deno.readDirSync(corpus)].map(({ name }) => name);
  assertEquals(kinds.filter((name) => !Object.hasOwn(FUZZ_KINDS, name)), []);
});

for (const name of Object.keys(FUZZ_KINDS)) {
  const cases = casesOf(name);
  const seeds = seedsOf(name);
  Deno.test(`${name}: the corpus's ${cases.length} cases and ${seeds} new inputs are read or refused as they should be`, async () => {
    await withKind(name, async (kind, root) => {
      for (const { label, input } of cases) {
        const isAccepted = await attempt(kind, { input, root, label });
        assertEquals(isAccepted, ACCEPTED.has(`${name}/${label}`), `${label}: accepted or not`);
      }
      for (let seed = 0; seed < seeds; seed++) {
        await attempt(kind, { input: kind.make(seed), root, label: `seed ${seed}` });
      }
    });
  });
}
