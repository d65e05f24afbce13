/** Damaged versions of JSON texts, one for each seed. */
import { createRandom, type Random } from "./random.ts";

/** JSON, or not quite, of what a field should not hold. */
const VALUES = [
  ...["null", "true", "{}", "[]", '""', '"576"', '"llama"', '"mistral"', '"\\u0000\\n"', "[[1], {}]"],
  ...[
    "-1",
    "0",
    "0.5",
    "3",
    "1e9",
    "1125899906842624",
    "9007199254740993",
    "1e308",
    "1e999",
    "-1e999",
    "5e-324",
  ],
  ...["NaN", "Infinity", "undefined", "0x10", "1_000", "'a'", "[1,]", "{a: 1}", '"\\uD800"', '"\n"'],
  ...[5, 40, 20000].map((levels) => "[".repeat(levels) + "]".repeat(levels)),
  ...[40, 20000].map((levels) => '{"a":'.repeat(levels) + "1" + "}".repeat(levels)),
  `[${"0.5,".repeat(10000)}1]`,
  `"${"long ".repeat(10000)}"`,
  '{"rope_type": "yarn", "factor": 1e6, "beta_fast": 1e-6, "beta_slow": 1e-6}',
  '{"rope_type": "factors", "factors": [1, 2]}',
  '{"kind": "token_choice"}',
  ...['"F16"', '"BF16"', '"F64"', '"U8"', '"F32\\u009b"', '"constructor"', '"q4_0"', "[8, 8]", "[0, 4]"],
];

/** Stands for a value until the text is written. */
const MARK = "\u0000mark";

type Fields = Record<string, unknown>;

/** One or more kinds of damage to the text of a JSON object. */
export function mutatedJson(json: object, { seed }: { seed: number }): string {
  const random = createRandom(seed);
  const pick = <T>(choices: readonly T[]): T => choices[random.integer(choices.length)]!;
  const fields: Fields = structuredClone(json) as Fields;
  const record = pickRecord(fields, random);
  const name = pick([...Object.keys(record), "__proto__", "rope_parameters", "a".repeat(5000), "\n"]);
  const set = (value: unknown, key = name): unknown =>
    Object.defineProperty(record, key, { value, enumerable: true, writable: true, configurable: true });
  const changes = [
    () => delete record[name],
    () => set(MARK),
    () => set(MARK),
    () => set(MARK, name + pick(["s", "\u0007", "."])),
    () => Object.assign(record, structuredClone(pickRecord(fields, random))),
    () => set(changedValue(record[name], random)),
    () => set(structuredClone(pick(Object.values(pickRecord(fields, random))))),
    // What there is, under another name as well or instead.
    () => set(structuredClone(record[name]), pick([...Object.keys(pickRecord(fields, random)), name + "s"])),
    () => {
      const [other, value] = [pick(Object.keys(record)), record[name]];
      set(record[other]);
      if (other !== undefined) set(value, other);
    },
  ];
  pick(changes)();
  let text = JSON.stringify(fields, null, random.integer(3)).replaceAll(
    JSON.stringify(MARK),
    () => pick(VALUES),
  );
  // A field twice.
  if (random.integer(10) === 0) text = text.replace("{", () => `{${JSON.stringify(name)}: ${pick(VALUES)},`);
  if (random.integer(8) === 0) text = text.slice(0, random.integer(text.length + 1));
  if (random.integer(8) === 0) text = withFlippedBits(text, random);
  return text;
}

/** A value near the one that was there. */
function changedValue(value: unknown, random: Random): unknown {
  const change = random.integer(4);
  if (typeof value === "number") return [value + 1, value - 1, value * 2, -value][change];
  if (typeof value === "boolean") return !value;
  if (typeof value === "string") {
    return [value.slice(1), value + value, value.toUpperCase(), [...value].reverse().join("")][change];
  }
  return Array.isArray(value)
    ? [value.slice(1), [...value, ...value], value.toReversed(), { ...value }][change]
    : [value];
}

/** The file's own record, or one somewhere inside it; lists are records too. */
function pickRecord(fields: Fields, random: Random): Fields {
  const inner = Object.values(fields).filter((value): value is Fields =>
    typeof value === "object" && value !== null
  );
  if (inner.length === 0 || random.integer(2) === 0) return fields;
  return pickRecord(inner[random.integer(inner.length)]!, random);
}

function withFlippedBits(text: string, random: Random): string {
  const bytes = new TextEncoder().encode(text);
  for (let flips = random.integer(4); flips >= 0; flips--) {
    const place = random.integer(bytes.length);
    if (place < bytes.length) bytes[place]! ^= 1 << random.integer(8);
  }
  return new TextDecoder().decode(bytes);
}
