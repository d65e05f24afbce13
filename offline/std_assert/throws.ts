/** Assertions on functions that throw or reject. */
import { type AnyClass, AssertionError, assertIsError, suffix } from "./comparisons.ts";

interface Expectation<E extends Error> {
  readonly errorClass: AnyClass<E> | undefined;
  readonly includes: string | undefined;
  readonly message: string | undefined;
}

function readExpectation<E extends Error>(
  first: AnyClass<E> | string | undefined,
  second: string | undefined,
  third: string | undefined,
): Expectation<E> {
  if (typeof first === "string") return { errorClass: undefined, includes: undefined, message: first };
  return { errorClass: first, includes: second, message: third };
}

function checkError<E extends Error>(
  error: unknown,
  { errorClass, includes, message }: Expectation<E>,
): void {
  if (errorClass) assertIsError(error, errorClass, includes, message);
}

/** Holds if `fn` throws, here an error of `ErrorClass` whose message contains `msgIncludes`; returns the error. */
export function assertThrows(fn: () => unknown, msg?: string): unknown;
export function assertThrows<E extends Error = Error>(
  fn: () => unknown,
  ErrorClass: AnyClass<E>,
  msgIncludes?: string,
  msg?: string,
): E;
export function assertThrows<E extends Error>(
  fn: () => unknown,
  errorClassOrMsg?: AnyClass<E> | string,
  msgIncludes?: string,
  msg?: string,
): unknown {
  const expectation = readExpectation(errorClassOrMsg, msgIncludes, msg);
  try {
    fn();
  } catch (error) {
    checkError(error, expectation);
    return error;
  }
  throw new AssertionError(`Expected function to throw${suffix(expectation.message)}`);
}

/** Holds if the promise of `fn` rejects; a function that throws before it returns one does not count. */
export function assertRejects(fn: () => PromiseLike<unknown>, msg?: string): Promise<unknown>;
export function assertRejects<E extends Error = Error>(
  fn: () => PromiseLike<unknown>,
  ErrorClass: AnyClass<E>,
  msgIncludes?: string,
  msg?: string,
): Promise<E>;
export async function assertRejects<E extends Error>(
  fn: () => PromiseLike<unknown>,
  errorClassOrMsg?: AnyClass<E> | string,
  msgIncludes?: string,
  msg?: string,
): Promise<unknown> {
  const expectation = readExpectation(errorClassOrMsg, msgIncludes, msg);
  let promise: PromiseLike<unknown>;
  try {
    promise = fn();
  } catch (error) {
    throw new AssertionError(`Function throws when expected to reject${suffix(expectation.message)}`, {
      cause: error,
    });
  }
  try {
    await promise;
  } catch (error) {
    checkError(error, expectation);
    return error;
  }
  throw new AssertionError(`Expected function to reject${suffix(expectation.message)}`);
}
