// deno-lint-ignore-file no-console -- help is printed there, and listened to here
import { assert, assertEquals, assertInstanceOf, assertRejects, assertStringIncludes } from "@std/assert";
import { Command, EnumType, ValidationError } from "@cliffy/command";
import { CompletionsCommand } from "@cliffy/command/completions";
import { HelpCommand } from "@cliffy/command/help";

interface Options {
  steps: number;
  rate?: number;
  router?: "top-k" | "causal";
  data?: string[];
  stop?: string[];
  color: boolean;
  text?: string;
  file?: string;
  verbose?: boolean;
}

interface Call {
  options: Options;
  args: string[];
}

/** Parses a line with a program of two commands and returns what its action was given. */
async function parse(...line: string[]): Promise<Call> {
  let call: Call | undefined;
  const train = new Command()
    .description("Trains.\nAt length.")
    .type("router", new EnumType(["top-k", "causal"]))
    .arguments("<out:string> [rest...:string]")
    .option("-n, --steps <n:integer>", "Steps.", { default: 3 })
    .option("--rate <x:number>", "Rate.")
    .option("--router <kind:router>", "Router.")
    .option("--data <path...:string>", "Data.")
    .option("--stop <text:string>", "Stop.", { collect: true })
    .option("--no-color", "Plain.")
    .option("--text <x:string>", "Text.", {
      conflicts: ["file"],
      value: (text: string) => text.toUpperCase(),
    })
    .option("--file <x:file>", "File.")
    .option("--field <x:string>", "Field.", { depends: ["file"] })
    .action((options: Options, ...args: string[]) => {
      call = { options, args };
    });
  const make = new Command()
    .arguments("<out:string>")
    .option("--size <n:integer>", "Size.", { required: true })
    .action(() => {});
  await new Command().name("mor").throwErrors()
    .globalOption("-v, --verbose", "Says more.")
    .command("train", train)
    .command("make", make)
    .command("completions", new CompletionsCommand())
    .reset().parse(line);
  assert(call, "the action ran");
  return call;
}

Deno.test("parse gives defaults, types and camel-case names", async () => {
  const { options, args } = await parse("train", "out", "--rate", "1e-3", "--router", "causal");
  assertEquals(options, { steps: 3, rate: 1e-3, router: "causal", color: true });
  assertEquals(args, ["out"]);
});

Deno.test("parse spreads variadic arguments and collects repeated and variadic options", async () => {
  const line = ["train", "out", "--stop", "a", "b", "--stop", "c", "--data", "d", "e", "-n", "4"];
  const { options, args } = await parse(...line);
  assertEquals(args, ["out", "b"]);
  assertEquals(options, { steps: 4, stop: ["a", "c"], data: ["d", "e"], color: true });
});

Deno.test("parse takes --name=value, negated flags, a lone dash and a value handler", async () => {
  const { options } = await parse("train", "out", "--steps=9", "--no-color", "--text", "-");
  assertEquals(options, { steps: 9, color: false, text: "-" });
  assertEquals((await parse("train", "out", "--text", "loud")).options.text, "LOUD");
});

Deno.test("parse takes global options before and after the command", async () => {
  assertEquals((await parse("-v", "train", "out")).options.verbose, true);
  assertEquals((await parse("train", "out", "--verbose")).options.verbose, true);
});

