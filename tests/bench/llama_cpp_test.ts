import { assertEquals, assertThrows } from "@std/assert";
import { UsageError } from "./arguments.ts";
import { parseLlamaCppArgs } from "./llama_cpp.ts";

const NEEDED = ["model.gguf", "--node-llama-cpp", "peer"];

Deno.test("parseLlamaCppArgs fills in what is not given", () => {
  assertEquals(parseLlamaCppArgs([...NEEDED, "--text", "book.txt", "--json"]), {
    model: "model.gguf",
    folder: "peer",
    text: "book.txt",
    positions: 500,
    prompt: 128,
    tokens: 16,
    sequences: 8,
    repeats: 3,
    formats: ["f32", "f16", "q8_0", "q4_0"],
    hasVulkan: true,
    isJson: true,
  });
  const { text, repeats, hasVulkan } = parseLlamaCppArgs([
    ...NEEDED,
    "--speed",
    "--cpu-only",
    "--repeats",
    "7",
  ]);
  assertEquals({ text, repeats, hasVulkan }, { text: null, repeats: 7, hasVulkan: false });
});

Deno.test("parseLlamaCppArgs says what is wrong", () => {
  const cases: [args: string[], message: string][] = [
    [[], "wanted one GGUF file, met 0"],
    [["a.gguf", "b.gguf"], "wanted one GGUF file, met 2"],
    [["a.gguf", "--speed"], "wanted --node-llama-cpp FOLDER"],
    [NEEDED, "wanted either --text FILE or --speed"],
    [[...NEEDED, "--speed", "--text", "book.txt"], "wanted either --text FILE or --speed"],
    [[...NEEDED, "--speed", "--repeats", "0"], '--repeats is "0", wanted a whole number from 1 on'],
    [[...NEEDED, "--text", "book.txt", "--positions", "many"], '--positions is "many"'],
    [[...NEEDED, "--speed", "--formats", "f16,q5"], '--formats has "q5", wanted some of f32,f16,q8_0,q4_0'],
    [[...NEEDED, "--sped"], "Unknown option '--sped'"],
  ];
  for (const [args, message] of cases) assertThrows(() => parseLlamaCppArgs(args), UsageError, message);
});
