// Runs in the program's place, with the program's permissions for `generate MODEL --prompts prompts.jsonl --out
// results.jsonl`, and prints as JSON which of these it may do.
const tries = {
  connect: () => Deno.connect({ hostname: "127.0.0.1", port: 65001 }),
  listen: () => Deno.listen({ hostname: "127.0.0.1", port: 0 }).close(),
  fetch: () => fetch("http://127.0.0.1:65001/"),
  resolve: () => Deno.resolveDns("localhost", "A"),
  import: () => import(String("http://127.0.0.1:65001/code.js")),
  run: () => new Deno.Command("true").output(),
  runShell: () => new Deno.Command("/bin/sh", { args: ["-c", "true"] }).output(),
  library: () => Deno.dlopen("libc.so.6", {}),
  variable: () => Deno.env.get("SECRET"),
  variables: () => Deno.env.toObject(),
  writeHere: () => Deno.writeTextFile("elsewhere", ""),
  writeBeside: () => Deno.writeTextFile("results.jsonl.other", ""),
  writeAbove: () => Deno.writeTextFile("../elsewhere", ""),
  writeThroughOut: () => Deno.writeTextFile("results.jsonl/../elsewhere", ""),
  writeTemporary: () => Deno.makeTempDir(),
  removeInput: () => Deno.remove("prompts.jsonl"),
  link: () => Deno.symlink("/", "link"),
  writeOut: () => Deno.writeTextFile("results.jsonl", ""),
  renameOut: async () => {
    await Deno.writeTextFile(".results.jsonl.unfinished", "");
    await Deno.rename(".results.jsonl.unfinished", "results.jsonl");
  },
  read: () => Deno.readTextFile("prompts.jsonl"),
};

const answers = {};
for (const [name, attempt] of Object.entries(tries)) {
  try {
    await attempt();
    answers[name] = "allowed";
  } catch (error) {
    // Anything but a refusal means that it was tried; an import says the same with another type of error.
    answers[name] = error instanceof Deno.errors.NotCapable || /^Requires import access/.test(error.message)
      ? "refused"
      : `${error.name}: ${error.message}`;
  }
}
Deno.stdout.writeSync(new TextEncoder().encode(JSON.stringify(answers)));