Deno.test("parse refuses wrong usage with a ValidationError and exit code 2", async () => {
  const cases: [string[], string][] = [
    [["make", "a", "--sizes", "3"], 'Unknown option "--sizes". Did you mean option "--size"?'],
    [["trian"], 'Unknown command "trian". Did you mean command "train"?'],
    [["train"], "Missing argument(s): out"],
    [["make", "a", "b", "--size", "1"], "Too many arguments: b"],
    [["make", "a"], 'Missing required option "--size".'],
    [["train", "out", "--steps"], 'Missing value for option "--steps".'],
    [["train", "out", "--steps", "2.5"], 'Option "--steps" must be of type "integer", but got "2.5".'],
    [["train", "out", "--rate", "fast"], 'Option "--rate" must be of type "number", but got "fast".'],
    [["train", "out", "--router", "odd"], 'Expected values: "top-k", "causal"'],
    [["train", "out", "--steps", "1", "--steps", "2"], "can only occur once, but was found several times."],
    [["train", "out", "--text", "a", "--file", "b"], 'Option "--text" conflicts with option "--file".'],
    [["train", "out", "--field", "a"], 'Option "--field" depends on option "--file".'],
    [["train", "out", "--no-color=3"], `Option "--no-color" doesn't take a value, but got "3".`],
  ];
  for (const [line, message] of cases) {
    const error = await assertRejects(() => parse(...line), ValidationError, message);
    assertEquals(error.exitCode, 2);
  }
});

Deno.test("parse hands other errors of an action on as they are", async () => {
  const failing = new Command().throwErrors().action(() => {
    throw new RangeError("too big");
  });
  await assertRejects(() => failing.parse([]), RangeError, "too big");
});

Deno.test("error tells its handler which command failed", async () => {
  const seen: unknown[] = [];
  const program = new Command().name("mor").throwErrors()
    .error((error, cmd) => {
      assertInstanceOf(error, ValidationError);
      seen.push(cmd.getPath());
    })
    .command("train", new Command().arguments("<out:string>"))
    .reset();
  await assertRejects(() => program.parse(["train"]), ValidationError);
  assertEquals(seen, ["mor train"]);
});

Deno.test("getHelp is what the nearest handler makes of a command's options, arguments and examples", () => {
  const train = new Command().description("Trains models.\nAt length.")
    .arguments("<out:string> [rest...:string]")
    .option("-n, --steps <n:integer>", "Number of steps.", { default: 300 })
    .group("Routing")
    .option("--router <kind:string>", "How tokens are routed.", { required: true })
    .option("--secret <x:string>", "Not shown.", { hidden: true })
    .example("Short run", "mor out --steps 10");
  const program = new Command().name("mor").version("1.2.3")
    .globalOption("-v, --verbose", "Says more.")
    .help((shown: Command) => {
      // The package adds -h to a command when it is first run.
      const own = shown.getOptions().filter(({ name }) => name !== "help");
      const options = own.map(({ flags, args, default: value, required, groupName, global }) =>
        [flags.join(), args.map(({ name }) => name).join(), value, !!required, groupName, !!global].join(" ")
      );
      const args = shown.getArguments().map(({ name, optional, variadic }) =>
        [name, !!optional, !!variadic].join(" ")
      );
      const words = [
        shown.getPath(),
        shown.getShortDescription(),
        ...shown.getExamples().map(({ name }) => name),
      ];
      return [...words, ...args, ...options.sort()].join("\n");
    })
    .command("train", train)
    .command("quiet", new Command().noGlobals())
    .reset();
  assertEquals(train.getHelp().split("\n"), [
    ...["mor train", "Trains models.", "Short run", "out false false", "rest true true"],
    ...["--router kind  true Routing false", "-n,--steps n 300 false  false", "-v,--verbose   false  true"],
  ]);
  assert(!program.getCommand("quiet")?.getHelp().includes("verbose"));
});

Deno.test("help and --help print and return when told not to exit", async () => {
  const printed: string[] = [];
  const original = console.log;
  console.log = (text: string) => printed.push(text);
  try {
    const program = new Command().name("mor").version("1.2.3").noExit()
      .command("train", new Command().description("Trains.").option("--steps <n:integer>", "Steps."))
      .command("help", new HelpCommand())
      .reset();
    await program.parse(["help", "train"]);
    await program.parse(["train", "--help"]);
    await program.parse(["-V"]);
  } finally {
    console.log = original;
  }
  assertStringIncludes(printed[0] ?? "", "mor train");
  assertStringIncludes(printed[1] ?? "", "mor train");
  assertEquals(printed[2], "1.2.3");
});
