/** Text that tokenizers get wrong: many scripts, marks, controls, spaces and digits of every kind, side by side. */
import { createRandom } from "./random.ts";

const SNIPPETS = [
  "The quick brown fox jumps over the lazy dog.",
  "I'm sure they'll say we've done it; he'd rather not. DON'T! It'S x'ſ y’s",
  "for (let i = 0; i < n; i++) { sum += values[i] ** 2; } // é",
  '\tdef f(x, *, y="ß"):\n\t\treturn {k: v for k, v in x.items() if v >= 1e-9}\r\n',
  "SELECT COUNT(*) FROM t WHERE a <> 'b' -- ok",
  "https://example.com/a_b?c=%20&d=1#e user@host.net C:\\dir\\file.txt",
  "$& $1 $$ \\d+ [^]] {2,3} ^$ |",
  "<|endoftext|>",
  "<|im_start|>user\nhello<|im_end|>",
  "<s> text </s><unk>",
  "<0x41><0xE4>▁▁ Ġ Ċ",
  "__proto__ constructor toString",
  "世界，你好。東京タワーへ行きました！",
  "한국어 문장과 ㄱㄴㄷ ᄒ\u1161\u11ab",
  "Привет, мир! Ёлка й и\u0306",
  "مرحبا بالعالم \u202bنص\u202c ١٢٣٤",
  "שָׁלוֹם עֲלֵיכֶם \u200f(אבג)\u200e",
  "नमस्ते दुनिया १२३ क्ष",
  "สวัสดีชาวโลก ๑๒๓",
  "Việt Nam, Ελληνικά, Žluťoučký kůň, Iıİi, ŉ ǆ ﬁ ﬅ",
  "a\u0301e\u0308o\u0327\u0323 Z\u0351\u036b\u0343a\u0360\u0321l\u0300g\u0301o\u0302",
  "👩‍🚀🏳️‍🌈👍🏽🇨🇭👨‍👩‍👧‍👦 😀😃 ☃︎☃️ 1️⃣",
  "∑∫√∞≠≤ ℵ₀ x² ½ ⅷ Ⅷ ① ㊷ 𝟘𝟙 𝔘𝔫𝔦 𐌰𐌱 𠀀𪛖",
  "“quoted” — dashes… «guillemets» ‹x› §¶†‡ ™©® €£¥₿",
  "1234567890 3.14159 1,000,000 0xDEADBEEF 1e-10 ²³¹ 2024-02-29T12:34:56Z",
  "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
  "\u0000\u0001\u0007\b\u000b\u000c\u001b[31m\u007f\u0080\u0085\u009f",
  "\ufeff\u200b\u200c\u200d\u2060\u00ad\u034f",
  "\ue000\uf8ff\ufffd\u{e0041}\u{10ffff}",
];

/** White space as JavaScript, Unicode and terminals see it; they differ on U+0085, U+FEFF and U+200B. */
const SPACES = [
  " ",
  "\t",
  "\n",
  "\r\n",
  "\u00a0",
  "\u0085",
  "\u2003",
  "\u2028",
  "\u3000",
  "\ufeff",
  "\u200b",
];

/** Inclusive ranges of code points that have long been what they are. */
const RANGES = [
  [0x00, 0x17f],
  [0x300, 0x3ff],
  [0x400, 0x4ff],
  [0x5d0, 0x5ea],
  [0x620, 0x66d],
  [0x905, 0x970],
  [0xe01, 0xe5b],
  [0x1100, 0x11ff],
  [0x2010, 0x2064],
  [0x2150, 0x2189],
  [0x2200, 0x22ff],
  [0x3041, 0x30ff],
  [0x4e00, 0x9fa5],
  [0xac00, 0xd7a3],
  [0xff01, 0xff5e],
  [0x1d400, 0x1d7ff],
  [0x1f300, 0x1f5ff],
  [0x20000, 0x2a6d6],
] as const;

/** Lines (which may have line ends inside) that are the same for the same seed. */
export function mixedLines({ count, seed }: { count: number; seed: number }): string[] {
  const random = createRandom(seed);
  function pick<T>(values: readonly T[]): T {
    return values[random.integer(values.length)]!;
  }
  function repeat(most: number, make: () => string): string {
    return Array.from({ length: 1 + random.integer(most) }, make).join("");
  }
  function cut(text: string): string {
    const characters = Array.from(text);
    const start = random.integer(characters.length);
    return characters.slice(start, start + 1 + random.integer(characters.length)).join("");
  }
  function characters(): string {
    const [first, last] = pick(RANGES);
    return repeat(8, () => String.fromCodePoint(first + random.integer(last - first + 1)));
  }
  const parts = [
    () => pick(SNIPPETS),
    () => cut(pick(SNIPPETS)),
    () => pick(SPACES).repeat(1 + random.integer(40)),
    () => repeat(6, () => pick(SPACES)),
    () => repeat(12, () => String(random.integer(10))),
    characters,
  ];
  return Array.from({ length: count }, () => repeat(6, () => pick(parts)() + pick(["", " "])));
}
