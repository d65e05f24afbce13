/** Names of fields: camelCase in TypeScript, snake_case in JSON, mapped one to one. */

type Fields<T> = { [K in keyof T]: unknown };

/** `{ numKeyValueHeads: 3 }` as `{ num_key_value_heads: 3 }`, one level deep. */
export function toSnakeCase(record: Fields<object>): Record<string, unknown> {
  return renamed(record, (key) => key.replace(/[A-Z]/g, (c) => "_" + c.toLowerCase()));
}

/** The inverse of `toSnakeCase`. */
export function toCamelCase(record: Fields<object>): Record<string, unknown> {
  return renamed(record, (key) => key.replace(/_([a-z])/g, (_, c) => c.toUpperCase()));
}

function renamed(record: Fields<object>, rename: (key: string) => string): Record<string, unknown> {
  return Object.fromEntries(Object.entries(record).map(([key, value]) => [rename(key), value]));
}
