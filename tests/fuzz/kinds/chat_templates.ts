/** Chat templates: programs that come with a model. */
import { assert, assertEquals } from "@std/assert";
import { chatTemplate } from "../../../model/text/chat_template.ts";
import { mutatedBytes } from "../../support/byte_mutations.ts";
import { createRandom, type Random } from "../../support/random.ts";
import { type FuzzInput, type FuzzKind, isDone } from "../fuzz_kind.ts";

const SOURCE = "chat_template.jinja";
const MESSAGES = [
  { role: "system", content: "Be kind" },
  { role: "user", content: "Hello\n  <b>" },
  { role: "assistant", content: "Hi!" },
];

/** Of these a template is put together; E stands for an expression, S for a piece of template. */
const EXPRESSIONS = [
  ...["messages", "messages[0]", "messages[-1].content", "message", "n.x", "bos_token", "loop", "range(9)"],
  ...[
    "'abc'",
    "'a\\nb'",
    "[1, 2]",
    "{'a': E}",
    "[E, E]",
    "(E, E)",
    "0",
    "-1",
    "1.5",
    "300000",
    "10 ** 9",
    "none",
  ],
  ...["E + E", "E ~ E", "E * E", "E ** E", "E % E", "E // E", "E in E", "E == E", "not E", "E if E else E"],
  ...[
    "E | length",
    "E | tojson",
    "E | tojson(indent=E)",
    "E | join(E)",
    "E | sort",
    "E | list",
    "E | indent(E)",
  ],
  ...["E | replace(E, E)", "E | upper", "E | trim", "E | items", "E | dictsort", "E | unique", "E | reverse"],
  ...[
    "E | map(attribute=E)",
    "E | selectattr('role')",
    "E | default(E)",
    "E | string",
    "E | int",
    "E | first",
  ],
  ...[
    "E.split(E)",
    "E.strip()",
    "E.replace(E, E)",
    "E.format(E)",
    "E[E]",
    "E[E:E:E]",
    "E.E",
    "E(E)",
    "range(E)",
  ],
  ...[
    "range(E, E, E)",
    "strftime_now(E)",
    "raise_exception(E)",
    "namespace(x=E)",
    "cycler(E)",
    "joiner(E)",
    "f(E)",
  ],
  ...[
    "E.constructor",
    "E.__proto__",
    "E['__class__']",
    "E.constructor.constructor('return this')()",
    "self",
    "E.get(E)",
  ],
  ...[
    "n.x.__proto__.polluted",
    "caller()",
    "E is defined",
    "E is string",
    "lipsum(E)",
    "dict(a=E)",
    "E | attr(E)",
  ],
];

const PIECES = [
  ...["x", "\n", "{{ E }}", "{{- E -}}", "{% if E %}S{% else %}S{% endif %}", "{# S #}", "SS", "SSS"],
  ...["{% for message in E %}S{% endfor %}", "{% for i in range(10**E) %}S{% endfor %}"],
  ...["{% for i in range(E) %}S{% endfor %}", "{% for i in E if E %}S{% else %}S{% endfor %}"],
  ...[
    "{% set n = namespace(x=E) %}S",
    "{% set n.x = n.x ~ n.x %}",
    "{% set n.x = [n.x, n.x] %}",
    "{% set n = E %}",
  ],
  ...[
    "{% set a %}S{% endset %}",
    "{% macro f(g) %}S{% endmacro %}S",
    "{{ f(f) }}",
    "{% call f(E) %}S{% endcall %}",
  ],
  ...[
    "{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}{{ n.x E }}",
    "{% set n.__proto__ = E %}",
  ],
  ...["{% for i in range(99) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x | tojson }}", "{% break %}"],
  ...[
    "{% filter E %}S{% endfilter %}",
    "{% generation %}S{% endgeneration %}",
    "{% include 'a' %}",
    "{% raw %}S",
  ],
];

/** Replaces E and S until there are none, or there are enough of them. */
function grown({ integer }: Random): string {
  let text = "SS";
  for (let steps = 4 + integer(40); steps > 0 && text.length < 3000; steps--) {
    const place = text.search(/[ES](?![a-z])/);
    if (place < 0) break;
    const choices = text[place] === "E" ? EXPRESSIONS : PIECES;
    text = text.slice(0, place) + choices[integer(choices.length)]! + text.slice(place + 1);
  }
  return text.replaceAll(/E(?![a-z])/g, () => ["messages", "'a'", "9", "n"][integer(4)]!).replaceAll(
    /S(?![a-z])/g,
    "",
  );
}

/** A template with a piece of it so often that only a bound ends it. */
function repeated(random: Random): string {
  const text = grown(random);
  const start = random.integer(text.length);
  const piece = text.slice(start, start + 1 + random.integer(10));
  return text.slice(0, start) + piece.repeat(10 ** (1 + random.integer(4))) + text.slice(start);
}

/** Templates of all kinds, most of them hostile. */
export function openChatTemplates(): Promise<FuzzKind> {
  function make(seed: number): FuzzInput {
    const random = createRandom(seed ^ 0x717a);
    const text = random.integer(8) === 0 ? repeated(random) : grown(random);
    const bytes = new TextEncoder().encode(text);
    const isDamaged = random.integer(6) === 0 && bytes.length > 0;
    return {
      name: SOURCE,
      bytes: isDamaged ? mutatedBytes(bytes, { seed, headerBytes: bytes.length }) : bytes,
    };
  }
  async function check({ bytes }: FuzzInput): Promise<boolean> {
    const chat_template = new TextDecoder().decode(bytes);
    const before = globals();
    const isAccepted = await isDone(() => {
      const apply = chatTemplate({ config: { chat_template, bos_token: "<s>" }, source: SOURCE });
      if (apply === null) return assertEquals(chat_template, "");
      const [text, again] = [1, 2].map(() => apply(MESSAGES, { now: new Date(0) }));
      assert(typeof text === "string" && text.length < 10_000_000, "a text without bounds");
      assertEquals(text === again, true, "the same template gives another text");
      // Functions of this program would show as their source.
      assert(!/native code|=>|\[object (Window|Object|global)/.test(text), text.slice(0, 200));
    }, { names: [SOURCE] });
    assertEquals(globals(), before, "the template has reached this program");
    return isAccepted;
  }
  // Reading and using it have each their own bound.
  return Promise.resolve({ make, check, maxMs: 5000 });
}

/** What a template could only change by leaving its interpreter. */
function globals(): string {
  const names = [
    globalThis,
    Object.prototype,
    Array.prototype,
    Function.prototype,
    Map.prototype,
    String.prototype,
  ]
    .map((value) => Object.getOwnPropertyNames(value).length);
  return [...names, JSON.stringify(MESSAGES)].join();
}
