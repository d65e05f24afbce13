/** Stand-in for `@std/testing/mock`: methods replaced for a while. */

/** A replaced method. */
export interface Stub extends Disposable {
  /** Puts the method back. @throws Error when it is back already. */
  restore(): void;
}

/** Replaces a method until the stub is restored or disposed. @throws Error for what cannot be replaced. */
export function stub<Self extends object>(
  self: Self,
  property: keyof Self,
  // deno-lint-ignore no-explicit-any -- the package infers it from the method
  func: (this: Self, ...args: any[]) => unknown,
): Stub {
  const before = Object.getOwnPropertyDescriptor(self, property);
  if (typeof self[property] !== "function" || before?.configurable === false) {
    throw new Error(`Cannot stub: ${String(property)} is no method that can be replaced`);
  }
  let isRestored = false;
  function restore(): void {
    if (isRestored) throw new Error("Cannot restore: instance method already restored");
    isRestored = true;
    if (before) Object.defineProperty(self, property, before);
    else delete self[property];
  }
  const { enumerable = false, writable = false } = before ?? {};
  Object.defineProperty(self, property, { value: func, configurable: true, enumerable, writable });
  return { restore, [Symbol.dispose]: restore };
}
