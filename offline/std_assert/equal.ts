/** Deep equality with the rules of `@std/assert`: `0` equals `-0`, `NaN` equals `NaN`, classes must agree. */

type Pair = readonly [object, object];

function sameValueZero(a: unknown, b: unknown): boolean {
  return a === b || Object.is(a, b);
}

function isObject(value: unknown): value is object {
  return typeof value === "object" && value !== null;
}

function sameClass(a: object, b: object): boolean {
  const classes = [a, b].map((value) => Object.getPrototypeOf(value) ?? Object.prototype);
  return classes[0] === classes[1];
}

function elements(value: ArrayBufferView | ArrayBuffer): ArrayLike<unknown> {
  if (value instanceof ArrayBuffer) return new Uint8Array(value);
  return value instanceof DataView ? new Uint8Array(value.buffer) : value as unknown as ArrayLike<unknown>;
}

function equalElements(a: ArrayLike<unknown>, b: ArrayLike<unknown>): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (!sameValueZero(a[i], b[i])) return false;
  return true;
}

function equalCollections(a: Iterable<unknown>, b: Iterable<unknown>, seen: Pair[]): boolean {
  const rest = [...b];
  for (const item of a) {
    const at = rest.findIndex((other) => compare(item, other, seen));
    if (at < 0) return false;
    rest.splice(at, 1);
  }
  return rest.length === 0;
}

function equalProperties(a: object, b: object, seen: Pair[]): boolean {
  const keys = Reflect.ownKeys(a);
  if (keys.length !== Reflect.ownKeys(b).length) return false;
  return keys.every((key) =>
    Object.hasOwn(b, key) && compare(Reflect.get(a, key), Reflect.get(b, key), seen)
  );
}

function compare(a: unknown, b: unknown, seen: Pair[]): boolean {
  if (sameValueZero(a, b)) return true;
  if (!isObject(a) || !isObject(b) || !sameClass(a, b)) return false;
  if (a instanceof Date && b instanceof Date) return Object.is(a.getTime(), b.getTime());
  if (a instanceof RegExp || a instanceof URL) return String(a) === String(b);
  if (ArrayBuffer.isView(a) || a instanceof ArrayBuffer) {
    return equalElements(elements(a), elements(b as ArrayBufferView | ArrayBuffer));
  }
  // A pair met again on the way down is equal as far as this path can tell.
  if (seen.some(([left, right]) => left === a && right === b)) return true;
  const path: Pair[] = [...seen, [a, b]];
  if ((a instanceof Map && b instanceof Map) || (a instanceof Set && b instanceof Set)) {
    return a.size === b.size && equalCollections(a, b, path);
  }
  return equalProperties(a, b, path);
}

/** Whether two values are deeply equal. */
export function equal(a: unknown, b: unknown): boolean {
  return compare(a, b, []);
}
