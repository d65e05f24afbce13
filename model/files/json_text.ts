/** JSON that says everything once. */

/** A brace, or a string with the colon that makes it a name. */
const TOKEN = /[{}]|("[^"\\]*(?:\\.[^"\\]*)*")\s*(:)?/g;

/**
 * Parses JSON text in which no object has a field twice: `JSON.parse` would take the last one, other programs another.
 *
 * @param fail Gets what is wrong with the text, as a sentence without its subject.
 */
export function parseJson(text: string, fail: (problem: string) => never): unknown {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    fail(`is not JSON (${(error as Error).message})`);
  }
  const open: Set<string>[] = [];
  for (const [token, string, colon] of text.matchAll(TOKEN)) {
    if (token === "{") open.push(new Set());
    else if (token === "}") open.pop();
    else if (colon) {
      const name: string = JSON.parse(string!);
      const names = open.at(-1)!;
      if (names.has(name)) fail(`has the field ${JSON.stringify(name)} twice`);
      names.add(name);
    }
  }
  return value;
}

/** Whether records or lists are nested in more levels; what is nested without end can be read, but not written again. */
export function isDeeper(value: unknown, levels: number): boolean {
  if (typeof value !== "object" || value === null) return false;
  return levels === 0 || Object.values(value).some((inner) => isDeeper(inner, levels - 1));
}
