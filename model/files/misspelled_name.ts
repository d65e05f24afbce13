/**
 * A field whose name is a missing field's but for one character, as a flipped bit or a slip of the hand makes it: the
 * missing field's default would take the place of what the file says. Null if there is none.
 */
export function misspelledName(
  names: readonly string[],
  known: readonly string[],
): { name: string; meant: string } | null {
  const missing = known.filter((name) => !names.includes(name));
  for (const name of names) {
    const meant = known.includes(name) ? undefined : missing.find((other) => isNear(name, other));
    if (meant !== undefined) return { name, meant };
  }
  return null;
}

/** Whether a text becomes the other when one character is changed, added or taken away. */
function isNear(a: string, b: string): boolean {
  let start = 0;
  while (start < a.length && a[start] === b[start]) start++;
  const rest = (one: string, other: string): string =>
    one.slice(start + (one.length >= other.length ? 1 : 0));
  return rest(a, b) === rest(b, a);
}
