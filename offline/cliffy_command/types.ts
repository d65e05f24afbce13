/** Value types of options and arguments. */
import { ValidationError } from "./errors.ts";

/** One value as typed: what it belongs to (`Option`, `Argument`), its name, its text and its type's name. */
export interface ArgumentValue {
  label: string;
  name: string;
  value: string;
  type: string;
}

/** A type given as a function. @throws an error whose message names what was expected. */
export type TypeHandler<TValue = unknown> = (type: ArgumentValue) => TValue;

function invalidType(
  { label, name, value, type }: ArgumentValue,
  expected?: readonly unknown[],
): ValidationError {
  const values = expected ? ` Expected values: ${expected.map((item) => `"${item}"`).join(", ")}` : "";
  return new ValidationError(`${label} "${name}" must be of type "${type}", but got "${value}".${values}`);
}

/** Base of types written as classes. */
export abstract class Type<TValue> {
  abstract parse(type: ArgumentValue): TValue;
  /** Values shown in the help. */
  values?(): unknown[];
}

/** One of a closed set of values. */
export class EnumType<const TValue extends string | number | boolean> extends Type<TValue> {
  readonly #allowed: readonly TValue[];

  constructor(values: readonly TValue[] | Record<string, TValue>) {
    super();
    this.#allowed = Object.values(values);
  }

  parse(type: ArgumentValue): TValue {
    for (const value of this.#allowed) if (String(value) === type.value) return value;
    throw invalidType(type, this.#allowed);
  }

  override values(): TValue[] {
    return [...this.#allowed];
  }
}

/** Any text. */
export class StringType extends Type<string> {
  parse({ value }: ArgumentValue): string {
    return value;
  }
}

/** A path; not looked at. */
export class FileType extends StringType {}

/** The name of a command. */
export class CommandType extends StringType {}

/** A finite number. */
export class NumberType extends Type<number> {
  parse(type: ArgumentValue): number {
    const value = Number(type.value);
    if (type.value && Number.isFinite(value)) return value;
    throw invalidType(type);
  }
}

/** A whole number. */
export class IntegerType extends Type<number> {
  parse(type: ArgumentValue): number {
    const value = Number(type.value);
    if (type.value && Number.isInteger(value)) return value;
    throw invalidType(type);
  }
}

/** `true`, `false`, `1` or `0`. */
export class BooleanType extends Type<boolean> {
  parse(type: ArgumentValue): boolean {
    if (type.value === "1" || type.value === "true") return true;
    if (type.value === "0" || type.value === "false") return false;
    throw invalidType(type, ["true", "false", "1", "0"]);
  }
}

/** The types every command knows. */
export const BUILT_IN_TYPES: ReadonlyMap<string, Type<unknown>> = new Map<string, Type<unknown>>([
  ["string", new StringType()],
  ["file", new FileType()],
  ["number", new NumberType()],
  ["integer", new IntegerType()],
  ["boolean", new BooleanType()],
]);
